"""Look up what searches have found in a table of trained architectures, beside random ones (docs/SEARCH.md).

    python -m studies.found_graphs --table TABLE.json --runs runs/search/A-seed0 runs/search/A-seed1
    python -m studies.found_graphs --table TABLE.json --ranking runs/ranking/NAME --sensitivity 0.16

For each search it prints which share of the table's architectures is better than the one that was found, by the mean of
the table's columns: of all, and of those with as many parameters (within 2 %). The probability that n random
architectures are all at least as good as the worst one found is the share that is at least as good, itself and equal
ones among them, to the power n.
``--ranking`` is a folder of search.ranking: of 100 random architectures of its sample (``--random``), the best one by
several objectives of a search and the largest one are looked up, in the median over 2,000 draws and, in brackets,
from the best to the worst 10 % of them. The last strength of the ranking is the one that counts. If it has measured
training-free scores, too, ``--ntk`` and ``--naswot`` weigh them. ``--lean`` draws no architecture with idle operations,
which the output does not depend on; the strategy wsr proposes none.
A second table has Kendall's tau of these objectives with the mean of the table's columns, over the whole sample.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from search.rankings.compared import MEAN, truth_of
from search.rankings.rows import Row, read_rows
from search.rankings.scores import finite
from search.rankings.statistics import estimate
from search.tables.reading import open_table
from search.tables.table import Table
from search.tables.task import EQUAL_SIZE
from wsrnas.architectures import searched
from wsrnas.report.reading.rankings import shown
from wsrnas.runtime import run_files
from wsrnas.runtime.config import Parser, require, require_different, within
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import stored_object

DRAWS = 2000  # of random searches, and for an interval
SMALLEST = 1e-9  # vulnerability below which the logarithm is cut


class Lookup:
    """A table with the mean accuracy and the parameters of all its architectures.

    Args:
        table: the table.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        truth = truth_of(table, range(len(table.choices)))
        self.truth = truth.get(MEAN, next(iter(truth.values())))
        self.parameters = table.space.cost(table.choices, *table.network)[:, 0].double().numpy()

    def better(self, place: int) -> tuple[float, float]:
        """Return the share of architectures that are better than the one at a place: of all, and of equal size."""
        return self._shares(self.truth > self.truth[place], place)

    def at_least(self, place: int) -> tuple[float, float]:
        """Return the share of architectures that are at least as good as the one at a place, this one among them."""
        return self._shares(self.truth >= self.truth[place], place)

    def _shares(self, chosen: np.ndarray, place: int) -> tuple[float, float]:
        same = np.abs(self.parameters / self.parameters[place] - 1) <= EQUAL_SIZE
        return float(chosen.mean()), float(chosen[same].mean())

    def place_of(self, run: Path) -> int:
        """Return the place of the architecture that a search has found.

        Raises:
            InputError: there is none, or the table has no such architecture.
        """
        found = searched.load(run / run_files.GENOTYPE)
        space = self.table.space
        require(isinstance(found, space.architecture), f"{run} has found an architecture of another space than "
                f"{space.name}, that of {self.table.name}; expected another --table")
        place = int(self.table.find(self.table.space.encode(found).unsqueeze(0)))
        require(place >= 0, f"{run} has found an architecture that {self.table.name} does not hold; expected another "
                "--table")
        return place


def chance(shares: list[float]) -> float:
    """Return the probability that as many random architectures are all at least as good as the worst one found.

    Args:
        shares: for each one found, the share of architectures that are at least as good.
    """
    return max(shares) ** len(shares)


