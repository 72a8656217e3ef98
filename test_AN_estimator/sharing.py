"""Work shared through files: any number of processes, started whenever, each taking what no other one is at."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsrnas.distributed import World
from wsrnas.errors import Preempted
from wsrnas.preemption import stop_requests
from wsrnas.run import claim

WAIT_SECONDS = 2.0
MOMENT_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """A part of the work whose result is in files.

    Args:
        name: unique in the study, usable as the name of a folder.
        done: whether the result is there.
        work: makes it; begun again after a kill, it goes on or starts anew. It is given a function that says whether
            to stop, and answers with ``Preempted``.
    """

    name: str
    done: Callable[[], bool]
    work: Callable[[Callable[[], bool]], None]


def share(tasks: Sequence[Task], claims: Path, label: str, world: World) -> None:
    """Return when all tasks are done: those that no other process holds, by this one, in their order.

    A process holds a task through a lock that its end releases, whatever ends it; what a killed one has left undone
    is taken over.

    Args:
        claims: folder for the locks.
        label: what the tasks are, for the lines that tell how far they have come.

    Raises:
        Preempted: a signal asked to stop; finished tasks stay.
    """
    with stop_requests(world) as stop:
        pending, waits = [task for task in tasks if not task.done()], False
        while pending:
            left = []
            for task in pending:
                started = time.monotonic()
                if not _work(task, claims, stop):
                    left.append(task)
                    continue
                there = sum(other.done() for other in tasks)
                print(f"{label} {there}/{len(tasks)}: {task.name}, {time.monotonic() - started:.0f} s", flush=True)
            left = [task for task in left if not task.done()]
            if len(left) == len(pending):
                if not waits:
                    print(f"{label}: waiting for other processes ({', '.join(task.name for task in left)})", flush=True)
                waits = True
                time.sleep(WAIT_SECONDS)
                if stop():
                    raise Preempted(f"{label}: stopped while waiting")
            pending = left


@contextmanager
def alone(claims: Path, name: str) -> Iterator[None]:
    """Within it, which takes moments, no other process is within that of the same name; waits for them."""
    folder = claims / name
    folder.mkdir(parents=True, exist_ok=True)
    while (held := claim(folder)) is None:
        time.sleep(MOMENT_SECONDS)
    with held:
        yield


def _work(task: Task, claims: Path, stop: Callable[[], bool]) -> bool:
    """Do a task; False where another process holds it."""
    if stop():
        raise Preempted(f"stopped before {task.name}")
    folder = claims / task.name
    folder.mkdir(parents=True, exist_ok=True)
    held = claim(folder)
    if held is None:
        return False
    with held:
        if not task.done():
            task.work(stop)
    return True
