"""Show progress on the terminal."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from wsrnas.runtime.distributed import World

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, world: World, total: int | None = None,
             initial: int = 0) -> "tqdm[Item]":
    """Wrap items in a progress bar, which appears only on a terminal of the main process.

    Args:
        items: iterable to go through.
        label: text before the bar.
        world: the processes.
        total: number of items, where it is not ``len(items)``.
        initial: number of items that were done before.
    """
    return tqdm(items, desc=label, total=total, initial=initial, leave=False, dynamic_ncols=True,
                disable=None if world.is_main else True)
