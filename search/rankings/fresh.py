"""An architecture as an untrained network of its own: the training-free scores."""

from torch import Tensor, nn

from search.rankings.bench import Bench, Measure, Stop, Values
from search.training_free import TRAINING_FREE
from search.training_free.untrained import resized, untrained_network, untrained_score


def training_free(bench: Bench) -> Measure:
    """Return the function that scores an architecture without training.

    Its network has the width of the supernet, the number of cells that the bench says, and weights from the search's
    seed.
    """
    config, data, device = bench.trained.config, bench.trained.data, bench.world.device
    images, labels = bench.few
    untrained = resized((config.init_channels, config.layers, data.num_classes, data.image_shape),
                        bench.training_free_layers)

    def measured(choices: Tensor, stop: Stop) -> Values:
        stop()
        architecture = bench.space.decode(choices)

        def build(number: int) -> nn.Module:
            return untrained_network(bench.space, architecture, untrained, bench.trained.seed, number).to(device)

        return {name: untrained_score(entry, build, images, labels) for name, entry in TRAINING_FREE.items()}

    return measured


def passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture needs, forward and backward, and forward alone."""
    costs = [entry.cost(len(bench.few[1])) for entry in TRAINING_FREE.values()]
    return sum(both for both, _ in costs), sum(forward for _, forward in costs)
