"""Show how far a long loop is: as a bar on a terminal, as a line from time to time in a file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from tqdm import tqdm

from wsrnas.runtime.distributed import World

SECONDS_BETWEEN_LINES = 300

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, world: World, total: int | None = None, initial: int = 0,
             log: Callable[[str], None] | None = None) -> "Progress[Item]":
    """Wrap items so that the main process shows how many are done.

    On a terminal that is a bar. Where standard error is a file, as in a batch job, it is a line every
    ``SECONDS_BETWEEN_LINES``, so that a short loop prints nothing.

    Args:
        items: iterable to go through.
        label: text before the numbers.
        world: the processes.
        total: number of items, where it is not ``len(items)``.
        initial: number of items that were done before.
        log: function that takes the lines instead, also on a terminal.
    """
    return Progress(items, label, world, total, initial, log)


class Progress(Generic[Item]):
    """Go through items once, and show how many are done (see ``progress``)."""

    def __init__(self, items: Iterable[Item], label: str, world: World, total: int | None, initial: int,
                 log: Callable[[str], None] | None) -> None:
        self.label, self.initial, self.values = label, initial, ""
        shows = world.is_main and world.shows_progress
        self.bar = tqdm(items, desc=label, total=total, initial=initial, leave=False, dynamic_ncols=True,
                        disable=None if shows else True)
        self.total = self.bar.total
        self.say = (log if world.is_main else None) or (_print if shows and self.bar.disable else None)

    def show(self, values: Mapping[str, str]) -> None:
        """Show these values, such as a loss, beside the numbers from now on."""
        self.values = "".join(f", {name} {value}" for name, value in values.items())
        self.bar.set_postfix(values, refresh=False)

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        began = said = time.monotonic()
        for number, item in enumerate(self.bar, 1):
            yield item
            now, done = time.monotonic(), self.initial + number
            if self.say and now - said >= SECONDS_BETWEEN_LINES and done != self.total:
                said = now
                self.say(f"{self.label}: {self._count(done, (now - began) / number)}{self.values}")

    def _count(self, done: int, seconds_each: float) -> str:
        """Say how many are done, and how long the others will take."""
        if self.total is None:
            return f"{done} done"
        return f"{done} of {self.total}, {max(0.0, self.total - done) * seconds_each / 60:.0f} min left"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
