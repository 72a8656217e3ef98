"""Stopping at a safe point: SIGTERM and SIGUSR1 (Slurm's time limit and preemption) only ask for it.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist

from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted

Item = TypeVar("Item")

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_asked = False


@contextmanager
def stop_requests(world: World) -> Iterator[Callable[[], bool]]:
    """Within it the signals end nothing; what it yields says whether ANY process has got one.

    All processes call that at every step boundary and get the same answer, so that all leave at the same step; the one
    integer goes over the CPU, without waiting for the GPU. Only the main thread of a program can listen to signals:
    elsewhere none is heard.
    """
    global _asked
    if not _listening():  # within another such context, what has been asked for stays asked for
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
    """The items, as long as no stop is asked for.

    Raises:
        Preempted: with ``message``, before an item.
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
    if _listening():  # a signal to the newborn child, whose handlers are still its parent's, has to wait
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    if _listening():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _after_fork_in_child() -> None:
    """A forked process dies of the signals again, but only of those that are meant for it.

    torchrun signals the whole process groups of its workers. The death of a DataLoader's process is an error in its
    parent, which would then not come to save: hence a group of its own.
    """
    if _listening():
        os.setpgid(0, 0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
