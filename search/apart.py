"""Processes that train and measure architectures of their own, exchange what they found, and stop together."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from search.searcher import SupernetSearcher
from wsrnas.runtime.distributed import World, gather_objects
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import stop_requests


class Apart:
    """Divide architectures among the processes of a search; with one process, or shared batches, nothing is divided.

    Args:
        searcher: the search of this process.
    """

    def __init__(self, searcher: SupernetSearcher) -> None:
        divided = searcher.batch_world.size < searcher.world.size
        self.searcher = searcher
        self.world = searcher.world if divided else searcher.world.alone()

    def share(self, numbers: Sequence[int]) -> Sequence[int]:
        """Return the numbers of this process. One without any repeats the first, so that all have one."""
        return numbers[self.world.rank::self.world.size] or numbers[:1]

    def gather(self, found: Mapping[int, Any]) -> dict[int, Any]:
        """Return what all processes found, by number; of what several found, that of the first process.

        Args:
            found: by number, containers of tensors and plain values; tensors come back on this process' device.

        """
        whole: dict[int, Any] = {}
        for part in reversed(_exchange(dict(found), None, self.world)):
            whole |= part
        return dict(sorted(whole.items()))

    def first(self, value: Any) -> Any:
        """Return a value of the first process; containers of tensors and plain values, as in ``gather``."""
        return self.gather({0: value})[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        _exchange({}, None, self.world)

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """Let every process work at its own pace in this block, where nothing but ``gather`` and ``wait`` meets.

        A process that fails or is asked to stop tells the others, which raise the same when they meet next.
        """
        if self.world.size == 1:
            yield
            return
        searcher, together = self.searcher, self.searcher.stop
        try:
            with stop_requests(self.world.alone()) as searcher.stop:
                try:
                    yield
                except (InputError, Preempted) as error:
                    _exchange({}, error, self.world)
        except _Told as told:
            raise told.error from None
        finally:
            searcher.stop = together


class _Told(Exception):
    """The work of a process has ended with ``error``, and all processes know."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _exchange(found: dict[int, Any], error: Exception | None, world: World) -> list[dict[int, Any]]:
    """Return what each process found, in the order of their ranks.

    Raises:
        _Told: at least one process brings an error; the first one counts.
    """
    if world.size == 1:
        return [found]
    packed = io.BytesIO()
    torch.save(found, packed)
    results = gather_objects((packed.getvalue(), error), world)
    for _, failed in results:
        if failed is not None:
            raise _Told(failed)
    return [torch.load(io.BytesIO(content), map_location=world.device, weights_only=True) for content, _ in results]
