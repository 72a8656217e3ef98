"""The precision of float32 products: full where numbers are reported, and as it was afterwards.

torch has three ways to say it, of which two refuse to be read after the third was used. All are kept and put back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch


def precision() -> Callable[[], None]:
    """Return a function that puts the precision of float32 products back to what it is now."""
    known: list[Callable[[], None]] = []
    for owner in (torch.backends.cudnn, torch.backends.cuda.matmul):
        with suppress(RuntimeError):  # another of the three ways was used
            known.append(partial(setattr, owner, "allow_tf32", owner.allow_tf32))
    with suppress(RuntimeError):
        known.append(partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    values = [(owner, owner.fp32_precision) for owner in _owners()]

    def restore() -> None:
        for each in known:
            each()
        for owner, value in values:
            if owner.fp32_precision != value:
                owner.fp32_precision = value
    return restore


def _owners() -> list[Any]:
    """Return what has a precision of its own, what others inherit from first."""
    backends: Any = torch.backends
    return [backends, backends.cudnn, backends.mkldnn, backends.cuda.matmul,
            backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in full float32: TF32 would round every product to 10 bits in the numbers that are reported."""
    restore = precision()
    try:
        for owner in _owners():
            owner.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        for owner in _owners()[:3]:
            owner.fp32_precision = "none"  # or the older ways could not be read inside
        yield
    finally:
        restore()
