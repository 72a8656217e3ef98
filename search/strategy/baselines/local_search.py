"""Local search: move to the first better neighbour, and start again where there is none."""

import torch
from torch import Tensor

from search.strategy.baselines.base import Baseline
from search.strategy.baselines.near import near
from search.strategy.problem import Measured, Problem


class LocalSearch(Baseline):
    """Measure the neighbours of an architecture in random order until one is better; then go on from there.

    Under a filter, changes of one row and exchanges of two rows are tried before other changes of two rows. Without a
    better neighbour the architecture is a local optimum, and the search starts again from a random one.
    Neighbours that were measured before are not measured again.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.place = -1  # of the current architecture among the measured ones
        self.left = torch.zeros(0, problem.space.num_rows, dtype=torch.long)  # its neighbours that are still to measure

    def propose(self, measured: Measured, generator: torch.Generator) -> Tensor:
        """Return the architecture (R,) to measure next."""
        if len(measured) == 0:
            return self.fresh(measured, generator)
        values, newest = self.objectives(measured), len(measured) - 1
        if self.place < 0 or values[newest] < values[self.place]:
            self.place = newest
            self.left = near(self.problem, measured.choices[newest], generator)
        self.left = measured.new(self.left)
        if len(self.left) == 0:
            self.place = -1
            return self.fresh(measured, generator)
        chosen, self.left = self.left[0], self.left[1:]
        return chosen
