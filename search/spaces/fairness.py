"""Random draws in which every value comes up equally often, as in FairNAS (Chu et al., ICCV 2021)."""

import torch
from torch import Tensor


def balanced_draws(count: int, rows: int, values: int, generator: torch.Generator) -> Tensor:
    """Return integers (count, rows) below ``values``: in every row one random permutation after another.

    In each block of ``values`` draws, every row has every value once.
    """
    blocks = -(-count // values)
    permutations = torch.rand(blocks, values, rows, generator=generator).argsort(1)
    return permutations.flatten(0, 1)[:count]
