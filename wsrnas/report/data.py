"""What a run directory holds, read so that a broken or half-written one still gives what it has."""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsrnas.evaluation.results import FORMAT
from wsrnas.genotype import Genotype
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError

NOISE_FILE = "noise_samples.npz"


@dataclass(frozen=True)
class Evaluation:
    """One file of ``eval/``: how robust one network is.

    Args:
        network: what to call the network.
        label: the file's name without its ending.
        result: the file's document, checked by ``evaluation_problem``.
        run: the name of the run directory that it lies in.
        modified: when it was written, in seconds since the epoch.
    """

    network: str
    label: str
    result: dict[str, Any]
    run: str = ""
    modified: float = 0.0

    @property
    def model(self) -> dict[str, Any]:
        model = self.result.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def fingerprint(self) -> str:
        """Of the weights; empty where the file does not say."""
        return str(self.model.get("fingerprint") or "")

    @property
    def image_set(self) -> str:
        """Which images, in which order; empty where the file does not say."""
        return str(self.result.get("image_set") or "")

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The honesty checks that the file holds, without what is none."""
        checks = self.result.get("checks")
        return [check for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []


@dataclass
class Run:
    """A run directory, as far as it could be read.

    Args:
        rows: those of ``metrics.jsonl``.
        starts: the environment of each start, oldest first.
        noise: the arrays of ``noise_samples.npz``.
        vulnerability: what an RNAS search says at its end, ``vulnerability.json``.
        problems: one sentence for each thing that is missing or damaged.
        updated: when anything in it last changed, in seconds since the epoch.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    genotype: Genotype | None = None
    noise: dict[str, np.ndarray] | None = None
    vulnerability: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    problems: list[str] = field(default_factory=list)
    updated: float = 0.0

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def program(self) -> str:
        """The module that made it, from the command of its last start, else from its folder."""
        command = self.starts[-1].get("command") if self.starts else None
        if isinstance(command, list) and command and str(command[0]).endswith(".py"):
            return ".".join(Path(str(command[0])).with_suffix("").parts[-2:])
        return self.path.resolve().parent.name

    @property
    def steps(self) -> int | None:
        """How many rows the whole run writes; None where the configuration does not say."""
        population, iterations, epochs = (self.config.get(name) for name in
                                          ("warmup_architectures", "iterations", "epochs"))
        if isinstance(population, int) and isinstance(iterations, int):
            return 2 * population + iterations
        return epochs if isinstance(epochs, int) else None

    @property
    def unit(self) -> str:
        """What one row tells of: an epoch, or in a Wsr-NAS search a step, which samples a path and trains it."""
        return "step" if "epochs" not in self.config and any("phase" in row for row in self.rows) else "epoch"


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        InputError: it is not one.
    """
    known = (run_files.CONFIG, run_files.METRICS, run_files.EVALUATIONS)
    if not path.is_dir() or not any((path / name).exists() for name in known):
        raise InputError(f"{path} is not a run directory; expected a folder with one of {', '.join(known)}")
    run = Run(path, finished=(path / run_files.FINISHED).exists())
    run.config = _read_json(run, run_files.CONFIG, dict, {})
    run.starts = [start for start in _read_json(run, run_files.ENVIRONMENT, list, []) if isinstance(start, dict)]
    run.inputs = _read_json(run, run_files.INPUTS, dict, {})
    run.rows = _read_rows(run)
    run.evaluations = _read_evaluations(run)
    run.genotype = _read_genotype(run)
    run.noise = _read_noise(run)
    if (path / run_files.VULNERABILITY).exists():
        run.vulnerability = _read_json(run, run_files.VULNERABILITY, dict, {})
    files = [path / name for name in (*known, run_files.LOG, run_files.CHECKPOINT, run_files.FINISHED)]
    files += (path / run_files.EVALUATIONS).glob("*.json")
    run.updated = max((file.stat().st_mtime for file in files if file.exists()), default=time.time())
    return run


def _read_json(run: Run, name: str, kind: type, default: Any) -> Any:
    path = run.path / name
    if not path.exists():
        if (run.path / run_files.METRICS).exists():  # folders of evaluations alone have none of these files
            run.problems.append(f"{name} is missing")
        return default
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        run.problems.append(f"{name} cannot be read: {error}")
        return default
    if not isinstance(value, kind):
        run.problems.append(f"{name} holds a JSON {type(value).__name__}; expected a {kind.__name__}")
        return default
    return value


def _read_rows(run: Run) -> list[dict[str, Any]]:
    """The whole rows of ``metrics.jsonl``; a torn last line is one being written."""
    path = run.path / run_files.METRICS
    if not path.exists():
        if run.config and not run.finished:
            run.problems.append("metrics.jsonl is missing: no step is complete yet")
        return []
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif line.endswith("\n"):
            run.problems.append(f"line {number} of metrics.jsonl is not a row of numbers and is left out")
        else:
            run.problems.append(f"line {number} of metrics.jsonl is torn: it was being written, or a kill cut it off")
    return rows


def _read_evaluations(run: Run) -> list[Evaluation]:
    evaluations = []
    for path in sorted((run.path / run_files.EVALUATIONS).glob("*.json")):
        try:
            modified, result = path.stat().st_mtime, json.loads(path.read_text())
            problem = evaluation_problem(result)
        except (OSError, ValueError) as error:
            problem = f"cannot be read: {error}"
        if problem:
            run.problems.append(f"eval/{path.name} {problem}")
        else:
            evaluations.append(Evaluation(str(result.get("name") or run.name), path.stem, result, run.name, modified))
    return evaluations


def evaluation_problem(result: Any) -> str | None:
    """What keeps a document from being an evaluation, if anything does; the end of a sentence about its file."""
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        found = result.get("format") if isinstance(result, dict) else None
        return (f"has the format {found!r}, expected {FORMAT!r}; retrain.evaluate writes it again in this "
                "one")
    measured = [result.get("clean"), *(result["attacks"] if isinstance(result.get("attacks"), list) else [None])]
    for entry in measured:
        if not isinstance(entry, dict) or not _is_number(entry.get("accuracy")):
            return "lacks a clean accuracy, or an attack's; it is damaged"
        if not isinstance(entry.get("interval", []), list | None):
            return "has an interval that is no pair of numbers; it is damaged"
    if not all(isinstance(row.get("attack"), str) and (row.get("epsilon") is None or _is_number(row["epsilon"]))
               for row in result["attacks"]):
        return "has an attack without a name or with a strength that is no number; it is damaged"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_genotype(run: Run) -> Genotype | None:
    """The cell that a search found or that a retraining trains."""
    path, stored = run.path / run_files.GENOTYPE, run.inputs.get("genotype")
    evaluated = [evaluation.model.get("genotype") for evaluation in run.evaluations]
    try:
        if path.exists():
            return Genotype.load(path)
        if isinstance(stored, str):
            return Genotype.from_json(stored)
        documents = [document for document in evaluated if isinstance(document, dict)]
        return Genotype.from_json(json.dumps(documents[0])) if documents else None
    except InputError as error:
        run.problems.append(f"the genotype cannot be drawn: {error}")
        return None


def _read_noise(run: Run) -> dict[str, np.ndarray] | None:
    path = run.path / NOISE_FILE
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("images", "epsilons", "pgd", "estimated", "step")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        run.problems.append(f"{NOISE_FILE} cannot be read: {error}")
        return None
    images, strengths = arrays["images"], len(arrays["epsilons"])
    expected = (len(images), strengths, *images.shape[1:])
    if images.ndim != 4 or any(arrays[name].shape != expected for name in ("pgd", "estimated")):
        run.problems.append(f"{NOISE_FILE} holds arrays that do not fit together")
        return None
    return arrays


# -- what sections ask of the data ------------------------------------------------------------------------------------

def column(rows: Sequence[dict[Any, Any]], *keys: Any) -> list[float | None]:
    """One number a row, found by nested keys; None where a row lacks it."""
    values = []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        values.append(float(value) if _is_number(value) else None)
    return values


def names_under(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    """The keys of the mappings that rows hold under ``key``, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows if isinstance(row.get(key), dict) for name in row[key]))


def run_names(runs: Sequence[Run]) -> list[str]:
    """Names of runs, all different: their folders', with the whole path where two share one."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]
