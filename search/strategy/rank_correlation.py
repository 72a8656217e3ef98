"""Rank correlation of predicted and measured objectives."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes a second


def rank_correlation(predictions: Iterable[Sequence[float]]) -> dict[str, float | None]:
    """Return Kendall's τ of (predicted, measured) pairs in the order of their making; empty for fewer than three.

    The supernet keeps learning, so both columns fall over time, and τ alone is too high. ``kendall_tau_detrended`` is
    the τ of the residuals of a straight line over time (from five pairs on).
    """
    pairs = np.array(list(predictions), dtype=float).reshape(-1, 2)
    columns = {"kendall_tau": pairs} if len(pairs) >= 3 else {}
    if len(pairs) >= 5:
        time = np.arange(len(pairs))
        line = np.polynomial.polynomial.polyfit(time, pairs, 1)
        columns["kendall_tau_detrended"] = pairs - np.polynomial.polynomial.polyval(time, line).T
    taus = {name: scipy.stats.kendalltau(values[:, 0], values[:, 1]).statistic for name, values in columns.items()}
    return {name: None if math.isnan(tau) else float(tau) for name, tau in taus.items()}
