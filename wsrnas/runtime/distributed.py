"""Describe this process among all (torchrun), and wrap the collectives that training and evaluation need."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, first_line

MEETING_MINUTES: float = 5
PATIENCE_DAYS = 7  # in ``gather_objects``: one process may have a whole training to do while the others wait

with deferred_imports():
    import torch
    from torch import Tensor, nn
    from torch import distributed as dist


_shared: dict[str, Any] = {}  # of this process group: its ``store``, and the ``patient`` group of all processes


@dataclass(frozen=True)
class World:
    """Describe this process: its rank, the number of processes, its device, and whether it shows its progress."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shows_progress: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, downloads and prints."""
        return self.rank == 0

    def alone(self) -> World:
        """Return the world of this process by itself, for work that it does apart from the others.

        They share a terminal, so the first process alone shows its progress there.
        """
        return World(device=self.device, shows_progress=self.shows_progress and self.is_main)


def initialize(device: str = "auto") -> World:
    """Join the process group that the environment of torchrun describes; without one, stay a single process.

    Args:
        device: ``auto`` (CUDA when there is one), ``cpu`` or ``cuda``.

    Raises:
        InputError: there is no CUDA device for ``cuda``, there are more local processes than CUDA devices, or srun
            has started several tasks without torchrun.
    """
    if not os.environ.get("RANK") and os.environ.get("SLURM_PROCID", "0") != "0":
        raise InputError(f"started by srun as task {os.environ['SLURM_PROCID']} without torchrun: all tasks would "
                         "write the same run; start one task per node and set NGPU, or use torchrun")
    rank, size, local_rank = _numbers()
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is visible; use --device cpu or auto")
    if cuda and local_rank >= torch.cuda.device_count():
        raise InputError(f"process {local_rank} of this machine has no GPU: {torch.cuda.device_count()} visible; "
                         "start at most one process per GPU (NGPU)")
    chosen = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.deterministic = True  # same seed, same result
    if size > 1 and not dist.is_initialized():
        # Gloo exchanges tensors on the CPU without waiting for the GPU.
        # The timeout is long because the others wait while the main process downloads a data set.
        _shared["store"] = _meet(rank, size)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=_shared["store"], rank=rank,
                                world_size=size, timeout=timedelta(hours=2), device_id=chosen if cuda else None)
    return World(rank, size, chosen)


def _numbers() -> tuple[int, int, int]:
    """Return rank, number of processes and rank on this machine as torchrun gives them; without it 0, 1 and 0.

    Raises:
        InputError: a variable is no such number, or some of those that belong together are missing.
    """
    given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    given["LOCAL_RANK"] = given["LOCAL_RANK"] or "0"
    if not given["RANK"] and given["WORLD_SIZE"] in ("", "1"):
        given |= {"RANK": "0", "WORLD_SIZE": "1"}
    for name, value in given.items():
        require(value.isascii() and value.isdecimal() and len(value) < 10,
                f"the environment variable {name} is {value[:50]!r}; expected a number as torchrun sets it: start with "
                "torchrun, or unset RANK and WORLD_SIZE")
    rank, size, local_rank = map(int, given.values())
    require(rank < size, f"the environment variable RANK is {rank}, but WORLD_SIZE is {size}; expected a smaller rank")
    if size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            require(bool(os.environ.get(name)), f"the environment variable {name} is missing; start with torchrun, or "
                    "unset RANK and WORLD_SIZE")
    return rank, size, local_rank


def _meet(rank: int, size: int) -> dist.Store:
    """Return the store at which all processes have arrived.

    Raises:
        InputError: they do not arrive within some minutes.
    """
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun starts all at once
        print(f"process {rank} waits for the other {size - 1} at {place}", file=sys.stderr, flush=True)
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", rank, size, timeout=timedelta(minutes=MEETING_MINUTES))))
        store.set(f"wsrnas/here/{rank}", "yes")
        store.wait([f"wsrnas/here/{other}" for other in range(size)], timedelta(minutes=MEETING_MINUTES))
    except (RuntimeError, ValueError) as error:  # torch's own errors are RuntimeErrors
        raise InputError(f"process {rank} of {size} has not met the others at {place} within {MEETING_MINUTES:g} "
                         f"minutes ({first_line(error)[:150]}); start all of them, for example with torchrun") from None
    return store


def print_on_main(world: World, text: str) -> None:
    """Print on the main process only."""
    if world.is_main:
        print(text, flush=True)


def shutdown() -> None:
    """Leave the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _shared.clear()


def barrier(world: World) -> None:
    """Wait for all processes."""
    if world.size > 1:
        dist.barrier()


def all_sum(values: Tensor, world: World) -> Tensor:
    """Sum ``values`` over the processes in place, and return them."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def all_min(values: Tensor, world: World) -> Tensor:
    """Take the minimum of ``values`` over the processes in place, and return it."""
    if world.size > 1:
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def all_max(value: float, world: World) -> float:
    """Return the maximum of a number over the processes. With several, this waits for the device."""
    if world.size > 1:
        return -all_min(torch.tensor(-value, dtype=torch.float64, device=world.device), world).item()
    return value


def gather_objects(value: Any, world: World) -> list[Any]:
    """Return what every process has, in the order of their ranks; anything that can be pickled.

    All processes call it; each waits for the last one, up to ``PATIENCE_DAYS``.
    """
    if world.size == 1:
        return [value]
    if "patient" not in _shared:
        _shared["patient"] = dist.new_group(backend="gloo", timeout=timedelta(days=PATIENCE_DAYS))
    found = []
    for rank in range(world.size):
        dist.broadcast_object_list(box := [value], src=rank, group=_shared["patient"], device=torch.device("cpu"))
        found.append(box[0])
    return found


def set_flag(name: str) -> None:
    """Set a flag that all processes of the group can see."""
    _shared["store"].set(f"wsrnas/flag/{name}", "set")


def flag_is_set(name: str) -> bool:
    """Return whether a process has set a flag; this asks the first process, and waits for nobody else."""
    return bool(_shared["store"].check([f"wsrnas/flag/{name}"]))


def broadcast(tensors: Iterable[Tensor], world: World) -> None:
    """Overwrite tensors with those of rank 0."""
    if world.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def broadcast_model(model: nn.Module, world: World) -> None:
    """Overwrite parameters and buffers of ``model`` with those of rank 0."""
    broadcast(model.state_dict().values(), world)


def average(tensors: list[Tensor], world: World) -> None:
    """Replace tensors of one type by their mean over the processes, in place, in one collective."""
    if world.size == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world.size
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace each gradient by its mean over the processes.

    Parameters without a gradient (operations off the sampled path) are left out. The path is the same on every
    process, so all processes leave out the same ones.
    """
    average([p.grad for p in parameters if p.grad is not None], world)
