"""The common part of all supernets: the architecture parameters A, the sampling of a path, mixtures."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from wsrnas.runtime.errors import InputError

EdgeOperations = tuple[tuple[int, ...], ...]
EdgeScales = tuple[tuple[Tensor | None, ...], ...]
Place = tuple[int, int, int]  # kind of cell, edge, and number among the operations that run there
NONE = "none"  # the operation without output


@dataclass(frozen=True)
class Path:
    """Describe what the supernet runs; it is resolved once, so that a forward pass never waits for the device.

    Attributes:
        gates: weights (M, E, O) of all operations in each of the M kinds of cell. Those of a sampled path (H of
            Wsr-NAS, Eq. 2) are on the CPU; the validation loss estimator reads them as ``encoding``.
        operations: operations that run, for each kind of cell and each edge: one in a path, all in a mixture.
        scales: factors of their outputs in the same order, numbers on the supernet's device; None where it is 1.
    """

    gates: Tensor
    operations: tuple[EdgeOperations, ...]
    scales: tuple[EdgeScales, ...]

    @property
    def encoding(self) -> Tensor:
        """H as (M E, O): the edges of the first kind of cell, then those of the next."""
        return self.gates.flatten(0, 1)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard Gumbel noise ξ on the CPU, so that a seed gives one path on every device."""
    exponential = torch.empty(shape).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()


def gumbel_softmax(alphas: Tensor, noise: Tensor, tau: float) -> Tensor:
    """Return H = softmax((A + ξ) / τ) over the last dimension (Wsr-NAS, Eq. 10)."""
    return ((alphas + noise) / tau).softmax(-1)


class Searched(Protocol):
    """Describe what a supernet needs to know of its search space; ``search.spaces.space.Space`` is one."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Kinds of cell."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Edges of a cell."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the candidate operations."""

    def discretize(self, weights: Tensor) -> Any:
        """Return the architecture of weights (M, E, O)."""


