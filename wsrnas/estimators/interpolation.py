"""Averages of noises of neighbouring strengths: Eq. 6, corrected (WA-ANE) and as printed (WA-ANE-paper).

Shapes: B batch, C channels, H W image, S source strengths, T target strengths. Strengths are L-inf radii
in pixels of [0,1]; source strengths ascend along S.
"""

import torch
from torch import Tensor

from wsrnas.estimators.base import NoiseEstimator, project, radii

__all__ = [
    "WAANE", "WAANEPaper", "bracket", "interpolation_weights", "paper_weights", "project", "weighted_average",
]


def bracket(source_epsilons: Tensor, target_epsilons: Tensor) -> Tensor:
    """Count the sources that are not stronger than each target, 0..S.

    Args:
        source_epsilons: (S,) or (B, S), ascending.
        target_epsilons: (T,) or (B, T).

    Returns:
        Integers, (T,) when both arguments are vectors, otherwise (B, T).
    """
    sources, targets = _aligned(source_epsilons, target_epsilons)
    return torch.searchsorted(sources, targets, right=True)


def interpolation_weights(source_epsilons: Tensor, target_epsilons: Tensor) -> Tensor:
    """Return the weights of linear interpolation: more for the nearer neighbour, 1 if the target equals a source.

    Below the first source it has target/eps_1, at or above the last source that one has target/eps_S. So a
    noise that is linear in its strength is reproduced everywhere.

    Args:
        source_epsilons: (S,) or (B, S), ascending.
        target_epsilons: (T,) or (B, T).

    Returns:
        (T, S) when both arguments are vectors, otherwise (B, T, S).
    """
    # Deviation: Eq. 6 and the reference give the farther neighbour the larger weight, Eq. 6 prints
    # the factor eps_1 below the first source, and the reference's average is zero beyond either end.
    sources, targets, count, way = _place(source_epsilons, target_epsilons)
    return _spread(sources, targets, count, 1 - way, way, below=targets / sources[..., :1])


def paper_weights(source_epsilons: Tensor, target_epsilons: Tensor) -> Tensor:
    """Return the weights of Eq. 6 as printed: the farther neighbour has more; below the first the factor is eps_1.

    If a target equals a source, a case that Eq. 6 does not define, that source is eps^- (as in the reference),
    so all the weight is on the next one. Arguments and result as `interpolation_weights`.
    """
    sources, targets, count, way = _place(source_epsilons, target_epsilons)
    return _spread(sources, targets, count, way, 1 - way, below=sources[..., :1])


def weighted_average(weights: Tensor, noises: Tensor) -> Tensor:
    """Sum the noises (B, S, C, H, W) under weights (T, S) or (B, T, S), two of S at most not zero: (B, T, C, H, W).

    These are products and a sum, not a matrix product, because neither TF32 nor autocast may round the noise. Only the
    two noises with weight are read, so that the time does not grow with S.
    """
    chosen = weights.abs().topk(min(2, weights.shape[-1]), sorted=False).indices
    chosen = chosen.expand(len(noises), *chosen.shape[-2:])  # (B, T, 2)
    kept = weights.expand(len(noises), *weights.shape[-2:]).gather(-1, chosen)
    row = torch.arange(len(noises), device=noises.device).unsqueeze(1)
    terms = [radii(kept[..., place]) * noises[row, chosen[..., place]] for place in range(kept.shape[-1])]
    return sum(terms[1:], terms[0])


class WAANE(NoiseEstimator):
    """Interpolate linearly between the neighbouring strengths (WA-ANE; Eq. 6 corrected). No parameters."""

    def estimate(
        self, source_noises: Tensor, images: Tensor, source_epsilons: Tensor, target_epsilons: Tensor
    ) -> Tensor:
        """Return the weighted average, (B, T, C, H, W)."""
        return weighted_average(self.weights(source_epsilons, target_epsilons), source_noises)

    def weights(self, source_epsilons: Tensor, target_epsilons: Tensor) -> Tensor:
        """Return the weights of the average; arguments and result as `interpolation_weights`."""
        return interpolation_weights(source_epsilons, target_epsilons)


class WAANEPaper(WAANE):
    """Interpolate as Eq. 6 is printed (WA-ANE-paper), to understand published numbers. No parameters."""

    def weights(self, source_epsilons: Tensor, target_epsilons: Tensor) -> Tensor:
        """Return the weights of the average; arguments and result as `paper_weights`."""
        return paper_weights(source_epsilons, target_epsilons)


def _aligned(source_epsilons: Tensor, target_epsilons: Tensor) -> tuple[Tensor, Tensor]:
    """Return both arguments with one dtype and the same leading shape: () or (B,)."""
    dtype = torch.promote_types(source_epsilons.dtype, target_epsilons.dtype)
    batch = torch.broadcast_shapes(source_epsilons.shape[:-1], target_epsilons.shape[:-1])
    sources, targets = (
        epsilons.to(dtype).expand(*batch, -1).contiguous() for epsilons in (source_epsilons, target_epsilons)
    )
    return sources, targets


def _place(source_epsilons: Tensor, target_epsilons: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sources (..., S), targets (..., T), their `bracket` (..., T) and their places between neighbours (..., T).

    A place is 0 at the neighbour below and 1 at the one above; it is meaningless without both.
    """
    sources, targets = _aligned(source_epsilons, target_epsilons)
    count = torch.searchsorted(sources, targets, right=True)
    lower = sources.gather(-1, (count - 1).clamp(min=0))
    upper = sources.gather(-1, count.clamp(max=sources.shape[-1] - 1))
    return sources, targets, count, (targets - lower) / (upper - lower)


def _spread(
    sources: Tensor, targets: Tensor, count: Tensor, lower: Tensor, upper: Tensor, below: Tensor
) -> Tensor:
    """Put weights on the neighbours of each target: (..., T, S), zero on all other sources.

    Args:
        sources: (..., S).
        targets: (..., T).
        count: `bracket`, (..., T).
        lower: (..., T), weight of the neighbour below, where a target has both neighbours.
        upper: (..., T), weight of the neighbour above.
        below: broadcasts to (..., T), the weight of the first source for a target weaker than all.
    """
    last = sources.shape[-1]
    lower = torch.where(count == last, targets / sources[..., -1:], lower)
    upper = torch.where(count == 0, below, upper)
    place, count = torch.arange(1, last + 1, device=sources.device), count.unsqueeze(-1)
    upper = torch.where(place == count + 1, upper.unsqueeze(-1), 0.0)
    return torch.where(place == count, lower.unsqueeze(-1), upper)
