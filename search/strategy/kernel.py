"""The prior covariance of the objectives of two architectures, from their gates and their sizes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

PARTS = ("an operation anywhere", "an operation in its row", "a pair of operations anywhere", "a pair in its two rows",
         "all rows together", "size", "size and all rows together")
"""What the parts of the covariance explain. A random architecture has a variance of about 1 in each."""

CHANGE = 0.3
"""Share of the covariance that is lost when one row changes, in the parts about all rows together."""

FEATURES = 256  # random features for a draw of a part that has no finite ones


def covariances(a: Tensor, size_a: Tensor, b: Tensor, size_b: Tensor) -> Tensor:
    """Return the covariance (7, m, n) of every part between m and n architectures; differentiable.

    With z = h - 1/O for the gates h of a row: the sums over operations and rows are linear, their squares pairwise.
    A product over all rows of 1 - r + r h h' falls by the factor 1 - r with every row that differs.

    Args:
        a: gates (m, R, O).
        size_a: standardised sizes (m, F).
        b: gates (n, R, O).
        size_b: standardised sizes (n, F).
    """
    rows, operations = a.shape[1:]
    single, pairs = rows * (1 - 1 / operations), rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2
    anywhere = (a.sum(1) - rows / operations) @ (b.sum(1) - rows / operations).T
    equal = torch.einsum("mro,nro->mnr", a, b)
    in_rows = equal.sum(-1) - rows / operations
    in_pairs = (in_rows.square() - (equal - 1 / operations).square().sum(-1)) / 2
    together = (1 - CHANGE + CHANGE * equal).prod(-1)
    return _stack(anywhere, in_rows, in_pairs, together, single, pairs, size_a, size_b)


def hard_covariances(a: Tensor, size_a: Tensor, b: Tensor, size_b: Tensor) -> Tensor:
    """Return ``covariances`` of one-hot gates, from the number of equal rows: about ten times faster."""
    rows, operations = a.shape[1:]
    single, pairs = rows * (1 - 1 / operations), rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2
    anywhere = (a.sum(1) - rows / operations) @ (b.sum(1) - rows / operations).T
    equal = a.flatten(1) @ b.flatten(1).T
    in_rows = equal - rows / operations
    squares = equal * (1 - 1 / operations) ** 2 + (rows - equal) / operations ** 2
    together = torch.exp((rows - equal) * math.log1p(-CHANGE))
    return _stack(anywhere, in_rows, (in_rows.square() - squares) / 2, together, single, pairs, size_a, size_b)


def _stack(anywhere: Tensor, in_rows: Tensor, in_pairs: Tensor, together: Tensor, single: float, pairs: float,
           size_a: Tensor, size_b: Tensor) -> Tensor:
    """Scale the parts and add those of the size."""
    distance = torch.cdist(size_a, size_b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([anywhere / single, in_rows / single, anywhere.square() / (2 * pairs), in_pairs / pairs,
                        together, size_a @ size_b.T / size_a.shape[1], together * torch.exp(-distance / 2)])


def variances(gates: Tensor, sizes: Tensor) -> Tensor:
    """Return the variance (7, n) of every part: the diagonal of ``covariances`` of gates (n, R, O) with themselves."""
    rows, operations = gates.shape[1:]
    single, pairs = rows * (1 - 1 / operations), rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2
    anywhere = (gates.sum(1) - rows / operations).square().sum(-1)
    equal = gates.square().sum(-1)
    in_rows = equal.sum(-1) - rows / operations
    in_pairs = (in_rows.square() - (equal - 1 / operations).square().sum(-1)) / 2
    together = (1 - CHANGE + CHANGE * equal).prod(-1)
    return torch.stack([anywhere / single, in_rows / single, anywhere.square() / (2 * pairs), in_pairs / pairs,
                        together, sizes.square().mean(-1), together])


def prior_draw(shares: Tensor, rows: int, operations: int, sizes: int,
               generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    """Draw a function (gates, sizes) -> (n,) of the prior, whose covariance is the weighted sum of the parts.

    The linear and pairwise parts have a weight for every feature; the others 256 random features.

    Args:
        shares: variance (7,) of each part.
        rows: R.
        operations: O.
        sizes: F.
        generator: CPU source of the draw.
    """
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    single, pairs = rows * (1 - 1 / operations), rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2
    deviations = shares.clamp_min(0).sqrt()
    width = rows * operations
    later = torch.triu(torch.ones(rows, rows, dtype=torch.float64), 1).repeat_interleave(operations, 0)
    between = later.repeat_interleave(operations, 1) * normal(width, width)
    anywhere, in_row, of_size = normal(operations), normal(width), normal(sizes)
    pair = normal(operations, operations)
    signs = [torch.randint(0, 2, (FEATURES, rows, operations), generator=generator).double() * 2 - 1 for _ in range(2)]
    weights = [normal(FEATURES) * math.sqrt(1 / FEATURES) for _ in range(2)]
    frequencies = normal(FEATURES, sizes)
    phases = 2 * math.pi * torch.rand(FEATURES, generator=generator, dtype=torch.float64)

    def together(gates: Tensor, sign: Tensor) -> Tensor:
        factors = torch.einsum("nro,fro->nfr", gates, sign)
        return (math.sqrt(1 - CHANGE) + math.sqrt(CHANGE) * factors).prod(-1)

    def function(gates: Tensor, size: Tensor) -> Tensor:
        z = gates - 1 / operations
        flat, counts = z.flatten(1), z.sum(1)
        values = torch.stack([
            counts @ anywhere / math.sqrt(single), flat @ in_row / math.sqrt(single),
            ((counts @ pair) * counts).sum(1) / math.sqrt(2 * pairs),
            ((flat @ between) * flat).sum(1) / math.sqrt(pairs),
            together(gates, signs[0]) @ weights[0], size @ of_size / math.sqrt(sizes),
            together(gates, signs[1]) * math.sqrt(2) * torch.cos(size @ frequencies.T + phases) @ weights[1]])
        return deviations @ values
    return function
