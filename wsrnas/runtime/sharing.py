"""Share work between processes through files: each process, whenever it starts, takes a task that no other holds."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic, write_json
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, Preempted, out_of_memory
from wsrnas.runtime.folders import create, move_aside, overwrite_requested
from wsrnas.runtime.locks import claim
from wsrnas.runtime.place import Place
from wsrnas.runtime.preemption import stop_requests
from wsrnas.runtime.same_work import SAVE, refuse_foreign_folder, refuse_other_work, stored_object

WAIT_SECONDS = 2.0
MOMENT_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """Describe a part of the work whose result is in files.

    Args:
        name: unique name that can be the name of a folder.
        done: function that returns whether the result exists.
        work: function that makes the result. After a kill it is called again, and resumes or starts again. Its
            argument is a function that returns whether to stop; it then raises ``Preempted``.
    """

    name: str
    done: Callable[[], bool]
    work: Callable[[Callable[[], bool]], None]


def open_shared_folder(folder: Path, config: Any, inputs: dict[str, Any], overwrite: bool = False,
                       flag: str = SAVE) -> None:
    """Make the folder of shared work, or check that an existing one belongs to the same work.

    Args:
        folder: the folder.
        config: dataclass of the program, kept as ``config.json``.
        inputs: further values that the work depends on, such as the fingerprint of the data; kept as ``inputs.json``.
        overwrite: whether to move an existing folder aside.
        flag: the program's flag for the folder, for messages.

    Raises:
        InputError: the folder holds work of another configuration or other inputs, another process is at work in the
            folder to overwrite, or the folder cannot be written.
    """
    if overwrite_requested(overwrite) and folder.exists():
        _refuse_company(folder, flag)
        move_aside(folder)
    refuse_foreign_folder(folder, flag)
    create(folder)
    with alone(folder / run_files.CLAIMS, "opening"):
        refuse_other_work(folder, config, inputs, flag)
        # Written only where something changes: other processes may be reading.
        if stored_object(folder / run_files.CONFIG) != to_dict(config):
            write_json(folder / run_files.CONFIG, to_dict(config))
        if not (folder / run_files.INPUTS).exists():
            write_json(folder / run_files.INPUTS, inputs)


def task_of_another(folder: Path) -> str:
    """Return the name of a task of a shared folder that another process holds; empty: there is none."""
    for claimed in sorted((folder / run_files.CLAIMS).glob("*/")):
        held = claim(claimed)
        if held is None:
            return claimed.name
        held.close()
    return ""


def _refuse_company(folder: Path, flag: str) -> None:
    """Raise InputError if another process holds a task: it would go on writing under the same name."""
    if name := task_of_another(folder):
        raise InputError(f"another process is at work in {folder} ({name}); wait for it, or choose another {flag}")


def share(tasks: Sequence[Task], claims: Path, label: str, world: World, wait: bool = True) -> bool:
    """Do the tasks that no other process holds, in their order, and return whether all tasks are done.

    A process locks the task that it does. The lock is released when the process ends, so that another one can take over
    the task of a killed process. If a task fails (unusable input, or too little GPU memory), the other tasks are still
    done. Processes that are running do not try it again; processes that start later do.

    Args:
        tasks: the work.
        claims: folder for the locks.
        label: name of the tasks in progress messages.
        world: this process.
        wait: whether to wait for tasks that other processes hold.

    Raises:
        InputError: tasks failed; the message names each with its error.
        Preempted: a signal asked to stop. Results of finished tasks stay.
    """
    before, waits, looked = _marks(claims), False, False
    place = Place(claims, claims.parent)
    failed: dict[str, str] = {}
    with stop_requests(world) as stop:
        pending = [task for task in tasks if not task.done()]
        while pending:
            left = []
            for task in pending:
                started = time.monotonic()
                place.require()  # or the claim of the task would make the folder anew
                outcome = _work(task, claims, stop, before)
                if outcome is None:
                    left.append(task)
                elif outcome == "done":
                    there = sum(other.done() for other in tasks)
                    print(f"{label} {there}/{len(tasks)}: {task.name}, {time.monotonic() - started:.0f} s", flush=True)
                elif outcome:
                    failed[task.name] = outcome
                    print(f"{label}: {task.name} FAILED: {outcome}", file=sys.stderr, flush=True)
            left = [task for task in left if not task.done()]
            if len(left) == len(pending):  # otherwise other processes may have freed tasks meanwhile
                names = ", ".join(task.name for task in left)
                if not wait and not looked:  # who looks whether a task is held holds it for a moment
                    looked = True
                    time.sleep(MOMENT_SECONDS)
                    continue
                if not wait:
                    print(f"{label}: {len(left)} with other processes ({names})", flush=True)
                    break
                if not waits:
                    print(f"{label}: waiting for other processes ({names})", flush=True)
                waits = True
                time.sleep(WAIT_SECONDS)
                if stop():
                    raise Preempted(f"{label}: stopped while waiting")
            pending = left
    place.require()
    if failed:
        raise InputError(f"{len(failed)} of {len(tasks)} {label} failed; the same command tries them again: "
                         + "; ".join(f"{name}: {message}" for name, message in failed.items()))
    return not pending


def _folder(claims: Path, name: str) -> Path:
    """Return the folder of a lock; the folder of the work itself, which may be gone, is not made anew."""
    claims.mkdir(exist_ok=True)
    (claims / name).mkdir(exist_ok=True)
    return claims / name


@contextmanager
def alone(claims: Path, name: str) -> Iterator[None]:
    """Wait until no other process is inside a context of this name, then enter it."""
    folder = _folder(claims, name)
    while (held := claim(folder, must_lock=True)) is None:
        time.sleep(MOMENT_SECONDS)
    with held:
        yield


def _work(task: Task, claims: Path, stop: Callable[[], bool], before: set[tuple[str, int, int]]) -> str | None:
    """Do a task.

    Args:
        task: the task.
        claims: folder for the locks.
        stop: function that returns whether to stop.
        before: marks of failures that there were when this process began to share.

    Returns:
        None if another process holds the task, "done", an empty text if it was done before, or an error message.
    """
    if stop():
        raise Preempted(f"stopped before {task.name}")
    folder = _folder(claims, task.name)
    held = claim(folder, must_lock=True)
    if held is None:
        return None
    failure = folder / "failed"
    with held:
        if task.done():
            return ""
        if failure.exists() and _mark(failure) not in before:
            return failure.read_text(encoding="utf-8")
        failure.unlink(missing_ok=True)
        try:
            task.work(stop)
            return "done"
        except InputError as error:
            message = str(error)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            message = "the GPU is out of memory; choose smaller batches (which may need another --save)"
        write_atomic(failure, message.encode(errors="backslashreplace"))  # a name of a file may be any bytes
        return message


def _mark(failure: Path) -> tuple[str, int, int]:
    """Return what tells a mark of a failure from a later one of the same task, whatever the clock says."""
    facts = failure.stat()
    return failure.parent.name, facts.st_ino, facts.st_mtime_ns


def _marks(claims: Path) -> set[tuple[str, int, int]]:
    """Return the marks of failures in a folder of locks, which is made if there is none."""
    claims.mkdir(exist_ok=True)
    found = set()
    for failure in claims.glob("*/failed"):
        with suppress(FileNotFoundError):  # another process has just begun to try it again
            found.add(_mark(failure))
    return found


def failures(claims: Path) -> dict[str, str]:
    """Return the error messages of failed tasks that no process has tried again, by name of the task."""
    found = {}
    for mark in sorted(claims.glob("*/failed")):
        with suppress(FileNotFoundError):  # another process has just begun to try it again
            found[mark.parent.name] = mark.read_text(encoding="utf-8")
    return found
