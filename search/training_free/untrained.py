"""The untrained network of an architecture."""

from typing import Any

from torch import nn

from search.spaces.space import ImageShape, Space
from wsrnas.runtime.seeding import seeded_weights

Network = tuple[int, int, int, ImageShape]  # width, number of cells, number of classes, (C, H, W) of an image
IMAGES = 64  # that training-free scores see; at least one of each class


def resized(network: Network, layers: int) -> Network:
    """Return what describes a network with another number of cells; 0: the same."""
    return network if not layers else (network[0], layers, *network[2:])


def untrained_network(space: Space, architecture: Any, network: Network,
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
