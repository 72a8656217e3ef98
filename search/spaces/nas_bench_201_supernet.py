"""The supernet of NAS-Bench-201: every candidate operation on each edge of a graph."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from search.spaces.space import Space
from search.spaces.supernet import EdgeOperations, EdgeScales, Supernet, run_edge
from wsrnas.architectures.nas_bench_201 import EDGES, STAGES
from wsrnas.architectures.nas_bench_201.network import StagedNetwork, nb201_operation
from wsrnas.quick.states import shared_states


class SearchCell(nn.Module):
    """Hold every candidate operation on each edge of a graph, and run the chosen ones.

    A node is the sum of its edges, the last node is the output. The output of an edge is the sum of the outputs of its
    operations, each times its scale.
    """

    def __init__(self, space: Space, channels: int) -> None:
        super().__init__()
        self.graph, self.none = space.edges, space.none
        self.edges = nn.ModuleList(
            nn.ModuleList(nb201_operation(name, channels, channels, affine=False) for name in space.operations)
            for _ in space.edges)

    def forward(self, features: Tensor, operations: EdgeOperations, scales: EdgeScales) -> Tensor:
        """Run the chosen operations of every edge.

        Args:
            features: (B, C, H, W).
            operations: operations that run on every edge.
            scales: factors of their outputs, for every edge; None: 1.
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
        channels: channels of the images.
    """

    def __init__(self, space: Space, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None, channels: int = 3) -> None:
        space.check_layers(layers)
        StagedNetwork.__init__(self, lambda channels: SearchCell(space, channels), init_channels, layers // STAGES,
                               num_classes, channels)
        self.add_architecture(space, tau, alpha_std, generator)

    def run_cell(self, cell: nn.Module, features: Tensor) -> Tensor:
        """Run the operations of the current path in a cell."""
        path = self.current_path
        return cell(features, path.operations[0], path.scales[0])

    def edges_by_kind(self) -> Iterable[tuple[int, nn.ModuleList]]:
        """Return for every cell the number of its kind, 0, and its edges."""
        return ((0, cell.edges) for cell in cast(Iterable[SearchCell], self.cells))
