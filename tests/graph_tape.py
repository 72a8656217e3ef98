"""A stand-in for CUDA graphs on a CPU: it records operators with their memory, and repeats them without the code."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result


def _memory(tree) -> list[tuple[Tensor, int]]:
    return [(leaf, leaf.untyped_storage().data_ptr()) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Tape:
    """Record calls on a CPU as CUDA graphs do: what Python decides is decided for good, what memory holds is not."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.recorded = self.repeated = self.freed = self.alive = 0

    def record(self, call):
        """Run a call twice, then record it."""
        call()
        call()
        with _Operators() as operators:
            result = call()
        self.recorded, self.alive = self.recorded + 1, self.alive + 1

        def repeat() -> None:
            self.repeated += 1
            with torch.no_grad():
                for function, args, kwargs, written in operators.calls:
                    given = {place for _, place in _memory((args, kwargs))}
                    again = function(*args, **kwargs)
                    for (old, place), (new, _) in zip(_memory(written), _memory(again), strict=True):
                        if place not in given:  # neither a view nor changed in place
                            old.copy_(new)

        return repeat, result

    def free(self, recordings) -> None:
        """Forget recordings."""
        self.freed, self.alive = self.freed + 1, 0
        recordings.clear()
