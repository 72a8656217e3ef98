"""Stochastic gradient descent: its fields in a configuration, and the optimiser that they describe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wsrnas.runtime.config import RunConfig, option
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import nn


@dataclass(frozen=True)
class SgdConfig(RunConfig):
    """The fields of a program that trains networks by SGD."""

    learning_rate: float = option(0.1, "learning rate of SGD at the peak of its schedule", group="optimiser")
    momentum: float = option(0.9, "momentum of SGD")
    weight_decay: float = option(5e-4, "weight decay of SGD")
    grad_clip: float = option(5.0, "largest gradient norm of the network's weights; 0: no clipping")

    def require_sgd(self) -> None:
        """Refuse fields that are out of range.

        Raises:
            InputError: naming the first such field.
        """
        self.require_positive("learning_rate")
        self.require_at_least(0, "momentum", "weight_decay", "grad_clip")

    def sgd(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        """Build the optimiser of the parameters."""
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
