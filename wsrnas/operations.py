"""Operations by name: the eight candidates of DARTS, and two more that published cells need.

Every operation maps (B, C, H, W) to (B, C, ceil(H / stride), ceil(W / stride)) and keeps the memory format.
None works in place, because several operations read one node's output.
Source: Liu et al., "DARTS", ICLR 2019, Sec. 3.1 and its appendix on the final networks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.quick.gradients import concatenate, dilated_depthwise, every_nth
from wsrnas.quick.states import SharedReLU
from wsrnas.quick.strided import convolution
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import BatchNoise

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # every kind of BatchNorm: 1, 2 or 3 dimensions, synchronised or not


class ReLUConvBN(nn.Module):
    """ReLU, 1x1 convolution, BatchNorm: (B, C_in, H, W) -> (B, C_out, H, W)."""

    before_norm = ("conv",)

    def __init__(self, in_channels: int, out_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = SharedReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the three layers."""
        return self.norm(self.conv(self.relu(x)))


class FactorizedReduce(nn.Module):
    """Halve height and width without losing pixels: (B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2)).

    One 1x1 convolution reads the even rows and columns, the other the odd ones. Each gives half of the channels; the
    second gives one more if their number is odd. An odd height or width is padded by one zero at its end, so that both
    halves have the same size.
    """

    before_norm = ("conv_even", "conv_odd")

    def __init__(self, in_channels: int, out_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = SharedReLU()
        self.conv_even = convolution(in_channels, out_channels // 2, 1, stride=2)
        self.conv_odd = convolution(in_channels, out_channels - out_channels // 2, 1, stride=2)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half the height and width."""
        x = self.relu(x)
        pad_height, pad_width = x.shape[2] % 2, x.shape[3] % 2
        padded = F.pad(x, (0, pad_width, 0, pad_height)) if pad_height or pad_width else x
        return self.norm(concatenate([self.conv_even(x), self.conv_odd(padded[:, :, 1:, 1:])]))


class DilatedDepthwise(nn.Conv2d):
    """Depthwise convolution with dilation; on a CPU always in float32, also under autocast.

    On CPUs, oneDNN's bfloat16 weight gradient of this layer is wrong and writes past its memory (seen with torch 2.15,
    AVX-512 BF16, channels_last, images of 32 pixels and more).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolved(x.float())
        return self._convolved(x)

    def _convolved(self, x: Tensor) -> Tensor:
        stride, dilation, padding = self.stride[0], self.dilation[0], int(self.padding[0])
        if stride == dilation and padding % dilation == 0:
            # It reads every second row and column alone. As a plain convolution of those, its gradient is 20 times
            # quicker on a CPU; the numbers are the same.
            return F.conv2d(every_nth(x, stride), self.weight, self.bias, 1, padding // dilation, 1, self.groups)
        if stride == 1 and x.device.type == "cpu":
            return dilated_depthwise(x, self.weight, padding, dilation)
        return super().forward(x)


def _depthwise(channels: int, kernel_size: int, stride: int, dilation: int, affine: bool,
               relu: type[nn.ReLU] = SharedReLU) -> list[nn.Module]:
    """Return ReLU, depthwise convolution, 1x1 convolution and BatchNorm."""
    padding = dilation * (kernel_size - 1) // 2
    depthwise = DilatedDepthwise if dilation > 1 else nn.Conv2d
    return [
        relu(),
        depthwise(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class SeparableConv(nn.Sequential):
    """Depthwise separable convolution, applied twice as in DARTS; the first carries the stride."""

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__(*_depthwise(channels, kernel_size, stride, 1, affine),
                         *_depthwise(channels, kernel_size, 1, 1, affine, nn.ReLU))


class DilatedConv(nn.Sequential):
    """Depthwise separable convolution with dilation 2, applied once."""

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__(*_depthwise(channels, kernel_size, stride, 2, affine))


class CrossConv(nn.Sequential):
    """ReLU, 1x7 convolution, 7x1 convolution, BatchNorm (``conv_7x1_1x7``)."""

    def __init__(self, channels: int, stride: int, affine: bool = True) -> None:
        super().__init__(
            SharedReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class Zero(nn.Module):
    """The ``none`` operation: it returns new zeros, so that neither infinities nor gradients pass."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros of the output's shape."""
        return torch.zeros_like(x[:, :, ::self.stride, ::self.stride])


class DropPath(nn.Module):
    """Drop the output of an operation for some images and scale it up for the others (Larsson et al. 2017).

    It has no effect in evaluation mode, under an attack and at the initial rate of 0. The cells of a network share it.

    Attributes:
        rate: Probability that an image's output becomes zero, in [0, 1).
        noise: Source of the draws.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.noise = 0.0, BatchNoise()

    def forward(self, x: Tensor) -> Tensor:
        """Return x, in training with the outputs of some images dropped."""
        if not self.training or not self.rate:
            return x
        # bfloat16 draws are multiples of 1/256.
        some = x[:, :1, :1, :1].to(torch.promote_types(x.dtype, torch.float32))
        unit = (self.noise.uniform(some) + 1) / 2
        return x * (unit >= self.rate) / (1 - self.rate)


def _zero(channels: int, stride: int, affine: bool) -> nn.Module:
    return Zero(stride)


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


class Operation(NamedTuple):
    """An entry of ``OPERATIONS``.

    Args:
        build: Constructor, called as build(channels, stride=..., affine=...).
        candidate: Whether the DARTS search space has it.
        pooling: Whether a BatchNorm follows it in a supernet.
    """

    build: Callable[..., nn.Module]
    candidate: bool = False
    pooling: bool = False


OPERATIONS: dict[str, Operation] = {
    "none": Operation(_zero, candidate=True),
    "max_pool_3x3": Operation(_max_pool, candidate=True, pooling=True),
    "avg_pool_3x3": Operation(_avg_pool, candidate=True, pooling=True),
    "skip_connect": Operation(_skip, candidate=True),
    "sep_conv_3x3": Operation(partial(SeparableConv, kernel_size=3), candidate=True),
    "sep_conv_5x5": Operation(partial(SeparableConv, kernel_size=5), candidate=True),
    "dil_conv_3x3": Operation(partial(DilatedConv, kernel_size=3), candidate=True),
    "dil_conv_5x5": Operation(partial(DilatedConv, kernel_size=5), candidate=True),
    "sep_conv_7x7": Operation(partial(SeparableConv, kernel_size=7)),
    "conv_7x1_1x7": Operation(CrossConv),
}
"""All operations by name."""

PRIMITIVES: tuple[str, ...] = tuple(name for name, operation in OPERATIONS.items() if operation.candidate)
"""The eight candidates of the DARTS search space, in the order of the architecture parameters."""


def build_operation(name: str, channels: int, stride: int, affine: bool = True,
                    pool_norm: bool = False) -> nn.Module:
    """Build the operation called ``name``.

    Args:
        name: A name in ``OPERATIONS``.
        channels: Channels C of input and output.
        stride: Stride, 1 or 2.
        affine: Whether BatchNorm layers learn a scale and a shift; those of supernets do not.
        pool_norm: Whether a BatchNorm follows the pooling operations, as in the supernets of DARTS.

    Raises:
        InputError: ``name`` is unknown.
    """
    if name not in OPERATIONS:
        raise InputError(f"unknown operation {name!r}; known operations: {', '.join(OPERATIONS)}")
    operation = OPERATIONS[name].build(channels, stride=stride, affine=affine)
    if pool_norm and OPERATIONS[name].pooling:
        return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=affine))
    return operation
