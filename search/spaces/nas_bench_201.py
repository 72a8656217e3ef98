"""The space of NAS-Bench-201: one kind of cell, six edges, five operations (Dong and Yang, ICLR 2020)."""

import functools
from collections.abc import Hashable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from search.spaces.space import Space
from search.spaces.supernet import EdgeOperations, Supernet, run_edge, unused
from wsrnas.architectures.nas_bench_201 import EDGES, OPERATIONS, SPACE, STAGES, CellGraph
from wsrnas.architectures.nas_bench_201.network import StagedNetwork, nb201_operation
from wsrnas.quick.states import shared_states
from wsrnas.runtime.config import require

PUBLISHED_LAYERS = 15


class NasBench201(Space):
    """Search one cell of four nodes; the network has three stages of as many cells.

    A subclass may search fewer of the six edges; the others are ``none``.
    """

    name = SPACE
    help = "one cell, 6 edges and 5 operations; 15,625 graphs"
    layers_help = f"a multiple of {STAGES}; a preset has {PUBLISHED_LAYERS}, a small one {STAGES}"
    architecture = CellGraph
    operation_weights = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}  # noqa: RUF012 - a space has no state
    cells = ("cell",)
    edges = EDGES
    operations = OPERATIONS

    def supernet(self, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None) -> Supernet:
        """Build the supernet; ``layers`` counts the cells of all stages."""
        return SupernetNB201(self, init_channels, layers, num_classes, tau, alpha_std, generator)

    def inputs(self) -> tuple[int, ...]:
        """Return the first state, also where a subclass searches fewer edges."""
        return EDGES[0][0],

    def outputs(self) -> tuple[int, ...]:
        """Return the last state, also where a subclass searches fewer edges."""
        return EDGES[-1][1],

    def discretize(self, weights: Tensor) -> CellGraph:
        """Return the graph of the largest weights (1, E, O); ``none`` is an operation like the others."""
        return self.graph(weights.detach().cpu()[0].argmax(-1).tolist())

    def graph(self, choices: Iterable[int]) -> CellGraph:
        """Return the graph of choices (E,)."""
        chosen = dict(zip(self.edges, choices, strict=True))
        return CellGraph(tuple(self.operations[chosen[edge]] if edge in chosen else "none" for edge in EDGES))

    def encode(self, architecture: CellGraph) -> Tensor:
        """Return the choices (E,) of a graph."""
        fixed = [edge for edge, name in zip(EDGES, architecture.operations, strict=True)
                 if edge not in self.edges and name != "none"]
        require(not fixed, f"the graph {architecture} has an operation on the edges {fixed}; expected none there in "
                f"the space {self.name}")
        return torch.tensor([self.operations.index(architecture.operations[EDGES.index(edge)]) for edge in self.edges])

    def key(self, choices: Tensor) -> list[Hashable]:
        """Return a string for each of choices (n, E); graphs that share one have the same published results."""
        return [_key(self, tuple(row)) for row in choices.tolist()]

    def live(self, choices: Tensor) -> Tensor:
        """Return which edges (n, E) lie on a path from the input to the output without ``none``."""
        runs = (choices != self.none).T
        nodes = EDGES[-1][1] + 1
        reached = [torch.ones_like(runs[0])] + [torch.zeros_like(runs[0])] * (nodes - 1)
        needed = reached[::-1]
        for edge, (source, target) in enumerate(self.edges):
            reached[target] = reached[target] | reached[source] & runs[edge]
        for edge, (source, target) in reversed(list(enumerate(self.edges))):
            needed[source] = needed[source] | needed[target] & runs[edge]
        return torch.stack([reached[source] & needed[target] & runs[edge]
                            for edge, (source, target) in enumerate(self.edges)], -1)

    def fitting_layers(self, layers: int) -> int:
        """Return ``layers`` if it is a multiple of the stages, else the number for a preset as deep as that."""
        if layers % STAGES == 0:
            return layers
        return STAGES if layers < 2 * STAGES else PUBLISHED_LAYERS


@functools.cache
def _key(space: NasBench201, choices: tuple[int, ...]) -> str:
    """Return the unique string of a graph; there are 15,625."""
    return str(space.graph(choices).unique_string())


class SearchCell(nn.Module):
    """Hold every candidate operation on each edge of a graph, and run the chosen ones.

    A node is the sum of its edges, the last node is the output. The output of an edge is the sum of the outputs of its
    operations, each times its scale.
    """

    def __init__(self, space: NasBench201, channels: int) -> None:
        super().__init__()
        self.graph, self.none = space.edges, space.none
        self.edges = nn.ModuleList(
            nn.ModuleList(nb201_operation(name, channels, channels, affine=False) for name in space.operations)
            for _ in space.edges)

    def forward(self, features: Tensor, operations: EdgeOperations, scales: Tensor) -> Tensor:
        """Run the chosen operations of every edge.

        Args:
            features: (B, C, H, W).
            operations: operations that run on every edge.
            scales: factors of their outputs, (E, operations an edge).
        """
        with shared_states():
            states = [features]
            for node in range(1, EDGES[-1][1] + 1):
                incoming: list[Tensor] = []
                for number, (source, target) in enumerate(self.graph):
                    if target == node:
                        incoming += run_edge(self.edges[number], states[source], operations[number], scales[number],
                                             self.none)
                states.append(sum(incoming[1:], incoming[0]) if incoming else torch.zeros_like(features))
        return states[-1]


class SupernetNB201(Supernet, StagedNetwork):
    """Hold the weights of all paths of a graph, and A, one matrix (E, O).

    Args:
        space: the search space.
        init_channels: C of the first stage.
        layers: number of cells of all stages.
        num_classes: K.
        tau: temperature τ of the Gumbel-softmax.
        alpha_std: standard deviation of the initial architecture parameters.
        generator: source of that initialisation; the weights use torch's global generator.
    """

    def __init__(self, space: NasBench201, init_channels: int = 16, layers: int = PUBLISHED_LAYERS,
                 num_classes: int = 10, tau: float = 0.1, alpha_std: float = 1e-3,
                 generator: torch.Generator | None = None) -> None:
        space.check_layers(layers)
        StagedNetwork.__init__(self, lambda channels: SearchCell(space, channels), init_channels, layers // STAGES,
                               num_classes)
        self.add_architecture(space, tau, alpha_std, generator)

    def run_cell(self, cell: nn.Module, features: Tensor) -> Tensor:
        """Run the operations of the current path in a cell."""
        path = self.current_path
        return cell(features, path.operations[0], path.scales[0])

    def idle_modules(self) -> set[nn.Module]:
        """Return the operations of all cells that the current path does not run."""
        path = self.path
        return set() if path is None else {module for cell in cast(Iterable[SearchCell], self.cells)
                                           for module in unused(cell.edges, path.operations[0])}
