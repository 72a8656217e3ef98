"""Scores of architectures, each so that a higher one promises more accuracy."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from search.rankings.bench import Bench
from search.rankings.rows import Row
from search.strategy.objective import OBJECTIVES
from search.training_free import TRAINING_FREE

DIGITS = 12  # of a mean

Scores = Mapping[str, np.ndarray]  # (n,) by name


def supernet_scores(rows: Sequence[Row], bench: Bench) -> Scores:
    """Return the scores of rows inside a supernet: low losses, high accuracies, a low vulnerability F."""
    losses, accuracies, vulnerabilities = (np.array([row[kind] for row in rows], dtype=float)
                                           for kind in ("losses", "accuracies", "vulnerabilities"))
    scores = dict(loss_scores(losses, accuracies, bench.strengths, objective_of(bench, losses)))
    return scores | {f"vulnerability F, at {strength:g}": -logarithm(values)
                     for strength, values in zip(bench.strengths, vulnerabilities.T, strict=True)}


def loss_scores(losses: np.ndarray, accuracies: np.ndarray, strengths: Sequence[float],
                objectives: np.ndarray | None) -> Scores:
    """Return the scores that losses and accuracies on D_v are.

    Args:
        losses: (n, 1 + S), clean and at each strength.
        accuracies: (n, 1 + S).
        strengths: S strengths.
        objectives: objective (n,) of the search, if it is known.
    """
    columns = ["clean", *(f"at {strength:g}" for strength in strengths)]
    scores = {f"loss, {column}": -values for column, values in zip(columns, losses.T, strict=True)}
    scores["loss, mean"] = -mean(losses)
    if objectives is not None:
        scores["objective"] = -objectives
    scores |= {f"accuracy, {column}": values for column, values in zip(columns, accuracies.T, strict=True)}
    return scores | {"accuracy, mean": mean(accuracies)}


def mean(values: np.ndarray) -> np.ndarray:
    """Return means (n,) over columns (n, c); their rounding would decide which of them are equal."""
    return values.mean(1).round(DIGITS)


def objective_of(bench: Bench, losses: np.ndarray) -> np.ndarray | None:
    """Return the objective (n,) of the search; None where it was not measured, or needs more than losses."""
    config, strengths = bench.trained.config, list(bench.strengths)
    more = OBJECTIVES[config.objective].reads_vulnerability or config.prior_weights
    if not set(config.strengths) <= set(strengths) or more:
        return None
    columns = [0, *(1 + strengths.index(strength) for strength in config.strengths)]
    return OBJECTIVES[config.objective].build(config)(torch.from_numpy(losses[:, columns])).numpy()


def training_free_scores(rows: Sequence[Row], bench: Bench) -> Scores:
    """Return the training-free scores; one that came later, which some rows do not have, is left out."""
    scores = {name: np.array([row[name] for row in rows], dtype=float) for name in TRAINING_FREE
              if all(name in row for row in rows)}
    return {name: logarithm(values) if TRAINING_FREE[name].logarithm else values for name, values in scores.items()}


def logarithm(values: np.ndarray) -> np.ndarray:
    """Return the logarithm; values up to 0 count as the smallest above 0."""
    positive = values[values > 0]
    return np.log(np.maximum(values, positive.min())) if len(positive) else np.zeros_like(values)


def finite(values: np.ndarray) -> np.ndarray:
    """Return scores in which whatever is not finite is the lowest one."""
    good = np.isfinite(values)
    return np.where(good, values, values[good].min() if good.any() else 0.0)
