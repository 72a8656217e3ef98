"""The untrained network of an architecture."""

from typing import Any

from torch import nn

from search.spaces.space import ImageShape, Space
from wsrnas.runtime.seeding import seeded_weights

IMAGES = 64  # that training-free scores see; at least one of each class


def untrained_network(space: Space, architecture: Any, network: tuple[int, int, int, ImageShape],
                      seed: int) -> nn.Module:
    """Return the network of an architecture with random weights, the same for the same seed.

    Args:
        space: search space of the architecture.
        architecture: the architecture.
        network: width, number of cells, number of classes, and shape (C, H, W) of an image.
        seed: seed of the weights.
    """
    init_channels, layers, num_classes, image_shape = network
    with seeded_weights(seed, "training-free"):
        return space.network(architecture, init_channels, layers, num_classes, image_shape[0])
