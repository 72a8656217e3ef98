"""Refuse numbers that are NaN or infinite before they spoil what was good."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch


def require_finite(values: Any, what: str, remedy: str) -> None:
    """Refuse a number, a tensor, or nested containers of tensors, one of which is not finite.

    Args:
        values: The values. Of containers, only tensors are looked at.
        what: Words of the message before the name of the first such value: where and when it was found.
        remedy: What the user can do.

    Raises:
        InputError: The message has both, and the number.
    """
    for name, value in _numbers(values, ""):
        if not (math.isfinite(value) if isinstance(value, float) else bool(value.isfinite().all())):
            number = value if isinstance(value, float) else value[~value.isfinite()].flatten()[0].item()
            raise InputError(f"{what}{f' ({name})' * bool(name)} is {number}; {remedy}")


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a number, or each tensor of real numbers in nested containers, with its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{name}/{index}")
    elif isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, float) and not name:
        yield name, value
