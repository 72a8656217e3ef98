"""What a strategy is asked to solve, and what it has measured so far."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from search.spaces.space import Space
from search.strategy.objective import Objective
from wsrnas.runtime.errors import InputError

SizeFunction = Callable[[Tensor], Tensor]  # gates (n, R, O) -> standardised sizes (n, F), differentiable
Allowed = Callable[[Tensor], Tensor]  # choices (n, R) -> which of them may be measured, (n,) bool

ROUNDS = 1000  # of 1,000 random architectures each, in search of those that a filter allows


def everything(choices: Tensor) -> Tensor:
    """Allow all choices (n, R)."""
    return torch.ones(len(choices), dtype=torch.bool)


@dataclass(frozen=True)
class Problem:
    """State what is searched, and by what it is judged. Architectures are choices (R,), integers.

    Args:
        space: the search space.
        objective: function from losses (..., L) to the number to minimise.
        sizes: function from gates to standardised sizes, which cost nothing to know.
        allowed: filter on what may be measured and given out.
        pool: architectures (n, R) that random ones are drawn from; None: the whole space.
    """

    space: Space
    objective: Objective
    sizes: SizeFunction
    allowed: Allowed = everything
    pool: Tensor | None = None

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw allowed architectures (count, R) at random, with repetition.

        Raises:
            InputError: hardly any architecture is allowed.
        """
        found = torch.zeros(0, self.space.num_rows, dtype=torch.long)
        for _ in range(ROUNDS):
            if self.pool is None:
                drawn = self.space.sample(max(count, 1000), generator)
            else:
                drawn = self.pool[torch.randint(len(self.pool), (max(count, 1000),), generator=generator)]
            found = torch.cat([found, drawn[self.allowed(drawn)]])
            if len(found) >= count:
                return found[:count]
        raise InputError(f"of {ROUNDS * 1000:,} random architectures {len(found)} are allowed; expected at least "
                         f"{count}: widen the filter")

    def size(self, choices: Tensor) -> Tensor:
        """Return the mean standardised size (n,) of choices (n, R)."""
        return self.sizes(self.space.gates(choices).double()).mean(1)


class Measured:
    """Remember all measurements in their order.

    Attributes:
        choices: architectures (n, R).
        losses: one row (n, L) for each; smaller is better.
        keys: their keys in the space, so that no other writing of an architecture is measured again.
    """

    def __init__(self, space: Space, columns: int) -> None:
        self.space = space
        self.choices = torch.zeros(0, space.num_rows, dtype=torch.long)
        self.losses = torch.zeros(0, columns, dtype=torch.float64)
        self.keys: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self.choices)

    def add(self, choices: Tensor, losses: Tensor) -> None:
        """Append measurements: choices (n, R) and their losses (n, L)."""
        self.choices = torch.cat([self.choices, choices])
        self.losses = torch.cat([self.losses, losses.double()])
        self.keys.update(self.space.key(choices))

    def gates(self) -> Tensor:
        """Return the measured architectures as one-hot gates (n, R, O)."""
        return self.space.gates(self.choices).double()

    def new(self, choices: Tensor) -> Tensor:
        """Return those of choices (n, R) that were not measured, each once."""
        seen, kept = set(self.keys), []
        for index, key in enumerate(self.space.key(choices)):
            if key not in seen:
                seen.add(key)
                kept.append(index)
        return choices[kept]
