"""Sums of metrics on the device, so that a training step does not wait for the GPU."""

from __future__ import annotations

from typing import TypeAlias

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from torch import Tensor

Metrics: TypeAlias = "dict[str, tuple[Tensor, int]]"  # sum over samples, and their number, by name


def add_metrics(sums: Metrics, metrics: Metrics) -> None:
    """Add ``metrics`` to ``sums``, in place."""
    for name, (value, count) in metrics.items():
        total, seen = sums.get(name, (0, 0))
        sums[name] = (total + value.double(), seen + count)
