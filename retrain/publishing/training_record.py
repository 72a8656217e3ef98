"""What a run directory says about a training, without anything private to the machine."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from wsrnas.__main__ import PROGRAMS
from wsrnas.runtime import run_files
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.reading import parse_json, read_json

with deferred_imports():
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


def training_record(path: Path, payload: Mapping[str, Any]) -> Training:
    """Return what a checkpoint, and the run directory that it is in, say about the training.

    Args:
        path: the checkpoint. Beside any other file, what a ``config.json`` says may be of something else, and private.
        payload: its content.
    """
    folder, of_run = path.parent, is_of_run(path)
    config = payload.get("config") or (_json(folder / run_files.CONFIG, {}) if of_run else {})
    starts = [start for start in _json(folder / run_files.ENVIRONMENT, [])
              if isinstance(start, dict) and isinstance(start.get("command"), list) and start["command"]]
    public = {field: value for field, value in config.items() if field not in PRIVATE}
    for field in {"arch", "init_weights"} & set(public):
        public[field] = "/".join(PurePath(str(public[field])).parts[-2:])
    if not of_run:
        return Training(public, selection(public, payload, path.name), "", ())
    finished = "" if is_finished(path) else " The training was not finished."
    return Training(public, selection(public, payload, path.name) + finished,
                    command(starts[-1]) if starts else "", machine(starts, metrics(folder)), class_names(folder))


def is_of_run(path: Path) -> bool:
    """Return whether a checkpoint is one of a run directory."""
    return path.name in run_files.WEIGHTS.values() and (path.parent / run_files.CONFIG).is_file()


def is_finished(path: Path) -> bool:
    """Return whether the training of a checkpoint ended; True also outside a run directory."""
    return (path.parent / run_files.FINISHED).is_file() or not is_of_run(path)


def selection(config: Mapping[str, Any], payload: Mapping[str, Any], file_name: str) -> str:
    """Return how the epoch of the weights was chosen; best.pt holds its selection, the last checkpoint none."""
    best, of = payload.get("best"), f" of {config['epochs']}" if "epochs" in config else ""
    epoch = payload.get("epoch")
    if not best and not payload.get("step") and not config.get("epochs"):
        return f"How long the weights (`{file_name}`) were trained is not recorded."
    if not best and isinstance(epoch, dict) and epoch.get("batches"):
        return (f"The weights are those after {epoch['batches']} steps of epoch {payload.get('step', 0) + 1}{of} "
                f"(`{file_name}`), where the training was stopped; no epoch was selected.")
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
    """Return the command line of a recorded start, from the repository's root, without the machine's paths.

    It is empty for a start from a program of the user's own, a notebook or the interactive interpreter.
    """
    program, *arguments = map(str, start["command"])
    module = ".".join(PurePath(program.removesuffix(".py")).parts[-2:])
    if module not in PROGRAMS:
        return ""
    processes = start["processes"] if isinstance(start.get("processes"), int) else 1
    launcher = ["torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    words = [*launcher, "-m", module]
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            words.append(flag + (f"={_without_path(flag, value)}" if equals else ""))
        else:
            words.append(_without_path(flag, argument))
    return shlex.join(words)


def _without_path(flag: str, value: str) -> str:
    """Return a flag's value; of a path, its last two parts."""
    if flag in ("--data", "--runs"):
        return flag.removeprefix("--").upper()
    is_path = PurePath(value).is_absolute() or len(PurePath(value).parts) > 2 or value.startswith((".", "~"))
    return "/".join(PurePath(value).parts[-2:]) if is_path and not _is_ratio(value) else value


def _is_ratio(value: str) -> bool:
    """Return whether a value is a number such as .5 or 8/255."""
    return value.replace("/", "").replace(".", "").isdigit()


def machine(starts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return hardware, versions, time and memory, one sentence each.

    Args:
        starts: the run's recorded starts.
        rows: the rows of its epochs.
    """
    lines = []
    if starts:
        last = starts[-1]
        counts = [count for count, _ in groupby(start["processes"] if isinstance(start.get("processes"), int) else 1
                                                for start in starts)]
        lines.append(f"{last.get('device')}, {', then '.join(map(str, counts))} "
                     f"{'process' if counts == [1] else 'processes'}")
        lines.append(f"Python {last.get('python')}, torch {last.get('torch')}, CUDA {last.get('cuda') or 'none'}, "
                     f"code {last.get('git') or 'of an unknown commit'}")
    seconds = sum(row["train"]["seconds"] for row in rows)
    if seconds:
        lines.append(f"{seconds / 3600:.2f} hours of training, selection and checkpoints not counted")
        peaks = [row.get("peak_memory_gib") for row in rows]
        known = [peak for peak in peaks if isinstance(peak, int | float)]
        lines += [f"{peak:.1f} GiB at most, a process" for peak in sorted(known)[-1:]]
    return tuple(lines)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``, one per epoch; a torn line is left out."""
    path = folder / run_files.METRICS
    rows = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
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
