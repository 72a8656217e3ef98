"""What the paths through a cell do, as features of a predictor: it costs nothing to know.

An operation does not know whether a skip connection leads from the input of a cell to its output, because that may
take one edge or several. The numbers of paths know.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from search.spaces.space import Space


class Paths:
    """Return logarithms of numbers of paths, each standardised over random architectures.

    There is one feature for each kind of cell and each of these sets of operations: skip connections; skip connections
    and one other operation; all but ``none``. It is log(1 + n) of the paths, n, that lead from an input of the cell to
    its output through operations of the set alone. Where gates are soft, n is the expected number.

    Args:
        space: the search space.
    """

    SAMPLE = 512  # random architectures that give mean and standard deviation

    def __init__(self, space: Space) -> None:
        self.space, self.sets = space, sets_of_operations(space)
        count = len(space.cells) * len(self.sets)
        self.mean, self.std = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
        features = self(space.gates(space.sample(self.SAMPLE, torch.Generator().manual_seed(0))).double())
        self.mean, spread = features.mean(0), features.std(0)
        self.std = torch.where(spread > 1e-9, spread, 1.0)  # a number that never changes says nothing

    def __call__(self, gates: Tensor) -> Tensor:
        """Return features (n, F) of gates (n, R, O); differentiable."""
        return (torch.log1p(count_paths(self.space, self.sets.to(gates), gates)) - self.mean) / self.std


def sets_of_operations(space: Space) -> Tensor:
    """Return the sets (S, O) of operations whose paths are counted: 1 for a member, otherwise 0."""
    others = [index for index, name in enumerate(space.operations) if name not in ("none", "skip_connect")]
    sets = torch.zeros(len(others) + 2, len(space.operations), dtype=torch.float64)
    for index, other in enumerate(others):
        sets[index, other] = 1
    sets[-1, others] = 1
    if "skip_connect" in space.operations:
        sets[:, space.operations.index("skip_connect")] = 1
    return sets


def count_paths(space: Space, sets: Tensor, gates: Tensor) -> Tensor:
    """Return the numbers of paths (n, M S) from the inputs of a cell to its output through each set of operations.

    The number of paths to a state is the sum over its edges: that of the source, times the weight of the set on the
    edge.

    Args:
        space: the search space.
        sets: weights (S, O) of the operations.
        gates: (n, R, O).
    """
    return cast(Tensor, _Count.apply(gates, sets, space))


class _Count(torch.autograd.Function):
    """Count with the derivatives written out, in numpy, where small steps cost less than in torch."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, sets: Tensor, space: Space) -> Tensor:
        ctx.sets, ctx.space, ctx.shape = sets.numpy(), space, gates.shape
        weights = gates.detach().numpy() @ ctx.sets.T
        ctx.weights = weights = weights.reshape(len(gates), *space.shape[:2], len(sets))  # (n, M, E, S)
        ctx.numbers = numbers = dict.fromkeys(space.inputs(), np.ones_like(weights[:, :, 0]))
        for place, (source, target) in _in_order(space):
            if source in numbers:
                through = weights[:, :, place] * numbers[source]
                numbers[target] = numbers[target] + through if target in numbers else through
        none = np.zeros_like(weights[:, :, 0])
        return torch.from_numpy(sum((numbers.get(state, none) for state in space.outputs()), none)).flatten(1)

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor, None, None]:
        """Multiply, for every edge, the paths to its source with those from its target on."""
        space, weights, numbers = ctx.space, ctx.weights, ctx.numbers
        ahead = dict.fromkeys(space.outputs(), of_total.numpy().reshape(weights[:, :, 0].shape))
        of_weights = np.zeros_like(weights)
        for place, (source, target) in reversed(_in_order(space)):
            if source in numbers and target in ahead:
                of_weights[:, :, place] = ahead[target] * numbers[source]
                through = ahead[target] * weights[:, :, place]
                ahead[source] = ahead[source] + through if source in ahead else through
        return torch.from_numpy(of_weights.reshape(*ctx.shape[:2], -1) @ ctx.sets), None, None


def _in_order(space: Space) -> list[tuple[int, tuple[int, int]]]:
    """Return places and edges in the order of their targets."""
    return sorted(enumerate(space.edges), key=lambda edge: edge[1][1])
