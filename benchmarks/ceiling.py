"""Measure what a machine can do at most: matrix products and copies; a computation's time is compared with that."""

import functools
from collections.abc import Callable

import torch

from wsrnas.runtime.device import seconds_of

SIDE = 2048  # of the matrices on a CPU
COPIED = 2**28  # bytes; far more than a cache holds
REPEATS = 5


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest wall time of a function."""
    taken = [seconds_of(work, device) for _ in range(1 + REPEATS)]
    return min(taken[1:])


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Return operations a second of matrix products in float32 and bfloat16, and bytes a second that a copy moves."""
    side = SIDE * (4 if device.type == "cuda" else 1)
    found, before = {}, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # float32 as convolutions compute it
    try:
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.ones(side, side, dtype=dtype, device=device)
            seconds = best_seconds(functools.partial(torch.mm, matrix, matrix), device)
            found[str(dtype).removeprefix("torch.")] = 2 * side**3 / seconds
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["bytes"] = 2 * COPIED / best_seconds(lambda: target.copy_(source), device)  # read and written
    return found


def shares(operations: float, moved: float, seconds: float, precision: str,
           ceilings: dict[str, float]) -> dict[str, float]:
    """Return how much of the machine's speed a computation uses.

    Args:
        operations: additions and multiplications.
        moved: bytes that it reads and writes.
        seconds: time that it takes.
        precision: ``float32`` or ``bfloat16``.
        ceilings: result of ``measure_ceilings``.

    Returns:
        ``share_of_products``, of the speed of a matrix product, and ``share_of_copies``, of that of a copy.
    """
    return {"share_of_products": operations / ceilings[precision] / seconds,
            "share_of_copies": moved / ceilings["bytes"] / seconds}
