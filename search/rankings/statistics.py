"""Rank correlations of scores with the truth: of all, of the best fifth, at fixed size; with bootstrap intervals.

Sources: Kendall, "The treatment of ties in ranking problems", Biometrika 1945 (tau-b); Spearman 1904, with mean ranks
for ties; Efron 1979, percentile intervals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

SUBSETS = {"all": "all architectures", "best fifth": "the fifth with the highest true accuracy in that column",
           "fixed size": "what a straight line over log parameters leaves of both, of all architectures"}
SHARE = 5  # one in so many architectures is among the best
FEWEST = 3  # architectures for a correlation
TAIL = 2.5  # percent of the resamples on each side of an interval
DENSE = 1200  # architectures up to which all differences are quicker than scipy's sorting
MEMORY = 300_000  # signs of differences in the memory at a time: they fit into the caches of a CPU
ROUNDING = 1e-9  # part of the largest deviation below which a residual is rounding


@dataclass(frozen=True)
class Estimates:
    """Hold correlations of S scores with T columns of the truth, and the ends of their 95 % intervals.

    Args:
        architectures: number of them.
        tau: Kendall's tau-b, (3, S, T): value, lower end, upper end; NaN where all scores are equal.
        rho: Spearman's rho, the same.
    """

    architectures: int
    tau: np.ndarray
    rho: np.ndarray


def without_size(values: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return what a least-squares line over the size (n,) leaves of values (..., n); rounding becomes 0."""
    centred, deviations = size - size.mean(), values - values.mean(-1, keepdims=True)
    spread = centred @ centred
    slope = deviations @ centred / spread if spread > 0 else np.zeros(values.shape[:-1])
    rest = deviations - slope[..., None] * centred
    return np.where(np.abs(rest) <= ROUNDING * np.abs(deviations).max(-1, keepdims=True), 0.0, rest)


def correlations(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b and Spearman's rho (2, S, T) of scores (S, n) with columns of the truth (T, n)."""
    ranks = [scipy.stats.rankdata(rows, axis=1) for rows in (scores, truth)]
    centred = [rows - rows.mean(1, keepdims=True) for rows in ranks]
    return np.stack([_kendall(*ranks), _cosines(centred[0] @ centred[1].T, *(np.square(rows).sum(1)
                                                                             for rows in centred))])


def _kendall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return tau-b of mean ranks: the cosine of the signs of all n x n differences."""
    count = scores.shape[1]
    if count > DENSE:
        return np.array([[scipy.stats.kendalltau(score, column).statistic for column in truth] for score in scores])
    twice = [(2 * side).astype(np.float32) for side in (scores, truth)]  # whole numbers
    products = np.zeros((len(scores), len(truth)))
    squares = np.zeros(len(scores)), np.zeros(len(truth))
    step = max(1, MEMORY // (count * len(scores)))
    for first in range(0, count, step):
        signs = []
        for side, total in zip(twice, squares, strict=True):
            differences = side[:, first:first + step, None] - side[:, None, :]
            signs.append(np.clip(differences, -1, 1, out=differences).reshape(len(side), -1))
            total += np.einsum("ij,ij->i", signs[-1], signs[-1])
        products += signs[0] @ signs[1].T
    return _cosines(products, *squares)


def _cosines(products: np.ndarray, *squares: np.ndarray) -> np.ndarray:
    """Return products (S, T) over the roots of squares (S,) and (T,); NaN where one of these is 0."""
    lengths = np.sqrt(np.outer(*squares))
    return np.divide(products, lengths, out=np.full_like(lengths, np.nan), where=lengths > 0)


def estimate(scores: np.ndarray, truth: np.ndarray, resamples: int, seed: int, size: np.ndarray | None = None,
             minus_first: bool = False) -> Estimates:
    """Return the correlations over n architectures, with intervals from resamples of the architectures.

    Args:
        scores: (S, n).
        truth: (T, n).
        resamples: number of resamples.
        seed: seed of the resamples.
        size: (n,); if given, both sides are replaced by what a line over it leaves, in every resample anew.
        minus_first: whether those of the first score are subtracted, in every resample: a paired comparison.
    """
    count = scores.shape[1]

    def of(rows: Any) -> np.ndarray:
        sides = scores[:, rows], truth[:, rows]
        found = correlations(*sides) if size is None else correlations(*(without_size(side, size[rows])
                                                                         for side in sides))
        return found - found[:, :1] if minus_first else found

    if count < FEWEST:
        nothing = np.full((3, len(scores), len(truth)), np.nan)
        return Estimates(count, nothing, nothing)
    random = np.random.default_rng(seed)
    drawn = np.stack([of(random.integers(count, size=count)) for _ in range(resamples)])
    found = of(slice(None))
    # A resample without any difference ranks nothing: 0.
    low, high = np.where(np.isnan(found), np.nan, np.percentile(np.nan_to_num(drawn), (TAIL, 100 - TAIL), axis=0))
    tau, rho = np.stack([found, low, high], 1)
    return Estimates(count, tau, rho)


def by_subset(scores: np.ndarray, truth: np.ndarray, size: np.ndarray, resamples: int, seed: int
              ) -> Mapping[str, Estimates]:
    """Return the correlations in every one of ``SUBSETS``; the arguments are those of ``estimate``."""
    count = scores.shape[1]
    fifths = []
    for column in truth:
        best = np.argsort(-column, kind="stable")[:count // SHARE]
        fifths.append(estimate(scores[:, best], column[None, best], resamples, seed))
    fifth = Estimates(count // SHARE, *(np.concatenate([getattr(found, kind) for found in fifths], 2)
                                        for kind in ("tau", "rho")))
    return {"all": estimate(scores, truth, resamples, seed), "best fifth": fifth,
            "fixed size": estimate(scores, truth, resamples, seed, size)}


def agreement(some: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return tau of two rankings (n,): of all, and of the best fifth by the reference; small is good."""
    best = np.argsort(reference)[:max(FEWEST, len(reference) // SHARE)]
    return (float(scipy.stats.kendalltau(some, reference).statistic),
            float(scipy.stats.kendalltau(some[best], reference[best]).statistic))
