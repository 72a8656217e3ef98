"""The results of a ranking: ``ranking.json``, and its tables in Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from search.rankings.bench import Bench
from search.rankings.compared import all_scores, sizes_of, truth_of
from search.rankings.rows import Row
from search.rankings.settings import RankingConfig
from search.rankings.statistics import SUBSETS, by_subset
from search.tables.table import Table
from wsrnas.report.reading.rankings import FORMAT, answers, main_column, name_of, shown
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.environment import environment
from wsrnas.runtime.markdown import markdown_table

MEASURES = {"tau": "Kendall's τ", "rho": "Spearman's ρ"}


def document(config: RankingConfig, table: Table, bench: Bench, places: Sequence[int],
             rows: Mapping[str, Sequence[Row]], available: int) -> dict[str, Any]:
    """Return everything that the file of results holds.

    Args:
        config: the configuration.
        table: the table.
        bench: what the architectures were measured on.
        places: places of the architectures in the table.
        rows: rows of every measurement, in the order of ``places``.
        available: number of different architectures in the table.
    """
    truth, sizes = truth_of(table, places), sizes_of(table, places)
    scores = all_scores(rows, bench, sizes)
    found = by_subset(np.stack([score.values for score in scores]), np.stack(list(truth.values())),
                      np.log(sizes["parameters"]), config.resamples, config.seed)
    entries = [{"group": score.group, "score": score.name,
                **{measure: {subset: {column: _numbers(getattr(estimates, measure)[:, row, place])
                                      for place, column in enumerate(truth)} for subset, estimates in found.items()}
                   for measure in MEASURES}} for row, score in enumerate(scores)]
    return {"format": FORMAT, "run": str(bench.trained.path), "steps": bench.trained.steps, "age": bench.trained.age,
            "space": bench.space.name, "table": table.name, "source": table.source, "synthetic": table.synthetic,
            "subsets": SUBSETS, "measures": MEASURES, "columns": list(truth), "architectures": len(places),
            "available": available, "counts": {subset: estimates.architectures for subset, estimates in found.items()},
            "images": bench.images, "strengths": list(bench.strengths), "num_steps": bench.num_steps,
            "recalibration_batches": len(bench.recalibration), "measured": list(rows), "resamples": config.resamples,
            "seed": config.seed, "scores": entries,
            "values": {"place": list(places), "in_file": table.numbers(torch.tensor(places)),
                       **{name: values.astype(int).tolist() for name, values in sizes.items()},
                       "truth": {column: values.tolist() for column, values in truth.items()},
                       "scores": [score.values.tolist() for score in scores]},
            "config": to_dict(config), "environment": environment(bench.world)}


def _numbers(values: np.ndarray) -> list[float] | None:
    """Return a correlation and its interval; None where all scores are equal."""
    return None if math.isnan(values[0]) else [round(float(value), 5) for value in values]


def correlation_table(results: Mapping[str, Any], measure: str, subset: str) -> str:
    """Return one row for each score and one column for each column of the table."""
    return markdown_table(("score", *results["columns"]), (
        (name_of(entry), *(shown(value) for value in entry[measure][subset].values()))
        for entry in results["scores"]))


def summary_table(results: Mapping[str, Any]) -> str:
    """Return Kendall's tau of each score with the main column of the table, one column for each subset."""
    column = main_column(results)
    heads = [f"{subset} ({results['counts'][subset]})" for subset in results["subsets"]]
    return markdown_table((f"τ with {column}", *heads), (
        (name_of(entry), *(shown(entry["tau"][subset][column]) for subset in results["subsets"]))
        for entry in results["scores"]))


def ranking_page(results: Mapping[str, Any]) -> str:
    """Return all tables with what they are about, in Markdown."""
    age = results.get("age") or f"after {results['steps']} steps"  # earlier versions have no words
    lines = [f"# Ranking of {results['table']} by {results['run']}", "",
             f"{results['architectures']} of {results['available']:,} different architectures; "
             f"supernet {age}; {results['images']} images of D_v, "
             f"PGD-{results['num_steps']} at {', '.join(f'{strength:g}' for strength in results['strengths'])}.",
             "A positive correlation means that the score ranks well: low losses, a low vulnerability, high "
             f"accuracies. Intervals: 95 %, {results['resamples']} resamples of the architectures."]
    if found := answers(results):
        lines += ["", "## Does a low vulnerability predict robustness?", "", *(f"- {answer}" for answer in found)]
    for measure, title in MEASURES.items():
        for subset, meaning in SUBSETS.items():
            lines += ["", f"## {title}, {subset}", "", f"{meaning[0].upper()}{meaning[1:]} "
                      f"({results['counts'][subset]}).", "", correlation_table(results, measure, subset)]
    return "\n".join(lines) + "\n"
