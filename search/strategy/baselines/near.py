"""The architectures near another one, as far as a filter allows them."""

import torch
from torch import Tensor

from search.strategy.problem import Measured, Problem, everything

NEAREST = 16
"""Architectures of a pool that count as near, where no change of one or two rows leads to another of its members."""


def near(problem: Problem, choices: Tensor, generator: torch.Generator) -> Tensor:
    """Return the allowed architectures (n, R) near ``choices`` (R,), each once, in random order.

    These are its neighbours in the space. Under a filter hardly any neighbour may be allowed: at a fixed size, most
    changes of one operation change the size. So exchanges of two rows are as near, and then come the neighbours of
    neighbours. A small pool may hold none of all these; then its members with the fewest other rows are near.
    """
    space, allowed = problem.space, problem.allowed
    found = space.neighbours(choices)
    if allowed is everything:
        return shuffled(found, generator)
    further = torch.cat([space.neighbours(one) for one in found])
    found = torch.cat([shuffled(torch.cat([found, space.exchanges(choices)]), generator),
                       shuffled(torch.unique(further, dim=0), generator)])
    found = Measured(space, 1).new(found[allowed(found) & (found != choices).any(-1)])
    if len(found) == 0 and problem.pool is not None:
        changed = (problem.pool != choices).sum(-1)
        closest = changed.sort(stable=True).indices[:NEAREST + 1]
        found = shuffled(problem.pool[closest[changed[closest] > 0]], generator)
    return found


def shuffled(choices: Tensor, generator: torch.Generator) -> Tensor:
    """Return choices (n, R) in random order."""
    return choices[torch.randperm(len(choices), generator=generator)]
