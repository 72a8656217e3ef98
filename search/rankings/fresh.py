"""An architecture as an untrained network of its own: the training-free scores."""

from torch import Tensor

from search.rankings.bench import Bench, Measure, Values
from search.training_free import TRAINING_FREE
from search.training_free.untrained import resized, untrained_network


def training_free(bench: Bench) -> Measure:
    """Return the function that scores an architecture without training.

    Its network has the width of the supernet, the number of cells that the bench says, and weights from the search's
    seed.
    """
    config, data, device = bench.trained.config, bench.trained.data, bench.world.device
    images, labels = bench.few
    untrained = resized((config.init_channels, config.layers, data.num_classes, data.image_shape),
                        bench.training_free_layers)

    def measured(choices: Tensor) -> Values:
        values = {}
        for name, entry in TRAINING_FREE.items():
            network = untrained_network(bench.space, bench.space.decode(choices), untrained, bench.trained.seed)
            values[name] = entry.score(network.to(device), images, labels)
        return values

    return measured


def passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture needs, forward and backward, and forward alone."""
    count = len(bench.few[1])
    both, forward = (sum(entry.passes[kind] for entry in TRAINING_FREE.values()) for kind in (0, 1))
    return count * both, count * forward
