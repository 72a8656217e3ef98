"""Derive seeds from their purpose, so that no two uses of randomness share a stream or a global state."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on every part and on their order.

    It is the same in every process and for every version of Python; ``1`` and ``"1"`` are different parts.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(operator.index(part)))
        encoded = text.encode()
        digest.update(f"{kind}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on ``device`` seeded by ``derive_seed(*parts)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@contextmanager
def seeded_weights(seed: int, *purpose: int | str) -> Iterator[None]:
    """Seed torch's global generator of the CPU, which makes initial weights, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights", *purpose))  # that of a GPU goes on
        yield


@dataclass(frozen=True)
class BatchNoise:
    """Draw random numbers for the images of a batch that do not depend on how many processes share the batch.

    Every process draws for the whole batch and keeps the rows ``rank::size`` of it, like ``BatchLoader``.

    Args:
        generator: generator, equal on all processes; None: torch's global one.
        rank: rank of this process.
        size: number of processes.
    """

    generator: torch.Generator | None = None
    rank: int = 0
    size: int = 1

    def uniform(self, like: Tensor) -> Tensor:
        """Return uniform numbers in [-1, 1), of the shape (b, ...) and type of ``like``, this process' share."""
        return 2 * self._rows(torch.rand, like) - 1

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape (b, ...) and type of ``like``, this process' share."""
        return self._rows(torch.randn, like)

    def _rows(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        whole = (self.size * like.shape[0], *like.shape[1:])
        return draw(whole, dtype=like.dtype, device=like.device, generator=self.generator)[self.rank::self.size]
