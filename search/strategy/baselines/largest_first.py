"""Largest first: measure architectures from the largest to the smallest, and learn nothing."""

import torch
from torch import Tensor

from search.strategy.baselines.base import Baseline
from search.strategy.baselines.near import shuffled
from search.strategy.problem import Measured, Problem

SAMPLE = 10_000  # random architectures to order where there is no pool
DIGITS = 6  # of the standardised size; equal architectures differ by rounding


class LargestFirst(Baseline):
    """Follow the first size of the problem, parameters, from large to small; equal sizes come in random order.

    It shows how much of a result is size alone.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.order: Tensor | None = None

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        if self.order is None:
            self.order = self._ordered(generator)
        for start in range(len(self.order)):
            if len(measured.new(self.order[start:start + 1])):
                self.order = self.order[start:]
                return self.order[0]
        return self.fresh(measured, generator)

    def _ordered(self, generator: torch.Generator) -> Tensor:
        """Return the allowed architectures, largest first."""
        problem = self.problem
        pool = problem.random(SAMPLE, generator) if problem.pool is None else problem.pool[
            problem.allowed(problem.pool)]
        pool = shuffled(pool, generator)
        sizes = problem.sizes(problem.space.gates(pool).double())[:, 0].round(decimals=DIGITS)
        return pool[sizes.sort(descending=True, stable=True).indices]
