"""Measure what a network costs (parameters, multiply-adds, memory of activations, seconds)."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wsrnas.attacks import attack_mode
from wsrnas.runtime.device import device_name

# Classes of networks whose passes a ``TorchFunctionMode`` sees whole; others may hold compiled or scripted parts.
SEEN = ("torch.nn.modules.", "wsrnas.", "search.")
# What such networks call besides convolutions and linear layers, which are what is counted.
UNCOUNTED = {"__get__", "__getitem__", "__len__", "add", "avg_pool2d", "batch_norm", "cat", "chunk", "contiguous",
             "dim", "div", "flatten", "is_contiguous", "max_pool2d", "mean", "mul", "pad", "relu", "stack", "sub",
             "zeros", "zeros_like"}


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
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with attack_mode(model):
        if not image.is_meta and all(type(module).__module__.startswith(SEEN) for module in model.modules()):
            with _Layers() as layers:
                model(image)
            if layers.known:
                return layers.multiply_adds
        return counted_by_torch(model, image)


def counted_by_torch(model: nn.Module, image: Tensor) -> int:
    """Return the multiply-adds of any network; the first call takes a second, because torch imports its compiler."""
    from torch.utils.flop_counter import FlopCounterMode

    shapes = _Shapes() if image.is_meta else contextlib.nullcontext()
    with FlopCounterMode(display=False) as counter, shapes:
        model(image)
    return counter.get_total_flops() // 2


class _Layers(TorchFunctionMode):
    """Count the multiply-adds of convolutions and linear layers.

    Attributes:
        multiply_adds: what was counted so far.
        known: whether everything else that was called is known to have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds, self.known = 0, True

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):  # each output is a sum over one filter
            self.multiply_adds += result.numel() * math.prod(args[1].shape[1:])
        elif getattr(func, "__name__", "") not in UNCOUNTED:
            self.known = False
        return result


class _Shapes(TorchDispatchMode):
    """Work out the shapes of the commonest operations that are not counted; torch's own rules take ten times as long.

    For tensors of the device ``meta`` alone.
    """

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        aten = torch.ops.aten
        if func is aten.native_batch_norm.default:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        if func is aten.relu.default or (func is aten.add.Tensor and _alike(*args[:2])):
            return torch.empty_like(args[0])
        return func(*args, **kwargs)


def _alike(first: object, second: object) -> bool:
    """Return whether two arguments of an operation are tensors of one shape and type."""
    return (isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape
            and first.dtype == second.dtype)


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
            model(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
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
