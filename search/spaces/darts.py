"""The space of DARTS: a normal and a reduction cell, four nodes each, eight operations on 14 edges a cell."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from search.spaces.space import ImageShape, Space, measured_cost
from wsrnas.genotype import KINDS, Genotype, count_differences
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from search.spaces.darts_supernet import DartsSupernet, edge_stride
    from search.spaces.fairness import balanced_draws
    from search.spaces.supernet import Supernet
    from wsrnas import operations as library
    from wsrnas.network import CellNetwork

NODES = 4
NODE_EDGES = tuple(tuple((source, node) for source in range(node)) for node in range(2, 2 + NODES))
EDGES = sum(map(len, NODE_EDGES))  # 14
NONE = 0  # "none" is the first operation
OTHERS = slice(NONE + 1, None)
CONCAT = tuple(range(2, 2 + NODES))


class Darts(Space):
    """Search both cells of DARTS (Liu et al., ICLR 2019); of 14 edges, the discrete cell keeps two for each node."""

    name = "darts"
    help = "normal and reduction cell of DARTS, 14 edges and 8 operations each"
    architecture = Genotype
    cells = KINDS
    edges = tuple(edge for node in NODE_EDGES for edge in node)

    @functools.cached_property
    def operations(self) -> tuple[str, ...]:
        """The eight candidates; help does not ask for them, and the library's operations need torch."""
        return library.PRIMITIVES

    def unsearched(self, layers: int) -> list[str]:
        """Return sentences about parts of the architecture that a network of so few cells does not have."""
        few = f"layers is {layers}: with fewer than 3 cells all are reduction cells, so the normal cell is not searched"
        return [few] * (layers < 3)

    def supernet(self, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None, channels: int = 3) -> Supernet:
        """Build the supernet."""
        return DartsSupernet(self, init_channels, layers, num_classes, tau, alpha_std, generator, channels)

    def outputs(self) -> tuple[int, ...]:
        """Return all nodes, which a cell concatenates."""
        return CONCAT

    def discretize(self, weights: Tensor) -> Genotype:
        """Return the genotype of weights (2, E, O).

        A node keeps the two incoming edges with the largest weight over the operations other than ``none``, each with
        that operation, the stronger edge first.

        Wsr-NAS' code compares A itself; DARTS and RNAS compare softmax(A), where an edge whose mass is on ``none`` is
        weak.
        """
        normal, reduce = map(_pairs, weights.detach().cpu())
        return Genotype(normal, CONCAT, reduce, CONCAT)

    def encode(self, architecture: Genotype) -> Tensor:
        """Return the choices (28,) of a genotype: its operations, and ``none`` on the other edges."""
        require(isinstance(architecture, Genotype), f"{architecture} is not of the space {self.name}; expected a "
                "genotype of two cells")
        choices = torch.full((len(KINDS), EDGES), NONE)
        for kind, name in enumerate(KINDS):
            nodes, concat = architecture.nodes(name), getattr(architecture, f"{name}_concat")
            require(len(nodes) == NODES and tuple(sorted(concat)) == CONCAT,
                    f"the {name} cell has {len(nodes)} nodes and the concat {list(concat)}; expected {NODES} nodes and "
                    f"{list(CONCAT)} in the space {self.name}")
            for number, edges in enumerate(nodes, start=2):
                sources = [source for _, source in edges]
                require(len(set(sources)) == len(sources) == 2, f"node {number} of the {name} cell has the inputs "
                        f"{sources}; expected two different ones in the space {self.name}")
                for operation, source in edges:
                    require(operation in self.operations[OTHERS], f"the {name} cell has the operation {operation!r}; "
                            f"expected one of {', '.join(self.operations[OTHERS])} in the space {self.name}")
                    choices[kind, self.edges.index((source, number))] = self.operations.index(operation)
        return choices.flatten()

    def distinct(self, most: int) -> int:
        """Return ``most``: there are about 10^18 genotypes."""
        return most

    @property
    def num_choices(self) -> int:
        """Number of edges that both cells keep."""
        return 2 * NODES * len(KINDS)

    def differences(self, a: Genotype, b: Genotype) -> int:
        """Return the number of edges of ``a`` that ``b`` lacks."""
        return count_differences(a, b)

    def chosen(self, architecture: Genotype) -> Mapping[str, Sequence[str]]:
        """Return the operations of the edges that both cells keep."""
        return {kind: [name for node in architecture.nodes(kind) for name, _ in node] for kind in KINDS}

    def row(self, architecture: Genotype) -> Mapping[str, Sequence[Any]]:
        """Return the (operation, input) pairs of both cells."""
        return {"normal": architecture.normal, "reduce": architecture.reduce}

    def cost_table(self, init_channels: int, layers: int, num_classes: int,
                   image_shape: ImageShape) -> tuple[Tensor, Tensor]:
        """Return the cost of what all networks share (2,), and of every operation on every edge (28, 8, 2)."""
        return _cost_table(init_channels, layers, num_classes, image_shape)

    def discrete(self, weights: Tensor) -> Tensor:
        """Return the choices (n, 28) of the genotypes of weights (n, 2, 14, 8), ``none`` on the edges they leave."""
        strength, operations = weights.flatten(1, 2)[..., OTHERS].max(-1)
        return torch.where(_two_strongest(strength), operations + OTHERS.start, NONE)

    def sample(self, count: int, generator: torch.Generator | np.random.Generator) -> Tensor:
        """Draw the choices (count, 28) of genotypes: for every node two inputs and their operations, uniformly."""
        if isinstance(generator, np.random.Generator):
            weights = torch.from_numpy(generator.random((count, *self.shape)))
        else:
            weights = torch.rand((count, *self.shape), generator=generator)
        return self.discrete(weights)

    def fair_sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the choices (count, 28) of genotypes, fair over pairs of inputs and over operations.

        Every node has all pairs of its inputs equally often, and an edge that is kept all operations but ``none``.
        """
        node_of, pairs_of_all = edge_nodes(), edge_pairs()
        kept = torch.zeros(count, len(node_of), dtype=torch.bool)
        for node in node_of.unique():
            pairs = pairs_of_all.T[node_of[pairs_of_all[0]] == node]  # of the edges into this node
            kept.scatter_(1, pairs[balanced_draws(count, 1, len(pairs), generator).squeeze(1)], True)
        operations = balanced_draws(count, len(node_of), len(self.operations) - OTHERS.start, generator)
        before = (kept.cumsum(0) - 1).clamp_min(0)  # how often each edge was kept before
        return torch.where(kept, operations.gather(0, before) + OTHERS.start, NONE)

    def free_rows(self, choices: Tensor) -> Tensor:
        """Return the indices of the edges that the genotype of ``choices`` (28,) keeps."""
        return (choices != NONE).nonzero().squeeze(1)

    def neighbours(self, choices: Tensor) -> Tensor:
        """Return all genotypes (n, 28) with one other operation, or one operation on another input of its node."""
        replaced = self.replaced(choices, range(len(self.operations))[OTHERS])
        kept, node = choices != NONE, edge_nodes()
        # Of every two edges into one node, one that is kept and one that is not.
        edges = ((node.unsqueeze(1) == node) & kept.unsqueeze(1) & ~kept).nonzero()
        moved = choices.repeat(len(edges), 1).scatter(1, edges, choices[edges.flip(1)])
        return torch.cat([replaced, moved])

    def kept(self, gates: Tensor) -> Tensor:
        """Return the edges (n, 28) that the genotypes of gates (n, 28, 8) keep, two for each node."""
        return _two_strongest(gates[..., OTHERS].amax(-1))


DARTS = Darts()


@functools.cache
def edge_nodes() -> Tensor:
    """Return a number (28,) of the node that each edge leads to, another one in each cell."""
    return torch.tensor([kind * NODES + target for kind in range(len(KINDS)) for _, target in DARTS.edges],
                        device="cpu")


@functools.cache
def edge_pairs() -> Tensor:
    """Return all pairs (2, P) of edges into one node, the earlier edge first."""
    node = edge_nodes()
    return (node.unsqueeze(1) == node).triu(1).nonzero().T


@functools.cache
def _comparison(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs (2, P); what the edges (P, R) gain where the second of a pair wins; and without any winner."""
    pairs, edges = edge_pairs(), len(edge_nodes())
    first, second = F.one_hot(pairs[0], edges), F.one_hot(pairs[1], edges)
    return pairs.to(device), (first - second).float().to(device), second.sum(0).float().to(device)


