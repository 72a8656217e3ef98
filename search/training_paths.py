"""The paths that train the supernet's weights where every training step has a path of its own.

The paths of an epoch follow from the seed and the number of the epoch alone. So all processes train the same ones, and
a resumed search needs no state for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """

    draw: Callable[[Space, int, torch.Generator], Tensor]
    help: str


PATHS: dict[str, PathKind] = {
    "edges": PathKind(random_edges, "one operation on every edge, none among them, as in the paper"),
    "cell": PathKind(lambda space, count, generator: space.fair_sample(count, generator),
                     "an architecture of the space, none on the edges that it leaves"),
}


def paths_of_epoch(space: Space, kind: str, seed: int, epoch: int, steps: int) -> list[Path]:
    """Return one path for each training step of an epoch, fair over operations within the epoch.

    Args:
        space: the search space.
        kind: key of ``PATHS``.
        seed: seed of the search.
        epoch: number of the epoch.
        steps: training steps of an epoch.
    """
    choices = PATHS[kind].draw(space, steps, generator(seed, "training paths", epoch))
    kinds, edges, _ = space.shape
    gates = space.gates(choices).view(steps, *space.shape)
    resolved = choices.view(steps, kinds, edges).tolist()
    plain = (((None,),) * edges,) * kinds  # no factors: nothing is copied to the device in a step
    return [Path(path, tuple(tuple((operation,) for operation in cell) for cell in cells), plain)
            for path, cells in zip(gates, resolved, strict=True)]
