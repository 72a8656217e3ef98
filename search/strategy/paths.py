"""What the paths through a cell do, as features of a predictor: it costs nothing to know.

An operation does not know whether a skip connection leads from the input of a cell to its output, because that may
take one edge or several. The numbers of paths know.
"""

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
    weights = (gates @ sets.T).unflatten(1, (len(space.cells), len(space.edges))).unbind(2)  # E times (n, M, S)
    none = torch.zeros_like(weights[0])
    numbers = {state: none + 1 for state in space.inputs()}
    for target in sorted({target for _, target in space.edges}):
        edges = [(place, source) for place, (source, end) in enumerate(space.edges) if end == target]
        through = torch.stack([weights[place] for place, _ in edges])
        numbers[target] = (through * torch.stack([numbers.get(source, none) for _, source in edges])).sum(0)
    return torch.stack([numbers.get(state, none) for state in space.outputs()]).sum(0).flatten(1)
