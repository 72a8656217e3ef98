"""The supernet of DARTS cells under its public name, and what all supernets share."""

import torch

from search.spaces.darts import DARTS
from search.spaces.darts_supernet import DartsSupernet
from search.spaces.supernet import Path, gumbel_noise, gumbel_softmax

__all__ = ["Path", "Supernet", "gumbel_noise", "gumbel_softmax"]


class Supernet(DartsSupernet):
    """Hold the weights of all paths of DARTS cells, and A; the arguments are those of ``DartsSupernet``."""

    def __init__(self, init_channels: int = 16, layers: int = 8, num_classes: int = 10, tau: float = 0.1,
                 alpha_std: float = 1e-3, generator: torch.Generator | None = None) -> None:
        super().__init__(DARTS, init_channels, layers, num_classes, tau, alpha_std, generator)
