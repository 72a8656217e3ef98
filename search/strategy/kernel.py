"""The prior covariance of the objectives of two architectures, from their gates, their sizes and their paths."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PARTS = ("an operation anywhere", "an operation in its row", "a pair of operations anywhere", "a pair in its two rows",
         "all rows together", "size", "size and all rows together", "paths")
"""What the parts of the covariance explain. A random architecture has a variance of about 1 in each."""

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
        hard: whether all gates are 0 or 1, and no gradient is asked for; then the covariance is about ten times faster.
    """

    gates: Tensor
    sizes: Tensor
    paths: Tensor
    hard: bool


def covariance(shares: Sequence[float], a: Encoded, b: Encoded) -> Tensor:
    """Return the covariance (m, n) between m and n architectures; differentiable.

    Args:
        shares: weight of each of the 8 parts; those of weight 0 are not computed.
        a: m architectures.
        b: n architectures.
    """
    total = torch.zeros((), dtype=a.gates.dtype)
    for share, part in zip(shares, _parts(a, b), strict=True):
        if share:
            total = total + share * part()
    return total.expand(len(a.gates), len(b.gates))


def covariances(a: Encoded, b: Encoded) -> Tensor:
    """Return every part (8, m, n) of the covariance."""
    return torch.stack([part() for part in _parts(a, b)])


def _parts(a: Encoded, b: Encoded) -> list[Callable[[], Tensor]]:
    """Return functions that compute the parts.

    With z = h - 1/O for the gates h of a row: the sums over operations and rows are linear, their squares pairwise.
    A product over all rows of 1 - r + r h h' falls by the factor 1 - r with every row that differs.
    """
    rows, operations = a.gates.shape[1:]
    single, pairs = _scales(rows, operations)
    anywhere = (a.gates.sum(1) - rows / operations) @ (b.gates.sum(1) - rows / operations).T
    if a.hard and b.hard:
        equal = a.gates.flatten(1) @ b.gates.flatten(1).T  # rows
        squares = equal * (1 - 1 / operations) ** 2 + (rows - equal) / operations**2
        together = torch.exp((rows - equal) * math.log1p(-CHANGE))
    else:
        each = torch.einsum("mro,nro->mnr", a.gates, b.gates)
        equal, squares = each.sum(-1), (each - 1 / operations).square().sum(-1)
        together = (1 - CHANGE + CHANGE * each).prod(-1)
    in_rows = equal - rows / operations
    return [
        lambda: anywhere / single, lambda: in_rows / single,
        lambda: anywhere.square() / (2 * pairs), lambda: (in_rows.square() - squares) / (2 * pairs),
        lambda: together, lambda: a.sizes @ b.sizes.T / a.sizes.shape[1],
        lambda: together * _near(a.sizes, b.sizes, 1.0),
        lambda: _near(a.paths, b.paths, SHARPNESS / max(a.paths.shape[1], 1))]


def _scales(rows: int, operations: int) -> tuple[float, float]:
    """Return the variance of the linear and of the pairwise features of a random architecture; 1 instead of 0."""
    return rows * (1 - 1 / operations), (rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2) or 1.0


def _near(a: Tensor, b: Tensor, sharpness: float) -> Tensor:
    """Return exp(-sharpness / 2 of the squared distance) (m, n) of features (m, F) and (n, F)."""
    distance = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return torch.exp(-sharpness / 2 * distance.clamp_min(0))


def variances(shares: Sequence[float], a: Encoded) -> Tensor:
    """Return the variances (n,): the diagonal of ``covariance`` of n architectures with themselves."""
    rows, operations = a.gates.shape[1:]
    single, pairs = _scales(rows, operations)
    anywhere = (a.gates.sum(1) - rows / operations).square().sum(-1)
    equal = a.gates.square().sum(-1)
    in_rows = equal.sum(-1) - rows / operations
    in_pairs = (in_rows.square() - (equal - 1 / operations).square().sum(-1)) / 2
    together = (1 - CHANGE + CHANGE * equal).prod(-1)
    parts = (anywhere / single, in_rows / single, anywhere.square() / (2 * pairs), in_pairs / pairs, together,
             a.sizes.square().mean(-1), together, torch.ones_like(together))
    return sum((share * part for share, part in zip(shares, parts, strict=True)), torch.zeros_like(together))


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
