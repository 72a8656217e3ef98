"""What the baselines share: a new random architecture, and the best measured one as the output."""

import torch
from torch import Tensor

from search.strategy.problem import Measured, Problem
from wsrnas.runtime.config import require

TRIES = 100


class Baseline:
    """Give out the measured architecture with the smallest objective; predict nothing.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def objectives(self, measured: Measured) -> Tensor:
        """Return the measured objectives (n,)."""
        return self.problem.objective(measured.losses)

    def fresh(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return a random allowed architecture (R,) that was not measured.

        Raises:
            InputError: all of them were, as far as many draws and the pool can tell.
        """
        for _ in range(TRIES):
            if len(found := measured.new(self.problem.random(1, generator))):
                return found[0]
        pool = self.problem.pool
        left = measured.new(self.problem.random(1000, generator) if pool is None else pool[self.problem.allowed(pool)])
        require(len(left) > 0, f"all allowed architectures of the space {self.problem.space.name} are measured, "
                f"{len(measured)}; expected fewer queries")
        return left[torch.randint(len(left), (), generator=generator)]

    def outputs(self, measured: Measured, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the best measured architecture."""
        return {"best": measured.choices[self.objectives(measured).argmin()]}

    def predict(self, measured: Measured, choices: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return None: nothing is learned."""
        return None
