"""What a network and a search cost: parameters, multiply-adds, passes of images through the network."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wsrnas.attacks import attack_mode
from wsrnas.runtime.device import device_name


def count_parameters(parameters) -> int:
    """Number of entries of the parameters of a network or of an iterable of them."""
    return sum(p.numel() for p in (parameters.parameters() if isinstance(parameters, nn.Module) else parameters))


@torch.no_grad()
def multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of convolutions and linear layers for one image of ``image_shape`` (C, H, W).

    Half of what torch's counter calls FLOPs; normalisation, activations and pooling are not counted. The network
    stays as it is (evaluation mode for the count, restored afterwards).
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with attack_mode(model), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def readable(count: float) -> str:
    """``4544830`` as ``4.545M``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:.4g}"


@torch.no_grad()
def activation_bytes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Bytes of all leaf modules' outputs for one image: about what training keeps for the backward pass."""
    total = 0

    def add(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * output.element_size()

    hooks = [m.register_forward_hook(add) for m in model.modules() if not list(m.children())]
    parameter = next(model.parameters())
    try:
        with attack_mode(model):
            model(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return total


@torch.no_grad()
def latencies(networks: Mapping[str, nn.Module], image_shape: tuple[int, int, int], batch: int = 64,
              rounds: int = 7) -> dict[str, dict[str, Any]]:
    """Seconds of a forward pass in evaluation mode, for one image and for a batch: medians of ``rounds``.

    The networks, all on one device, take turns in every round, so that what else the machine does falls on all of
    them. A first round is not timed.

    Returns:
        By name ``seconds_one``, ``seconds_batch``, ``batch``, ``device`` and ``threads``.
    """
    seconds: dict[tuple[str, int], list[float]] = {(name, size): [] for name in networks for size in (1, batch)}
    for number in range(rounds + 1):
        for (name, size), taken in seconds.items():
            network = networks[name]
            parameter = next(network.parameters())
            images = torch.zeros(size, *image_shape, device=parameter.device, dtype=parameter.dtype)
            images = images.contiguous(memory_format=torch.channels_last)
            with attack_mode(network):
                _wait_for(parameter.device)
                started = time.perf_counter()
                network(images)
                _wait_for(parameter.device)
                passed = time.perf_counter() - started
            taken.extend([passed] * bool(number))
    return {name: {"seconds_one": statistics.median(seconds[name, 1]),
                   "seconds_batch": statistics.median(seconds[name, batch]), "batch": batch,
                   "device": device_name(next(network.parameters()).device), "threads": torch.get_num_threads()}
            for name, network in networks.items()}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
