"""Read a run directory; what is missing or damaged becomes a sentence, and the rest is still used."""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsrnas.architectures import searched
from wsrnas.architectures.searched import Searched
from wsrnas.report.reading.evaluations import Evaluation, read_evaluations
from wsrnas.report.reading.space import DARTS, RecordedSpace, recorded_space
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import json_kind, parse_json, read_json


@dataclass
class Run:
    """A run directory, as far as it could be read.

    Args:
        path: The directory.
        config: The resolved configuration, ``config.json``.
        starts: The environment of each start, oldest first, ``env.json``.
        inputs: Further values that the run depends on, ``inputs.json``.
        rows: The rows of ``metrics.jsonl``.
        evaluations: The evaluations in ``eval/``.
        space: The search space; that of DARTS where the run records none.
        genotype: The cell that was found or trained.
        noise: The arrays of ``noise_samples.npz``.
        vulnerability: The results at the end of an RNAS search, ``vulnerability.json``.
        finished: Whether the run is complete.
        problems: One sentence for each file that is missing or damaged.
        updated: Time of the last change, in seconds since the epoch.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    space: RecordedSpace = DARTS
    genotype: Searched | None = None
    noise: dict[str, np.ndarray] | None = None
    vulnerability: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    problems: list[str] = field(default_factory=list)
    updated: float = 0.0

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.path.resolve().name

    @property
    def program(self) -> str:
        """The module that made the run, by the command of its last start, otherwise by its folder."""
        command = self.starts[-1].get("command") if self.starts else None
        if isinstance(command, list) and command and str(command[0]).endswith(".py"):
            return ".".join(Path(str(command[0])).with_suffix("").parts[-2:])
        return self.path.resolve().parent.name

    @property
    def steps(self) -> int | None:
        """Number of rows that the whole run writes; None where the configuration does not say."""
        warm_up, iterations, epochs = (self.config.get(name) for name in
                                       ("warmup_architectures", "iterations", "epochs"))
        if isinstance(warm_up, int) and isinstance(iterations, int):
            population = self.config.get("population") if self.config.get("strategy") == "wsr" else warm_up
            edge, paths = self.config.get("few_shot_edge", -1), self.config.get("paths_per_iteration", 1)
            if not isinstance(population, int) or not isinstance(paths, int) or paths < 1 or edge != -1:
                return None  # few-shot supernets: as many rounds as the edge has operations
            measured = -(-population // paths) + iterations
            return warm_up * (not self.config.get("supernet")) + measured * (not self.config.get("train_only"))
        return epochs if isinstance(epochs, int) else None

    @property
    def unit(self) -> str:
        """What one row is about: an epoch, or a step of a Wsr-NAS search, which samples a path and trains it."""
        return "step" if "epochs" not in self.config and any("phase" in row for row in self.rows) else "epoch"


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        InputError: The path is not a run directory. Studies, exports and measurements of the vulnerability have a
            configuration, too, and pages that only their programs can write.
    """
    own = (run_files.ENVIRONMENT, run_files.METRICS, run_files.EVALUATIONS)
    known = (run_files.CONFIG, *own)
    if not path.is_dir() or not any((path / name).exists() for name in known):
        raise InputError(f"{path} is not a run directory; expected a folder with one of {', '.join(known)}"
                         + _runs_below(path))
    if (path / run_files.REPORT).exists() and not any((path / name).exists() for name in own):
        raise InputError(f"{path} is not a run directory; the page in it is written by the program that made the "
                         "folder")
    run = Run(path, finished=(path / run_files.FINISHED).exists())
    run.config = _read_json(run, run_files.CONFIG, dict, {})
    run.starts = [start for start in _read_json(run, run_files.ENVIRONMENT, list, []) if isinstance(start, dict)]
    run.inputs = _read_json(run, run_files.INPUTS, dict, {})
    run.rows = _read_rows(run)
    run.evaluations, damaged = read_evaluations(path, run.name)
    run.problems += damaged
    run.space = _read_space(run)
    run.genotype = _read_genotype(run)
    run.noise = _read_noise(run)
    if (path / run_files.VULNERABILITY).exists():
        run.vulnerability = _read_json(run, run_files.VULNERABILITY, dict, {})
    files = [path / name for name in (*known, run_files.LOG, run_files.CHECKPOINT, run_files.FINISHED)]
    files += (path / run_files.EVALUATIONS).glob("*.json")
    run.updated = max((file.stat().st_mtime for file in files if file.exists()), default=time.time())
    return run


