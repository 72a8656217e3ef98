"""How well does a training tell which cell of a race is better? From entrants that were trained with several seeds.

    python -m studies.race_repeats runs/compare/NAME
    python -m studies.race_repeats runs/compare/NAME --family random --measure clean

Every accuracy is taken as that of its entrant, plus what the seed does to all entrants, plus noise (two-way analysis of
variance). The program prints the deviation (standard, in points) of the noise of a training and of what entrants
reach without it; which share of the variance between single trainings is noise, with its 95 % interval; and the
correlation that a ranking without errors would have with one training, and with the mean of all. The share is 1 minus
the intraclass correlation ICC(C, 1) of McGraw and Wong (Psychological Methods 1996), whose F distribution gives the
interval. Then Pearson's correlation and Kendall's tau between two seeds, mean over pairs of seeds, with 95 %
intervals over the entrants (bootstrap).
"""

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from wsrnas.report.reading.races import race_of, read_race
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

TAIL = 0.025
RESAMPLES = 2000
FEWEST = 3  # entrants


@dataclass(frozen=True)
class Repeats:
    """What trainings with several seeds say about one of them.

    Args:
        noise: deviation of a training, beside what its seed does to all.
        entrants: deviation of the entrants without that noise.
        share: share of noise in the variance of single trainings.
        interval: its 95 % interval, where accuracies are normal.
        seeds: trainings of each entrant.
    """

    noise: float
    entrants: float
    share: float
    interval: tuple[float, float]
    seeds: int

    def correlation(self, trainings: int) -> float:
        """Return the correlation of what entrants reach with the mean of some trainings of each."""
        truth = self.entrants**2
        whole = truth + self.noise**2 / trainings
        return float(np.sqrt(truth / whole)) if whole else float("nan")


def repeats(values: np.ndarray) -> Repeats:
    """Return what the accuracies (n, k) of n entrants with k seeds say.

    Where entrants differ by less than noise would explain, their deviation is 0 and the share of noise is 1.
    """
    entrants, seeds = values.shape
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    within = (entrants - 1) * (seeds - 1)
    noise = np.square(rest).sum() / within
    between = seeds * values.mean(1).var(ddof=1)
    ratio = between / noise if noise else np.inf
    quantiles = scipy.stats.f.ppf(1 - TAIL, [entrants - 1, within], [within, entrants - 1])
    low, high = (max(0.0, _share(bound, seeds)) for bound in (ratio / quantiles[0], ratio * quantiles[1]))
    return Repeats(float(np.sqrt(noise)), float(np.sqrt(max(0.0, between - noise) / seeds)),
                   1 - max(0.0, _share(ratio, seeds)), (1 - high, 1 - low), seeds)


def _share(ratio: float, seeds: int) -> float:
    """Return the intraclass correlation of a ratio of mean squares."""
    return 1.0 if np.isinf(ratio) else (ratio - 1) / (ratio + seeds - 1)


def between_seeds(values: np.ndarray, correlation: Callable[[np.ndarray, np.ndarray], Any]) -> tuple[float, ...]:
    """Return a correlation between two seeds, mean over pairs, and the ends of its 95 % interval over the entrants."""
    def mean(rows: np.ndarray) -> float:
        pairs = itertools.combinations(rows.T, 2)
        return float(np.mean([correlation(first, second).statistic for first, second in pairs]))

    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    # A resample of equal accuracies has none.
    found = [mean(values[draw]) for draw in draws if (np.ptp(values[draw], axis=0) > 0).all()]
    return mean(values), *np.percentile(found, [100 * TAIL, 100 - 100 * TAIL])


def accuracies(document: Mapping[str, Any], measure: str, family: str) -> tuple[list[str], np.ndarray]:
    """Return the names of the entrants that were trained with every seed, and their accuracies (n, k) in percent.

    Raises:
        InputError: there is no such measure or family, or there are too few entrants or seeds.
    """
    race = race_of(dict(document))
    measures = [row["name"] for row in document["measures"]]
    measure = measure or document["main"]
    require(measure in measures, f"measure is {measure!r}; expected one of {', '.join(map(repr, measures))}")
    families = sorted({entrant["family"] for entrant in document["entrants"]})
    require(family in ("", *families), f"family is {family!r}; expected one of {', '.join(map(repr, families))}")
    found = {entrant["name"]: entrant[race.weights][measure]["values"] for entrant in document["entrants"]
             if family in ("", entrant["family"]) and (entrant[race.weights] or {}).get(measure)}
    seeds = len(document["seeds"])
    whole = {name: values for name, values in found.items() if len(values) == seeds}
    require(seeds > 1 and len(whole) >= FEWEST, f"the race has {seeds} seeds, and {len(whole)} entrants with all of "
            f"them; expected at least 2 and {FEWEST}")
    return list(whole), 100 * np.array(list(whole.values()))


def report(names: list[str], values: np.ndarray, measure: str) -> str:
    """Return all numbers in Markdown."""
    found = repeats(values)
    tables = [
        ("deviation of a training (points)", f"{found.noise:.2f}"),
        ("deviation of the entrants without it (points)", f"{found.entrants:.2f}"),
        ("share of noise in the variance of one training",
         f"{found.share:.2f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}]"),
        ("correlation of a ranking without errors with one training", f"{found.correlation(1):.2f}"),
        (f"the same with the mean of {found.seeds}", f"{found.correlation(found.seeds):.2f}")]
    for name, correlation in (("correlation", scipy.stats.pearsonr), ("Kendall's τ", scipy.stats.kendalltau)):
        value, low, high = between_seeds(values, correlation)
        tables.append((f"{name} between two seeds", f"{value:.2f} [{low:.2f}, {high:.2f}]"))
    text = markdown_table((f"{measure}, {len(names)} entrants, {found.seeds} seeds", "value"), tables)
    return text.replace("-0", "−0")


def main() -> None:
    """Read a race and print."""
    parser = Parser(prog="studies.race_repeats", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("race", type=Path, help="folder of retrain.compare")
    parser.add_argument("--measure", default="", help="measure of race.json (default: the one that ranks)")
    parser.add_argument("--family", default="", help="entrants of one family alone, such as random (default: all)")
    arguments = parser.parse_args()
    document = read_race(arguments.race)
    names, values = accuracies(document, arguments.measure, arguments.family)
    print(report(names, values, arguments.measure or document["main"]))


if __name__ == "__main__":
    run_program(main)
