"""Read the ``ranking.json`` of a ranking, and say in words what its correlations mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import read_json

FORMAT = "wsrnas ranking 1"
CLEAN, MEAN = "clean", "mean"  # columns of the truth that are not under attack alone
ALL, FIXED = "all", "fixed size"
NEEDED = {"scores", "values", "columns", "subsets", "architectures", "synthetic", "table", "source", "run", "resamples"}
VULNERABILITY = "vulnerability F"
WEIGHTS = {"supernet": "", "short": " after short trainings"}  # measurements of F with trained weights
WHERE = {ALL: "Among all architectures", FIXED: "at fixed size"}
Results = Mapping[str, Any]


def read_ranking(folder: Path) -> Results:
    """Read the results in a folder.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    path = folder / run_files.RANKING
    try:
        results = read_json(path)
        if results["format"] == FORMAT and set(results) >= NEEDED and results["columns"]:
            return dict(results)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"{path} holds no ranking; the same command of search.ranking writes it again")


def name_of(entry: Results) -> str:
    """Return the name of a score with its group."""
    return f"{entry['group']}: {entry['score']}"


def main_column(results: Results) -> str:
    """Return the column of the truth that figures show: the mean, or the only one."""
    return str(results["columns"][-1])


def shown(value: Sequence[float] | None) -> str:
    """Return a correlation and its interval as text."""
    if value is None:
        return "–"
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*value).replace("-", "−")


def meaning(value: Sequence[float] | None) -> str:
    """Say what a correlation and its interval tell about a low vulnerability."""
    if value is None:
        return "nothing can be said, because all values are equal"
    if value[1] > 0:
        return "yes"
    return "no, a high F goes with a high accuracy" if value[2] < 0 else "not that it could be told apart from chance"


def questions(results: Results) -> list[tuple[str, str, list[Sequence[float] | None]]]:
    """Return where F was measured, a column under attack and F's correlations with it, at all and at fixed size."""
    attacked = [column for column in results["columns"] if column not in (CLEAN, MEAN)]
    return [(entry["score"].removeprefix(VULNERABILITY).strip(" ,") + WEIGHTS[entry["group"]], column,
             [entry["tau"][subset][column] for subset in WHERE])
            for entry in results["scores"]
            if entry["group"] in WEIGHTS and entry["score"].startswith(VULNERABILITY) for column in attacked]


def answers(results: Results) -> list[str]:
    """Return one sentence for each strength: does a low vulnerability F predict accuracy under attack?

    This is the central claim of RNAS. The columns under attack are asked, at all and at fixed size.
    """
    sentences = []
    for measured, column, values in questions(results):
        parts = [f"{where}: {meaning(value)} (τ {shown(value)})" for where, value in zip(WHERE.values(), values,
                                                                                        strict=True)]
        sentences.append(f"Does a low F {measured} predict the accuracy {column}? {'; '.join(parts)}.")
    return sentences
