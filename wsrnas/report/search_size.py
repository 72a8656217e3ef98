"""The section of a search's page that says how much of what was found is size."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.report.html import paragraph
from wsrnas.report.reading.rows import column, path_rows
from wsrnas.report.reading.runs import Run
from wsrnas.report.sections import Part

FEWEST = 5  # measured paths


def size(run: Run) -> Sequence[Part]:
    """Say how well size alone orders the measured objectives, and what it gives the architecture that was found."""
    found = size_share(run.rows)
    if found is None:
        return []
    text = (f"Size alone orders the measured objectives of {found['paths']} paths with Kendall's τ "
            f"{found['tau']:+.2f} (+1: the more parameters, the better).")
    if "gives" in found:
        text += (f" What was found has {found['parameters']:,.0f} parameters in a network of the supernet's size, the "
                 f"mean path {found['mean']:,.0f}. By a straight line over log parameters and steps through all "
                 f"measured paths, its size makes it {abs(found['gives']):.3f} nats "
                 f"{'better' if found['gives'] >= 0 else 'worse'} than the mean path.")
    return [paragraph(text)]


def size_share(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Return how much size explains of the measured objectives; None where too little is known.

    Args:
        rows: rows of ``metrics.jsonl``.

    Returns:
        ``paths``, their number; ``tau``, Kendall's τ of their parameters with the negative objective. Where the last
        row knows what was found: its ``parameters``, the geometric ``mean`` of those of the paths, and what its size
        ``gives``, in nats: the difference between the two on a line over log parameters. The line has a slope over the
        steps as well, because all losses fall while the supernet learns.
    """
    from scipy.stats import kendalltau
    paths = path_rows(rows)
    columns = (column(paths, "step"), column(paths, "loss_estimator", "parameters"),
               column(paths, "loss_estimator", "measured_objective"))
    known = [row for row in zip(*columns, strict=True) if None not in row]
    if len(known) < FEWEST:
        return None
    step, parameters, objective = np.array(known, dtype=float).T
    logs = np.log(np.maximum(parameters, 1))
    if np.ptp(logs) == 0 or np.ptp(objective) == 0:
        return None
    result = {"paths": len(known), "tau": float(kendalltau(parameters, -objective).statistic)}
    last = column(rows[-1:], "architecture", "parameters")[0]
    if last is not None:
        terms = np.stack([np.ones_like(step), logs - logs.mean(), step - step.mean()], 1)
        slope = np.linalg.lstsq(terms, objective, rcond=None)[0][1]
        result |= {"parameters": last, "mean": math.exp(logs.mean()),
                   "gives": float(-slope * (math.log(max(last, 1)) - logs.mean()))}
    return result
