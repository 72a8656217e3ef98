"""The task that a table gives a strategy: what may be measured, what is minimised, and what is truly best."""

from dataclasses import dataclass

import torch
from torch import Tensor

from search.strategy.objective import Objective
from search.strategy.problem import Problem, everything
from search.tables.table import Table
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError


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


def parse_size_class(text: str) -> tuple[int, int] | None:
    """Return the two ends of "18:20"; None for an empty text.

    Raises:
        InputError: the text is something else.
    """
    if not text:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        ends = int(low), int(high)
    except ValueError:
        raise InputError(f"size_class is {text!r}; expected two whole numbers such as 18:20") from None
    require(0 <= ends[0] <= ends[1], f"size_class is {text!r}; expected two whole numbers such as 18:20, the smaller "
            "one first")
    return ends


def table_task(table: Table, objective: Objective, size_class: str = "") -> TableTask:
    """Return the task of a table.

    Args:
        table: the table.
        objective: function from losses (..., L) to the number to minimise.
        size_class: bounds such as "18:20" on the weight of the live operations; empty: no bounds.

    Raises:
        InputError: the space has no such weights, or no architecture is in the class.
    """
    space, ends = table.space, parse_size_class(size_class)
    inside = torch.ones(len(table.choices), dtype=torch.bool)
    if ends is not None:
        require(bool(space.operation_weights), f"size_class is {size_class!r}, but the space {space.name} gives its "
                "operations no weights; expected no --size_class")
        weights = space.weight(table.choices)
        inside = (weights >= ends[0]) & (weights <= ends[1])
        require(bool(inside.any()), f"size_class {size_class} holds no architecture of the table {table.name}; its "
                f"live operations weigh {int(weights.min())} to {int(weights.max())}")
    whole = len(table.choices) == len(space.operations) ** space.num_rows and bool(inside.all())

    def allowed(choices: Tensor) -> Tensor:
        found = table.find(choices)
        return (found >= 0) & inside[found]

    problem = Problem(space, objective, table.sizes, everything if whole else allowed, table.choices[inside])
    return TableTask(table, problem, objective(table.losses)[table.row], inside)
