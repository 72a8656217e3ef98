"""The task that a table gives a strategy: what may be measured, what is minimised, and what is truly best."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from search.strategy.budget import around, cost_in, within
from search.strategy.objective import Objective
from search.strategy.problem import Problem, everything
from search.tables.size_class import parse_size_class
from search.tables.table import Table
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator

EQUAL_SIZE = 0.02  # difference in parameters, as a fraction, within which architectures count as equally large


@dataclass(frozen=True, eq=False)
class TableTask:
    """Hold a table with the truth about its architectures.

    Args:
        table: the table.
        problem: what a strategy is asked to solve.
        truth: true objective (n,) of every architecture of the table, in points.
        allowed: which of them may be measured, (n,) bool.
    """

    table: Table
    problem: Problem
    truth: Tensor
    allowed: Tensor

    @property
    def best(self) -> float:
        """The smallest true objective of an allowed architecture."""
        return float(self.truth[self.allowed].min())

    @property
    def distinct(self) -> Tensor:
        """Places of the allowed architectures, one of each function."""
        return first_of_each(self.table.row, self.allowed.nonzero().squeeze(1))

    @cached_property
    def mean(self) -> float:
        """The mean true objective of the different allowed architectures."""
        return float(self.truth[self.distinct].mean())

    @cached_property
    def mean_of_equal_size(self) -> Tensor:
        """The mean true objective (n,) of those of them that have as many parameters as each one, within 2 %.

        Its own where there is none: a graph with idle convolutions may be larger than all that compute the same.
        """
        parameters = self.table.space.cost(self.table.choices, *self.table.network)[:, 0].double()
        places = self.distinct[parameters[self.distinct].argsort(stable=True)]
        known = parameters[places]
        sums = torch.cat([known.new_zeros(1), self.truth[places].double().cumsum(0)])
        first = torch.searchsorted(known, parameters * (1 - EQUAL_SIZE))
        last = torch.searchsorted(known, parameters * (1 + EQUAL_SIZE), right=True)
        count = last - first
        return torch.where(count > 0, (sums[last] - sums[first]) / count.clamp_min(1), self.truth.double())

    def gain(self, choices: Tensor) -> tuple[float, float] | None:
        """Return by how many points an architecture (R,) is better than the mean, and those of equal size are.

        The second number is what its size gives. None if the architecture may not be measured.
        """
        place = int(self.table.find(choices.unsqueeze(0)))
        if place < 0 or not bool(self.allowed[place]):
            return None
        return self.mean - float(self.truth[place]), self.mean - float(self.mean_of_equal_size[place])

    def regret(self, choices: Tensor) -> float | None:
        """Return by how many points an architecture (R,) misses the best; None if it may not be measured."""
        place = int(self.table.find(choices.unsqueeze(0)))
        if place < 0 or not bool(self.allowed[place]):
            return None
        return float(self.truth[place]) - self.best


def first_of_each(row: Tensor, places: Tensor) -> Tensor:
    """Return the first of ``places`` for each row of results, in their order."""
    first: dict[int, int] = {}
    for place, number in zip(places.tolist(), row[places].tolist(), strict=True):
        first.setdefault(number, place)
    return torch.tensor(list(first.values()), dtype=torch.long)


def random_order(table: Table, seed: int, among: Tensor) -> list[int]:
    """Return the places of the different architectures of a table, of those among which (n,) bool, in random order."""
    distinct = first_of_each(table.row, among.nonzero().squeeze(1))
    return distinct[torch.randperm(len(distinct), generator=generator(seed, "ranked architectures"))].tolist()


def limited(table: Table, size_class: str = "", budget: str = "", tolerance: float = 0.02) -> Tensor:
    """Return which architectures (n,) bool of a table are within limits; see ``table_task``."""
    space, ends = table.space, parse_size_class(size_class)
    inside = torch.ones(len(table.choices), dtype=torch.bool)
    if ends is not None:
        require(bool(space.operation_weights), f"size_class is {size_class!r}, but the space {space.name} gives its "
                "operations no weights; expected no --size_class")
        weights = space.weight(table.choices)
        inside = (weights >= ends[0]) & (weights <= ends[1])
        require(bool(inside.any()), f"size_class {size_class} holds no architecture of the table {table.name}; its "
                f"live operations weigh {int(weights.min())} to {int(weights.max())}")
    if budget:
        of_size = table.choices[inside]
        inside &= within(space, budget, tolerance, table.network)(table.choices)
        if not inside.any():
            raise InputError(f"budget is {budget}; the table {table.name} holds no such architecture within "
                             f"{tolerance:g} of it" + f" in the size class {size_class}" * bool(size_class)
                             + f": {around(budget, cost_in(space, budget, table.network)(of_size))}")
    return inside


def table_task(table: Table, objective: Objective, size_class: str = "", budget: str = "",
               tolerance: float = 0.02) -> TableTask:
    """Return the task of a table.

    Args:
        table: the table.
        objective: function from losses (..., L) to the number to minimise.
        size_class: bounds such as "18:20" on the weight of the live operations; empty: no bounds.
        budget: cost such as "params=1.1M" of the table's networks, or of others; empty: any.
        tolerance: largest allowed difference from it, as a fraction.

    Raises:
        InputError: the space has no such weights, or no architecture is in the class or meets the budget.
    """
    space, inside = table.space, limited(table, size_class, budget, tolerance)
    whole = len(table.choices) == len(space.operations) ** space.num_rows and bool(inside.all())

    def allowed(choices: Tensor) -> Tensor:
        found = table.find(choices)
        return (found >= 0) & inside[found]

    problem = Problem(space, objective, table.sizes, everything if whole else allowed, table.choices[inside])
    return TableTask(table, problem, objective(table.losses)[table.row], inside)
