"""Whole curves of evaluations: accuracy at every strength, which is a step down at each image's smallest noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsrnas.evaluation.intervals import share_intervals
from wsrnas.report.reading.networks import Network
from wsrnas.report.reading.rows import DAMAGE, is_number


@dataclass(frozen=True)
class WholeCurve:
    """Accuracy as a function of strength: constant from each place to the next.

    Args:
        document: entry ``curve`` of the evaluation.
        places: (S,) increasing strengths from 0 to the largest, in pixels of [0, 1].
        accuracies: (S,) shares of the images that withstand the strength.
        low: (S,) lower ends of the 95 % intervals over the images, at each strength for itself.
        high: (S,) upper ends.
    """

    document: dict[str, Any]
    places: np.ndarray
    accuracies: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def name(self) -> str:
        """Name of the attack."""
        return f"curve-{self.document['steps']}" + (" L2" if self.document["norm"] == "l2" else "")

    @property
    def short(self) -> str:
        """Area and median in a few words."""
        median, linf = (self.document["median"] or {}).get("value"), self.document["norm"] == "linf"
        said = "beyond reach" if median is None else f"{255 * median:.3g}/255" if linf else f"{median:.3g}"
        said = "of no image" if self.document["median"] is None else said
        return f"area {100 * self.document['area']['value']:.1f} %, median {said}"

    def holds(self, row: dict[str, Any]) -> bool:
        """Return whether a stored row of an attack is this curve at one of its strengths."""
        return (row.get("method") == "curve" and row.get("norm") == self.document["norm"]
                and row.get("steps") == self.document["steps"] and row.get("epsilon") in self.document["strengths"])

    def drawn(self, most: int) -> tuple[np.ndarray, ...]:
        """Return places, accuracies and both ends, without steps that are too narrow to be seen.

        Args:
            most: largest number of steps; of several in one part of the axis, the last is kept.
        """
        part = (self.places / self.places[-1] * most).astype(int)
        kept = np.append(part[1:] != part[:-1], True)
        kept[0] = True  # the accuracy without noise
        return tuple(values[kept] for values in (self.places, self.accuracies, self.low, self.high))


def whole_curve(document: Any, images: Any) -> WholeCurve | None:
    """Return the curve of an evaluation's entry ``curve``; None where there is none, or a damaged one.

    Args:
        document: the entry.
        images: number of images of the evaluation.
    """
    try:
        found = [np.inf if value is None else float(value) for value in document["distances"]]
        top = float(document["strengths"][-1])
        distances = np.sort(np.array(found))
        counts = is_number(document["area"]["value"]) and isinstance(document["steps"], int)
        if len(distances) != images or not counts or not top > 0 or (
                document["norm"] not in ("linf", "l2") or not (distances >= 0).all()):
            return None
        places = np.unique(np.concatenate([[0.0, top], distances[distances < top]]))
        standing = len(distances) - np.searchsorted(distances, places, side="right")  # d > ε
        curve = WholeCurve(document, places, standing / images, *share_intervals(standing, images))
        return curve if curve.short else None
    except DAMAGE:
        return None


def curves_of(network: Network, norm: str) -> list[WholeCurve]:
    """Return the newest whole curve of a network in a norm, in a list; an empty one without."""
    every = [whole_curve(e.result.get("curve"), e.result.get("images")) for e in network.evaluations]
    return [curve for curve in every if curve and curve.document["norm"] == norm][-1:]
