"""Measure what a network costs (parameters, multiply-adds, memory of activations, seconds)."""

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.attacks import attack_mode
from wsrnas.quick.shapes import pass_of_shapes
from wsrnas.runtime.device import device_name


def count_parameters(parameters: nn.Module | Iterable[Tensor]) -> int:
    """Return the number of parameters of a network, or the number of entries of some parameters."""
    return sum(p.numel() for p in (parameters.parameters() if isinstance(parameters, nn.Module) else parameters))


@torch.no_grad()
def multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image of ``image_shape`` (C, H, W).

    This is half of what the counter of torch calls FLOPs. Normalisation, activations and pooling are not counted. The
    network is in evaluation mode during the count and unchanged afterwards.
    """
    parameter = next(model.parameters())
    with attack_mode(model):
        known = pass_of_shapes(model, image_shape, parameter.dtype)
        return counted_by_torch(model, _black_image(parameter, image_shape)) if known is None else known


def counted_by_torch(model: nn.Module, image: Tensor) -> int:
    """Return the multiply-adds of any network; the first call takes a second, because torch imports its compiler."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def _black_image(parameter: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return one black image for a network with this parameter."""
    return torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)


def readable(count: float) -> str:
    """Return a number in short form: ``4544830`` as ``4.545M``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:.4g}"


@torch.no_grad()
def activation_bytes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the bytes of all outputs of leaf modules for one image, roughly what a backward pass needs."""
    total = 0

    def add(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * output.element_size()

    hooks = [m.register_forward_hook(add) for m in model.modules() if not list(m.children())]
    parameter = next(model.parameters())
    try:
        with attack_mode(model):
            if pass_of_shapes(model, image_shape, parameter.dtype) is None:
                total = 0
                model(_black_image(parameter, image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return total


@torch.no_grad()
def latencies(networks: Mapping[str, nn.Module], image_shape: tuple[int, int, int], batch: int = 64,
              rounds: int = 7) -> dict[str, dict[str, Any]]:
    """Measure the seconds of a forward pass in evaluation mode, for one image and for a batch.

    The networks take turns in every round, so that other work of the machine slows down all of them alike. The first
    round is not timed.

    Args:
        networks: dictionary from names to networks, all on one device.
        image_shape: channels, height, width.
        batch: number of images of the batch.
        rounds: number of timed rounds; the results are medians over them.

    Returns:
        For each name ``seconds_one``, ``seconds_batch``, ``batch``, ``device`` and ``threads``.
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
