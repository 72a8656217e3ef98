"""The supernet of DARTS cells for both searches: an edge runs one operation or a mixture of all."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wsrnas.genotype import KINDS, Genotype
from wsrnas.network import CellNetwork, build_preprocess
from wsrnas.operations import PRIMITIVES, build_operation
from wsrnas.runtime.errors import InputError

NODES = 4
EDGES = sum(range(2, NODES + 2))  # 14
NONE = PRIMITIVES.index("none")
EdgeOperations = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Path:
    """Describe what the supernet runs; it is resolved once, so that a forward pass never waits for the device.

    Attributes:
        gates: weights (2, E, O) of all operations in the normal and the reduction cell. Those of a sampled path (H of
            Wsr-NAS, Eq. 2) are on the CPU; the validation loss estimator reads them as ``encoding``.
        operations: operations that run, for each kind of cell and each edge: one in a path, all in a mixture.
        scales: factors of their outputs, (2, E, operations an edge), on the supernet's device.
    """

    gates: Tensor
    operations: tuple[EdgeOperations, ...]
    scales: Tensor

    @property
    def encoding(self) -> Tensor:
        """H as (2 E, O): the normal cell's edges, then the reduction cell's."""
        return self.gates.flatten(0, 1)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard Gumbel noise ξ on the CPU, so that a seed gives one path on every device."""
    exponential = torch.empty(shape).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()


