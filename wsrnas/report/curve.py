"""Draw the accuracy of networks over the strength of an attack, from results in Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsrnas.report.figures.accuracy import accuracy_figure
from wsrnas.report.figures.svg import save_figure
from wsrnas.report.reading.evaluations import Evaluation
from wsrnas.report.reading.networks import Network
from wsrnas.runtime.config import require


def draw_curve(*results: Mapping[str, Any], path: str | Path = "", norm: str = "linf") -> Any:
    """Draw accuracy over strength with 95 % intervals: one colour for each network, one marker for each attack.

    Args:
        *results: results of ``evaluate``, or result files of ``retrain.evaluate``, read as JSON.
        path: path with or without a suffix, where an SVG and a PNG are written; empty: none.
        norm: norm of the attacks that are drawn, "linf" or "l2".

    Returns:
        The matplotlib figure, which a notebook shows.

    Raises:
        InputError: there is no attack of this norm.
    """
    networks = [Network(result["name"], (Evaluation(result["name"], "", dict(result)),)) for result in results]
    drawn = accuracy_figure(networks, norm)
    require(drawn is not None, f"there is no attack of the norm {norm} to draw")
    if path:
        target = Path(path)
        save_figure(drawn, target.with_suffix("") if target.suffix in (".svg", ".png") else target)
    return drawn