def _two_strongest(strength: Tensor) -> Tensor:
    """Return which edges (n, 28) are the two strongest into their node; of equally strong ones the first.

    It counts for every edge those that are stronger.
    """
    (first, second), stronger, earlier = _comparison(strength.device)
    second_wins = (strength[..., second] > strength[..., first]).float()
    return second_wins @ stronger + earlier < 2


def _pairs(alphas: Tensor) -> tuple[tuple[str, int], ...]:
    """Return eight (operation, input) pairs, two for each node, of weights (E, O)."""
    candidates = alphas.clone()
    candidates[:, NONE] = -torch.inf
    strength, operation = candidates.max(-1)
    pairs, first = [], 0
    for node in NODE_EDGES:
        inputs = strength[first:first + len(node)].sort(descending=True, stable=True).indices[:2].tolist()
        pairs += [(DARTS.operations[operation[first + i]], i) for i in inputs]
        first += len(node)
    return tuple(pairs)


@functools.cache
def _operation_cost(name: str, channels: int, stride: int, height: int, width: int) -> tuple[int, int]:
    with torch.device("meta"):
        operation = library.build_operation(name, channels, stride)
    return measured_cost(operation, (channels, height, width))


@functools.cache
def _cost_table(init_channels: int, layers: int, num_classes: int,
                image_shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Measure each operation alone, at the widths and sizes of the network's cells."""
    cells: list[tuple[int, bool]] = []

    def note(channels_prev_prev: int, channels_prev: int, channels: int, reduction: bool,
             reduction_prev: bool) -> nn.Module:
        cells.append((channels, reduction))
        stub: Any = nn.Identity()
        stub.out_channels = NODES * channels
        return stub

    channels, height, width = image_shape
    pools = DARTS.decode(torch.full((DARTS.num_rows,), NONE))  # where an edge is needed, it is a pool
    with torch.device("meta"):
        CellNetwork(note, init_channels, layers, num_classes, channels)
        network = DARTS.network(pools, init_channels, layers, num_classes, channels)
    table = torch.zeros(len(KINDS), EDGES, len(DARTS.operations), 2, dtype=torch.float64)
    for cell_channels, reduction in cells:
        smaller = [-(-side // 2) if reduction else side for side in (height, width)]
        for edge, (source, _) in enumerate(DARTS.edges):
            stride = edge_stride(source, reduction)
            size = (height, width) if source < 2 else smaller
            table[int(reduction), edge] += torch.tensor(
                [_operation_cost(name, cell_channels, stride, *size) for name in DARTS.operations], dtype=torch.float64)
        height, width = smaller
    # Pooling costs nothing, so the network of pools alone is what all networks share.
    return torch.tensor(measured_cost(network, image_shape), dtype=torch.float64), table.flatten(0, 1)
