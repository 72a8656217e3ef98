"""Scores of architectures, each so that a higher one promises more accuracy, and the truth of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.rankings.rows import Row
from search.rankings.trained import TrainedSupernet
from search.strategy.objective import OBJECTIVES
from search.tables.table import Table

MEAN = "mean"  # the mean of the table's columns


@dataclass(frozen=True)
class Score:
    """Hold one score of all architectures.

    Args:
        group: kind of score.
        name: name inside the group.
        values: (n,), higher promises more.
    """

    group: str
    name: str
    values: np.ndarray


def truth_of(table: Table, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the accuracies (n,) in points of every column, and their mean."""
    accuracies = 100 - table.losses[table.row[list(places)]].double().numpy()
    columns = dict(zip(table.columns, accuracies.T, strict=True))
    return columns | {MEAN: accuracies.mean(1)} if len(columns) > 1 else columns


def sizes_of(table: Table, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return parameters and multiply-adds (n,) of the table's own networks."""
    costs = table.space.cost(table.choices[list(places)], *table.network).double().numpy()
    return costs[:, 0], costs[:, 1]


def all_scores(rows: Mapping[str, Sequence[Row]], trained: TrainedSupernet, strengths: Sequence[float],
               sizes: tuple[np.ndarray, np.ndarray]) -> list[Score]:
    """Return every score that the rows hold, and both sizes.

    Args:
        rows: rows of the architectures, in one order, by measurement.
        trained: the supernet, which knows its objective.
        strengths: measured strengths.
        sizes: parameters and multiply-adds (n,).
    """
    found: list[Score] = []
    for name, measured in rows.items():
        found += supernet_scores(name, measured, trained, strengths)
    return [*found, *(Score("size", name, logarithm(values))
                      for name, values in zip(("parameters", "multiply-adds"), sizes, strict=True))]


def supernet_scores(name: str, rows: Sequence[Row], trained: TrainedSupernet, strengths: Sequence[float]
                    ) -> list[Score]:
    """Return the scores of a measurement inside a supernet: low losses, high accuracies, a low vulnerability F."""
    losses, accuracies, vulnerabilities = (np.array([row[kind] for row in rows], dtype=float)
                                           for kind in ("losses", "accuracies", "vulnerabilities"))
    columns = ["clean", *(f"at {strength:g}" for strength in strengths)]
    scores = {f"loss, {column}": -values for column, values in zip(columns, losses.T, strict=True)}
    scores["loss, mean"] = -losses.mean(1)
    if (objective := objective_of(trained, strengths, losses)) is not None:
        scores["objective"] = -objective
    scores |= {f"accuracy, {column}": values for column, values in zip(columns, accuracies.T, strict=True)}
    scores["accuracy, mean"] = accuracies.mean(1)
    scores |= {f"vulnerability F, {column}": -logarithm(values)
               for column, values in zip(columns[1:], vulnerabilities.T, strict=True)}
    return [Score(name, title, finite(values)) for title, values in scores.items()]


def objective_of(trained: TrainedSupernet, strengths: Sequence[float], losses: np.ndarray) -> np.ndarray | None:
    """Return the objective (n,) of the search; None where a strength of the search was not measured."""
    import torch
    config = trained.config
    if not set(config.strengths) <= set(strengths):
        return None
    columns = [0, *(1 + list(strengths).index(strength) for strength in config.strengths)]
    objective = OBJECTIVES[config.objective].build(config)
    return objective(torch.from_numpy(losses[:, columns])).numpy()


def logarithm(values: np.ndarray) -> np.ndarray:
    """Return the logarithm; values up to 0 count as the smallest above 0."""
    positive = values[values > 0]
    return np.log(np.maximum(values, positive.min())) if len(positive) else np.zeros_like(values)


def finite(values: np.ndarray) -> np.ndarray:
    """Return scores in which whatever is not finite is the lowest one."""
    good = np.isfinite(values)
    return np.where(good, values, values[good].min() if good.any() else 0.0)
