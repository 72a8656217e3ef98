"""How the candidate to measure is chosen, from what a fitted predictor says of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor

    from search.strategy.targets import Targets


class Prediction(Protocol):
    """Describe what a proposal asks of a fitted predictor; ``predictors`` has them."""

    fitted: Tensor
    targets: Targets

    def mean(self, gates: Tensor) -> Tensor:
        """Return the expected objectives (m,) of gates (m, R, O)."""

    def mean_and_deviation(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (m,) of the objectives of gates (m, R, O)."""

    def draw(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Return one function (gates -> objectives) of the posterior."""


def improvement(prediction: Prediction, gates: Tensor, generator: torch.Generator) -> Tensor:
    """Return how much better than the best so far gates (n, R, O) are expected to be, (n,)."""
    return expected_improvement(prediction.fitted.min(), *prediction.mean_and_deviation(gates))


def thompson(prediction: Prediction, gates: Tensor, generator: torch.Generator) -> Tensor:
    """Return the negative objectives (n,) of gates (n, R, O) in one draw of the posterior."""
    return -prediction.draw(generator)(gates)


ACQUISITIONS: dict[str, Callable[[Prediction, Tensor, torch.Generator], Tensor]] = {
    "improvement": improvement,
    "thompson": thompson,
}
"""How the candidate to measure is chosen: the one with the largest value."""


def expected_improvement(best: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return E[max(best - f, 0)] of normal predictions (n,), in the unit of the objective."""
    score = (best - mean) / deviation
    return deviation * (score * torch.special.ndtr(score) + torch.exp(-score.square() / 2) / math.sqrt(2 * math.pi))
