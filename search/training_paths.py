"""The paths that train the supernet's weights where every training step has a path of its own.

The paths of an epoch follow from the seed and the number of the epoch alone. So all processes train the same ones, and
a resumed search needs no state for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from search.spaces import SPACES
from search.spaces.space import Space
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor

    from search.spaces.fairness import balanced_draws
    from search.spaces.supernet import Path
    from wsrnas.runtime.seeding import generator


def random_edges(space: Space, count: int, generator: torch.Generator) -> Tensor:
    """Draw choices (count, R) with an operation on every edge, all operations of an edge equally often."""
    return balanced_draws(count, space.num_rows, len(space.operations), generator)


@dataclass(frozen=True)
class PathKind:
    """One kind of training path.

    Args:
        draw: (space, number of paths, generator) -> choices (n, R), fair over operations.
        help: explanation in one line, for ``--help``.
        free: whether any operations may stand together; otherwise a path is an architecture of the space.
    """

    draw: Callable[[Space, int, torch.Generator], Tensor]
    help: str
    free: bool


PATHS: dict[str, PathKind] = {
    "edges": PathKind(random_edges, "one operation on every edge, none among them, as in the paper",
                      free=True),
    "cell": PathKind(lambda space, count, generator: space.fair_sample(count, generator),
                     "an architecture of the space, none on the edges that it leaves", free=False),
}


DRAWN = 1000  # training paths that show which operations an edge can have


@cache
def possible_operations(space: str, kind: str, row: int) -> tuple[int, ...]:
    """Return the operations that training paths of a kind can have in a row of A.

    Args:
        space: name of the search space.
        kind: key of ``PATHS``.
        row: the row, which stands for an edge.
    """
    drawn = PATHS[kind].draw(SPACES[space], DRAWN, generator(0, "possible operations"))
    return tuple(sorted(set(drawn[:, row].tolist())))


def paths_of_epoch(space: Space, kind: str, seed: int, epoch: int, steps: int,
                   fixed: tuple[int, int] | None = None) -> list[Path]:
    """Return one path for each training step of an epoch, fair over operations within the epoch.

    Args:
        space: the search space.
        kind: key of ``PATHS``.
        seed: seed of the search.
        epoch: number of the epoch.
        steps: training steps of an epoch.
        fixed: a row of A and the operation that all paths have there; it must be one of ``possible_operations``.
    """
    draw = generator(seed, "training paths", epoch)
    choices = PATHS[kind].draw(space, steps, draw)
    while fixed is not None and len(choices := _with(space, kind, choices, *fixed)[:steps]) < steps:
        choices = torch.cat([choices, PATHS[kind].draw(space, steps, draw)])
    kinds, edges, _ = space.shape
    gates = space.gates(choices).view(steps, *space.shape)
    resolved = choices.view(steps, kinds, edges).tolist()
    plain = (((None,),) * edges,) * kinds  # no factors: nothing is copied to the device in a step
    return [Path(path, tuple(tuple((operation,) for operation in cell) for cell in cells), plain)
            for path, cells in zip(gates, resolved, strict=True)]


def _with(space: Space, kind: str, choices: Tensor, row: int, operation: int) -> Tensor:
    """Return choices (n, R) with an operation in a row, without those that are then no path of their kind."""
    choices = choices.index_fill(1, torch.tensor([row]), operation)
    if PATHS[kind].free:
        return choices
    return choices[(space.discrete(space.gates(choices).view(-1, *space.shape)) == choices).all(1)]
