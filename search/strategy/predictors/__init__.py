"""Predictors of the objective from the gates of an architecture; a new one is a file here and an entry.

All are fitted by ``fit(gates, targets, generator)``, which returns a prediction with ``fitted``, ``mean``,
``mean_and_deviation``, ``draw`` and ``losses``, differentiable in the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.strategy.shares import PAIRWISE, PARTS, PATHS, SIZED, Shares
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from search.strategy.paths import Paths
    from search.strategy.predictors.bayesian import BayesianPredictor, Encoder
    from search.strategy.predictors.lstm import LstmPredictor
    from search.strategy.problem import Problem

ENSEMBLE = 3


@dataclass(frozen=True)
class PredictorEntry:
    """One predictor.

    Args:
        build: (problem, settings, number of losses, seed) -> predictor.
        help: explanation in one line, for ``--help``.
    """

    build: Callable[[Problem, Any, int, int], Any]
    help: str


def _lstm(members: int) -> Callable[[Problem, Any, int, int], LstmPredictor]:
    """Return the constructor of a predictor of so many networks."""
    def build(problem: Problem, settings: Any, columns: int, seed: int) -> LstmPredictor:
        shape = problem.space.num_rows, len(problem.space.operations)
        return LstmPredictor(shape, columns, members, settings, seed)
    return build


def _bayesian(shares: Shares) -> Callable[[Problem, Any, int, int], BayesianPredictor]:
    """Return the constructor of a predictor with these shares of the variance to choose from."""
    def build(problem: Problem, settings: Any, columns: int, seed: int) -> BayesianPredictor:
        paths = Paths(problem.space) if any(share[PARTS.index("paths")] for share in shares) else None
        return BayesianPredictor(Encoder(problem.sizes, paths), shares)
    return build


PREDICTORS: dict[str, PredictorEntry] = {
    "lstm": PredictorEntry(_lstm(1), "the paper's VLE: an LSTM over the gates"),
    "lstm-ensemble": PredictorEntry(_lstm(ENSEMBLE), f"{ENSEMBLE} VLEs on resampled measurements"),
    "pairwise": PredictorEntry(_bayesian(PAIRWISE), "Bayesian: operations and pairs of them; the noise is fitted"),
    "sized": PredictorEntry(_bayesian(SIZED), "pairwise, and the size and all operations together"),
    "paths": PredictorEntry(_bayesian(PATHS), "sized, and the numbers of paths through a cell by their operations"),
}
