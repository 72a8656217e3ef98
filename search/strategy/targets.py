"""What a predictor learns from: the measured columns, cut where they only say "bad", and the objective of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from search.strategy.objective import Objective


class Targets(NamedTuple):
    """Measurements ready for a predictor.

    Attributes:
        columns: losses (n, L), cut.
        objective: standardised objectives (n,) of them.
        center: mean of the objectives before.
        spread: their standard deviation.
        function: the objective, from losses (..., L) to (...,).
    """

    columns: Tensor
    objective: Tensor
    center: Tensor
    spread: Tensor
    function: Objective

    def in_nats(self, objective: Tensor) -> Tensor:
        """Return standardised objectives (n,) in the unit of the measurements."""
        return self.center + self.spread * objective


def targets(losses: Tensor, objective: Objective, quantile: float) -> Targets:
    """Prepare measured losses (n, L) for a predictor.

    Every column is cut at its quantile: bad architectures all look equally bad, so that the predictor spends its
    effort on the good ones (docs/SEARCH.md has the measurement).

    Args:
        losses: one row for each measurement; smaller is better.
        objective: function from losses to the number to minimise.
        quantile: where to cut, in (0, 1]; 1 cuts nothing.
    """
    columns = losses.double()
    columns = torch.minimum(columns, torch.quantile(columns, quantile, dim=0))
    values = objective(columns)
    spread = values.std(correction=0)
    spread = torch.where(spread > 1e-9, spread, 1.0)
    return Targets(columns, (values - values.mean()) / spread, values.mean(), spread, objective)
