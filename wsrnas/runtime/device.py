"""Name the device of a process and measure its memory."""

import platform
import resource

import torch

from wsrnas.runtime.distributed import World


def device_name(device: torch.device) -> str:
    """The GPU's name, or what the system says of its processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def peak_memory_gib(world: World) -> float:
    """Largest memory of this process so far, in GiB: of its tensors on the GPU, or of all of it on a CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