def random_searches(lookup: Lookup, scores: dict[str, np.ndarray], places: np.ndarray,
                    count: int) -> dict[str, np.ndarray]:
    """Look up the best of random architectures by each score (n,); small is good.

    Args:
        lookup: the table.
        scores: by name.
        places: places (n,) of the scored architectures in the table.
        count: number of architectures of a random search.

    Returns:
        By score (3, 2): median, 10 % and 90 % quantile over draws; share of better architectures, of all and of equal
        size.

    Raises:
        InputError: there are fewer.
    """
    require(count <= len(places), f"random is {count}, but the ranking has {len(places)} architectures; expected no "
            "more")
    found = {place: lookup.better(place) for place in places.tolist()}
    shares = {}
    for name, values in scores.items():
        random = np.random.default_rng(0)
        best = [drawn[values[drawn].argmin()] for drawn in (
            random.choice(len(places), count, replace=False) for _ in range(DRAWS))]
        shares[name] = np.quantile([found[int(places[place])] for place in best], (0.5, 0.1, 0.9), axis=0)
    return shares


def ranks(lookup: Lookup, scores: dict[str, np.ndarray], places: np.ndarray) -> list[tuple[str, ...]]:
    """Return a row for each score (n,): its name, Kendall's tau with the truth of all, and at fixed size.

    Args:
        lookup: the table.
        scores: by name; small is good.
        places: places (n,) of the scored architectures in the table.
    """
    values, truth = -np.stack(list(scores.values())), lookup.truth[places][None]
    sizes = None, np.log(lookup.parameters[places])
    of_all, of_size = (estimate(values, truth, DRAWS, 0, size).tau[:, :, 0].T for size in sizes)
    return [(name, *(shown(None if np.isnan(tau).any() else tau) for tau in both))
            for name, *both in zip(scores, of_all, of_size, strict=True)]


def rows_of(folder: Path, measurement: str) -> dict[int, Row]:
    """Return the rows of a measurement of a ranking by place.

    Raises:
        InputError: a line of a file cannot be read.
    """
    found: dict[int, Row] = {}
    for file in sorted((folder / run_files.ROWS).glob(f"{measurement}-*.jsonl")):
        rows = read_rows(file)
        require(len(rows) == len(file.read_bytes().splitlines()), f"{file}: line {len(rows) + 1} is damaged or not "
                "whole; start search.ranking again, which measures what is missing")
        found |= rows
    return found


