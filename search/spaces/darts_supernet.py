"""The supernet of DARTS cells: every candidate operation on each of the 14 edges of a cell."""

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from search.spaces.space import Space
from search.spaces.supernet import EdgeOperations, EdgeScales, Supernet, run_edge
from wsrnas.genotype import KINDS
from wsrnas.network import CellNetwork, build_preprocess
from wsrnas.operations import build_operation
from wsrnas.quick.gradients import concatenate
from wsrnas.quick.states import shared_states


class SearchCell(nn.Module):
    """Hold every candidate operation on each of 14 edges, and run the chosen ones.

    Edges are ordered by node: 0->2, 1->2, 0->3, 1->3, 2->3, ... The output of an edge is the sum of the outputs of its
    operations, each times its scale.
    """

    def __init__(self, space: Space, channels_prev_prev: int, channels_prev: int, channels: int, reduction: bool,
                 reduction_prev: bool) -> None:
        super().__init__()
        self.none, self.nodes = space.none, len(space.outputs())
        self.kind = KINDS.index("reduce" if reduction else "normal")
        self.preprocess = nn.ModuleList(
            build_preprocess(channels_prev_prev, channels_prev, channels, reduction_prev, affine=False))
        self.stride = 2 if reduction else 1
        self.edges = nn.ModuleList(
            nn.ModuleList(build_operation(name, channels, edge_stride(source, reduction), affine=False, pool_norm=True)
                          for name in space.operations)
            for source, _ in space.edges)
        self.out_channels = self.nodes * channels

    def forward(self, s0: Tensor, s1: Tensor, operations: EdgeOperations, scales: EdgeScales) -> Tensor:
        """Run the chosen operations of every edge.

        Args:
            s0: output (B, C', H, W) of the cell before the previous one.
            s1: output (B, C', H, W) of the previous cell.
            operations: operations that run on every edge.
            scales: factors of their outputs, for every edge; None: 1.

        Returns:
            (B, 4 C, H / stride, W / stride).
        """
        with shared_states(s0, s1):
            states = [self.preprocess[0](s0), self.preprocess[1](s1)]
            edge = 0
            for _ in range(self.nodes):
                incoming = []
                for state in states:
                    incoming += run_edge(self.edges[edge], state, operations[edge], scales[edge], self.none)
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
        space: the search space.
        init_channels: C of the first cells.
        layers: number of cells.
        num_classes: K.
        tau: temperature τ of the Gumbel-softmax.
        alpha_std: standard deviation of the initial architecture parameters.
        generator: source of that initialisation; the weights use torch's global generator.
        channels: channels of the images.
    """

    def __init__(self, space: Space, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None, channels: int = 3) -> None:
        CellNetwork.__init__(self, partial(SearchCell, space), init_channels, layers, num_classes, channels)
        self.add_architecture(space, tau, alpha_std, generator)

    def run_cell(self, cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
        """Run the operations of the current path in a cell."""
        assert isinstance(cell, SearchCell)
        path = self.current_path
        return cell(s0, s1, path.operations[cell.kind], path.scales[cell.kind])

    def edges_by_kind(self) -> Iterable[tuple[int, nn.ModuleList]]:
        """Return for every cell the number of its kind, and its edges."""
        return ((cell.kind, cell.edges) for cell in cast(Iterable[SearchCell], self.cells))

    def forward(self, images: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """Return the logits (B, K) of the current path.

        Args:
            images: (B, C, H, W) in [0, 1].
            outputs: a list to which the output (B, C', H', W') of every cell is appended.

        Raises:
            InputError: no path was chosen.
        """
        return cast(Tensor, CellNetwork.forward(self, images, outputs))  # without auxiliary head
