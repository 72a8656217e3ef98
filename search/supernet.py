"""The supernet of DARTS cells under its public name, and what all supernets share."""

from search.spaces.darts import DartsSupernet as Supernet
from search.spaces.supernet import Path, gumbel_noise, gumbel_softmax

__all__ = ["Path", "Supernet", "gumbel_noise", "gumbel_softmax"]
