"""What is compared for the architectures of a ranking: every score on one side, the table's accuracies on the other."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

from search.rankings.bench import Bench
from search.rankings.measurements import MEASUREMENTS
from search.rankings.rows import Row
from search.rankings.scores import finite, logarithm, mean
from search.tables.table import Table
from wsrnas.report.reading.rankings import VULNERABILITY

SIZE = "size"
COMBINED = "sum of ranks"
MEAN = "mean"  # the mean of the table's columns


@dataclass(frozen=True)
class Score:
    """Hold one score of all architectures.

    Args:
        group: the measurement that it comes from, or ``SIZE``.
        name: name inside the group.
        values: (n,), higher promises more.
    """

    group: str
    name: str
    values: np.ndarray


def truth_of(table: Table, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the accuracies (n,) in points of every column of a table, and their mean."""
    accuracies = 100 - table.losses[table.row[list(places)]].double().numpy()
    columns = dict(zip(table.columns, accuracies.T, strict=True))
    return columns | {MEAN: mean(accuracies)} if len(columns) > 1 else columns


def sizes_of(table: Table, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Return parameters and multiply-adds (n,) of the table's own networks."""
    costs = table.space.cost(table.choices[list(places)], *table.network).double().numpy()
    return dict(zip(("parameters", "multiply-adds"), costs.T, strict=True))


def all_scores(rows: Mapping[str, Sequence[Row]], bench: Bench, sizes: Mapping[str, np.ndarray]) -> list[Score]:
    """Return every score that the rows hold, by measurement, and the sizes."""
    found = [Score(group, name, values) for group, measured in rows.items()
             for name, values in MEASUREMENTS[group].scores(measured, bench).items()]
    found += [Score(SIZE, name, logarithm(values)) for name, values in sizes.items()]
    whole = [Score(score.group, score.name, finite(score.values)) for score in found]
    return whole + combined(found)


def combined(scores: Sequence[Score]) -> list[Score]:
    """Return sums of the ranks of some scores, where the supernet was measured; what is not finite counts as worst.

    A *high* vulnerability is counted as good: RNAS expects the opposite, but that is what was found (docs/SEARCH.md).
    """
    of_supernet = {score.name: score.values for score in scores if score.group == "supernet"}
    vulnerabilities = [values for name, values in of_supernet.items() if name.startswith(VULNERABILITY)]
    if not vulnerabilities:
        return []
    size = next(score.values for score in scores if score.group == SIZE)
    parts = {"loss, clean": of_supernet["loss, clean"], "high F": -vulnerabilities[-1], "parameters": size}
    ranks = {name: scipy.stats.rankdata(finite(values)) for name, values in parts.items()}
    return [Score(COMBINED, " + ".join(names), np.sum([ranks[name] for name in names], 0))
            for count in (2, 3) for names in itertools.combinations(ranks, count)]
