"""Bayesian predictors of the objective, in closed form: the covariance of ``kernel`` and a fitted noise level."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from search.strategy.kernel import covariances, hard_covariances, prior_draw, variances
from search.strategy.problem import SizeFunction
from search.strategy.targets import Targets

NOISES = (0.002, 0.01, 0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
"""Noise variances to choose from, in units of the prior variance of the objective."""

NOISE_PRIOR = -0.5
"""Exponent of the prior density of the noise variance: with few measurements, a misfit is not taken for noise."""

GROWTH = 1.25  # the hyper-parameters are chosen again when the memory has grown by this factor

PAIRWISE = ((.4, .3, .1, .2, 0, 0, 0), (.2, .5, .1, .2, 0, 0, 0), (.1, .3, .1, .5, 0, 0, 0), (.3, .2, .3, .2, 0, 0, 0),
            (.05, .75, .05, .15, 0, 0, 0))
"""Shares of the variance of each part: operations and pairs of them alone."""

SIZED = ((.1, .1, 0, .1, 0, .3, .4), (.05, .1, 0, .1, 0, .05, .7), (.1, .2, .05, .1, .1, .3, .15))
"""Shares with the size and with all rows together as well."""


class Posterior:
    """Predict the standardised objective of architectures; everything is differentiable in the gates.

    Args:
        shares: variance (7,) of each part of the covariance, before scaling.
        noise: variance of the measurement, before scaling.
        gates: measured architectures (n, R, O), one-hot.
        sizes: function from gates to standardised sizes.
        targets: what was measured.
        covariance: prior covariance (n, n) of the measured architectures.
    """

    def __init__(self, shares: Tensor, noise: float, gates: Tensor, sizes: SizeFunction, targets: Targets,
                 covariance: Tensor) -> None:
        self.shares, self.noise, self.gates, self.sizes, self.targets = shares, noise, gates, sizes, targets
        self.measured_sizes = sizes(gates)
        self.factor = torch.linalg.cholesky(covariance + noise * torch.eye(len(gates), dtype=covariance.dtype))
        self.weights = self._solve(targets.objective)
        self.scale = (targets.objective @ self.weights / len(gates)).clamp_min(1e-12)
        self.fitted = covariance @ self.weights
        """Predicted objectives (n,) of the measured architectures."""

    def _solve(self, values: Tensor) -> Tensor:
        """Return (K + noise)^-1 values for values (n,) or (n, L)."""
        columns = values.unsqueeze(-1) if values.dim() == 1 else values
        return torch.cholesky_solve(columns, self.factor).view_as(values)

    def _covariance(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prior covariance (m, n) with the measured ones, and the sizes of ``gates`` (m, R, O)."""
        sizes = self.sizes(gates)
        parts = covariances if gates.requires_grad else _covariances_of
        return torch.tensordot(self.shares, parts(gates, sizes, self.gates, self.measured_sizes), 1), sizes

    def mean(self, gates: Tensor) -> Tensor:
        """Return the expected objectives (m,) of gates (m, R, O)."""
        return self._covariance(gates)[0] @ self.weights

    def mean_and_deviation(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (m,) of the objectives of gates (m, R, O), without measurement noise."""
        covariance, sizes = self._covariance(gates)
        explained = torch.linalg.solve_triangular(self.factor, covariance.T, upper=False).square().sum(0)
        variance = self.shares @ variances(gates, sizes) - explained
        return covariance @ self.weights, (variance.clamp_min(1e-9) * self.scale).sqrt()

    def draw(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Return one function (gates -> objectives) of the posterior, by Matheron's rule."""
        _, rows, operations = self.gates.shape
        prior = prior_draw(self.shares * self.scale, rows, operations, self.measured_sizes.shape[1], generator)
        noise = torch.randn(len(self.gates), generator=generator, dtype=self.factor.dtype)
        noise = noise * (self.noise * self.scale).sqrt()
        correction = self._solve(self.targets.objective - prior(self.gates, self.measured_sizes) - noise)

        def function(gates: Tensor) -> Tensor:
            covariance, sizes = self._covariance(gates)
            return prior(gates, sizes) + covariance @ correction
        return function

    def losses(self, gates: Tensor) -> Tensor:
        """Return the expected losses (m, L) of gates (m, R, O), in the unit of the measurements."""
        columns = self.targets.columns
        mean = columns.mean(0)
        return mean + self._covariance(gates)[0] @ self._solve(columns - mean)


def _covariances_of(gates: Tensor, sizes: Tensor, measured: Tensor, measured_sizes: Tensor) -> Tensor:
    """Take the quick way for one-hot gates."""
    hard = bool(((gates == 0) | (gates == 1)).all())
    return (hard_covariances if hard else covariances)(gates, sizes, measured, measured_sizes)


class BayesianPredictor:
    """Choose the covariance's shares and the noise by their evidence; the posterior is in closed form.

    Args:
        sizes: function from gates to standardised sizes.
        shares: rows of ``PAIRWISE`` or ``SIZED`` to choose from.
    """

    def __init__(self, sizes: SizeFunction, shares: tuple[tuple[float, ...], ...]) -> None:
        self.sizes, self.shares = sizes, torch.tensor(shares, dtype=torch.float64)
        self.chosen: tuple[int, int] = (0, 0)  # rows of ``shares`` and NOISES
        self.chosen_at = 0  # size of the memory at that choice

    def fit(self, gates: Tensor, targets: Targets, generator: torch.Generator) -> Posterior:
        """Return the posterior given measured architectures (n, R, O), one-hot."""
        sizes = self.sizes(gates)
        parts = hard_covariances(gates, sizes, gates, sizes)
        if len(gates) >= GROWTH * self.chosen_at:
            self.chosen, self.chosen_at = choose(self.shares, parts, targets.objective), len(gates)
        shares, noise = self.shares[self.chosen[0]], NOISES[self.chosen[1]]
        return Posterior(shares, noise, gates, self.sizes, targets, torch.tensordot(shares, parts, 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the choice of the hyper-parameters."""
        return {"chosen": list(self.chosen), "chosen_at": self.chosen_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        self.chosen, self.chosen_at = (state["chosen"][0], state["chosen"][1]), state["chosen_at"]


def choose(shares: Tensor, parts: Tensor, objective: Tensor) -> tuple[int, int]:
    """Return the rows of ``shares`` and ``NOISES`` with the largest posterior density, the scale integrated out.

    Args:
        shares: choices (S, 7).
        parts: parts (7, n, n) of the covariance.
        objective: standardised objectives (n,).
    """
    noises = torch.tensor(NOISES, dtype=objective.dtype).unsqueeze(-1)
    values, vectors = torch.linalg.eigh(torch.tensordot(shares, parts, 1))  # (S, n), (S, n, n)
    projected = (vectors.transpose(1, 2) @ objective).square().unsqueeze(1)  # (S, 1, n)
    spectrum = values.clamp_min(0).unsqueeze(1) + noises  # (S, noises, n)
    evidence = len(objective) * (projected / spectrum).mean(-1).log() + spectrum.log().sum(-1)
    best = int((evidence - 2 * NOISE_PRIOR * noises[:, 0].log()).argmin())
    return best // len(NOISES), best % len(NOISES)