class Supernet(nn.Module):
    """Hold the weights of all paths and the architecture parameters A, one matrix (E, O) for each kind of cell.

    ``sample`` draws a path, ``use`` and ``mix`` take given gates, ``forward`` runs them. In Wsr-NAS the gradient of A
    comes through the validation loss estimator, never through the supernet. In RNAS it flows through the gates given to
    ``use`` or ``mix``.

    A subclass builds its modules, calls ``add_architecture``, and defines ``forward(images, outputs=None)``, which
    runs ``current_path`` and appends the output of every cell to ``outputs``.
    """

    space: Searched
    tau: float
    path: Path | None

    def add_architecture(self, space: Searched, tau: float, alpha_std: float,
                         generator: torch.Generator | None) -> None:
        """Create A, a parameter ``alphas_<kind>`` for each kind of cell.

        Args:
            space: the search space.
            tau: temperature τ of the Gumbel-softmax.
            alpha_std: standard deviation of the initial A.
            generator: source of the initial A; None: torch's global generator.
        """
        self.space, self.tau, self.path = space, tau, None
        for kind in space.cells:
            values = alpha_std * torch.randn(len(space.edges), len(space.operations), generator=generator)
            self.register_parameter(f"alphas_{kind}", nn.Parameter(values))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return A: one matrix (E, O) for each kind of cell."""
        return [self.get_parameter(f"alphas_{kind}") for kind in self.space.cells]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but A."""
        own = {id(p) for p in self.architecture_parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def alphas(self) -> Tensor:
        """Return A as one tensor (M, E, O), with gradient."""
        return torch.stack(tuple(self.architecture_parameters()))

    def sample(self, generator: torch.Generator) -> Path:
        """Draw ξ, resolve the path once, and use it in every ``forward`` until the next sample."""
        with torch.no_grad():
            alphas = self.alphas().cpu()
            gates = gumbel_softmax(alphas, gumbel_noise(tuple(alphas.shape), generator), self.tau)
        return self.use(gates)

    def use(self, gates: Tensor) -> Path:
        """Make the path of given gates H (M, E, O) the current one.

        Each edge runs the operation with the largest gate and multiplies its output by that gate. If ``gates`` has a
        graph, a gradient flows to it.
        """
        self.path = self.resolve(gates)
        return self.path

    def resolve(self, gates: Tensor) -> Path:
        """Return the path of given gates H (M, E, O), as ``use`` does, without making it the current one."""
        scales, operations = gates.max(-1, keepdim=True)
        resolved = tuple(tuple(map(tuple, kind)) for kind in operations.tolist())
        return Path(gates, resolved, self._resolved_scales(scales))

    def mix(self, weights: Tensor) -> Path:
        """Run all operations of every edge, weighted by ``weights`` (M, E, O) (DARTS, Eq. 2; RNAS, Eq. 1)."""
        every = (tuple(range(len(self.space.operations))),) * len(self.space.edges)
        self.path = Path(weights, (every,) * len(self.space.cells), self._resolved_scales(weights))
        return self.path

    def _resolved_scales(self, scales: Tensor) -> tuple[EdgeScales, ...]:
        """Return factors (M, E, N) one by one, None for a factor that is always 1."""
        fixed = scales.device.type == "cpu" and not scales.requires_grad  # elsewhere, the host would wait for them
        kinds, edges, several = scales.shape
        ones = (scales == 1).tolist() if fixed else [[[False] * several] * edges] * kinds
        numbers = scales.to(self.architecture_parameters()[0].device)
        return tuple(tuple(tuple(None if is_one else number for number, is_one in zip(*edge, strict=True))
                           for edge in zip(*kind, strict=True)) for kind in zip(numbers, ones, strict=True))

    def edges_by_kind(self) -> Iterable[tuple[int, nn.ModuleList]]:
        """Return for every cell the number of its kind, and its edges, each with its O candidate operations."""
        return ()

    def idle_modules(self) -> set[nn.Module]:
        """Return the candidate operations that the current path does not run; without a path, none."""
        path = self.path
        return set() if path is None else {module for kind, edges in self.edges_by_kind()
                                           for module in unused(edges, path.operations[kind])}

    def output_scales(self) -> dict[Place, tuple[Tensor, list[nn.Module]]]:
        """Return the current path's factors other than 1, each with the operations whose outputs it multiplies."""
        found: dict[Place, tuple[Tensor, list[nn.Module]]] = {}
        for kind, edges in self.edges_by_kind() if self.path else ():
            for edge, operations in enumerate(self.current_path.operations[kind]):
                for number, operation in enumerate(operations):
                    scale = self.current_path.scales[kind][edge][number]
                    if scale is not None and self.space.operations[operation] != NONE:
                        candidates = cast(nn.ModuleList, edges[edge])
                        found.setdefault((kind, edge, number), (scale, []))[1].append(candidates[operation])
        return found

    @contextmanager
    def scaled_elsewhere(self, places: Collection[Place]) -> Iterator[None]:
        """Leave out these factors of ``output_scales`` for a while, because the operations multiply by themselves."""
        path = self.current_path
        self.path = replace(path, scales=tuple(
            tuple(tuple(None if (kind, edge, number) in places else scale for number, scale in enumerate(scales))
                  for edge, scales in enumerate(edges)) for kind, edges in enumerate(path.scales)))
        try:
            yield
        finally:
            self.path = path

    @property
    def current_path(self) -> Path:
        """The path that ``forward`` runs.

        Raises:
            InputError: none was chosen yet.
        """
        if self.path is None:
            raise InputError("the supernet has no path yet: call sample(generator) before forward")
        return self.path

    def genotype(self) -> Any:
        """Return the architecture of the current A by the rule of Wsr-NAS: the space's ``discretize`` of A itself."""
        return self.space.discretize(self.alphas())

    def entropy(self) -> tuple[float, ...]:
        """Return the mean entropy in nats of softmax(A) over an edge's operations, for each kind of cell."""
        probabilities = self.alphas().detach().softmax(-1)
        entropies = -(probabilities * probabilities.clamp_min(1e-30).log()).sum(-1).mean(-1)
        return tuple(entropies.tolist())


def unused(edges: Iterable[Any], operations: EdgeOperations) -> Iterable[nn.Module]:
    """Yield the candidates, of every edge O, that are not among the operations that run on it."""
    for candidates, chosen in zip(edges, operations, strict=True):
        yield from (candidate for number, candidate in enumerate(candidates) if number not in chosen)


def run_edge(candidates: nn.Module, state: Tensor, operations: Sequence[int], scales: Sequence[Tensor | None],
             none: int) -> list[Tensor]:
    """Return the scaled outputs of the operations that run on an edge, without those of ``none``.

    Args:
        candidates: the O operations of the edge.
        state: input of the edge.
        operations: indices of those that run.
        scales: factors of their outputs, one for each; None: 1.
        none: index of the operation without output; -1 if the space has none.
    """
    modules = cast(nn.ModuleList, candidates)
    outputs = [(modules[operation](state), scale) for operation, scale in zip(operations, scales, strict=True)
               if operation != none]
    return [output if scale is None else output * scale for output, scale in outputs]
