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


def shared_states(*inputs: Tensor) -> AbstractContextManager[None]:
    """Let the operations of a cell share the ReLUs of its states; a compiler finds them by itself.

    Args:
        *inputs: states that the next cell may read, too: inside the ``shared_states`` of a network, their ReLUs stay,
            and no others.
    """
    return nullcontext() if torch.compiler.is_compiling() else _shared_states(inputs)


@contextmanager
def _shared_states(inputs: tuple[Tensor, ...]) -> Iterator[None]:
    outer = _scope.known
    kept = {id(state) for state in inputs}
    _scope.known = {key: pair for key, pair in (outer or {}).items() if key in kept}
    try:
        yield
        if outer is not None:
            known = {key: pair for key, pair in _scope.known.items() if key in kept}
            outer.clear()
            outer.update(known)
    finally:
        _scope.known = outer
