"""Processes that train and measure architectures of their own, exchange what they found, and stop together."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from search.searcher import SupernetSearcher
from wsrnas.runtime.distributed import World, flag_is_set, gather_objects, set_flag
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import asked

SECONDS_BETWEEN_LOOKS = 1.0  # at the flag of the others


class Apart:
    """Divide architectures among the processes of a search; with one process, or shared batches, nothing is divided.

    Args:
        searcher: the search of this process.
    """

    def __init__(self, searcher: SupernetSearcher) -> None:
        divided = searcher.batch_world.size < searcher.world.size
        self.searcher, self.blocks = searcher, 0
        self.world = searcher.world if divided else searcher.world.alone()

    @property
    def is_first(self) -> bool:
        """Whether this is the first of the processes that divide architectures, or the only one."""
        return self.world.is_main

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

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """Let every process work at its own pace in this block, where nothing but ``gather`` and ``first`` meets.

        A process that fails, or is asked to stop, sets a flag that the others see when they ask whether to stop. All
        raise the same.
        """
        if self.world.size == 1:
            yield
            return
        self.blocks += 1
        flag, looked = f"apart {self.blocks}", time.monotonic()

        def stop() -> bool:
            nonlocal looked
            if asked():
                return True
            if time.monotonic() - looked < SECONDS_BETWEEN_LOOKS:
                return False
            looked = time.monotonic()
            return flag_is_set(flag)

        together, self.searcher.stop = self.searcher.stop, stop
        try:
            try:
                yield
            except (InputError, Preempted) as error:
                set_flag(flag)
                _exchange({}, error, self.world)
        except _Told as told:
            raise told.error from None
        finally:
            self.searcher.stop = together


class _Told(Exception):
    """The work of a process has ended with ``error``, and all processes know."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _exchange(found: dict[int, Any], error: Exception | None, world: World) -> list[dict[int, Any]]:
    """Return what each process found, in the order of their ranks.

    Raises:
        _Told: at least one process brings an error. The first one that is no request to stop counts, which may only be
            the answer to it.
    """
    if world.size == 1:
        return [found]
    packed = io.BytesIO()
    torch.save(found, packed)
    results = gather_objects((packed.getvalue(), error), world)
    errors = [failed for _, failed in results if failed is not None]
    if errors:
        raise _Told(min(errors, key=lambda failed: isinstance(failed, Preempted)))
    return [torch.load(io.BytesIO(content), map_location=world.device, weights_only=True) for content, _ in results]