def gumbel_softmax(alphas: Tensor, noise: Tensor, tau: float) -> Tensor:
    """Return H = softmax((A + ξ) / τ) over the last dimension (Wsr-NAS, Eq. 10)."""
    return ((alphas + noise) / tau).softmax(-1)


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
            nn.ModuleList(build_operation(name, channels, 2 if reduction and source < 2 else 1, affine=False,
                                          pool_norm=True) for name in PRIMITIVES)
            for node in range(NODES) for source in range(2 + node))
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
        states = [self.preprocess[0](s0), self.preprocess[1](s1)]
        edge = 0
        for _ in range(NODES):
            incoming = []
            for state in states:
                candidates = cast(nn.ModuleList, self.edges[edge])
                incoming += [candidates[operation](state) * scales[edge, place]
                             for place, operation in enumerate(operations[edge]) if operation != NONE]
                edge += 1
            states.append(sum(incoming[1:], incoming[0]) if incoming else self._nothing(states[0]))
        return torch.cat(states[2:], dim=1)

    def _nothing(self, state: Tensor) -> Tensor:
        """Return the zeros of a node without input."""
        batch, channels, *size = state.shape
        return state.new_zeros(batch, channels, *(-(-length // self.stride) for length in size))


class Supernet(CellNetwork):
    """Hold the weights of all paths and the architecture parameters A, one matrix (E, O) for each kind of cell.

    ``sample`` draws a path, ``use`` and ``mix`` take given gates, ``forward`` runs them. In Wsr-NAS the gradient of A
    comes through the validation loss estimator, never through the supernet. In RNAS it flows through the gates given to
    ``use`` or ``mix``.

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
        super().__init__(SearchCell, init_channels, layers, num_classes)
        self.tau = tau
        self.alphas_normal = nn.Parameter(alpha_std * torch.randn(EDGES, len(PRIMITIVES), generator=generator))
        self.alphas_reduce = nn.Parameter(alpha_std * torch.randn(EDGES, len(PRIMITIVES), generator=generator))
        self.path: Path | None = None

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return A: the matrices (E, O) of the normal and of the reduction cell."""
        return [self.alphas_normal, self.alphas_reduce]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but A."""
        own = {id(p) for p in self.architecture_parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def alphas(self) -> Tensor:
        """Return A as one tensor (2, E, O), with gradient."""
        return torch.stack(tuple(self.architecture_parameters()))

    def sample(self, generator: torch.Generator) -> Path:
        """Draw ξ, resolve the path once, and use it in every ``forward`` until the next sample."""
        with torch.no_grad():
            alphas = self.alphas().cpu()
            gates = gumbel_softmax(alphas, gumbel_noise(tuple(alphas.shape), generator), self.tau)
        return self.use(gates)

    def use(self, gates: Tensor) -> Path:
        """Make the path of given gates H (2, E, O) the current one.

        Each edge runs the operation with the largest gate and multiplies its output by that gate. If ``gates`` has a
        graph, a gradient flows to it.
        """
        scales, operations = gates.max(-1, keepdim=True)
        resolved = tuple(tuple(map(tuple, kind)) for kind in operations.tolist())
        self.path = Path(gates, resolved, scales.to(self.alphas_normal.device))
        return self.path

    def mix(self, weights: Tensor) -> Path:
        """Run all operations of every edge, weighted by ``weights`` (2, E, O) (DARTS, Eq. 2; RNAS, Eq. 1)."""
        every = (tuple(range(len(PRIMITIVES))),) * EDGES
        self.path = Path(weights, (every,) * len(KINDS), weights)
        return self.path

    @property
    def current_path(self) -> Path:
        """The path that ``forward`` runs.

        Raises:
            InputError: none was chosen yet.
        """
        if self.path is None:
            raise InputError("the supernet has no path yet: call sample(generator) before forward")
        return self.path

    def run_cell(self, cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
        """Run the operations of the current path in a cell."""
        assert isinstance(cell, SearchCell)
        path = self.current_path
        return cell(s0, s1, path.operations[cell.kind], path.scales[cell.kind])

    def forward(self, images: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """Return the logits (B, K) of the current path.

        Args:
            images: (B, C, H, W) in [0, 1].
            outputs: a list to which the output (B, C', H', W') of every cell is appended.

        Raises:
            InputError: no path was chosen.
        """
        return cast(Tensor, super().forward(images, outputs))  # without auxiliary head

    def genotype(self) -> Genotype:
        """Return the discrete cell of the current A by the rule of Wsr-NAS: ``discretize`` of A itself."""
        return discretize(self.alphas())

    def entropy(self) -> tuple[float, float]:
        """Return the mean entropy in nats of softmax(A) over an edge's operations, for both kinds of cell."""
        probabilities = self.alphas().detach().softmax(-1)
        entropies = -(probabilities * probabilities.clamp_min(1e-30).log()).sum(-1).mean(-1)
        return tuple(entropies.tolist())


def discretize(weights: Tensor) -> Genotype:
    """Return the discrete cell of weights (2, E, O).

    A node keeps the two incoming edges with the largest weight over the operations other than ``none``, each with that
    operation, the stronger edge first.

    Wsr-NAS' code compares A itself; DARTS and RNAS compare softmax(A), where an edge whose mass is on ``none`` is weak.
    """
    normal, reduce = map(_pairs, weights.detach().cpu())
    concat = tuple(range(2, 2 + NODES))
    return Genotype(normal, concat, reduce, concat)


def _pairs(alphas: Tensor) -> tuple[tuple[str, int], ...]:
    """Return eight (operation, input) pairs, two for each node, of weights (E, O)."""
    candidates = alphas.clone()
    candidates[:, NONE] = -torch.inf
    strength, operation = candidates.max(-1)
    pairs, first = [], 0
    for node in range(NODES):
        inputs = strength[first:first + 2 + node].sort(descending=True, stable=True).indices[:2].tolist()
        pairs += [(PRIMITIVES[operation[first + i]], i) for i in inputs]
        first += 2 + node
    return tuple(pairs)


def genotype_gates(genotype: Genotype) -> Tensor:
    """Return gates (2, E, O) of a discretised supernet: the genotype's operations, and ``none`` on the other edges.

    Args:
        genotype: a cell of this search space, as ``Supernet.genotype`` returns it.
    """
    gates = torch.zeros(len(KINDS), EDGES, len(PRIMITIVES))
    gates[:, :, NONE] = 1
    for kind, name in enumerate(KINDS):
        first = 0
        for number, edges in enumerate(genotype.nodes(name)):
            for operation, source in edges:
                gates[kind, first + source] = 0
                gates[kind, first + source, PRIMITIVES.index(operation)] = 1
            first += 2 + number
    return gates
