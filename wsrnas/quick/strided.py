"""1x1 convolutions with a stride, whose gradient is right on every CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.quick.gradients import every_nth

BLOCK = 8  # numbers in a register of AVX2


class FewChannels(nn.Conv2d):
    """A 1x1 convolution with a stride of fewer than 8 channels; learning on a CPU, it reads a copy of its pixels.

    On CPUs with AVX2 but without AVX-512, oneDNN's gradient of the weights writes past its memory, so that the numbers
    are wrong and the process dies later (oneDNN issue 6035; seen with torch 2.14, channels_last).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x: (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        if x.device.type == "cpu" and self.weight.requires_grad and torch.is_grad_enabled():
            return F.conv2d(every_nth(x, self.stride[0]), self.weight, self.bias)
        return super().forward(x)


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
                groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a convolution with square kernels and equal strides."""
    few = kernel_size == 1 and stride > 1 and in_channels < BLOCK and groups == 1 and not padding
    kind = FewChannels if few else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)


@contextmanager
def right_gradients(model: nn.Module) -> Iterator[None]:
    """Let the layers of this kind in a network of any origin learn right; they have torch's class again afterwards."""
    layers = [module for module in model.modules() if type(module) is nn.Conv2d and module.kernel_size == (1, 1)
              and module.stride[0] == module.stride[1] > 1 and module.in_channels < BLOCK and module.groups == 1
              and module.padding in ((0, 0), "valid")]
    for layer in layers:
        layer.__class__ = FewChannels
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Conv2d
