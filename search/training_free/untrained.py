"""The untrained network of an architecture."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from search.spaces.space import ImageShape, Space
from search.training_free import ScoreEntry
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.seeding import seeded_weights

Network = tuple[int, int, int, ImageShape]  # width, number of cells, number of classes, (C, H, W) of an image
IMAGES = 64  # that training-free scores see; at least one of each class


def resized(network: Network, layers: int) -> Network:
    """Return what describes a network with another number of cells; 0: the same."""
    return network if not layers else (network[0], layers, *network[2:])


def untrained_network(space: Space, architecture: Any, network: Network, seed: int, number: int = 0) -> nn.Module:
    """Return the network of an architecture with random weights, the same for the same seed and number.

    Args:
        space: search space of the architecture.
        architecture: the architecture.
        network: width, number of cells, number of classes, and shape (C, H, W) of an image.
        seed: seed of the weights.
        number: number of the weights, of several that a score is averaged over.
    """
    init_channels, layers, num_classes, image_shape = network
    with seeded_weights(seed, "training-free", *[number] * (number > 0)):
        return space.network(architecture, init_channels, layers, num_classes, image_shape[0])


def untrained_score(entry: ScoreEntry, build: Callable[[int], nn.Module], images: Tensor, labels: Tensor) -> float:
    """Return a training-free score of an architecture, the mean over networks with different weights.

    Args:
        entry: the score.
        build: function from the number of the weights to the network.
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
    """
    with exact_arithmetic():
        return sum(entry.score(build(number), images, labels) for number in range(entry.networks)) / entry.networks
