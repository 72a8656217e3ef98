"""Convolve with fixed 3x3 kernels in a quarter of the multiplications, on CPUs: Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Tiles of 6x6 pixels and the kernel are
read as polynomials at six points, multiplied there, and read back as tiles of 4x4 pixels. Rounding errors are six times
those of a plain convolution. docs/PERFORMANCE.md has what this saves.
"""

from collections.abc import Callable
from functools import cache, cached_property
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn

from wsrnas.quick.gradients import transformed

OUTPUTS, KERNEL = 4, 3  # pixels of an output tile and of a kernel along one side
INPUTS = OUTPUTS + KERNEL - 1
POINTS = (0.0, sqrt(1 / 2), -sqrt(1 / 2), sqrt(2), -sqrt(2))
"""Where the polynomials are read, beside infinity. 1 over each is one of them, so that the kernel turned by 180 degrees
needs no numbers of its own; no other such points that were tried have smaller rounding errors."""
RECIPROCALS = (5, 3, 4, 1, 2, 0)  # place of 1 over each point; infinity is the last one
FEWEST_CHANNELS = 64  # with fewer, a plain convolution is as quick
FEWEST_TILES = 8  # with fewer, the kernels' numbers, four times as many as the weights, cost more than they save
TILES_AT_ONCE = 64  # of each thread; the numbers of more leave the caches


class Transforms(NamedTuple):
    """What makes a convolution of products at 36 points of the plane.

    ``tile`` is (36, 36) and reads an input tile at the points, ``kernel`` (36, 9) a kernel, and ``output`` (16, 36)
    makes an output tile of the products. The other two do so for the turned kernel, given the numbers of the kernel.
    """

    kernel: Tensor
    tile: Tensor
    output: Tensor
    turned_tile: Tensor
    turned_output: Tensor


def transforms() -> Transforms:
    """Return the transforms in float64 (Toom and Cook's for ``POINTS``)."""
    points = torch.tensor(POINTS, dtype=torch.float64)
    output, kernel = torch.zeros(OUTPUTS, INPUTS).double(), torch.zeros(INPUTS, KERNEL).double()
    tile = torch.zeros(INPUTS, INPUTS).double()
    for place, point in enumerate(points):
        others = torch.cat([points[:place], points[place + 1:]])
        output[:, place] = point ** torch.arange(OUTPUTS)
        kernel[place] = point ** torch.arange(KERNEL) / (point - others).prod()
        tile[place, :-1] = torch.from_numpy(polyfromroots(others.numpy()))
    output[-1, -1] = kernel[-1, -1] = 1  # infinity: the leading coefficient
    tile[-1] = torch.from_numpy(polyfromroots(points.numpy()))

    there = kernel[list(RECIPROCALS)]
    factors = (kernel.flip(1) * there).sum(1, keepdim=True) / there.square().sum(1, keepdim=True)
    turned_tile, turned_output = (factors * tile)[list(RECIPROCALS)], output[:, list(RECIPROCALS)]
    return Transforms(*(torch.kron(side, side) for side in (kernel, tile, output, turned_tile, turned_output)))


@cache
def _transforms(dtype: torch.dtype) -> Transforms:
    return Transforms(*(matrix.to(dtype) for matrix in transforms()))


class Kernels:
    """Fixed kernels (C_out, C_in, 3, 3) at the points; ``values`` is (36, C_out, C_in), computed when it is needed."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    @cached_property
    def values(self) -> Tensor:
        """The kernels read at the points."""
        pixels = self.weight.detach().permute(2, 3, 0, 1).reshape(KERNEL * KERNEL, -1)
        return (_transforms(pixels.dtype).kernel @ pixels).view(-1, *self.weight.shape[:2])


def suits(module: nn.Conv2d) -> bool:
    """Return whether a layer is a convolution of this kind with enough channels to be quicker this way."""
    return (module.kernel_size == (KERNEL, KERNEL) and module.stride == module.dilation == (1, 1)
            and module.padding in ((1, 1), "same") and module.padding_mode == "zeros" and module.groups == 1
            and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS and module.weight.device.type == "cpu")


def winograd(module: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a layer's convolution with fixed numbers in place of its own; gradients reach the images alone.

    Batches in another order than channels_last, or with few tiles, are convolved as ever.

    Args:
        module: a layer that ``suits``.
        weight: (C_out, C_in, 3, 3).
        bias: (C_out,), if any.
    """
    kernels = Kernels(weight)

    def forward(x: Tensor) -> Tensor:
        if not _pays(x):
            return F.conv2d(x, weight, bias, 1, 1)
        output: Tensor = _Convolution.apply(x, kernels, False)
        return output if bias is None else output.add_(bias.view(-1, 1, 1))

    return forward


