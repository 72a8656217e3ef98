"""How far a measured accuracy can be trusted: bootstrap intervals over the test images, and the paired sign test."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLES = 10_000


def accuracy_interval(scores: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The interval of a mean of scores in [0, 1], one an image: 0 or 1, or the mean over several attacks."""
    return bootstrap_interval(scores, 0.0, 1.0)


def difference_interval(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
                        ) -> tuple[float, float]:
    """The interval of the mean of ``first - second``, scores in [0, 1] of the same images in the same order."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return bootstrap_interval(difference, -1.0, 1.0)


def bootstrap_interval(scores: Sequence[float] | np.ndarray, lowest: float = -np.inf, highest: float = np.inf,
                       seed: int = 0) -> tuple[float, float]:
    """The bootstrap percentile interval (95 %, 10,000 resamples of the images) of a mean (Efron 1979).

    Where all images score the same, no resample can differ, and the interval would have no width; it then reaches as
    far as a share of images with the score at the other end of the range that is still compatible with seeing none of
    them (at n images, one-sided: 1 - 0.05 ** (1/n), about 3/n).

    Args:
        scores: (N,) one number an image.
        lowest, highest: what a score can be.

    Raises:
        ValueError: there are no scores.
    """
    # Means and areas of the same flags differ by rounding, which would make each image a score of its own.
    values, counts = np.unique(np.asarray(scores, dtype=float).round(12), return_counts=True)
    images = int(counts.sum())
    if not images:
        raise ValueError("an interval over no images")
    if len(values) == 1:
        unseen = 1 - (1 - CONFIDENCE) ** (1 / images)
        ends = [values[0] + unseen * (end - values[0]) if np.isfinite(end) else values[0] for end in (lowest, highest)]
        return float(ends[0]), float(ends[1])
    # Resampling images with replacement draws how often each distinct score occurs: one multinomial draw a resample.
    drawn = np.random.default_rng(seed).multinomial(images, counts / images, size=RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn @ values / images, [tail, 1 - tail])
    return float(low), float(high)


def sign_test(more: int, fewer: int) -> float:
    """The probability of at least so many ``more`` among ``more + fewer`` images if either were equally likely.

    The exact one-sided paired test (McNemar): of the images on which two attacks differ, ``more`` fell to the first
    alone and ``fewer`` to the second alone. 1 where they do not differ.
    """
    return float(binomtest(more, more + fewer, 0.5, alternative="greater").pvalue) if more + fewer else 1.0


def share_test(count: int, images: int, share: float) -> float:
    """The probability of at least ``count`` among ``images`` if each were one with probability ``share`` (exact)."""
    return float(binomtest(count, images, share, alternative="greater").pvalue)
