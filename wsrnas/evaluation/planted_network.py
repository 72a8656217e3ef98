"""A network that sees planted examples, and images that bear their number.

Each image has a readout of its own, and attacks drop images that have fallen. So an image bears its number, in rows of
pixels below it that no gradient moves.

Shapes: B images, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Readouts:
    """One linear readout of the logits for each image; it is above 0 where the planted class is.

    Args:
        weights: (B, K).
        offsets: (B,).
        margins: (B,) margins of the images themselves.
        planted: (B,) bool, whether an example could be planted.
    """

    weights: Tensor
    offsets: Tensor
    margins: Tensor
    planted: Tensor

    def scores(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the readouts (b,) of logits (b, K) of the images with these numbers (b,)."""
        return (logits * self.weights[rows]).sum(1) - self.offsets[rows]


class Planted(nn.Module):
    """A network that tells its own class from the planted one: logits (B, 4), of which the last two say nothing.

    Args:
        model: network from images to logits, in evaluation mode.
        readouts: the readouts of images, by their number.
        rows: rows of pixels below an image that hold its number.
    """

    def __init__(self, model: nn.Module, readouts: Readouts, rows: int) -> None:
        super().__init__()
        self.model, self.readouts, self.rows = model, readouts, rows
        self.training = model.training

    def forward(self, marked: Tensor) -> Tensor:
        """Return logits of images (B, C, H + rows, W)."""
        nchw = marked.is_contiguous()
        images = marked[:, :, :-self.rows].contiguous(
            memory_format=torch.contiguous_format if nchw else torch.channels_last)
        bits = marked[:, :, -self.rows:].detach().flatten(1) > 0.5
        powers = 2 ** torch.arange(bits.shape[1], device=bits.device).clamp_max(30)
        numbers = (bits.long() * powers).sum(1).clamp_max(len(self.readouts.planted) - 1)
        scores = self.readouts.scores(self.model(images), numbers)
        least = torch.full_like(scores, -2.0) * self.readouts.margins[numbers]
        return torch.stack([torch.zeros_like(scores), scores, least, least], 1)


def marked(images: Tensor) -> tuple[Tensor, int]:
    """Return images (B, C, H + rows, W) that bear their numbers 0 to B - 1 in binary digits, and the number of rows."""
    count, channels, _, width = images.shape
    digits = max(count - 1, 1).bit_length()
    rows = -(-digits // (channels * width))
    numbers = torch.arange(count, device=images.device)[:, None] >> torch.arange(digits, device=images.device)
    below = F.pad((numbers & 1).to(images), (0, rows * channels * width - digits)).view(count, channels, rows, width)
    layout = torch.contiguous_format if images.is_contiguous() else torch.channels_last
    return torch.cat([images, below], 2).contiguous(memory_format=layout), rows
