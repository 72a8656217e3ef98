"""Count the passes of a network that another package attacks."""

import torch
from torch import Tensor, nn


class Counted(nn.Module):
    """A network that counts the images that pass through it.

    Args:
        model: network from images (B, C, H, W) to logits (B, K).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.both = self.forward_alone = 0  # images forward with backward, and forward alone

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images."""
        if torch.is_grad_enabled() and images.requires_grad:
            self.both += len(images)
        else:
            self.forward_alone += len(images)
        logits: Tensor = self.model(images)
        return logits
