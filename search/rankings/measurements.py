"""What can be measured of an architecture without training it: a new measurement is a function and an entry."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from search.rankings.bench import Bench, Measure
from search.rankings.inherited import inherited


@dataclass(frozen=True)
class MeasurementEntry:
    """One measurement.

    Args:
        build: function from the images and the supernet to the function that measures one architecture.
        help: explanation in one line, for ``--help``.
        passes: (images of D_v, strengths, steps, images of D_t) -> images forward and backward, and forward alone.
    """

    build: Callable[[Bench], Measure]
    help: str
    passes: Callable[[int, int, int, int], tuple[int, int]]


def attack_passes(images: int, strengths: int, steps: int, recalibration: int) -> tuple[int, int]:
    """Return the images that one architecture sends through the supernet, forward and backward, and forward alone."""
    return images * strengths * steps, recalibration + images * (1 + strengths)


MEASUREMENTS: dict[str, MeasurementEntry] = {
    "supernet": MeasurementEntry(inherited, "losses, accuracies and vulnerability with the supernet's weights",
                                 attack_passes),
    "untrained": MeasurementEntry(partial(inherited, trained=False),
                                  "the same with the weights that the supernet began with", attack_passes),
}
