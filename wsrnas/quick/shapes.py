"""The pass of an image through a network of this project, as shapes alone: what it returns and multiplies.

Nothing is computed. Torch has such rules, too (the device ``meta``), but they are ten times slower, and the first one
takes a second, because it imports torch's compiler.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Classes of networks whose passes are seen whole; others may hold compiled or scripted parts.
SEEN = ("torch.nn.modules.", "wsrnas.", "search.")
# Functions that only look at a tensor, or at a part of it.
VIEWS = {"__get__", "__getitem__", "__len__", "chunk", "dim", "element_size", "flatten", "is_contiguous", "numel",
         "pad", "stride"}


class Unknown(Exception):
    """Signal a call for which there is no rule here."""


def pass_of_shapes(network: nn.Module, image_shape: tuple[int, int, int], dtype: torch.dtype) -> int | None:
    """Send one image without numbers through a network; its modules return tensors of the device ``meta``.

    Args:
        network: the network, on any device, not in training.
        image_shape: (C, H, W) of the image.
        dtype: type of its numbers.

    Returns:
        The multiply-adds of convolutions and linear layers; None where the network does something that is unknown here.
    """
    if not all(type(module).__module__.startswith(SEEN) for module in network.modules()):
        return None
    image = torch.empty(1, *image_shape, dtype=dtype, device="meta")
    try:
        with _Shapes() as shapes:
            network(image)
    except Unknown:
        return None
    return shapes.multiply_adds


class _Shapes(TorchFunctionMode):
    """Replace every call of a function of torch by a rule for the shape of its result.

    Attributes:
        multiply_adds: those of convolutions and linear layers so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in VIEWS:
            return func(*args, **(kwargs or {}))
        if name not in RULES:
            raise Unknown
        shape = RULES[name](*args, **(kwargs or {}))
        if min(shape) < 1:
            raise Unknown
        if name in ("conv2d", "linear"):  # each output is a sum over one filter
            self.multiply_adds += math.prod(shape) * math.prod(args[1].shape[1:])
        first = args[0] if isinstance(args[0], Tensor) else args[0][0]
        return torch.empty(shape, dtype=first.dtype, device="meta")


def _same(x: Tensor, *rest: Any, **more: Any) -> Sequence[int]:
    return x.shape


def _broadcast(x: Any, y: Any) -> Sequence[int]:
    shapes = [tuple(value.shape) for value in (x, y) if isinstance(value, Tensor)]
    try:
        return np.broadcast_shapes(*shapes)  # torch's own imports sympy, which takes half a second
    except ValueError:
        raise Unknown from None


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
            dilation: Any = 1, groups: int = 1) -> Sequence[int]:
    _require(x.shape[1] == weight.shape[1] * groups)
    return len(x), len(weight), *_window(x, weight.shape[2:], stride, padding, dilation)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Sequence[int]:
    _require(x.shape[-1] == weight.shape[1])
    return *x.shape[:-1], len(weight)


def _avg_pool2d(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                count_include_pad: bool = True, divisor_override: int | None = None) -> Sequence[int]:
    return *x.shape[:2], *_window(x, kernel_size, stride or kernel_size, padding, 1, ceil_mode)


def _max_pool2d(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False, return_indices: bool = False) -> Sequence[int]:
    _require(not return_indices)
    return *x.shape[:2], *_window(x, kernel_size, stride or kernel_size, padding, dilation, ceil_mode)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Sequence[int]:
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return shape


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Sequence[int]:
    shape = list(tensors[0].shape)
    shape.insert(dim, len(tensors))
    return shape


def _mean(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Sequence[int]:
    _require(not keepdim and min(dim) >= 0)
    return [length for place, length in enumerate(x.shape) if place not in dim]


def _new_zeros(x: Tensor, *shape: int) -> Sequence[int]:
    return shape


def _window(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False) -> list[int]:
    """Return height and width after a window has moved over x (B, C, H, W).

    In ``ceil_mode`` the last window may stick out at the end, if it begins inside.
    """
    _require(not isinstance(padding, str))
    sizes = []
    for place, length in enumerate(x.shape[2:]):
        k, step, pad, apart = (value[place] if isinstance(value, Sequence) else value
                               for value in (kernel, stride, padding, dilation))
        room = length + 2 * pad - apart * (k - 1) - 1
        steps = -(-room // step) if ceil_mode else room // step
        sizes.append(steps + (steps * step < length + pad if ceil_mode else 1))
    return sizes


def _require(known: bool) -> None:
    if not known:
        raise Unknown


RULES: dict[str, Callable[..., Sequence[int]]] = {
    "add": _broadcast, "avg_pool2d": _avg_pool2d, "batch_norm": _same, "cat": _cat, "contiguous": _same,
    "conv2d": _conv2d, "div": _broadcast, "linear": _linear, "max_pool2d": _max_pool2d, "mean": _mean,
    "mul": _broadcast, "new_zeros": _new_zeros, "relu": _same, "stack": _stack, "sub": _broadcast, "zeros_like": _same,
}
"""The shape of what a function returns, by its name."""