def training_free_sum(folder: Path, places: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted sum (n,) of training-free scores of a ranking; high is good.

    Args:
        folder: the ranking.
        places: places (n,) of the architectures in the table.
        weights: by name of the score.

    Raises:
        InputError: the ranking has not measured a score of every architecture.
    """
    rows, total = rows_of(folder, "training-free"), np.zeros(len(places))
    for name, weight in weights.items():
        require(all(name in rows.get(place, {}) for place in places.tolist()), f"{folder} lacks {name} of some "
                "architectures; expected a ranking with --measure supernet training-free")
        total += weight * finite(np.array([rows[place][name] for place in places.tolist()], dtype=float))
    return total


def ranking_scores(folder: Path, lookup: Lookup, sensitivity: float, alpha: float, weights: Mapping[str, float],
                   lean: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return scores of the architectures of a ranking, small ones good, and their places in the table.

    Args:
        folder: the ranking.
        lookup: the table.
        sensitivity: weight of log F.
        alpha: weight of the natural loss beside that under attack (Eq. 10).
        weights: those of training-free scores, by name; empty: they are not read.
        lean: whether architectures with idle operations are left out.

    Raises:
        InputError: the ranking is of other architectures than the table, or not whole.
    """
    rows = rows_of(folder, "supernet")
    require(bool(rows), f"{folder} holds no rows of a supernet; expected a folder of search.ranking")
    ranked = (stored_object(folder / run_files.INPUTS) or {}).get("architectures")
    require(ranked == lookup.table.restricted(()).fingerprint(), f"{folder} has ranked other architectures than "
            f"those of {lookup.table.name}; expected its own --table, or one of the same graphs")
    places = np.array(sorted(rows))
    if lean:
        places = places[lookup.table.space.lean(lookup.table.choices[places]).numpy()]
    natural, attacked = (-finite(-np.array([rows[place]["losses"][kind] for place in places], dtype=float))
                         for kind in (0, -1))  # what is not finite is as bad as the worst
    felt = finite(np.array([rows[place]["vulnerabilities"][-1] for place in places], dtype=float))
    moved = sensitivity * np.log(felt.clip(SMALLEST))
    robust = alpha * natural + (1 - alpha) * attacked
    scores = {"natural": natural, "loss under attack": attacked, "sensitive": natural - moved, "robust": robust,
              "robust-sensitive": robust - moved, "largest": -np.log(lookup.parameters[places])}
    if weights:
        known = training_free_sum(folder, places, weights)
        scores |= {"training-free": -known, "robust and training-free": robust - known}
    return scores, places


def main() -> None:
    """Look up and print."""
    parser = Parser(prog="studies.found_graphs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", required=True, help="JSON file of measured architectures")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="run directories of searches")
    parser.add_argument("--ranking", type=Path, help="folder of search.ranking, for the random searches")
    parser.add_argument("--random", type=within(int, 1), default=100,
                        help="architectures of a random search (default: 100)")
    parser.add_argument("--sensitivity", type=within(float, 0), default=0.16, help="weight of log F (default: 0.16)")
    parser.add_argument("--alpha", type=within(float, 0, 1), default=0.25, help="weight of the natural loss in robust "
                        "and robust-sensitive (default: 0.25)")
    parser.add_argument("--ntk", type=within(float, 0), default=0.0, help="weight of NTK, as --ntk_weight of a search "
                        "(default: 0, it does not count)")
    parser.add_argument("--naswot", type=within(float, 0), default=0.0, help="weight of NASWOT as it is, not in "
                        "deviations of random architectures (default: 0, it does not count)")
    parser.add_argument("--lean", action="store_true", help="draw no random architecture with idle operations")
    arguments = parser.parse_args()
    require(bool(arguments.runs or arguments.ranking), "nothing to look up: pass --runs RUN ... or --ranking FOLDER")
    require_different(arguments.runs, "searches")
    weights = {name: weight for name in ("ntk", "naswot") if (weight := getattr(arguments, name))}
    require(not weights or bool(arguments.ranking), f"--{next(iter(weights), '')} weighs scores of a ranking; expected "
            "--ranking FOLDER")
    require(not arguments.lean or bool(arguments.ranking), "--lean is about random architectures of a ranking; "
            "expected --ranking FOLDER")
    lookup = Lookup(open_table(arguments.table))
    places = [lookup.place_of(run) for run in arguments.runs]
    rows: list[tuple[str, ...]] = [(run.name, *(f"{share:.4f}" for share in lookup.better(place)))
                                   for run, place in zip(arguments.runs, places, strict=True)]
    if places:
        shares = zip(*map(lookup.at_least, places), strict=True)
        rows.append(("chance of all", *(f"{chance(list(of_all)):.2g}" for of_all in shares)))
    if arguments.ranking:
        ranking = ranking_scores(arguments.ranking, lookup, arguments.sensitivity, arguments.alpha, weights,
                                 arguments.lean)
        rows += [(f"best of {arguments.random} random, {name}", *(f"{median:.4f} [{low:.4f}, {high:.4f}]"
                                                                  for median, low, high in found.T))
                 for name, found in random_searches(lookup, *ranking, arguments.random).items()]
    of_all, of_size = lookup.better(int(torch.from_numpy(lookup.parameters).argmax()))
    rows.append(("largest of the table", f"{of_all:.4f}", f"{of_size:.4f}"))
    print(markdown_table(("found", "better, of all", "better, of equal size"), rows))
    if arguments.ranking:
        print()
        heads = (f"score of {len(ranking[1])} architectures", "tau, all", "tau, fixed size")
        print(markdown_table(heads, ranks(lookup, *ranking)))


if __name__ == "__main__":
    run_program(main)
