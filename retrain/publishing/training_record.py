"""What a run directory says about a training, without anything private to the machine."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.reading import parse_json, read_json
from wsrnas.subjects.images import class_names

# Fields of a training's configuration that say where it ran and what it printed, not what it did.
PRIVATE = ("runs", "save", "data", "download", "device", "report_freq", "workers", "eval_batch_size", "save_every",
           "track", "extend")


@dataclass(frozen=True)
class Training:
    """The record of a training in a run directory; unknown parts are empty.

    Args:
        config: the configuration without what is private to the machine.
        selection: how the epoch of the weights was chosen, in a sentence.
        command: the command line without the machine's paths.
        machine: hardware and software, one sentence each.
        class_names: names of the classes in the order of the logits.
    """

    config: dict[str, Any]
    selection: str
    command: str
    machine: tuple[str, ...]
    class_names: tuple[str, ...] = ()


def training_record(folder: Path, payload: Mapping[str, Any], file_name: str) -> Training:
    """Return what a run directory and a checkpoint in it say about the training.

    Args:
        folder: run directory.
        payload: content of the checkpoint.
        file_name: name of the checkpoint.
    """
    config = payload.get("config") or _json(folder / run_files.CONFIG, {})
    starts = [start for start in _json(folder / run_files.ENVIRONMENT, [])
              if isinstance(start, dict) and start.get("command")]
    public = {field: value for field, value in config.items() if field not in PRIVATE}
    for field in {"arch", "init_weights"} & set(public):
        public[field] = "/".join(PurePath(public[field]).parts[-2:])
    finished = "" if is_finished(folder) else " The training was not finished."
    return Training(public, selection(public, payload, file_name) + finished,
                    command(starts[-1]) if starts else "", machine(starts, metrics(folder)), class_names(folder))


def is_finished(folder: Path) -> bool:
    """Return whether a training ended; True also for a checkpoint outside a run directory."""
    return (folder / run_files.FINISHED).is_file() or not (folder / run_files.CONFIG).is_file()


def selection(config: Mapping[str, Any], payload: Mapping[str, Any], file_name: str) -> str:
    """Return how the epoch of the weights was chosen; best.pt holds its selection, the last checkpoint none."""
    best, of = payload.get("best"), f" of {config['epochs']}" if "epochs" in config else ""
    if not best:
        return (f"The weights are those after epoch {payload.get('step', 'unknown')}{of} (`{file_name}`), the last one "
                "trained; no epoch was selected.")
    known = "select_steps" in config and "epsilon" in config
    attack = f"PGD-{config['select_steps']} at {format_epsilon(config['epsilon'])}" if known else "PGD"
    rule = payload.get("selection", f"accuracy under {attack} on the held-out images")  # older checkpoints: this one
    robust, clean = f"{best['robust_accuracy']:.1%}", f"{best['clean_accuracy']:.1%}"
    values = f"{clean} ({attack}: {robust})" if rule.startswith("clean") else f"{robust} (clean: {clean})"
    return (f"The weights are those after epoch {best['epoch']}{of} (`{file_name}`), which had the highest {rule}: "
            f"{values}.")


def command(start: Mapping[str, Any]) -> str:
    """Return the command line of a recorded start, from the repository's root, without the machine's paths."""
    program, *arguments = start["command"]
    processes = start.get("processes") or 1
    launcher = ["torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    words = [*launcher, "-m", ".".join(PurePath(program).with_suffix("").parts[-2:])]
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            words.append(flag + (f"={_without_path(flag, value)}" if equals else ""))
        else:
            words.append(_without_path(flag, argument))
    return shlex.join(words)


def _without_path(flag: str, value: str) -> str:
    """Return a flag's value; of an absolute path, its last two parts."""
    if flag in ("--data", "--runs"):
        return flag.removeprefix("--").upper()
    return "/".join(PurePath(value).parts[-2:]) if PurePath(value).is_absolute() else value


def machine(starts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return hardware, versions, time and memory, one sentence each.

    Args:
        starts: the run's recorded starts.
        rows: the rows of its epochs.
    """
    lines = []
    if starts:
        last = starts[-1]
        processes = last.get("processes") or 1
        lines.append(f"{last.get('device')}, {processes} {'process' if processes == 1 else 'processes'}")
        lines.append(f"Python {last.get('python')}, torch {last.get('torch')}, CUDA {last.get('cuda') or 'none'}, "
                     f"code {last.get('git') or 'of an unknown commit'}")
    seconds = sum(row["train"]["seconds"] for row in rows)
    if seconds:
        lines.append(f"{seconds / 3600:.2f} hours of training, selection and checkpoints not counted")
        lines.append(f"{max(row.get('peak_memory_gib', 0.0) for row in rows):.1f} GiB at most, a process")
    return tuple(lines)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``, one per epoch; a torn line is left out."""
    path = folder / run_files.METRICS
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = parse_json(line)
            if row["train"]["seconds"] >= 0:
                rows[row["step"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return list(rows.values())


def _json(path: Path, otherwise: Any) -> Any:
    """Return the JSON value in a file if it has the type of ``otherwise``, else ``otherwise``."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise
