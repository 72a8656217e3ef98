"""What every strategy can do, whether it learns or not."""

from typing import Protocol

import torch
from torch import Tensor

from search.strategy.problem import Measured


class Strategy(Protocol):
    """Choose what is measured next, and name what was found. Only strategies that learn predict.

    ``search.tabular`` asks a copy (``copy.deepcopy``) for outputs and predictions, so that a report changes no search.
    """

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next.

        Raises:
            InputError: every allowed architecture was measured.
        """

    def outputs(self, measured: Measured, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what was found (R,) by kind of output, of those in ``wsrnas.architectures.outputs``."""

    def predict(self, measured: Measured, choices: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return the predicted objectives (n,), up to scale, of choices (n, R); None where nothing is learned."""
