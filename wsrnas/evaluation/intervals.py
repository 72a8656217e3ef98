"""Statistics of measured accuracies: bootstrap intervals over the test images and exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from torch import Tensor

CONFIDENCE = 0.95
RESAMPLES = 10_000
DRAWN = 2**22  # numbers in the memory at a time


def accuracy_interval(scores: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean of scores in [0, 1], one per image."""
    return bootstrap_interval(scores, 0.0, 1.0)


def accuracy_row(flags: Tensor) -> dict[str, Any]:
    """Return accuracy, interval and one character (1 or 0) per image of (N,) flags, as results store them."""
    return {"accuracy": flags.double().mean().item(), "interval": list(accuracy_interval(flags.numpy())),
            "robust": "".join("1" if flag else "0" for flag in flags.tolist())}


def difference_interval(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
                        ) -> tuple[float, float]:
    """Return the 95 % interval of the mean of ``first - second``: scores in [0, 1] of the same images."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return bootstrap_interval(difference, -1.0, 1.0)


def bootstrap_interval(scores: Sequence[float] | np.ndarray, lowest: float = -np.inf, highest: float = np.inf,
                       seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap percentile interval (95 %, 10,000 resamples of the images) of a mean (Efron 1979).

    If all images have the same score, no resample differs and the interval would have no width. It then includes the
    lowest or highest possible score for the largest share that could still give 0 hits in n images (95 %, one-sided:
    1 - 0.05 ** (1/n), about 3/n).

    Args:
        scores: (N,) one number per image.
        lowest: lowest possible score.
        highest: highest possible score.
        seed: seed of the resamples.

    Raises:
        ValueError: There are no scores.
    """
    # Rounding would otherwise make equal means or areas of flags distinct scores.
    values, counts = np.unique(np.asarray(scores, dtype=float).round(12), return_counts=True)
    images = int(counts.sum())
    if not images:
        raise ValueError("an interval over no images")
    if len(values) == 1:
        unseen = 1 - (1 - CONFIDENCE) ** (1 / images)
        ends = [values[0] + unseen * (end - values[0]) if np.isfinite(end) else values[0] for end in (lowest, highest)]
        return float(ends[0]), float(ends[1])
    # A resample of images with replacement is one multinomial draw of how often each distinct score occurs.
    random, block = np.random.default_rng(seed), max(1, DRAWN // len(values))  # all at once may be gigabytes
    means = np.concatenate([random.multinomial(images, counts / images, size=min(block, RESAMPLES - first)) @ values
                            for first in range(0, RESAMPLES, block)]) / images
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def share_intervals(counts: Sequence[int] | np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper ends of the 95 % intervals of shares of images.

    They are those of ``accuracy_interval`` with every possible resample instead of 10,000 (exact binomial quantiles),
    for many shares at once.

    Args:
        counts: (S,) numbers of images.
        images: number of all images.
    """
    shares, tail = np.asarray(counts) / images, (1 - CONFIDENCE) / 2
    unseen = 1 - (1 - CONFIDENCE) ** (1 / images)
    low, high = (scipy.stats.binom.ppf(level, images, shares) / images for level in (tail, 1 - tail))
    return np.where(shares == 1, 1 - unseen, low), np.where(shares == 0, unseen, high)


def median_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any] | None:
    """Return the median of values, which may be infinite, with its 95 % interval, or None for no values.

    The interval goes from one value to another: as many are below the median as heads fall in fair throws (exact). Of
    five values or fewer, even the whole range has less than 95 %.

    Returns:
        ``value`` and ``interval``; infinite numbers as None.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    if not count:
        return None
    tail = (1 - CONFIDENCE) / 2
    low = int(scipy.stats.binom.ppf(tail, count, 0.5))
    ends = [ordered[(count - 1) // 2], ordered[max(low - 1, 0)], ordered[min(count - low, count - 1)]]
    value, *interval = (float(end) if np.isfinite(end) else None for end in ends)
    return {"value": value, "interval": interval}


def sign_test(more: int, fewer: int) -> float:
    """Return the probability of at least ``more`` among ``more + fewer`` images if both sides were equally likely.

    This is the exact one-sided paired test (McNemar): of the images on which two attacks differ, ``more`` fall to the
    first alone and ``fewer`` to the second alone. It is 1 where the attacks do not differ.
    """
    return float(scipy.stats.binomtest(more, more + fewer, 0.5, alternative="greater").pvalue) if more + fewer else 1.0


def share_test(count: int, images: int, share: float) -> float:
    """Return the exact probability of at least ``count`` of ``images`` if each occurs with probability ``share``."""
    return float(scipy.stats.binomtest(count, images, share, alternative="greater").pvalue)


def student_reach(freedom: int) -> float:
    """Return the quantile of Student's t to which a 95 % interval reaches; 0 where nothing is known."""
    return float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) if freedom else 0.0
