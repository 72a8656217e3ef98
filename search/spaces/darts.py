"""The space of DARTS: a normal and a reduction cell, four nodes each, eight operations on 14 edges a cell."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.spaces.fairness import balanced_draws
from search.spaces.space import ImageShape, Space, measured_cost
from search.spaces.supernet import EdgeOperations, Supernet, run_edge, unused
from wsrnas.genotype import KINDS, Genotype, count_differences
from wsrnas.network import CellNetwork, build_preprocess
from wsrnas.operations import PRIMITIVES, build_operation
from wsrnas.quick.gradients import concatenate
from wsrnas.quick.states import shared_states
from wsrnas.runtime.config import require

NODES = 4
NODE_EDGES = tuple(tuple((source, node) for source in range(node)) for node in range(2, 2 + NODES))
EDGES = sum(map(len, NODE_EDGES))  # 14
NONE = PRIMITIVES.index("none")
OTHERS = slice(NONE + 1, None)  # "none" is the first operation
CONCAT = tuple(range(2, 2 + NODES))


class Darts(Space):
    """Search both cells of DARTS (Liu et al., ICLR 2019); of 14 edges, the discrete cell keeps two for each node."""

    name = "darts"
    help = "normal and reduction cell of DARTS, 14 edges and 8 operations each"
    architecture = Genotype
    cells = KINDS
    edges = tuple(edge for node in NODE_EDGES for edge in node)
    operations = PRIMITIVES

    def supernet(self, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None) -> Supernet:
        """Build the supernet."""
        return DartsSupernet(init_channels, layers, num_classes, tau, alpha_std, generator)

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
                    require(operation in PRIMITIVES, f"the {name} cell has the operation {operation!r}; expected one "
                            f"of {', '.join(PRIMITIVES)} in the space {self.name}")
                    choices[kind, self.edges.index((source, number))] = PRIMITIVES.index(operation)
        return choices.flatten()

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
        kept = torch.zeros(count, len(_NODE), dtype=torch.bool)
        for node in _NODE.unique():
            pairs = _PAIRS.T[_NODE[_PAIRS[0]] == node]  # of the edges into this node
            kept.scatter_(1, pairs[balanced_draws(count, 1, len(pairs), generator).squeeze(1)], True)
        operations = balanced_draws(count, len(_NODE), len(PRIMITIVES) - OTHERS.start, generator)
        before = (kept.cumsum(0) - 1).clamp_min(0)  # how often each edge was kept before
        return torch.where(kept, operations.gather(0, before) + OTHERS.start, NONE)

    def free_rows(self, choices: Tensor) -> Tensor:
        """Return the indices of the edges that the genotype of ``choices`` (28,) keeps."""
        return (choices != NONE).nonzero().squeeze(1)

    def neighbours(self, choices: Tensor) -> Tensor:
        """Return all genotypes (n, 28) with one other operation, or one operation on another input of its node."""
        replaced = self.replaced(choices, [operation for operation in range(len(PRIMITIVES)) if operation != NONE])
        kept = choices != NONE
        edges = (_SAME_NODE & kept.unsqueeze(1) & ~kept).nonzero()  # a kept one and one that its node leaves
        moved = choices.repeat(len(edges), 1).scatter(1, edges, choices[edges.flip(1)])
        return torch.cat([replaced, moved])

    def kept(self, gates: Tensor) -> Tensor:
        """Return the edges (n, 28) that the genotypes of gates (n, 28, 8) keep, two for each node."""
        return _two_strongest(gates[..., OTHERS].amax(-1))


DARTS = Darts()

# The edges into one node, two by two.
_NODE = torch.tensor([kind * NODES + target for kind in range(len(KINDS)) for _, target in DARTS.edges])
_SAME_NODE = _NODE.unsqueeze(1) == _NODE  # (R, R)
_PAIRS = _SAME_NODE.triu(1).nonzero().T  # (2, P), the earlier edge first
_STRONGER = (F.one_hot(_PAIRS[0], len(_NODE)) - F.one_hot(_PAIRS[1], len(_NODE))).float()  # (P, R)
_EARLIER = F.one_hot(_PAIRS[1], len(_NODE)).sum(0).float()  # edges (R,) into the same node before each


def _two_strongest(strength: Tensor) -> Tensor:
    """Return which edges (n, 28) are the two strongest into their node; of equally strong ones the first.

    It counts for every edge those that are stronger.
    """
    first, second = _PAIRS.to(strength.device)
    second_wins = (strength[..., second] > strength[..., first]).float()
    return second_wins @ _STRONGER.to(strength.device) + _EARLIER.to(strength.device) < 2


def _pairs(alphas: Tensor) -> tuple[tuple[str, int], ...]:
    """Return eight (operation, input) pairs, two for each node, of weights (E, O)."""
    candidates = alphas.clone()
    candidates[:, NONE] = -torch.inf
    strength, operation = candidates.max(-1)
    pairs, first = [], 0
    for node in NODE_EDGES:
        inputs = strength[first:first + len(node)].sort(descending=True, stable=True).indices[:2].tolist()
        pairs += [(PRIMITIVES[operation[first + i]], i) for i in inputs]
        first += len(node)
    return tuple(pairs)


class SearchCell(nn.Module):
    """Hold every candidate operation on each of 14 edges, and run the chosen ones.

    Edges are ordered by node: 0->2, 1->2, 0->3, 1->3, 2->3, ... The output of an edge is the sum of the outputs of its
    operations, each times its scale.
    """

    def __init__(self, channels_prev_prev: int, channels_prev: int, channels: int, reduction: bool,
                 reduction_prev: bool) -> None:
        super().__init__()
        self.kind = KINDS.index("reduce" if reduction else "normal")
        self.preprocess = nn.ModuleList(
            build_preprocess(channels_prev_prev, channels_prev, channels, reduction_prev, affine=False))
        self.stride = 2 if reduction else 1
        self.edges = nn.ModuleList(
            nn.ModuleList(build_operation(name, channels, edge_stride(source, reduction), affine=False, pool_norm=True)
                          for name in PRIMITIVES)
            for source, _ in DARTS.edges)
        self.out_channels = NODES * channels

    def forward(self, s0: Tensor, s1: Tensor, operations: EdgeOperations, scales: Tensor) -> Tensor:
        """Run the chosen operations of every edge.

        Args:
            s0: output (B, C', H, W) of the cell before the previous one.
            s1: output (B, C', H, W) of the previous cell.
            operations: operations that run on every edge.
            scales: factors of their outputs, (E, operations an edge).

        Returns:
            (B, 4 C, H / stride, W / stride).
        """
        with shared_states(s0, s1):
            states = [self.preprocess[0](s0), self.preprocess[1](s1)]
            edge = 0
            for _ in range(NODES):
                incoming = []
                for state in states:
                    incoming += run_edge(self.edges[edge], state, operations[edge], scales[edge], NONE)
                    edge += 1
                states.append(sum(incoming[1:], incoming[0]) if incoming else self._nothing(states[0]))
        return concatenate(states[2:])

    def _nothing(self, state: Tensor) -> Tensor:
        """Return the zeros of a node without input."""
        batch, channels, *size = state.shape
        return state.new_zeros(batch, channels, *(-(-length // self.stride) for length in size))


def edge_stride(source: int, reduction: bool) -> int:
    """Return the stride of an edge: 2 from the inputs of a reduction cell."""
    return 2 if reduction and source < 2 else 1


class DartsSupernet(Supernet, CellNetwork):
    """Hold the weights of all paths of DARTS cells, and A: a matrix (14, 8) for the normal and the reduction cell.

    Args:
        init_channels: C of the first cells.
        layers: number of cells.
        num_classes: K.
        tau: temperature τ of the Gumbel-softmax.
        alpha_std: standard deviation of the initial architecture parameters.
        generator: source of that initialisation; the weights use torch's global generator.
    """

    def __init__(self, init_channels: int = 16, layers: int = 8, num_classes: int = 10, tau: float = 0.1,
                 alpha_std: float = 1e-3, generator: torch.Generator | None = None) -> None:
        CellNetwork.__init__(self, SearchCell, init_channels, layers, num_classes)
        self.add_architecture(DARTS, tau, alpha_std, generator)

    def run_cell(self, cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
        """Run the operations of the current path in a cell."""
        assert isinstance(cell, SearchCell)
        path = self.current_path
        return cell(s0, s1, path.operations[cell.kind], path.scales[cell.kind])

    def idle_modules(self) -> set[nn.Module]:
        """Return the operations of all cells that the current path does not run."""
        path = self.path
        return set() if path is None else {module for cell in cast(Iterable[SearchCell], self.cells)
                                           for module in unused(cell.edges, path.operations[cell.kind])}

    def forward(self, images: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """Return the logits (B, K) of the current path.

        Args:
            images: (B, C, H, W) in [0, 1].
            outputs: a list to which the output (B, C', H', W') of every cell is appended.

        Raises:
            InputError: no path was chosen.
        """
        return cast(Tensor, CellNetwork.forward(self, images, outputs))  # without auxiliary head


@functools.cache
def _operation_cost(name: str, channels: int, stride: int, height: int, width: int) -> tuple[int, int]:
    with torch.device("meta"):
        operation = build_operation(name, channels, stride)
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
    table = torch.zeros(len(KINDS), EDGES, len(PRIMITIVES), 2, dtype=torch.float64)
    for cell_channels, reduction in cells:
        smaller = [-(-side // 2) if reduction else side for side in (height, width)]
        for edge, (source, _) in enumerate(DARTS.edges):
            stride = edge_stride(source, reduction)
            size = (height, width) if source < 2 else smaller
            table[int(reduction), edge] += torch.tensor(
                [_operation_cost(name, cell_channels, stride, *size) for name in PRIMITIVES], dtype=torch.float64)
        height, width = smaller
    # Pooling costs nothing, so the network of pools alone is what all networks share.
    return torch.tensor(measured_cost(network, image_shape), dtype=torch.float64), table.flatten(0, 1)
