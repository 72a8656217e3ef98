"""Regularised evolution (Real et al., AAAI 2019): a queue of architectures, of which the oldest die."""

import torch
from torch import Tensor

from search.strategy.baselines.base import Baseline
from search.strategy.baselines.near import near
from search.strategy.problem import Measured, Problem


class Evolution(Baseline):
    """Mutate the best of a few random members of the newest architectures.

    The population is the last ones measured. A child differs from its parent by one change, and is measured once: if
    all children of a parent were measured, the query is a random architecture.

    Args:
        problem: what is searched.
        population: number of architectures alive; the first ones are random.
        tournament: members drawn for the choice of a parent.
    """

    def __init__(self, problem: Problem, population: int = 20, tournament: int = 5) -> None:
        super().__init__(problem)
        self.population, self.tournament = population, tournament

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        if len(measured) < self.population:
            return self.fresh(measured, generator)
        drawn = torch.randperm(self.population, generator=generator)[:self.tournament] - self.population
        parent = drawn[self.objectives(measured)[drawn].argmin()]
        children = measured.new(near(self.problem, measured.choices[parent], generator))
        return children[0] if len(children) else self.fresh(measured, generator)
