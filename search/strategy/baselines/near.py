"""The architectures near another one, as far as a filter allows them."""

import torch
from torch import Tensor

from search.strategy.problem import Problem, everything

NEAREST = 16
"""Architectures of a pool that count as near, where no change of one or two rows leads to another of its members."""


def near(problem: Problem, choices: Tensor) -> Tensor:
    """Return the allowed architectures (n, R) near ``choices`` (R,).

    These are its neighbours in the space. Under a filter hardly any neighbour may be allowed (at a fixed size, most
    changes of one operation change the size), so neighbours of neighbours are near as well. A small pool may hold none
    of those either: then its members with the fewest other rows are near.
    """
    space = problem.space
    found = space.neighbours(choices)
    if problem.allowed is everything:
        return found
    found = torch.cat([found, *(space.neighbours(one) for one in found)])
    found = torch.unique(found, dim=0)
    found = found[problem.allowed(found) & (found != choices).any(-1)]
    if len(found) == 0 and problem.pool is not None:
        changed = (problem.pool != choices).sum(-1)
        closest = changed.sort(stable=True).indices[:NEAREST + 1]
        found = problem.pool[closest[changed[closest] > 0]]
    return found


def shuffled(choices: Tensor, generator: torch.Generator) -> Tensor:
    """Return choices (n, R) in random order."""
    return choices[torch.randperm(len(choices), generator=generator)]
