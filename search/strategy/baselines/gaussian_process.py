"""A Gaussian process over the number of different rows, with expected improvement."""

import math

import numpy as np
import scipy  # its parts are loaded when they are used
import torch
from torch import Tensor

from search.strategy.acquisition import expected_improvement
from search.strategy.baselines.base import Baseline
from search.strategy.baselines.near import near
from search.strategy.problem import Measured, Problem

LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Numbers of different rows after which the correlation has fallen to 1/e, to choose from."""

NOISES = (1e-4, 1e-3, 0.01, 0.05, 0.15, 0.4, 1.0)
"""Noise variances to choose from, as shares of the variance of the function."""

GROWTH = 1.1  # length and noise are chosen again when the measurements have grown by this factor


def equal_rows(a: Tensor, b: Tensor, operations: int) -> np.ndarray:
    """Return the number (m, n) of rows in which choices (m, R) and (n, R) are equal."""
    one_hot = [torch.nn.functional.one_hot(x, operations).flatten(1).double() for x in (a, b)]
    return (one_hot[0] @ one_hot[1].T).numpy()


class Posterior:
    """Hold a fitted Gaussian process with the covariance s² exp(-rows that differ / length).

    Args:
        different: number (n, n) of different rows between measured architectures.
        values: standardised objectives (n,).
        length: its length scale.
        noise: noise variance, as a share of s².
    """

    def __init__(self, different: np.ndarray, values: np.ndarray, length: float, noise: float) -> None:
        self.length, self.noise = length, noise
        self.factor = scipy.linalg.cho_factor(np.exp(-different / length) + noise * np.eye(len(values)), lower=True)
        self.weights = scipy.linalg.cho_solve(self.factor, values)
        self.scale = max(float(values @ self.weights) / len(values), 1e-12)  # s², by maximum likelihood
        self.evidence = (-0.5 * len(values) * math.log(self.scale) - np.log(np.diag(self.factor[0])).sum())
        """Logarithm of the marginal likelihood, up to a constant."""

    def predict(self, different: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (m,) of architectures with (m, n) different rows."""
        covariance = np.exp(-different / self.length)
        explained = scipy.linalg.solve_triangular(self.factor[0], covariance.T, lower=True)
        variance = self.scale * (1 - (explained**2).sum(0))
        return covariance @ self.weights, np.sqrt(np.maximum(variance, 1e-12))


class GaussianProcess(Baseline):
    """Fit a Gaussian process to what was measured, and measure where the expected improvement is largest.

    Length scale and noise have the largest marginal likelihood. The improvement is over the smallest posterior mean of
    a measured architecture, which noise does not lower.

    Args:
        problem: what is searched.
        initial: number of random architectures at the start.
        candidates: architectures to choose from; a larger pool is drawn from at random, and architectures near the
            best ones are added.
    """

    BEST = 5  # measured architectures whose surroundings are candidates

    def __init__(self, problem: Problem, initial: int = 10, candidates: int = 2000) -> None:
        super().__init__(problem)
        self.initial, self.candidates = initial, candidates
        self.chosen, self.chosen_at = (LENGTHS[0], NOISES[0]), 0

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        if len(measured) < self.initial:
            return self.fresh(measured, generator)
        found = measured.new(self._candidates(measured, generator))
        if len(found) == 0:
            return self.fresh(measured, generator)
        posterior = self.fit(measured)
        mean, deviation = posterior.predict(self._different(found, measured.choices))
        best = posterior.predict(self._different(measured.choices, measured.choices))[0].min()
        improvement = expected_improvement(*(torch.as_tensor(values) for values in (best, mean, deviation)))
        return found[int(improvement.argmax())]

    def outputs(self, measured: Measured, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the measured architectures with the best objective and with the best posterior mean."""
        verified = self.fit(measured).predict(self._different(measured.choices, measured.choices))[0].argmin()
        return super().outputs(measured, generator) | {"verified": measured.choices[int(verified)]}

    def predict(self, measured: Measured, choices: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return the posterior means (n,) of choices (n, R)."""
        return torch.from_numpy(self.fit(measured).predict(self._different(choices, measured.choices))[0])

    def _different(self, a: Tensor, b: Tensor) -> np.ndarray:
        return a.shape[1] - equal_rows(a, b, len(self.problem.space.operations))

    def _candidates(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architectures to choose from."""
        pool = self.problem.pool
        if pool is not None and len(pool) <= self.candidates:
            return pool[self.problem.allowed(pool)]
        best = self.objectives(measured).argsort()[:self.BEST]
        return torch.cat([self.problem.random(self.candidates, generator),
                          *(near(self.problem, measured.choices[place], generator) for place in best)])

    def fit(self, measured: Measured) -> Posterior:
        """Return the process that is fitted to what was measured."""
        different = self._different(measured.choices, measured.choices)
        values = self.objectives(measured).numpy()
        values = (values - values.mean()) / max(values.std(), 1e-9)
        if len(values) >= GROWTH * self.chosen_at:
            fits = [Posterior(different, values, length, noise) for length in LENGTHS for noise in NOISES]
            best = max(fits, key=lambda fit: fit.evidence)
            self.chosen, self.chosen_at = (best.length, best.noise), len(values)
        return Posterior(different, values, *self.chosen)
