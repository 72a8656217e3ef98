"""The progress bar of every program."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from wsrnas.runtime.distributed import World

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, world: World, total: int | None = None,
             initial: int = 0) -> "tqdm[Item]":
    """A progress bar on the main process' terminal; silent in files and on the other processes.

    ``initial`` of the ``total`` items were done before.
    """
    return tqdm(items, desc=label, total=total, initial=initial, leave=False, dynamic_ncols=True,
                disable=None if world.is_main else True)
