"""The prior covariance of the objectives of two architectures, from their gates, their sizes and their paths."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Pull = Callable[[Array, Array], tuple[Array, Array, Array]]

CHANGE = 0.3
"""Share of the covariance that is lost when one row changes, in the parts about all rows together."""

SHARPNESS = 4.0
"""The part about paths falls to exp(-SHARPNESS / 2) where each of its features differs by 1."""

FEATURES = 256  # random features for a draw of a part that has no finite ones


class Encoded(NamedTuple):
    """Architectures as the covariance sees them.

    Attributes:
        gates: (n, R, O).
        sizes: standardised sizes (n, F).
        paths: standardised numbers of paths (n, P); P is 0 where they are not used.
        hard: whether all gates are 0 or 1, and no gradient is asked for; then the covariance is computed faster.
    """

    gates: Tensor
    sizes: Tensor
    paths: Tensor
    hard: bool


class Covariance:
    """Compute the covariance of architectures with those that were measured, and their variance.

    With z = h - 1/O for the gates h of a row: the sums over operations and rows are linear, their squares pairwise.
    A product over all rows of 1 - r + r h h' falls by the factor 1 - r with every row that differs.

    Args:
        shares: weight of each of the 8 parts.
        measured: n architectures.
    """

    def __init__(self, shares: Sequence[float], measured: Encoded) -> None:
        self.shares, self.measured = shares, measured
        _, self.rows, self.operations = measured.gates.shape
        self.counts = self._counts(measured.gates)
        self.half_sizes, self.half_paths = _half_square(measured.sizes), _half_square(measured.paths)
        single, pairs = _scales(self.rows, self.operations)
        anywhere, in_row, pair, row_pair, self.together, size, self.sized, self.paths = shares
        self.sharpness = SHARPNESS / max(measured.paths.shape[1], 1)
        # How much each product of features adds; for those of rows, as a polynomial in what is not centred.
        self.anywhere, self.pair, self.size = anywhere / single, pair / (2 * pairs), size / measured.sizes.shape[1]
        self.row_pair = row_pair / (2 * pairs)
        self.in_row = in_row / single - 2 * self.row_pair * (self.rows - 1) / self.operations
        self.constant = (self.row_pair * self.rows * (self.rows - 1) / self.operations**2
                         - in_row / single * self.rows / self.operations)

    def __call__(self, a: Encoded) -> tuple[Tensor, Tensor]:
        """Return the covariance (m, n) of m architectures with the measured ones, and their variances (m,)."""
        if a.hard and self.measured.hard:
            return self.hard(a)
        return cast(tuple[Tensor, Tensor], _Differentiable.apply(a.gates, a.sizes, a.paths, self))

    def hard(self, a: Encoded) -> tuple[Tensor, Tensor]:
        """Return the same of one-hot gates, without derivatives, from the number of equal rows.

        A part without a share is not computed.
        """
        measured = self.measured
        equal = (a.gates.flatten(1).float() @ measured.gates.flatten(1).float().T).double()  # exact: at most R
        counts, half_sizes = self._counts(a.gates), _half_square(a.sizes)
        found = self._of_rows(equal, equal).add_(self._anywhere(counts @ self.counts.T))
        if self.size or self.sized:
            product = a.sizes @ measured.sizes.T
            found.add_(product, alpha=self.size)
        lost = (self.rows - equal).mul_(math.log1p(-CHANGE))
        if self.together:
            found.add_(lost.exp(), alpha=self.together)
        if self.sized:
            lost.add_(product).sub_(half_sizes.unsqueeze(1)).sub_(self.half_sizes)
            found.add_(lost.exp_(), alpha=self.sized)
        if self.paths:
            found.add_(self._near_paths(a.paths), alpha=self.paths)
        own = self._anywhere(counts.square().sum(1)) + 2 * self.size * half_sizes
        return found, own + (self._of_rows(self.rows, self.rows) + self.together + self.sized + self.paths)

    def soft(self, gates: Array, sizes: Array, paths: Array) -> tuple[Array, Array, Pull]:
        """Return the same of any gates, and a function from the derivatives by both to those by gates, sizes and paths.

        The variance is computed like a last column of the covariance. In numpy small steps cost less than in torch.
        """
        other, counts, half_sizes = self._arrays, self._counts(gates), _half_square(sizes)[:, None]
        own = np.square(gates).sum(2).T[:, :, None]
        equal = np.concatenate([gates.transpose(1, 0, 2) @ other.columns, own], 2)  # (R, m, n + 1)
        anywhere = np.concatenate([counts @ other.counts.T, np.square(counts).sum(1, keepdims=True)], 1)
        product, one = sizes @ other.sizes.T, np.ones_like(half_sizes)
        near = np.concatenate([np.exp(product - half_sizes - _half_square(other.sizes)), one], 1)
        near_paths = np.exp(self.sharpness * (paths @ other.paths.T - _half_square(paths)[:, None]
                                              - _half_square(other.paths)))
        kept, total = equal * CHANGE + (1 - CHANGE), equal.sum(0)
        together, slope = kept.prod(0), self.sized * near + self.together
        found = (self._anywhere(anywhere) + self._of_rows(total, np.square(equal).sum(0)) + slope * together
                 + self.size * np.concatenate([product, 2 * half_sizes], 1)
                 + self.paths * np.concatenate([near_paths, one], 1))

        def pull(of_found: Array, of_own: Array) -> tuple[Array, Array, Array]:
            of = np.concatenate([of_found, of_own[:, None]], 1)
            of_together, of_pair = of * together, 2 * self.row_pair * of
            of_equal = (CHANGE * slope * of_together) / kept
            of_equal += of_pair * total + self.in_row * of
            of_equal -= of_pair * equal
            of_anywhere = of * (2 * self.pair * anywhere + self.anywhere)
            of_counts = of_anywhere[:, :-1] @ other.counts + 2 * of_anywhere[:, -1:] * counts
            of_gates = (of_equal[:, :, :-1] @ other.rows).transpose(1, 0, 2) + of_counts[:, None]
            of_gates += 2 * of_equal[:, :, -1].T[:, :, None] * gates
            of_near = (self.sized * of_together * near)[:, :-1]
            of_sizes = (self.size * of_found + of_near) @ other.sizes
            of_sizes += (2 * self.size * of_own[:, None] - of_near.sum(1, keepdims=True)) * sizes
            of_near = self.paths * self.sharpness * of_found * near_paths
            return of_gates, of_sizes, of_near @ other.paths - of_near.sum(1, keepdims=True) * paths
        return found[:, :-1], found[:, -1], pull

    @functools.cached_property
    def _arrays(self) -> "_Arrays":
        """The measured architectures, as ``soft`` reads them."""
        gates, sizes, paths = (part.detach().numpy() for part in self.measured[:3])
        return _Arrays(sizes, paths, self._counts(gates), np.ascontiguousarray(gates.transpose(1, 0, 2)),
                       np.ascontiguousarray(gates.transpose(1, 2, 0)))

    def _counts(self, gates: Any) -> Any:
        """Return the centred sums (m, O) of gates (m, R, O) over the rows."""
        return gates.sum(1) - self.rows / self.operations

    def _anywhere(self, product: Any) -> Any:
        """Return the parts about operations and pairs anywhere, from the product of such sums."""
        return product * (self.pair * product + self.anywhere)

    def _of_rows(self, total: Any, squares: Any) -> Any:
        """Return the parts about rows and pairs of them, from the sums of h h' and of its square over the rows."""
        return total * (self.row_pair * total + self.in_row) - self.row_pair * squares + self.constant

    def _near_paths(self, paths: Tensor) -> Tensor:
        """Return exp(-sharpness / 2 of the squared distance) (m, n) of paths (m, P)."""
        product = paths @ self.measured.paths.T
        return ((product - _half_square(paths).unsqueeze(1) - self.half_paths) * self.sharpness).exp_()


