"""Compare rankings of one table by several supernets, and rank by the mean of their scores (docs/SEARCH.md).

    python -m studies.several_supernets runs/ranking/A runs/ranking/B runs/ranking/C
    python -m studies.several_supernets runs/ranking/A runs/ranking/B --column clean

The folders are results of search.ranking for the same architectures. An interval of one ranking is about the choice of
the architectures; how much another training of the supernet would change, only another training shows. For each score
of the supernets the program prints Kendall's tau of each of them with a column of the table, by how much tau of the
last one is larger than that of the first (paired, on the same architectures), tau of the mean of their scores (each
divided by its deviation over the architectures), and how far two supernets agree with one another (mean over pairs): of
all architectures, and at fixed size.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.rankings.statistics import correlations, estimate, without_size
from wsrnas.report.reading.rankings import ALL, FIXED, main_column, read_ranking, shown
from wsrnas.runtime import run_files
from wsrnas.runtime.config import Parser, require, require_different
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import stored_object

GROUP = "supernet"
ALIKE = ("images", "strengths", "num_steps", "recalibration_batches")  # settings of search.ranking
HEADS = ("score", "each supernet", "last minus first", "mean of their scores", "agreement")


def common_scores(rankings: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the scores (supernets, n) that all rankings hold, in the order of the first one's architectures.

    Raises:
        InputError: they are about different architectures, or have no score in common.
    """
    places = [np.array(ranking["values"]["place"]) for ranking in rankings]
    for ranking, there in zip(rankings, places, strict=True):
        same = ranking["table"] == rankings[0]["table"] and set(there) == set(places[0])
        require(same, f"the rankings by {rankings[0]['run']} and {ranking['run']} are about different architectures; "
                "expected the same table, sample and seed")
    orders = [there.argsort()[places[0].argsort().argsort()] for there in places]
    by_name = [{entry["score"]: np.array(values)[order] for entry, values in
                zip(ranking["scores"], ranking["values"]["scores"], strict=True) if entry["group"] == GROUP}
               for ranking, order in zip(rankings, orders, strict=True)]
    common = {name: np.stack([scores[name] for scores in by_name]) for name in by_name[0]
              if all(name in scores for scores in by_name)}
    require(bool(common), "the rankings have no score of a supernet in common; expected the same --strengths")
    return common


def require_one_table(folders: Sequence[Path]) -> None:
    """Refuse rankings of tables that hold different architectures, whatever the names of their files."""
    architectures = {(stored_object(folder / run_files.INPUTS) or {}).get("architectures") for folder in folders}
    require(len(architectures) == 1, f"{', '.join(map(str, folders))} have ranked the architectures of different "
            "tables; expected one")


def require_measured_alike(rankings: Sequence[dict[str, Any]], folders: Sequence[Path]) -> None:
    """Refuse rankings whose scores of one name are not the same measurement, or are one measurement twice."""
    for key in ALIKE:
        values = [ranking.get(key) for ranking in rankings]
        require(all(value == values[0] for value in values), f"the rankings were measured in several ways ({key}: "
                f"{', '.join(map(str, values))}); expected the same --{key}")
    inputs = [stored_object(folder / run_files.INPUTS) or {} for folder in folders]
    measured = [(stored["supernet"], ranking["seed"]) for stored, ranking in zip(inputs, rankings, strict=True)
                if "supernet" in stored]
    require(len(set(measured)) == len(measured), f"{', '.join(map(str, folders))} are measurements of one supernet "
            "with one seed; expected several supernets, or other images of one (--seed)")


def mean_score(scores: np.ndarray) -> np.ndarray:
    """Return the mean (n,) over supernets of scores (supernets, n), each divided by its deviation."""
    centred = scores - scores.mean(1, keepdims=True)
    deviations = centred.std(1, keepdims=True)
    return (centred / np.where(deviations > 0, deviations, 1)).mean(0)


def agreement(scores: np.ndarray) -> float:
    """Return Kendall's tau between scores (supernets, n), the mean over pairs of supernets."""
    pairs = correlations(scores, scores)[0]
    return float(np.mean([pairs[pair] for pair in itertools.combinations(range(len(scores)), 2)]))


def plain(value: float) -> str:
    """Return a correlation without an interval as text; a score that is always the same has none."""
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def known(value: np.ndarray) -> list[float] | None:
    """Return a correlation with its interval; None where it is not defined."""
    return None if np.isnan(value).any() else value.tolist()


def table(rankings: Sequence[dict[str, Any]], common: dict[str, np.ndarray], column: str, fixed: bool) -> str:
    """Return the table of common scores (supernets, n), of all architectures or at fixed size."""
    values = rankings[0]["values"]
    truth, size = np.array(values["truth"][column])[None], np.log(values["parameters"])
    rows = []
    for name, scores in common.items():
        def estimated(*chosen: np.ndarray, minus_first: bool = False) -> np.ndarray:
            return estimate(np.stack(chosen), truth, rankings[0]["resamples"], rankings[0]["seed"],
                            size if fixed else None, minus_first).tau[:, :, 0].T

        each = [tau for tau, _, _ in estimated(*scores)]
        difference = estimated(scores[0], scores[-1], minus_first=True)[1]
        rows.append((name, " ".join(map(plain, each)), shown(known(difference)),
                     shown(known(estimated(mean_score(scores))[0])),
                     plain(agreement(without_size(scores, size) if fixed else scores))))
    return markdown_table(HEADS, rows)


def main() -> None:
    """Read, compare and print."""
    parser = Parser(prog="studies.several_supernets", description=__doc__,
                    formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rankings", type=Path, nargs="+", help="folders of search.ranking, one for each supernet")
    parser.add_argument("--column", default="", help="column of the table (default: the mean of all)")
    arguments = parser.parse_args()
    require_different(arguments.rankings, "rankings")
    rankings = [dict(read_ranking(folder)) for folder in arguments.rankings]
    require_one_table(arguments.rankings)
    require(len(rankings) > 1, "one ranking was given; expected several, one for each supernet")
    require_measured_alike(rankings, arguments.rankings)
    column = arguments.column or main_column(rankings[0])
    columns = rankings[0]["columns"]
    require(column in columns, f"column is {column}; expected one of {', '.join(columns)}")
    common = common_scores(rankings)
    for subset, fixed in ((ALL, False), (FIXED, True)):
        print(f"\nKendall's τ with {column}, {subset}, {len(rankings[0]['values']['place'])} architectures\n\n"
              f"{table(rankings, common, column, fixed)}")


if __name__ == "__main__":
    run_program(main)
