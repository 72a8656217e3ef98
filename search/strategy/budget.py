"""A filter on cost: only architectures whose stand-alone network has about so many parameters or multiply-adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from search.spaces.space import ImageShape, Space
from wsrnas.runtime.budget import Budget, parse_budget
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor

    from search.strategy.problem import Allowed
    from wsrnas.complexity import readable

COLUMNS = {"params": 0, "macs": 1}  # of ``Space.cost``
WIDEST, DEEPEST = 10_000, 1000  # networks whose cost is asked for
ROUNDS = 50  # of 1,000 random architectures each, in which enough must meet a budget


@dataclass(frozen=True)
class SizedBudget:
    """A budget, and the size of the networks that it means.

    Args:
        budget: quantity and value.
        init_channels: width C; None: that of the search or of the table.
        layers: number of cells; None: that of the search or of the table.
    """

    budget: Budget
    init_channels: int | None
    layers: int | None


def parse_sized_budget(text: str) -> SizedBudget:
    """Parse ``params=3.5M``, or with the width and the number of cells ``macs=550M@C36L20``.

    Raises:
        InputError: the text is something else.
    """
    cost, at, size = text.partition("@")
    found = re.fullmatch(r"C([1-9]\d*)L([1-9]\d*)", size)
    require(not at or found is not None, f"budget is {text!r}; after @ expected width and number of cells, such as "
            "C36L20")
    width, layers = (int(found[1]), int(found[2])) if found else (None, None)
    require((width or 0) <= WIDEST and (layers or 0) <= DEEPEST, f"budget is {text!r}; after @ expected at most "
            f"C{WIDEST}L{DEEPEST}")
    return SizedBudget(parse_budget(cost), width, layers)


def check_budget(text: str, tolerance: float) -> None:
    """Refuse a budget that is none, and a tolerance that is no fraction.

    Raises:
        InputError: the sentence says which.
    """
    require(0 < tolerance < 1, f"budget_tolerance is {tolerance:g}; expected a fraction between 0 and 1")
    if text:
        parse_sized_budget(text)


def within(space: Space, text: str, tolerance: float, network: tuple[int, int, int, ImageShape]) -> Allowed:
    """Return a function that says which choices (n, R) keep to a budget.

    Args:
        space: the search space.
        text: the budget.
        tolerance: largest allowed difference from it, as a fraction.
        network: width C, number of cells, number of classes and image shape where the budget does not say.

    Raises:
        InputError: the budget cannot be read, or the space has no network of so many cells.
    """
    cost, value = cost_in(space, text, network), parse_sized_budget(text).budget.value

    def allowed(choices: Tensor) -> Tensor:
        return (cost(choices) - value).abs() <= tolerance * value
    return allowed


def cost_in(space: Space, text: str, network: tuple[int, int, int, ImageShape]) -> Callable[[Tensor], Tensor]:
    """Return a function from choices (n, R) to what they cost in the quantity of a budget (n,), as float64.

    Arguments and errors are those of ``within``.
    """
    sized = parse_sized_budget(text)
    init_channels, layers = sized.init_channels or network[0], sized.layers or network[1]
    space.check_layers(layers)
    column = COLUMNS[sized.budget.quantity]

    def cost(choices: Tensor) -> Tensor:
        return space.cost(choices, init_channels, layers, *network[2:])[:, column].double()
    return cost


def around(text: str, found: Tensor) -> str:
    """Say which costs (n,) there are: the ends, and those nearest to a budget on both sides."""
    budget = parse_sized_budget(text).budget
    smaller, larger = found[found <= budget.value], found[found >= budget.value]
    near = [readable(max(smaller.tolist()))] if len(smaller) else []
    near += [readable(min(larger.tolist()))] if len(larger) else []
    return (f"{budget.quantity} go from {readable(found.min().item())} to {readable(found.max().item())}, nearest to "
            f"it {'are' if len(near) > 1 else 'is'} {' and '.join(near)}")


def require_enough(space: Space, text: str, network: tuple[int, int, int, ImageShape], allowed: Allowed, wanted: int,
                   generator: torch.Generator) -> None:
    """Refuse a filter that allows too few different architectures, as far as a random sample shows.

    Args:
        space: the search space.
        text: the budget.
        network: as for ``within``.
        allowed: the filter, which may ask for more than the budget.
        wanted: number of architectures that a search measures.
        generator: CPU source of the sample.

    Raises:
        InputError: the sample holds no more than ``wanted`` that are allowed.
    """
    found: set[Hashable] = set()
    every = []
    for _ in range(ROUNDS):
        drawn = space.sample(1000, generator)
        every.append(drawn)
        found.update(space.key(drawn[allowed(drawn)]))
        if len(found) > wanted:
            return
    sizes = around(text, cost_in(space, text, network)(torch.cat(every)))
    raise InputError(f"of {1000 * ROUNDS:,} random architectures of the space {space.name}, {len(found)} different "
                     f"ones are within the budget, and the search measures {wanted} ({sizes}); expected another "
                     "--budget, a larger --budget_tolerance or fewer --iterations")
