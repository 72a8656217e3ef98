"""One ReLU for all operations of a cell that read the same state; docs/PERFORMANCE.md has what it saves."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


class _Scope(threading.local):
    known: dict[int, tuple[Tensor, Tensor]] | None = None  # by the id of a state: the state itself, and its ReLU


_scope = _Scope()


class SharedReLU(nn.ReLU):
    """A ReLU at the beginning of an operation: inside ``shared_states`` each tensor has one, whoever asks first.

    What follows must not change its input in place. Outside, it is an ordinary ReLU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the positive part."""
        known = None if torch.compiler.is_compiling() else _scope.known
        if known is None:
            return super().forward(input)
        if id(input) not in known:
            known[id(input)] = input, super().forward(input)  # the state is kept, so that its id stays its own
        return known[id(input)][1]


def shared_states() -> AbstractContextManager[None]:
    """Let the operations of a cell share the ReLUs of its states; a compiler finds them by itself."""
    return nullcontext() if torch.compiler.is_compiling() else _shared_states()


@contextmanager
def _shared_states() -> Iterator[None]:
    before, _scope.known = _scope.known, {}
    try:
        yield
    finally:
        _scope.known = before
