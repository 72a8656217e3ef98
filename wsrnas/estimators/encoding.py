"""E-ANE and E-ANE-minus: hidden states are feature maps of the size of the image.

Shapes: B batch, C channels, H W image, S source strengths, T target strengths, N any number.
"""

import torch
from torch import Tensor, nn

from wsrnas.estimators.recurrence import STRENGTH_FEATURES, RecurrentEstimator, attend, each, zeroed

WIDTH = 100
QUERY = 50


class EncodingEstimator(RecurrentEstimator):
    """Feature-map states: a state has the C channels of a noise, a strength is one constant map."""

    def __init__(self, forward_cell: nn.Module, backward_cell: nn.Module) -> None:
        super().__init__()
        self.strength_level = nn.Linear(STRENGTH_FEATURES, 1)
        self.forward_cell, self.backward_cell = forward_cell, backward_cell

    def encode_image(self, images: Tensor) -> Tensor:
        """The image itself, (B, C, H, W)."""
        return images

    def encode_strengths(self, epsilons: Tensor, images: Tensor) -> Tensor:
        """(B, N, 1, H, W), constant over H and W."""
        # Deviation: the reference learns one weight per pixel, Linear(1 -> 1024), which fixes the image size.
        level = self.strength_level(self.strength_features(epsilons))
        return level[..., None, None].expand(*epsilons.shape, 1, *images.shape[-2:])

    def encode_noises(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised noises themselves, (B, S, C, H, W)."""
        return units, units


class EANE(EncodingEstimator):
    """The Encoding AN-Estimator (E-ANE): queries, keys and values come from the states. 127,570 parameters.

    The reference has 133,281: 2,047 in a learned start map and 2,048 in a strength encoder tied to 32x32.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(_cell(channels), _cell(channels))
        self.query, self.key = _code(2 * channels), _code(2 * channels)
        self.value = _value(channels)
        zeroed(self.value[-1])

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """Queries and keys are spatial means of encoded states, values decoded states."""
        # Deviation: the reference's MaxPool16 sees the upper left 16x16 only, and fixes the image size.
        query = each(self.query, torch.cat(queries, dim=2)).mean((-2, -1))
        key = each(self.key, hidden).mean((-2, -1))
        return attend(query, key, each(self.value, hidden))


class EANEMinus(EncodingEstimator):
    """E-ANE without attention and without weighted average (E-ANE-minus, Table 5). 26,470 parameters.

    The query maps, decoded, are the estimate. The reference has 223,384, of which 29,481 are used.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(_cell(channels), _cell(channels))
        self.decoder = _value(channels)

    def average(self, source_noises: Tensor, source_epsilons: Tensor, target_epsilons: Tensor) -> float:
        """Nothing: what E-ANE-minus emits is all learned."""
        return 0.0

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """The decoded query maps."""
        return each(self.decoder, torch.cat(queries, dim=2))


def _cell(channels: int) -> nn.Sequential:
    """A hidden cell: state, strength map and noise (N, 2C + 1, H, W) -> state (N, C, H, W)."""
    # Deviation: the reference ends cells and values in ReLU and can only add positive noise; ours are signed,
    # and states are bounded as noises are, so that no number of sources makes them grow.
    return nn.Sequential(
        nn.Conv2d(2 * channels + 1, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, channels, 3, padding=1),
        nn.Tanh(),
    )


def _code(channels: int) -> nn.Sequential:
    """A query or key encoder: (N, C, H, W) -> (N, 50, H - 4, W - 4)."""
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, QUERY, 3), nn.ReLU())


def _value(channels: int) -> nn.Sequential:
    """A decoder of a pair of states: (N, 2C, H, W) -> noise (N, C, H, W) in units of its strength."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, channels, 3, padding=1),
    )
