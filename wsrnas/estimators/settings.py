"""The fields of a configuration that train an AN-Estimator, and the optimiser that they describe."""

from __future__ import annotations

from dataclasses import dataclass

from wsrnas.runtime.config import RunConfig, option
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import nn


@dataclass(frozen=True)
class EstimatorTrainingConfig(RunConfig):
    """The fields of a program that trains AN-Estimators."""

    estimator_batch_size: int = option(64, "tasks per optimiser step of an AN-Estimator", group="AN-Estimator",
                                      unit="TASKS")
    estimator_learning_rate: float = option(5e-4, "learning rate of an AN-Estimator's AdamW: 4 % linear warm-up, then "
                                            "half a cosine (published code)")
    estimator_weight_decay: float = option(1e-4, "weight decay of an AN-Estimator's AdamW (published code)")

    def require_estimator_training(self) -> None:
        """Refuse fields that are out of range.

        Raises:
            InputError: naming the first such field.
        """
        self.require_at_least(1, "estimator_batch_size")
        self.require_positive("estimator_learning_rate")
        self.require_at_least(0, "estimator_weight_decay")

    def estimator_optimizer(self, estimator: nn.Module) -> torch.optim.AdamW | None:
        """Build the optimiser of an AN-Estimator; return None for one without weights."""
        weights = list(estimator.parameters())
        return torch.optim.AdamW(weights, self.estimator_learning_rate,
                                 weight_decay=self.estimator_weight_decay) if weights else None