def _pays(x: Tensor) -> bool:
    """Return whether a batch has enough tiles, and few pixels beyond its edges in them; one image is none."""
    if x.dim() != 4 or transformed():
        return False
    count, _, height, width = x.shape
    tiles = -(-height // OUTPUTS) * -(-width // OUTPUTS)
    return (x.is_contiguous(memory_format=torch.channels_last) and count * tiles >= FEWEST_TILES
            and tiles * INPUTS ** 2 <= height * width * KERNEL ** 2 / 2)


def convolve(x: Tensor, kernels: Tensor, tile: Tensor, output: Tensor) -> Tensor:
    """Return the convolution of x (B, C, H, W) by the numbers of its kernels (36, C, C_out), a few images at a time."""
    count, channels, height, width = x.shape
    down, across = -(-height // OUTPUTS), -(-width // OUTPUTS)
    result = torch.empty((count, kernels.shape[2], down * OUTPUTS, across * OUTPUTS), dtype=x.dtype,
                         memory_format=torch.channels_last)
    blocks = result.permute(0, 2, 3, 1).view(count, down, OUTPUTS, across, OUTPUTS, -1)
    at_once = max(1, TILES_AT_ONCE * torch.get_num_threads() // (down * across))
    work: _Work | None = None
    for images, into in zip(x.permute(0, 2, 3, 1).split(at_once), blocks.split(at_once), strict=True):
        if work is None or len(work.padded) != len(images):
            work = _Work.of(images, down, across, kernels.shape[2])
        work.inside.copy_(images)
        work.tiles.copy_(work.windows)
        torch.mm(tile, work.gathered, out=work.read)
        torch.bmm(work.read.view(INPUTS ** 2, -1, channels), kernels, out=work.products)
        torch.mm(output, work.products.flatten(1), out=work.pixels)
        into.copy_(work.blocks)
    if result.shape[2:] == x.shape[2:]:
        return result
    return result[:, :, :height, :width].clone(memory_format=torch.channels_last)


class _Work(NamedTuple):
    """Memory for a few images; new memory for every few of them would cost a third of the time."""

    padded: Tensor
    inside: Tensor
    windows: Tensor
    gathered: Tensor
    tiles: Tensor
    read: Tensor
    products: Tensor
    pixels: Tensor
    blocks: Tensor

    @classmethod
    def of(cls, images: Tensor, down: int, across: int, outputs: int) -> "_Work":
        """Return memory for images (B, H, W, C) of ``down`` x ``across`` tiles each."""
        count, height, width, channels = images.shape
        number = count * down * across
        padded = images.new_zeros(count, down * OUTPUTS + KERNEL - 1, across * OUTPUTS + KERNEL - 1, channels)
        windows = padded.unfold(1, INPUTS, OUTPUTS).unfold(2, INPUTS, OUTPUTS).permute(4, 5, 0, 1, 2, 3)
        gathered, read = (images.new_empty(INPUTS ** 2, number * channels) for _ in range(2))
        pixels = images.new_empty(OUTPUTS ** 2, number * outputs)
        return cls(padded, padded[:, 1:height + 1, 1:width + 1], windows, gathered, gathered.view(windows.shape), read,
                   images.new_empty(INPUTS ** 2, number, outputs), pixels,
                   pixels.view(OUTPUTS, OUTPUTS, count, down, across, outputs).permute(2, 3, 0, 4, 1, 5))


class _Convolution(torch.autograd.Function):
    """The convolution, or with ``turned`` that by the kernels turned by 180 degrees: each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Kernels, turned: bool) -> Tensor:
        ctx.kernels, ctx.turned = kernels, turned
        matrices = _transforms(x.dtype)
        if turned:
            return convolve(x, kernels.values, matrices.turned_tile, matrices.turned_output)
        return convolve(x, kernels.values.transpose(1, 2), matrices.tile, matrices.output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return _Convolution.apply(gradient, ctx.kernels, not ctx.turned), None, None
