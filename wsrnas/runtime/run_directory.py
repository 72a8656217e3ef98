"""Keep everything of a run in one folder. Its name has no time stamp, so that a restarted job finds it."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import describe, to_dict
from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.environment import environment
from wsrnas.runtime.folders import create, move_aside, overwrite_requested
from wsrnas.runtime.locks import hold
from wsrnas.runtime.same_work import (
    refuse_differences,
    refuse_foreign_folder,
    refuse_other_configuration,
    refuse_other_inputs,
)

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

    Attributes:
        finished: whether the run is complete; nothing is written then.

    Raises:
        InputError: the folder holds something else or a run of another configuration, or cannot be written.
        OSError: the disk becomes full or read-only later (``run_program`` turns this into a sentence).
    """

    def __init__(self, path: Path, config: Any, world: World, overwrite: bool = False,
                 inputs: dict[str, Any] | None = None):
        self.path, self.config, self.world, self.inputs = path, config, world, inputs or {}
        if overwrite_requested(overwrite) and world.is_main and path.exists():
            if path.is_dir():
                hold(path).close()  # a process at work there would go on writing under the same name
            move_aside(path)
        barrier(world)
        self.finished = (path / run_files.FINISHED).exists()
        self._refuse_other_work()
        barrier(world)
        self._writer: SummaryWriter | None = None
        self._fell_back = False
        if world.is_main and not self.finished:
            create(path)
            self._lock = hold(path)
            self.write_json(run_files.CONFIG, to_dict(config))
            self.write_json(run_files.INPUTS, self.inputs)
            self._append_environment()
        barrier(world)

    def _refuse_other_work(self) -> None:
        refuse_foreign_folder(self.path)
        if self.has_checkpoint:  # without one, there is nothing that a change could spoil
            refuse_other_configuration(self.path, self.config)
            refuse_other_inputs(self.path, self.inputs)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to resume from."""
        path = self.path / run_files.CHECKPOINT
        return path.exists() or checkpoint.previous(path).exists()

    # -- writing ------------------------------------------------------------------------------------------------

    def log(self, message: str) -> None:
        """Print a line above any progress bar, and append it to ``log.txt``."""
        if self.world.is_main:
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()
            with open(self.path / run_files.LOG, "a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row to ``metrics.jsonl`` and its numbers to TensorBoard under the same names."""
        if not self.world.is_main:
            return
        with open(self.path / run_files.METRICS, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import
            self._writer = SummaryWriter(str(self.path / run_files.TENSORBOARD), purge_step=step)
        for name, value in values.items():
            for suffix, number in _scalars(value):
                self._writer.add_scalar(name + suffix, number, step)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run atomically."""
        if self.world.is_main:
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write_json(target, value)

    def save(self, payload: dict[str, Any], name: str = run_files.CHECKPOINT) -> None:
        """Store a checkpoint together with the configuration; the previous checkpoint is kept."""
        if self.world.is_main:
            # A damaged checkpoint must not replace the good one that the run fell back to.
            keep = not (self._fell_back and name == run_files.CHECKPOINT)
            checkpoint.save(self.path / name, {**payload, "config": to_dict(self.config)}, keep_replaced=keep)
            self._fell_back = self._fell_back and keep
        barrier(self.world)

    def restore(self) -> dict[str, Any] | None:
        """Return the newest readable checkpoint, or None for a fresh run, and drop metrics written after it.

        A checkpoint must hold ``step``, the number of completed steps.

        Raises:
            InputError: there are checkpoints but none can be read, or it belongs to another configuration.
        """
        payload, self._fell_back = checkpoint.restore(self.path / run_files.CHECKPOINT, self.log)
        if payload:
            refuse_differences(self.config, payload.get("config", {}), f"the checkpoint in {self.path} belongs to",
                               "put the right one back, or pass --overwrite to start again")
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
            (self.path / run_files.FINISHED).write_text(message + "\n")
        barrier(self.world)

    def drop_metrics_from(self, step: int) -> None:
        """Delete the rows of ``metrics.jsonl`` from ``step`` on; the run writes them again."""
        path = self.path / run_files.METRICS
        if path.exists():
            complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in complete if json.loads(line)["step"] < step]
            checkpoint.write_atomic(path, "".join(kept).encode())

    def _append_environment(self) -> None:
        path = self.path / run_files.ENVIRONMENT
        try:
            starts = json.loads(path.read_text()) if path.exists() else []
        except ValueError:
            starts = []
        self.write_json(run_files.ENVIRONMENT, [*starts, environment(self.world)])

    def describe(self) -> str:
        """Return the lines that a program prints first: its run directory and its configuration."""
        return f"run directory {self.path}\n{describe(self.config)}"


def _scalars(value: Any, suffix: str = "") -> Iterable[tuple[str, float]]:
    """Yield the numbers inside a metrics value, each with its path, for TensorBoard."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _scalars(inner, f"{suffix}/{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield suffix, value
