"""What can be measured of an architecture of a table: a new measurement is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from search.measure_settings import SHORT
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from search.rankings.alone import alone, alone_passes
    from search.rankings.bench import Bench, Measure
    from search.rankings.fresh import passes, training_free
    from search.rankings.inherited import inherited, path_passes
    from search.rankings.rows import Row
    from search.rankings.scores import Scores, supernet_scores, training_free_scores


@dataclass(frozen=True)
class MeasurementEntry:
    """One measurement.

    Args:
        build: function from the images and the supernet to the function that measures one architecture.
        scores: function from the rows of all architectures and the bench to scores by name.
        help: explanation in one line, for ``--help``.
        passes: function to the images that an architecture needs, forward and backward, and forward alone.
        usual: whether it is measured without being asked for.
    """

    build: Callable[[Bench], Measure]
    scores: Callable[[Sequence[Row], Bench], Scores]
    help: str
    passes: Callable[[Bench], tuple[int, int]]
    usual: bool = True


MEASUREMENTS: dict[str, MeasurementEntry] = {
    "supernet": MeasurementEntry(inherited, supernet_scores,
                                 "losses, accuracies and vulnerability with the supernet's weights", path_passes),
    "untrained": MeasurementEntry(partial(inherited, trained=False), supernet_scores,
                                  "the same with the weights that the supernet began with", path_passes),
    "training-free": MeasurementEntry(training_free, training_free_scores,
                                      "scores of a network of its own with random weights", passes),
    SHORT: MeasurementEntry(alone, supernet_scores, "losses, accuracies and vulnerability after a short adversarial "
                            "training of its own", alone_passes, usual=False),
}
