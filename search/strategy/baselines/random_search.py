"""Random search: every query is a random architecture."""

import torch
from torch import Tensor

from search.strategy.baselines.base import Baseline
from search.strategy.problem import Measured


class RandomSearch(Baseline):
    """Measure random architectures, each once."""

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        return self.fresh(measured, generator)
