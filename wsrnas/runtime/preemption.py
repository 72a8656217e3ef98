"""Stop at a safe point when SIGTERM or SIGUSR1 asks for it (the time limit and preemption of Slurm)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted

with deferred_imports():
    import torch
    from torch import distributed as dist

Item = TypeVar("Item")

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_asked = False


@contextmanager
def stop_requests(world: World) -> Iterator[Callable[[], bool]]:
    """Catch the signals, and yield a function that returns whether ANY process has received one.

    All processes call the function at every step boundary and get the same answer, so that all stop at the same step.
    The processes exchange one integer on the CPU, without waiting for the GPU. Python handles signals only in the main
    thread of a program; in another thread, the function always returns False.
    """
    global _asked
    if not _listening():  # inside another such context, a request stays
        _asked = False

    def stop() -> bool:
        if world.size == 1:
            return _asked
        asked = torch.tensor(int(_asked))
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_asked(items: Iterable[Item], stop: Callable[[], bool], message: str) -> Iterator[Item]:
    """Yield the items until a stop is requested.

    Raises:
        Preempted: a stop was requested before an item; carries ``message``.
    """
    for item in items:
        if stop():
            raise Preempted(message)
        yield item


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True


def _listening() -> bool:
    return signal.getsignal(signal.SIGTERM) is _note


def _before_fork() -> None:
    if _listening():  # the new child still has the handlers of its parent; signals to it must wait
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    if _listening():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _after_fork_in_child() -> None:
    """Let signals end a forked process again, but only those that are sent to it alone.

    torchrun sends signals to the whole process group of a worker. If that ended the processes of a DataLoader, their
    parent would fail before it could save. Hence a forked process gets a group of its own.
    """
    if _listening():
        os.setpgid(0, 0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
