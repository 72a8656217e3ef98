"""A-ANE: hidden states are vectors; attention aggregates filtered noises (Fig. 2).

Shapes: B batch, C channels, H W image, S source strengths, T target strengths, N any number.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsrnas.estimators.recurrence import STRENGTH_FEATURES, RecurrentEstimator, attend, each, zeroed

FILTERS = 10
GRID = 3
STATE = FILTERS * GRID**2
VALUE_WIDTH = 100


class ConvPoolReshape(nn.Module):
    """Turn a picture (N, C, H, W) into a vector (N, 90), at any size from 8x8 on (the paper's CPR module)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, FILTERS, 5, stride=4)

    def forward(self, pictures: Tensor) -> Tensor:
        """Convolve, then take the maxima of a 3x3 grid of equal windows.

        The window is a third of the map, rounded. A map that is too small is padded with zeros (neutral after
        ReLU); one that is too large is cut (the last row and column at 32x32, as MaxPool2 does). The maximum is
        that of a view, because the CUDA backward of adaptive pooling is not deterministic.
        """
        features = self.conv(pictures).relu()
        height, width = (max(1, round(size / GRID)) for size in features.shape[-2:])
        rest = (GRID * width - features.shape[-1], GRID * height - features.shape[-2])
        fitted = F.pad(features, (0, rest[0], 0, rest[1]))
        return fitted.unflatten(3, (GRID, width)).unflatten(2, (GRID, height)).amax((3, 5)).flatten(1)


class AANE(RecurrentEstimator):
    """Estimate by attention over vectors (Attention AN-Estimator, A-ANE; Eq. 7, Fig. 2).

    It has 60,383 parameters for 3 channels.

    Deviation: 76,763 in the reference, of which 8,190 are never used and 8,190 project the keys; the paper
    takes the hidden states themselves as keys.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.image_encoder = ConvPoolReshape(channels)
        self.forward_encoder = ConvPoolReshape(channels)
        self.backward_encoder = ConvPoolReshape(channels)
        self.forward_cell = nn.Sequential(nn.Linear(STATE + STRENGTH_FEATURES + STATE, STATE), nn.ReLU())
        self.backward_cell = nn.Sequential(nn.Linear(STATE + STRENGTH_FEATURES + STATE, STATE), nn.ReLU())
        # Deviation: the reference ends queries in ReLU, where a query can die; ours are signed.
        self.forward_query = nn.Linear(STATE, STATE)
        self.backward_query = nn.Linear(STATE, STATE)
        self.value = nn.Sequential(
            nn.Conv2d(channels, VALUE_WIDTH, 3, padding=1),
            nn.ReLU(),
            zeroed(nn.Conv2d(VALUE_WIDTH, channels, 3, padding=1)),
        )

    def encode_image(self, images: Tensor) -> Tensor:
        """Return vectors (B, 90)."""
        return self.image_encoder(images)

    def encode_strengths(self, epsilons: Tensor, images: Tensor) -> Tensor:
        """Return features (B, N, 20)."""
        return self.strength_features(epsilons)

    def encode_noises(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors (B, S, 90) for each direction, which has its own CPR module."""
        return each(self.forward_encoder, units), each(self.backward_encoder, units)

    def decode(self, queries: tuple[Tensor, Tensor], hidden: Tensor, units: Tensor) -> Tensor:
        """Attend with the hidden states as keys and the filtered noises as values."""
        forward_query, backward_query = queries
        query = torch.cat([self.forward_query(forward_query), self.backward_query(backward_query)], dim=-1)
        return attend(query, hidden, each(self.value, units))
