"""E-ANE and E-ANE-minus: hidden states are feature maps of the size of the image.

Shapes: B batch, C channels, H W image, S source strengths, T target strengths, N any number.
"""

import torch
from torch import Tensor, nn

from wsrnas.estimators.recurrence import STRENGTH_FEATURES, RecurrentEstimator, attend, each, zeroed

WIDTH = 100
QUERY = 50


class EncodingEstimator(RecurrentEstimator):
    """Use feature maps as states: a state has the C channels of a noise, a strength is one constant map."""

    def __init__(self, forward_cell: nn.Module, backward_cell: nn.Module) -> None:
        super().__init__()
        self.strength_level = nn.Linear(STRENGTH_FEATURES, 1)
        self.forward_cell, self.backward_cell = forward_cell, backward_cell

    def encode_image(self, images: Tensor) -> Tensor:
        """Return the image itself, (B, C, H, W)."""
        return images

    def encode_strengths(self, epsilons: Tensor, images: Tensor) -> Tensor:
        """Return maps (B, N, 1, H, W), constant over H and W."""
        # Deviation: the reference learns one weight per pixel, Linear(1 -> 1024), which fixes the image size.
        level = self.strength_level(self.strength_features(epsilons))
        return level[..., None, None].expand(*epsilons.shape, 1, *images.shape[-2:])

    def encode_noises(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised noises themselves, (B, S, C, H, W)."""
        return units, units


class EANE(EncodingEstimator):
    """Compute queries, keys and values from the states (Encoding AN-Estimator, E-ANE).

    It has 127,570 parameters for 3 channels. The reference has 133,281, of which 2,047 are in a learned start map
    and 2,048 in a strength encoder tied to 32x32.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(_cell(channels), _cell(channels))
        self.query, self.key = _code(2 * channels), _code(2 * channels)
        self.value = _value(channels)
        zeroed(self.value[-1])

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """Attend with spatial means of encoded states as queries and keys, and decoded states as values."""
        # Deviation: the reference's MaxPool16 sees the upper left 16x16 only, and fixes the image size.
        query = each(self.query, torch.cat(queries, dim=2)).mean((-2, -1))
        key = each(self.key, hidden).mean((-2, -1))
        return attend(query, key, each(self.value, hidden))


class EANEMinus(EncodingEstimator):
    """Decode the query maps, without attention and without weighted average (E-ANE-minus, Table 5).

    It has 26,470 parameters for 3 channels. The reference has 223,384, of which 29,481 are used.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(_cell(channels), _cell(channels))
        self.decoder = _value(channels)

    def average(self, source_noises: Tensor, source_epsilons: Tensor, target_epsilons: Tensor) -> float:
        """Return zero: the whole output of E-ANE-minus is learned."""
        return 0.0

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """Return the decoded query maps."""
        return each(self.decoder, torch.cat(queries, dim=2))


def _cell(channels: int) -> nn.Sequential:
    """Return a hidden cell: state, strength map and noise (N, 2C + 1, H, W) -> state (N, C, H, W)."""
    # Deviation: the reference ends cells and values in ReLU and can only add positive noise; ours are signed,
    # and states are bounded as noises are, so that no number of sources makes them grow.
    return nn.Sequential(
        nn.Conv2d(2 * channels + 1, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, channels, 3, padding=1),
        nn.Tanh(),
    )


def _code(channels: int) -> nn.Sequential:
    """Return a query or key encoder: (N, C, H, W) -> (N, 50, H - 4, W - 4)."""
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, QUERY, 3), nn.ReLU())


def _value(channels: int) -> nn.Sequential:
    """Return a decoder of a pair of states: (N, 2C, H, W) -> noise (N, C, H, W) in units of its strength."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, channels, 3, padding=1),
    )