class _Arrays(NamedTuple):
    """Sizes (n, F), paths (n, P), sums of the gates (n, O), and the gates as (R, n, O) and (R, O, n)."""

    sizes: Array
    paths: Array
    counts: Array
    rows: Array
    columns: Array


class _Differentiable(torch.autograd.Function):
    """Give torch the derivatives that ``Covariance.soft`` writes out; torch would find them in many small steps."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, sizes: Tensor, paths: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
        *found, ctx.pull = covariance.soft(*(part.detach().numpy() for part in (gates, sizes, paths)))
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    @staticmethod
    def backward(ctx: Any, of_found: Tensor, of_own: Tensor) -> tuple[Tensor | None, ...]:
        return *map(torch.from_numpy, ctx.pull(of_found.numpy(), of_own.numpy())), None


def _half_square(features: Any) -> Any:
    """Return half of the squared length (m,) of features (m, F)."""
    return (features * features).sum(1) / 2


def _scales(rows: int, operations: int) -> tuple[float, float]:
    """Return the variance of the linear and of the pairwise features of a random architecture; 1 instead of 0."""
    return rows * (1 - 1 / operations) or 1.0, rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2 or 1.0


def prior_draw(shares: Sequence[float], example: Encoded, generator: torch.Generator) -> Callable[[Encoded], Tensor]:
    """Draw a function (architectures -> values (n,)) of the prior, whose covariance is the weighted sum of the parts.

    The linear and pairwise parts have a weight for every feature; the others 256 random features.

    Args:
        shares: variance of each of the 8 parts.
        example: any architectures; they give the numbers of rows, operations and features.
        generator: CPU source of the draw.
    """
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def waves(features: int, sharpness: float) -> tuple[Tensor, Tensor]:
        return (math.sqrt(sharpness) * normal(features, FEATURES),
                2 * math.pi * torch.rand(FEATURES, generator=generator, dtype=torch.float64))

    (_, rows, operations), sizes, paths = example.gates.shape, example.sizes.shape[1], example.paths.shape[1]
    single, pairs = _scales(rows, operations)
    deviations = torch.tensor(shares, dtype=torch.float64).clamp_min(0).sqrt()
    width = rows * operations
    later = torch.triu(torch.ones(rows, rows, dtype=torch.float64), 1).repeat_interleave(operations, 0)
    between = later.repeat_interleave(operations, 1) * normal(width, width)
    anywhere, in_row, of_size = normal(operations), normal(width), normal(sizes)
    pair = normal(operations, operations)
    signs = [torch.randint(0, 2, (FEATURES, rows, operations), generator=generator).double() * 2 - 1 for _ in range(2)]
    weights = [normal(FEATURES) * math.sqrt(1 / FEATURES) for _ in range(3)]
    by_size, by_paths = waves(sizes, 1.0), waves(paths, SHARPNESS / max(paths, 1))

    def together(gates: Tensor, sign: Tensor) -> Tensor:
        factors = torch.einsum("nro,fro->nfr", gates, sign)
        return (math.sqrt(1 - CHANGE) + math.sqrt(CHANGE) * factors).prod(-1)

    def near(features: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
        return math.sqrt(2) * torch.cos(features @ frequencies + phases)

    def function(a: Encoded) -> Tensor:
        z = a.gates - 1 / operations
        flat, counts = z.flatten(1), z.sum(1)
        values = torch.stack([
            counts @ anywhere / math.sqrt(single), flat @ in_row / math.sqrt(single),
            ((counts @ pair) * counts).sum(1) / math.sqrt(2 * pairs),
            ((flat @ between) * flat).sum(1) / math.sqrt(pairs),
            together(a.gates, signs[0]) @ weights[0], a.sizes @ of_size / math.sqrt(sizes),
            together(a.gates, signs[1]) * near(a.sizes, *by_size) @ weights[1], near(a.paths, *by_paths) @ weights[2]])
        return deviations @ values
    return function
