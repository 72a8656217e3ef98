"""Two operations whose gradients torch computes slowly on CPUs, with the same result in less time.

docs/PERFORMANCE.md has what each of them saves.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as gradients


def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Return ``torch.cat(tensors, 1)``, with gradients that lie densely in memory.

    Those of ``torch.cat`` are strided views of one tensor, on which the backward pass of BatchNorm is three times
    slower. The numbers are the same.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) and not transformed():
        return _Concatenate.apply(*tensors)  # type: ignore[no-any-return]
    return torch.cat(list(tensors), 1)


def dilated_depthwise(x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    """Return the depthwise convolution of stride 1 of x (B, C, H, W), with a quicker gradient of x.

    That gradient is itself such a convolution, with the kernel turned by 180 degrees: torch computes it four times
    slower than the forward pass. The numbers are the same up to the order of sums.

    Args:
        x: (B, C, H, W).
        weight: (C, 1, k, k), k odd.
        padding: zeros around x.
        dilation: distance between two pixels under the kernel.
    """
    if torch.is_grad_enabled() and x.requires_grad and not transformed():
        return _DilatedDepthwise.apply(x, weight, padding, dilation)  # type: ignore[no-any-return]
    return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))


def every_nth(x: Tensor, n: int) -> Tensor:
    """Return every n-th row and column of x (B, C, H, W) from the first on, dense in the memory format of x."""
    last = x.stride(1) == 1  # also of a part of a tensor in this format
    return x[:, :, ::n, ::n].contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def transformed() -> bool:
    """Return whether an exporter, a compiler or a transform of ``torch.func`` looks at the operations."""
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active())


class _Concatenate(torch.autograd.Function):
    """Concatenate along dimension 1."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.sizes = [tensor.shape[1] for tensor in tensors]
        return torch.cat(tensors, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        last = gradient.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        return tuple(part.contiguous(memory_format=order) for part in gradient.split(ctx.sizes, 1))


class _DilatedDepthwise(torch.autograd.Function):
    """Depthwise convolution of stride 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        channels, of_x, of_weight = len(weight), None, None
        if ctx.needs_input_grad[0]:
            padding = ctx.dilation * (weight.shape[2] - 1) - ctx.padding
            of_x = F.conv2d(gradient, weight.flip(2, 3), None, 1, padding, ctx.dilation, channels)
        if ctx.needs_input_grad[1]:
            of_weight = gradients.conv2d_weight(x, weight.shape, gradient, 1, ctx.padding, ctx.dilation, channels)
        return of_x, of_weight, None, None
