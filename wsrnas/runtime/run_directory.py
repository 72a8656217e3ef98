"""Keep everything of a run in one folder. Its name has no time stamp, so that a restarted job finds it."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import describe, require, to_dict
from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.environment import environment
from wsrnas.runtime.errors import InputError, say
from wsrnas.runtime.finite import require_finite
from wsrnas.runtime.folders import create, make, move_aside, overwrite_requested
from wsrnas.runtime.locks import hold
from wsrnas.runtime.place import Place
from wsrnas.runtime.reading import parse_json, read_json, require_file
from wsrnas.runtime.same_work import refuse_differences, refuse_other_work, refuse_to_begin, stored_object
from wsrnas.runtime.tracking import Tracker, require_tool

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunDirectory:
    """Write and resume a run directory; ``run_files`` lists the files in it.

    Opening an existing directory resumes it if configuration and inputs are the same. Fields that do not change the
    result may differ. Only the main process writes, and only one job at a time.

    Args:
        path: the directory.
        config: dataclass of the program.
        world: the processes.
        overwrite: whether to move an existing directory aside.
        inputs: further values that the run depends on, such as the fingerprint of the data and the genotype.
        growing: field of the configuration that may differ from the stored one: a finished run goes on then.

    Attributes:
        finished: whether the run is complete; nothing is written then.

    Raises:
        InputError: the folder holds something else or a run of another configuration, or cannot be written.
        OSError: the disk becomes full or read-only later (``run_program`` turns this into a sentence).
    """

    def __init__(self, path: Path, config: Any, world: World, overwrite: bool = False,
                 inputs: dict[str, Any] | None = None, growing: str = ""):
        self.path, self.config, self.world, self.inputs = path, config, world, inputs or {}
        self._growing = growing
        tool = getattr(config, "track", "")
        if tool and world.is_main:
            require_tool(tool)
        if overwrite_requested(overwrite) and world.is_main and path.exists():
            if path.is_dir():
                hold(path).close()  # a process at work there would go on writing under the same name
            move_aside(path)
        barrier(world)
        self.finished = _is_finished(path, config, growing)
        refuse_other_work(path, config, self.inputs, apart=growing, begun=has_begun(path))
        _refuse_to_lengthen_nothing(path, self.finished)
        barrier(world)
        self._writer: SummaryWriter | None = None
        self._fell_back = False
        self._place: Place | None = None
        self._tracker: Tracker | None = None
        if world.is_main and not self.finished:
            if tool:
                self._tracker = Tracker(tool, path, to_dict(config))
            self._place = create(path)
            self._lock = hold(path)
            (path / run_files.FINISHED).unlink(missing_ok=True)  # before the configuration says that it is longer
            self.write_json(run_files.CONFIG, to_dict(config))
            self.write_json(run_files.INPUTS, self.inputs)
            self._append_environment()
        barrier(world)

    @classmethod
    def refuse(cls, path: Path, config: Any, overwrite: bool, inputs: Mapping[str, Any], growing: str = "") -> None:
        """Refuse what opening the directory would refuse, and write nothing; the same arguments as for opening.

        Raises:
            InputError: the folder holds something else or a run of another configuration, or cannot be written.
        """
        if tool := getattr(config, "track", ""):
            require_tool(tool)
        refuse_to_begin(path, config, inputs, overwrite, apart=growing, begun=has_begun(path))
        if not _is_finished(path, config, growing) and not overwrite_requested(overwrite):
            _refuse_to_lengthen_nothing(path, False)
            _stored_state(path, config, growing, print)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to resume from."""
        return _has_checkpoint(self.path)

    # -- writing ------------------------------------------------------------------------------------------------

    def log(self, message: str) -> None:
        """Print a line above any progress bar, and append it to ``log.txt``."""
        if self.world.is_main:
            self._require_place()
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()
            with open(self.path / run_files.LOG, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row to ``metrics.jsonl`` and its numbers to TensorBoard under the same names."""
        if not self.world.is_main:
            return
        self._require_place()
        with open(self.path / run_files.METRICS, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import
            events = self.path / run_files.TENSORBOARD
            make(events)  # the writer would make a run directory anew that is gone since the line above
            self._writer = SummaryWriter(str(events), purge_step=step)
        numbers = {name + suffix: number for name, value in values.items() for suffix, number in _scalars(value)}
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        if self._tracker is not None:
            self._tracker.record(step, numbers)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run atomically."""
        if self.world.is_main:
            self._require_place()
            target = self.path / name
            target.parent.mkdir(exist_ok=True)
            checkpoint.write_json(target, value)

    def save(self, payload: dict[str, Any], name: str = run_files.CHECKPOINT) -> None:
        """Store a checkpoint together with the configuration; the previous checkpoint is kept.

        Raises:
            InputError: a number in it is not finite; nothing is stored.
        """
        if self.world.is_main:
            require_finite(payload, f"after step {payload.get('step')}, a number of the state",
                           "it is not saved, and the checkpoint before is kept; start under another --save with lower "
                           "learning rates")
            # A damaged checkpoint must not replace the good one that the run fell back to.
            keep = name != run_files.BEST and not (self._fell_back and name == run_files.CHECKPOINT)
            self._require_place()
            checkpoint.save(self.path / name, {**payload, "config": to_dict(self.config)}, keep_replaced=keep)
            if name == run_files.CHECKPOINT:
                self._fell_back = False
        barrier(self.world)

    def restore(self) -> dict[str, Any] | None:
        """Return the newest readable checkpoint, or None for a fresh run, and drop metrics written after it.

        A checkpoint must hold ``step``, the number of completed steps.

        Raises:
            InputError: there are checkpoints but none can be read, or it belongs to another configuration.
        """
        if self.world.is_main and self._place:
            for name in (run_files.CHECKPOINT, run_files.BEST, run_files.GOOD):
                checkpoint.complete_save(self.path / name)
        barrier(self.world)
        payload, self._fell_back = _stored_state(self.path, self.config, self._growing, self.log)
        if self.world.is_main:
            self.drop_metrics_from(payload["step"] if payload else 0)
        barrier(self.world)
        if payload:
            self.log(f"resuming {self.path}")
        return payload

    def finish(self, message: str) -> None:
        """Mark the run as complete."""
        self.log(message)
        if self.world.is_main:
            if self._writer is not None:
                self._writer.close()
            if self._tracker is not None:
                self._tracker.finish()
            self._require_place()
            checkpoint.write_atomic(self.path / run_files.FINISHED, (message + "\n").encode())
        barrier(self.world)

    def drop_metrics_from(self, step: int) -> None:
        """Delete the rows of ``metrics.jsonl`` from ``step`` on; the run writes them again."""
        path = self.path / run_files.METRICS
        if not path.exists():
            return
        require_file(path)
        complete = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        steps = [_step_of(line) for line in complete]
        if damaged := [str(number) for number, found in enumerate(steps, start=1) if found is None]:
            self.log(f"{path.name} is damaged: line {', '.join(damaged[:9])} is no row of numbers and is left out")
        kept = [line for line, found in zip(complete, steps, strict=True) if found is not None and found < step]
        checkpoint.write_atomic(path, b"".join(kept))

    def _append_environment(self) -> None:
        path = self.path / run_files.ENVIRONMENT
        starts: list[Any] = []
        try:
            starts = read_json(path) if os.path.lexists(path) else []
            require(isinstance(starts, list), f"{path} is not a JSON list")
        except InputError as error:
            say(f"note: {error}; it is begun again")
            starts = []
        self.write_json(run_files.ENVIRONMENT, [*starts, environment(self.world)])

    def _require_place(self) -> None:
        if self._place:
            place, self._place = self._place, None  # what is said about it must not ask again
            place.require()
            self._place = place

    def describe(self) -> str:
        """Return the lines that a program prints first: its run directory and its configuration."""
        return f"run directory {self.path}\n{describe(self.config)}"


def _stored_state(folder: Path, config: Any, growing: str,
                  log: Callable[[str], None]) -> tuple[dict[str, Any] | None, bool]:
    """Return the newest readable checkpoint of this configuration, and whether it is not the last one.

    Args:
        folder: the run directory.
        config: the dataclass that the program was asked for.
        growing: field that may differ; empty: none.
        log: what to do with a remark.

    Raises:
        InputError: there are checkpoints but none can be read, or it belongs to another configuration.
    """
    payload, fell_back = checkpoint.restore(folder / run_files.CHECKPOINT, log)
    if payload:
        remedy = "put the right one back, or pass --overwrite to start again"
        refuse_differences(config, payload.get("config", {}), f"the checkpoint in {folder} belongs to", remedy, growing)
        require(type(payload.get("step")) is int and payload["step"] >= 0,
                f"the checkpoint in {folder} does not say after which step it was made; {remedy}")
    return payload, fell_back


def _has_checkpoint(folder: Path) -> bool:
    """Return whether there is anything to resume from; without it, there is nothing that a change could spoil."""
    path = folder / run_files.CHECKPOINT
    return any(map(os.path.lexists, (path, checkpoint.previous(path), checkpoint.staged(path))))


def _is_finished(folder: Path, config: Any, growing: str) -> bool:
    """Return whether a run is complete, also for what is asked for in the field that may grow (empty: none)."""
    stored = stored_object(folder / run_files.CONFIG) if growing else None
    grows = stored is not None and stored.get(growing) != getattr(config, growing)
    return (folder / run_files.FINISHED).exists() and not grows


def has_begun(folder: Path) -> bool:
    """Return whether a change of the configuration could spoil anything: a checkpoint, or the results of the end."""
    return _has_checkpoint(folder) or (folder / run_files.FINISHED).exists()


def _refuse_to_lengthen_nothing(folder: Path, finished: bool) -> None:
    """Refuse to go on with a finished run whose checkpoint is gone: it would begin again, over its results."""
    require(finished or _has_checkpoint(folder) or not (folder / run_files.FINISHED).exists(), f"{folder} is "
            f"finished, and its {run_files.CHECKPOINT} is gone, so that it cannot go on; expected the file in its "
            "place, or another --save")


def _step_of(line: bytes) -> int | None:
    """Return the step of a row of ``metrics.jsonl``; None where it is damaged."""
    try:
        row = parse_json(line.decode())
    except ValueError:
        return None
    return row["step"] if isinstance(row, dict) and type(row.get("step")) is int else None


def _scalars(value: Any, suffix: str = "") -> Iterable[tuple[str, float]]:
    """Yield the numbers inside a metrics value, each with its path, for TensorBoard."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _scalars(inner, f"{suffix}/{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield suffix, value
