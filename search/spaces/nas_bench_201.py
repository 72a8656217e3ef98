"""The space of NAS-Bench-201: one kind of cell, six edges, five operations (Dong and Yang, ICLR 2020)."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable

from search.spaces.space import Space
from wsrnas.architectures.nas_bench_201 import EDGES, OPERATIONS, SPACE, STAGES, CellGraph
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from search.spaces.nas_bench_201_supernet import SupernetNB201
    from search.spaces.supernet import Supernet

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
                 generator: torch.Generator | None, channels: int = 3) -> Supernet:
        """Build the supernet; ``layers`` counts the cells of all stages."""
        return SupernetNB201(self, init_channels, layers, num_classes, tau, alpha_std, generator, channels)

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
        require(isinstance(architecture, CellGraph), f"{architecture} is not of the space {self.name}; expected a "
                "graph of NAS-Bench-201")
        fixed = [edge for edge, name in zip(EDGES, architecture.operations, strict=True)
                 if edge not in self.edges and name != "none"]
        require(not fixed, f"the graph {architecture} has an operation on the edges {fixed}; expected none there in "
                f"the space {self.name}")
        return torch.tensor([self.operations.index(architecture.operations[EDGES.index(edge)]) for edge in self.edges])

    def key(self, choices: Tensor | np.ndarray) -> list[Hashable]:
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
