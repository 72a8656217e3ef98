"""From the smallest noise of each image to accuracies at all strengths, the area under their curve and the median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.intervals import accuracy_interval, accuracy_row, median_interval
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor

    from wsrnas.evaluation.measurement import Evaluation


@dataclass(frozen=True)
class MeasuredCurve:
    """A curve with what its attack found.

    Args:
        curve: norm, strengths and steps.
        distances: (N,) float64, the smallest noise found for each image: 0 where it is wrong without noise, infinite
            where none was found.
        seconds: seconds over all processes.
        passes: passes of a test image, forward with backward and forward alone; None where they are not known.
    """

    curve: Curve
    distances: Tensor
    seconds: float
    passes: tuple[float, float] | None

    @property
    def points(self) -> list[tuple[Attack, Tensor]]:
        """The curve at its strengths, as attacks with the (N,) flags of images that withstand them: d > ε."""
        return [(attack, self.distances > strength)
                for attack, strength in zip(attacks_of(self.curve), self.curve.strengths, strict=True)]

    def lowered(self, attacks: Sequence[tuple[Attack, Tensor]]) -> MeasuredCurve:
        """Return the curve that knows what other attacks found: what fools the network at ε is no further away.

        Args:
            attacks: attacks with their (N,) flags of images that withstand them; those of other norms say nothing.
        """
        distances = self.distances
        for attack, flags in attacks:
            if attack.norm == self.curve.norm and attack.epsilon is not None:
                distances = torch.where(flags, distances, distances.clamp_max(attack.epsilon))
        return MeasuredCurve(self.curve, distances, self.seconds, self.passes)


def attacks_of(curve: Curve) -> list[Attack]:
    """Return a curve at its strengths as attacks."""
    return [Attack("curve", strength, curve.norm, curve.steps, loss="margin") for strength in curve.strengths]


def measure_curve(evaluation: Evaluation, clean: Tensor, curve: Curve) -> MeasuredCurve:
    """Search the smallest noise of every image that is right without noise, and say what was found.

    Args:
        evaluation: evaluation of the network.
        clean: (N,) bool, which images are right.
        curve: the curve.
    """
    distances = evaluation.distances(curve, clean.nonzero().flatten())
    seconds, _ = evaluation.cost(curve)
    found = MeasuredCurve(curve, distances, seconds, evaluation.passes_of(curve))
    evaluation.log(f"{evaluation.name}: {curve}: {curve_line(summary(found, clean, []))}, {seconds:.1f} s")
    return found


def curve_rows(found: MeasuredCurve | None, attacks: Sequence[tuple[Attack, Tensor]]
               ) -> tuple[list[tuple[Attack, Tensor]], list[dict[str, Any]]]:
    """Return the strengths of a curve as attacks with flags, and as rows of a result; none without a curve.

    Seconds and passes of the whole curve are shared evenly between its strengths.

    Args:
        found: the curve.
        attacks: further attacks with their flags, which lower it.
    """
    if found is None:
        return [], []
    points = found.lowered(attacks).points
    passes = [number / len(points) for number in found.passes] if found.passes else None
    return points, [{**attack.describe(), **accuracy_row(flags), "seconds": found.seconds / len(points), "warnings": [],
                     "passes": passes} for attack, flags in points]


def summary(found: MeasuredCurve, clean: Tensor, attacks: Sequence[tuple[Attack, Tensor]]) -> dict[str, Any]:
    """Return the numbers of a curve as plain values.

    Args:
        found: the curve.
        clean: (N,) bool, which images are right without noise.
        attacks: further attacks with their flags, which lower it.

    Returns:
        ``norm``, ``strengths``, ``steps``; ``area``: the mean accuracy over all strengths from 0 to the largest, which
        is exact; ``median``: the smallest noise of half of the images that are right without noise, None where there
        are none; ``lowered_by``: names of the attacks that lower the curve; ``distances``, None where none was found.
    """
    curve, distances = found.curve, found.lowered(attacks).distances
    scores = _scores(distances.numpy(), curve.strengths[-1])
    return {"norm": curve.norm, "strengths": list(curve.strengths), "steps": curve.steps,
            "area": {"value": float(scores.mean()), "interval": list(accuracy_interval(scores)),
                     "up_to": curve.strengths[-1]},
            "median": median_interval(distances[clean].numpy()),
            "lowered_by": [str(attack) for attack, flags in attacks if attack.norm == curve.norm and attack.epsilon
                           and bool((found.lowered([(attack, flags)]).distances < found.distances).any())],
            "distances": [value if np.isfinite(value) else None for value in distances.tolist()]}


def _scores(distances: np.ndarray, largest: float) -> np.ndarray:
    """Return the share of the strengths from 0 to the largest that each image withstands, (N,)."""
    return np.minimum(distances, largest) / largest


def stored_scores(curve: dict[str, Any]) -> np.ndarray:
    """Return the scores (N,) whose mean is the area under a stored curve."""
    return _scores(np.array([np.inf if value is None else value for value in curve["distances"]]),
                   curve["strengths"][-1])


def area_end(result: dict[str, Any]) -> str:
    """Return the largest strength of a result's area in words."""
    return _strength(result["area"]["up_to"], (result.get("curve") or {}).get("norm", "linf"))


def curve_line(curve: dict[str, Any]) -> str:
    """Return area and median of a stored curve in one line."""
    low, high = curve["area"]["interval"]
    top = curve["strengths"][-1]
    return (f"area up to {_strength(top, curve['norm'])} {100 * curve['area']['value']:.2f} "
            f"[{100 * low:.1f}, {100 * high:.1f}], median smallest noise {median_cell(curve)}")


def median_cell(curve: dict[str, Any] | None) -> str:
    """Return the median of a stored curve with its interval; a hyphen where there is no curve."""
    if not curve:
        return "-"
    if curve["median"] is None:
        return "none: no image is right without noise"
    value, low, high = ("none found" if number is None else _strength(number, curve["norm"])
                        for number in (curve["median"]["value"], *curve["median"]["interval"]))
    return f"{value} [{low}, {high}]"


def _strength(number: float, norm: str) -> str:
    return f"{number:.4g}" if norm == "l2" else format_epsilon(number)
