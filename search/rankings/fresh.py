"""An architecture as an untrained network of its own: the training-free scores."""

from torch import Tensor

from search.rankings.bench import Bench, Measure, Values
from search.rankings.training_free import TRAINING_FREE
from wsrnas.runtime.seeding import seeded_weights


def training_free(bench: Bench) -> Measure:
    """Return the function that scores an architecture without training.

    Its network has the width and the number of cells of the supernet, and weights from the search's seed.
    """
    config, data, device = bench.trained.config, bench.trained.data, bench.world.device
    images, labels = bench.few

    def measured(choices: Tensor) -> Values:
        values = {}
        for name, entry in TRAINING_FREE.items():
            with seeded_weights(bench.trained.seed, "training-free"):
                network = bench.space.network(bench.space.decode(choices), config.init_channels, config.layers,
                                              data.num_classes, data.image_shape[0])
            values[name] = entry.score(network.to(device), images, labels)
        return values

    return measured


def passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture needs, forward and backward, and forward alone."""
    count = len(bench.few[1])
    both, forward = (sum(entry.passes[kind] for entry in TRAINING_FREE.values()) for kind in (0, 1))
    return count * both, count * forward
