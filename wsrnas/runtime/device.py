"""Name the device of a process, measure its memory and the time of a call."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World

with deferred_imports():
    import torch


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the name that the system has for its processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def peak_memory_gib(world: World) -> float:
    """Return the peak memory of this process in GiB: of its tensors on the GPU, or of the whole process on a CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device) / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of a call in seconds, with the device idle at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