def _runs_below(path: Path) -> str:
    """Name a run in a folder of runs, for the message that this folder is none."""
    found = sorted(child.parent for depth in ("*", "*/*") for child in path.glob(f"{depth}/{run_files.ENVIRONMENT}"))
    return f", such as {found[0]}" if found else ""


def _read_json(run: Run, name: str, kind: type, default: Any) -> Any:
    path = run.path / name
    if not path.exists():
        if (run.path / run_files.METRICS).exists():  # folders of evaluations alone have none of these files
            run.problems.append(f"{name} is missing")
        return default
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        run.problems.append(f"{name} cannot be read: {error}")
        return default
    if not isinstance(value, kind):
        run.problems.append(f"{name} holds {json_kind(value)}; expected {json_kind(kind())}")
        return default
    return value


def _read_rows(run: Run) -> list[dict[str, Any]]:
    """Return the complete rows of ``metrics.jsonl``; an incomplete last line is one being written."""
    path = run.path / run_files.METRICS
    if not path.exists():
        if run.config and not run.finished:
            run.problems.append(f"{run_files.METRICS} is missing: no step is complete yet")
        return []
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        run.problems.append(f"{run_files.METRICS} is no file")
        return rows
    for number, line in enumerate(path.read_text(errors="replace").splitlines(keepends=True), start=1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif line.endswith("\n"):
            run.problems.append(f"line {number} of {run_files.METRICS} is not a row of numbers and is left out")
        else:
            run.problems.append(f"line {number} of {run_files.METRICS} is incomplete: it was being written, "
                                "or a kill cut it off")
    return rows


def _read_space(run: Run) -> RecordedSpace:
    document = _read_json(run, run_files.SPACE, dict, {}) if (run.path / run_files.SPACE).exists() else {}
    try:
        return recorded_space(document) if document else DARTS
    except InputError as error:
        run.problems.append(f"{run_files.SPACE}: {error}")
        return DARTS


def _read_genotype(run: Run) -> Searched | None:
    """Return the cell that a search found or that a retraining trains."""
    path, stored = run.path / run_files.GENOTYPE, run.inputs.get("genotype")
    evaluated = [evaluation.model.get("genotype") for evaluation in run.evaluations]
    try:
        if path.exists():
            return searched.load(path)
        if isinstance(stored, str):
            return searched.read(stored)
        documents = [document for document in evaluated if isinstance(document, dict)]
        return searched.read(json.dumps(documents[0])) if documents else None
    except InputError as error:
        run.problems.append(f"the genotype cannot be drawn: {error}")
        return None


def _read_noise(run: Run) -> dict[str, np.ndarray] | None:
    path = run.path / run_files.NOISE_SAMPLES
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("images", "epsilons", "pgd", "estimated", "step")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        run.problems.append(f"{run_files.NOISE_SAMPLES} cannot be read: {error}")
        return None
    images, strengths = arrays["images"], len(arrays["epsilons"])
    expected = (len(images), strengths, *images.shape[1:])
    if images.ndim != 4 or any(arrays[name].shape != expected for name in ("pgd", "estimated")):
        run.problems.append(f"{run_files.NOISE_SAMPLES} holds arrays that do not fit together")
        return None
    return arrays


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return different names for runs: those of their folders, or whole paths where two folders share a name."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]
