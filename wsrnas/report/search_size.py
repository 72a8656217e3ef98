"""The section of a search's page that says how much of what was found is size, and how much is not."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.evaluation.intervals import bootstrap_interval
from wsrnas.report.html import paragraph
from wsrnas.report.reading.rows import column, is_number, path_rows
from wsrnas.report.reading.runs import Run
from wsrnas.report.sections import Part

FEWEST = 5  # measured paths
EQUAL_SIZE = 0.02  # parameters that differ by this share of them at most


def size(run: Run) -> Sequence[Part]:
    """Say how well size alone orders the measured objectives, and what was found beyond it."""
    text = " ".join([*_of_size(size_share(run.rows)), *_beyond_size(equal_size_gain(run.rows))])
    return [paragraph(text)] if text else []


def _of_size(found: dict[str, float] | None) -> list[str]:
    if found is None:
        return []
    sentences = [f"Size alone orders the measured objectives of {found['paths']} paths with Kendall's τ "
                 f"{found['tau']:+.2f} (+1: the more parameters, the better)."]
    if "gives" in found:
        sentences.append(
            f"What was found has {found['parameters']:,.0f} parameters in a network of the supernet's size, the mean "
            f"path {found['mean']:,.0f}. By a straight line over log parameters and steps through all measured paths, "
            f"its size makes it {abs(found['gives']):.3f} nats {'better' if found['gives'] >= 0 else 'worse'} than the "
            "mean path.")
    return sentences


def _beyond_size(found: dict[str, float] | None) -> list[str]:
    if found is None:
        return []
    return [f"The measured objective of what was found is {found['gain']:+.3f} nats [{found['low']:+.3f}, "
            f"{found['high']:+.3f}] better than the mean of the {found['paths']} other measured paths of its size "
            f"(within {EQUAL_SIZE:.0%}; interval over the choice of these; what a straight line over the steps gives, "
            "because all losses fall while the supernet learns, is taken off). It was chosen by such numbers, so a "
            "part of it is luck."]


def equal_size_gain(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Return what the architecture that was found gains over measured ones of equal size; None where few are known.

    Args:
        rows: rows of ``metrics.jsonl``.

    Returns:
        ``paths``, the number of the others; ``gain``, the mean of their measured objectives minus its own, in nats,
        with the ends ``low`` and ``high`` of a 95 % bootstrap interval over the others. Objectives are compared at
        one step, by the slope of a line over steps and log parameters through all paths.
    """
    statistics = (rows[-1].get("architecture") or {}) if rows else {}
    genotype, parameters = statistics.get("genotype"), statistics.get("parameters")
    facts = [(row["step"], row["loss_estimator"]) for row in path_rows(rows)
             if isinstance(row.get("loss_estimator"), dict) and is_number(row.get("step"))]
    known = [(step, fact) for step, fact in facts
             if is_number(fact.get("parameters")) and is_number(fact.get("measured_objective"))]
    if not known or not isinstance(parameters, int | float) or not is_number(parameters):
        return None
    slope = _line(*np.array([(step, fact["parameters"], fact["measured_objective"]) for step, fact in known],
                            dtype=float).T)[1]
    at_one_step = [(fact.get("architecture"), fact["parameters"], fact["measured_objective"] - slope * step)
                   for step, fact in known]
    own = [objective for cell, _, objective in at_one_step if genotype and cell == genotype]
    others = [objective for cell, size, objective in at_one_step
              if cell != genotype and abs(size - parameters) <= EQUAL_SIZE * parameters]
    if not own:
        return None
    if len(others) < FEWEST:
        return None
    gains = np.array(others) - own[-1]
    low, high = bootstrap_interval(gains)
    return {"paths": len(others), "gain": float(gains.mean()), "low": low, "high": high}


def _line(step: np.ndarray, parameters: np.ndarray, objective: np.ndarray) -> tuple[float, float]:
    """Return the slopes over log parameters and over steps of a line through measured objectives (n,)."""
    logs = np.log(np.maximum(parameters, 1))
    terms = np.stack([np.ones_like(step), logs - logs.mean(), step - step.mean()], 1)
    _, of_size, of_step = np.linalg.lstsq(terms, objective, rcond=None)[0].tolist()
    return of_size, of_step


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
        slope = _line(step, parameters, objective)[0]
        result |= {"parameters": last, "mean": math.exp(logs.mean()),
                   "gives": float(-slope * (math.log(max(last, 1)) - logs.mean()))}
    return result
