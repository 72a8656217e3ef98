"""The size of architectures as features of a predictor: it costs nothing to know."""

import torch
from torch import Tensor

from search.spaces.space import ImageShape, Space


class Sizes:
    """Return log parameters and log multiply-adds, each standardised over random architectures.

    Args:
        space: the search space.
        init_channels: width C of the networks that are counted.
        layers: their number of cells.
        num_classes: K.
        image_shape: channels, height and width of an image.
    """

    SAMPLE = 512  # random architectures that give mean and standard deviation

    def __init__(self, space: Space, init_channels: int, layers: int, num_classes: int,
                 image_shape: ImageShape) -> None:
        self.space, self.arguments = space, (init_channels, layers, num_classes, image_shape)
        self.mean, self.std = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        logs = self(space.gates(space.sample(self.SAMPLE, torch.Generator().manual_seed(0))).double())
        self.mean, self.std = logs.mean(0), logs.std(0).clamp_min(1e-9)

    def __call__(self, gates: Tensor) -> Tensor:
        """Return sizes (n, 2) of gates (n, R, O): those of the expected network where gates are soft."""
        return (self.space.expected_cost(gates, *self.arguments).clamp_min(1).log() - self.mean) / self.std
