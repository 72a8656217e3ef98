"""Stop at a safe point when SIGTERM or SIGUSR1 asks for it (the time limit and preemption of Slurm).

Where nothing has been done that could be saved, a program stops at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import STOPPED, Preempted

with deferred_imports():
    import torch
    from torch import distributed as dist

Item = TypeVar("Item")

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_asked = 0  # the signal
_ended = 0  # the signal that ends the program at once
_program = False  # whether this is a program, which may end: no notebook, for example
_idle = False  # whether the loop under way has not made a step yet, the first of which may compile for minutes


@contextmanager
def stop_requests(world: World) -> Iterator[Callable[[], bool]]:
    """Catch the signals, and yield a function that returns whether ANY process has received one.

    All processes call the function at every step boundary and get the same answer, so that all stop at the same step.
    The processes exchange one integer on the CPU, without waiting for the GPU. Python handles signals only in the main
    thread of a program; in another thread, the function always returns False.

    Before the first call there is nothing to save. A signal then ends a program at once.
    """
    global _asked, _idle
    # Inside another such context a request stays, and in a program also between two: its start has forgotten others.
    if not _program and signal.getsignal(signal.SIGTERM) is not _note:
        _asked = 0

    def stop() -> bool:
        global _idle
        _idle = False
        if world.size == 1:
            return bool(_asked)
        asked = torch.tensor(int(bool(_asked)))
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    idle_outside, _idle = _idle, True
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _idle = idle_outside


def asked() -> bool:
    """Return whether this process has received a signal inside ``stop_requests``, without asking the others."""
    return bool(_asked)


def until_asked(items: Iterable[Item], stop: Callable[[], bool], message: str) -> Iterator[Item]:
    """Yield the items until a stop is requested.

    Raises:
        Preempted: a stop was requested before an item; carries ``message``.
    """
    for item in items:
        if stop():
            raise Preempted(message)
        yield item


class Interrupts:
    """Listen to Ctrl-C and, outside of any loop, to the signals that ask to stop: both end the program at once.

    They are noted, because what they meet may turn them into another error.
    """

    def __enter__(self) -> None:
        global _asked, _ended, _program
        _asked, _ended, self._outside, _program = 0, 0, _program, True
        self._before: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number, default in {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(SIGNALS, signal.SIG_DFL)
                                }.items():
            if signal.getsignal(number) is default:
                self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        global _program
        _program = self._outside
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)

    @property
    def heard(self) -> int:
        """The last signal; 0 where there was none."""
        return _ended or _asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        global _ended
        _ended = number  # known to all: one program may start another one, as the command wsrnas does
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = number
    if _idle and _program:  # an exception would be lost in a callback of torch's compiler
        if os.environ.get("RANK", "0") in ("", "0"):
            os.write(2, f"stopped by {signal.Signals(number).name} before a step was complete; the same command "
                     "resumes\n".encode())
        os._exit(STOPPED)


def _listening() -> bool:
    handler = signal.getsignal(signal.SIGTERM)
    return handler is _note or isinstance(getattr(handler, "__self__", None), Interrupts)


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
