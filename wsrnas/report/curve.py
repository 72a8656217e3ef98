"""Draw the accuracy of networks over the strength of an attack, from results in Python."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsrnas.report.figures.accuracy import accuracy_figure
from wsrnas.report.figures.svg import save_figure
from wsrnas.report.reading.evaluations import Evaluation, evaluation_problem
from wsrnas.report.reading.networks import Network, distinct_names
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import type_in_words
from wsrnas.runtime.reading import shown_path


def draw_curve(*results: Mapping[str, Any], path: str | Path = "", norm: str = "") -> Any:
    """Draw accuracy over strength with 95 % intervals: one colour for each network, one marker for each attack.

    Args:
        *results: results of ``evaluate``, or result files of ``retrain.evaluate``, read as JSON.
        path: path with or without a suffix, where an SVG and a PNG are written; empty: none.
        norm: norm of the attacks that are drawn, "linf" or "l2"; empty: the first of them that the results have.

    Returns:
        The matplotlib figure, which a notebook shows.

    Raises:
        InputError: there is no attack of this norm, something is no result, or the path is a folder.
    """
    require(bool(results), "there is no result to draw; expected results of evaluate, one after the other")
    for number, result in enumerate(results, start=1):
        problem = evaluation_problem(result) if isinstance(result, Mapping) else f"is {type_in_words(result)}"
        require(not problem, f"result {number} {problem}; expected what evaluate returns")
    evaluations = [Evaluation(str(result.get("name") or "network"), "", dict(result)) for result in results]
    networks = [Network(name, (evaluation,)) for name, evaluation in
                zip(distinct_names(evaluations), evaluations, strict=True)]
    figures = (accuracy_figure(networks, one) for one in ([norm] if norm else ["linf", "l2"]))
    drawn = next((figure for figure in figures if figure is not None), None)
    require(drawn is not None, f"there is no attack of the norm {norm or 'linf or l2'} to draw")
    require(isinstance(path, (str, os.PathLike)), f"path is {type_in_words(path)}; expected a text or a Path")
    if path:
        target = Path(path)
        require(not target.is_dir(), f"path is {shown_path(target)}, a folder; expected the path of a figure in it")
        save_figure(drawn, target.with_suffix("") if target.suffix in (".svg", ".png") else target)
    return drawn
