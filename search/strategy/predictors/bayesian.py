"""Bayesian predictors of the objective, in closed form: the covariance of ``kernel`` and a fitted noise level."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.linalg takes a third of a second
import torch
from torch import Tensor

from search.strategy.kernel import Covariance, Encoded, prior_draw
from search.strategy.problem import SizeFunction
from search.strategy.shares import Shares
from search.strategy.targets import Targets

NOISES = (0.002, 0.01, 0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
"""Noise variances to choose from, in units of the prior variance of the objective."""

NOISE_PRIOR = -0.5
"""Exponent of the prior density of the noise variance: with few measurements, a misfit is not taken for noise."""

LEAST = 1e-9  # variance of a prediction, before scaling

GROWTH = 1.25  # the hyper-parameters are chosen again when the memory has grown by this factor


class Encoder:
    """Encode gates for the covariance.

    Args:
        sizes: function from gates to standardised sizes.
        paths: function from gates to standardised numbers of paths; None: they are not used.
    """

    def __init__(self, sizes: SizeFunction, paths: SizeFunction | None = None) -> None:
        self.sizes, self.paths = sizes, paths

    def __call__(self, gates: Tensor) -> Encoded:
        """Return gates (n, R, O) with their sizes and paths."""
        flat = gates.detach().flatten()
        hard = not gates.requires_grad and bool(flat.dot(flat) == flat.sum())  # gates are from 0 to 1
        return Encoded(gates, self.sizes(gates), self.paths(gates) if self.paths else gates.new_zeros(len(gates), 0),
                       hard)


class Posterior:
    """Predict the standardised objective of architectures; everything is differentiable in the gates.

    Args:
        covariance: prior covariance with the measured architectures, before scaling.
        noise: variance of the measurement, before scaling.
        encode: function from gates to what the covariance sees.
        targets: what was measured.
    """

    def __init__(self, covariance: Covariance, noise: float, encode: Encoder, targets: Targets) -> None:
        self.covariance, self.noise, self.encode, self.targets = covariance, noise, encode, targets
        prior, _ = covariance(covariance.measured)
        self.factor = torch.linalg.cholesky(prior + noise * torch.eye(len(prior), dtype=prior.dtype))
        self.weights = self._solve(targets.objective)
        self.scale = (targets.objective @ self.weights / len(prior)).clamp_min(1e-12)
        self.fitted = prior @ self.weights
        """Predicted objectives (n,) of the measured architectures."""

    def _solve(self, values: Tensor) -> Tensor:
        """Return (K + noise)^-1 values for values (n,) or (n, L)."""
        columns = values.unsqueeze(-1) if values.dim() == 1 else values
        return torch.cholesky_solve(columns, self.factor).view_as(values)

    def _known(self, encoded: Encoded) -> Tensor:
        """Return the prior covariance (m, n) with the measured ones."""
        return self.covariance(encoded)[0]

    def mean(self, gates: Tensor) -> Tensor:
        """Return the expected objectives (m,) of gates (m, R, O)."""
        return self._known(self.encode(gates)) @ self.weights

    def mean_and_deviation(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (m,) of the objectives of gates (m, R, O), without measurement noise."""
        encoded = self.encode(gates)
        if not encoded.hard:
            return cast(tuple[Tensor, Tensor], _MeanAndDeviation.apply(*encoded[:3], self))
        known, prior = self.covariance.hard(encoded)
        explained = torch.linalg.solve_triangular(self.factor, known.T, upper=False).square().sum(0)
        return known @ self.weights, ((prior - explained).clamp_min(LEAST) * self.scale).sqrt()

    def draw(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Return one function (gates -> objectives) of the posterior, by Matheron's rule."""
        measured = self.covariance.measured
        prior = prior_draw([share * float(self.scale) for share in self.covariance.shares], measured, generator)
        noise = torch.randn(len(self.weights), generator=generator, dtype=self.factor.dtype)
        noise = noise * (self.noise * self.scale).sqrt()
        correction = self._solve(self.targets.objective - prior(measured) - noise)

        def function(gates: Tensor) -> Tensor:
            encoded = self.encode(gates)
            return prior(encoded) + self._known(encoded) @ correction
        return function


class _MeanAndDeviation(torch.autograd.Function):
    """Give torch the derivatives of ``Posterior.mean_and_deviation``; it would find them in many small steps."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, sizes: Tensor, paths: Tensor, posterior: Posterior) -> tuple[Tensor, Tensor]:
        known, prior, ctx.pull = posterior.covariance.soft(*(part.detach().numpy() for part in (gates, sizes, paths)))
        ctx.posterior, factor, scale = posterior, posterior.factor.numpy(), posterior.scale.item()
        ctx.solved = scipy.linalg.cho_solve((factor, True), known.T, check_finite=False).T
        variance = prior - (known * ctx.solved).sum(1)
        ctx.deviation = np.sqrt(np.maximum(variance, LEAST) * scale)
        ctx.slope = np.where(variance >= LEAST, scale / (2 * ctx.deviation), 0)
        return torch.from_numpy(known @ posterior.weights.numpy()), torch.from_numpy(ctx.deviation)

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_deviation: Tensor) -> tuple[Tensor | None, ...]:
        of_prior = of_deviation.numpy() * ctx.slope
        of_known = of_mean.numpy()[:, None] * ctx.posterior.weights.numpy() - 2 * of_prior[:, None] * ctx.solved
        return *map(torch.from_numpy, ctx.pull(of_known, of_prior)), None


class BayesianPredictor:
    """Choose the covariance's shares and the noise by their evidence; the posterior is in closed form.

    Args:
        encode: function from gates to what the covariance sees.
        shares: rows of ``PAIRWISE``, ``SIZED`` or ``PATHS`` to choose from.
    """

    def __init__(self, encode: Encoder, shares: Shares) -> None:
        self.encode, self.shares = encode, shares
        self.chosen: tuple[int, int] = (0, 0)  # rows of ``shares`` and NOISES
        self.chosen_at = 0  # size of the memory at that choice

    def fit(self, gates: Tensor, targets: Targets, generator: torch.Generator) -> Posterior:
        """Return the posterior given measured architectures (n, R, O), one-hot."""
        measured = self.encode(gates)
        if len(gates) >= GROWTH * self.chosen_at:
            priors = torch.stack([Covariance(shares, measured)(measured)[0] for shares in self.shares])
            self.chosen, self.chosen_at = choose(priors, targets.objective), len(gates)
        covariance = Covariance(self.shares[self.chosen[0]], measured)
        return Posterior(covariance, NOISES[self.chosen[1]], self.encode, targets)

    def state_dict(self) -> dict[str, Any]:
        """Return the choice of the hyper-parameters."""
        return {"chosen": list(self.chosen), "chosen_at": self.chosen_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``."""
        self.chosen, self.chosen_at = (state["chosen"][0], state["chosen"][1]), state["chosen_at"]


def choose(priors: Tensor, objective: Tensor) -> tuple[int, int]:
    """Return the indices in ``priors`` and ``NOISES`` with the largest posterior density, the scale integrated out.

    Args:
        priors: covariances (S, n, n) to choose from.
        objective: standardised objectives (n,).
    """
    noises = torch.tensor(NOISES, dtype=objective.dtype).unsqueeze(-1)
    values, vectors = torch.linalg.eigh(priors)  # (S, n), (S, n, n)
    projected = (vectors.transpose(1, 2) @ objective).square().unsqueeze(1)  # (S, 1, n)
    spectrum = values.clamp_min(0).unsqueeze(1) + noises  # (S, noises, n)
    evidence = len(objective) * (projected / spectrum).mean(-1).log() + spectrum.log().sum(-1)
    best = int((evidence - 2 * NOISE_PRIOR * noises[:, 0].log()).argmin())
    return best // len(NOISES), best % len(NOISES)
