"""The paper's validation loss estimator (VLE), alone or as an ensemble, as a predictor of the objective."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.strategy.targets import Targets
from wsrnas.runtime.seeding import seeded_weights


class LstmPrediction:
    """Predict the standardised objective by the mean over networks; everything is differentiable in the gates.

    Args:
        networks: fitted VLEs.
        targets: what they were fitted to.
        gates: measured architectures (n, R, O).
    """

    def __init__(self, networks: list[ValidationLossEstimator], targets: Targets, gates: Tensor) -> None:
        self.networks, self.targets = networks, targets
        with torch.no_grad():
            members = self._members(gates)
        self.fitted = members.mean(0)
        self.residual = (members - targets.objective).square().mean().sqrt().clamp_min(1e-6)

    def _members(self, gates: Tensor) -> Tensor:
        """Return the standardised objectives (K, n) that the networks predict for gates (n, R, O)."""
        values = torch.stack([self.targets.function(network(gates.float()).double()) for network in self.networks])
        return (values - self.targets.center) / self.targets.spread

    def mean(self, gates: Tensor) -> Tensor:
        """Return the expected objectives (m,) of gates (m, R, O)."""
        return self._members(gates).mean(0)

    def mean_and_deviation(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (m,): how far the networks differ, and how far they miss what they saw."""
        members = self._members(gates)
        variance = members.var(0, correction=0) + self.residual.square()
        return members.mean(0), variance.sqrt()

    def draw(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Return one network as a function (gates -> objectives)."""
        member = int(torch.randint(len(self.networks), (1,), generator=generator))
        return lambda gates: self._members(gates)[member]


class LstmPredictor:
    """Train one or several VLEs on all measurements, going on from their last weights.

    Args:
        shape: R and O of the gates.
        columns: L, losses of a measurement.
        members: number of networks; each but the first sees the measurements drawn with repetition (bootstrap).
        settings: ``loss_passes``, ``loss_hidden_size``, ``loss_learning_rate`` and ``loss_weight_decay``.
        seed: seed of the initial weights.
    """

    def __init__(self, shape: tuple[int, int], columns: int, members: int, settings: Any, seed: int) -> None:
        self.passes, (rows, operations) = settings.loss_passes, shape
        self.networks: list[ValidationLossEstimator] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        for member in range(members):
            with seeded_weights(seed + member):
                network = ValidationLossEstimator(operations, columns, settings.loss_hidden_size, rows)
            self.networks.append(network)
            self.optimizers.append(torch.optim.Adam(network.parameters(), settings.loss_learning_rate,
                                                    betas=(0.5, 0.999), weight_decay=settings.loss_weight_decay))

    def fit(self, gates: Tensor, targets: Targets, generator: torch.Generator) -> LstmPrediction:
        """Return the prediction after ``loss_passes`` passes over measured architectures (n, R, O)."""
        for member, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            rows = torch.randint(len(gates), (len(gates),), generator=generator) if member else slice(None)
            train_loss_estimator(network, optimizer, gates[rows].float(), targets.columns[rows].float(), self.passes,
                                 generator)
        return LstmPrediction(self.networks, targets, gates)

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimisers."""
        return {"networks": [network.state_dict() for network in self.networks],
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        for network, stored in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(stored)
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
