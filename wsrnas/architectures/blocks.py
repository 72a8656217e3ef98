"""What hand-designed networks are made of. Nothing is computed in place, so that what a hook sees stays as it was."""

import torch
from torch import Tensor, nn

from wsrnas.runtime.seeding import BatchNoise


class Residual(nn.Module):
    """(B, C, H, W) -> body + shortcut, (B, C', H', W')."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, nn.Identity() if shortcut is None else shortcut

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features) + self.shortcut(features)


class Concatenation(nn.Module):
    """The outputs of several branches, channel after channel."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class Dropout(nn.Module):
    """Set some values to zero and scale the others up, in training (Srivastava et al., JMLR 2014).

    Torch's own draws from the global generator, and for each process' images alone.

    Attributes:
        rate: probability that a value becomes zero, in [0, 1).
        noise: where the draws come from.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.noise = rate, BatchNoise()

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return features
        # bfloat16 draws are multiples of 1/256.
        unit = (self.noise.uniform(features.detach().to(torch.promote_types(features.dtype, torch.float32))) + 1) / 2
        return features * (unit >= self.rate) / (1 - self.rate)


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1,
              bias: bool = False) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, then BatchNorm."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups,
                                   bias=bias), nn.BatchNorm2d(out_channels))


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1,
                   bias: bool = False) -> nn.Sequential:
    """``conv_norm`` and a ReLU."""
    return nn.Sequential(*conv_norm(in_channels, out_channels, kernel_size, stride, groups, bias), nn.ReLU())


def scaled(channels: int, width: int, published: int) -> int:
    """``channels`` of the network of the ``published`` width at another width: rounded, at least 1."""
    return max(1, (2 * channels * width + published) // (2 * published))


# -- ResNets --------------------------------------------------------------------------------------------------------

def basic_block(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions and the way around them, of ResNet-18."""
    body = [*conv_norm_relu(in_channels, out_channels, 3, stride), *conv_norm(out_channels, out_channels, 3)]
    return Residual(nn.Sequential(*body), projection(in_channels, out_channels, stride))


def bottleneck(in_channels: int, inner: int, stride: int) -> nn.Module:
    """1x1, 3x3 and 1x1 convolution to 4 * ``inner`` channels, and the way around them, of ResNet-50."""
    body = [*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride), *conv_norm(inner, 4 * inner)]
    return Residual(nn.Sequential(*body), projection(in_channels, 4 * inner, stride))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The way around a block whose shape changes; None where it does not."""
    same = stride == 1 and in_channels == out_channels
    return None if same else conv_norm(in_channels, out_channels, stride=stride)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, and the way around them.

    Where the shape changes, the way around is a 1x1 convolution of what the first convolution sees.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
                                  nn.BatchNorm2d(out_channels), nn.ReLU(),
                                  nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        same = stride == 1 and in_channels == out_channels
        self.projection = None if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = self.activation(features)
        around = features if self.projection is None else self.projection(activated)
        return self.body(activated) + around


# -- MobileNetV2 ----------------------------------------------------------------------------------------------------

def inverted_residual(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Module:
    """1x1, depthwise 3x3 and 1x1 convolution, and at stride 1 the way around them."""
    inner = expansion * in_channels
    body = nn.Sequential(*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride, groups=inner),
                         *conv_norm(inner, out_channels))
    return body if stride > 1 else Residual(body, projection(in_channels, out_channels, 1))


# -- ShuffleNetV2 ---------------------------------------------------------------------------------------------------

class ShuffleChannels(nn.Module):
    """The channels of the first and of the second half by turns."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack(features.chunk(2, dim=1), dim=2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """2 * ``half`` channels, of which the second half passes three convolutions; then the halves are mixed."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_norm_relu(half, half), *conv_norm(half, half, 3, groups=half),
                                  *conv_norm_relu(half, half))
        self.shuffle = ShuffleChannels()

    def forward(self, features: Tensor) -> Tensor:
        first, second = features.chunk(2, dim=1)
        return self.shuffle(torch.cat([first, self.body(second)], dim=1))


def shuffle_down(in_channels: int, half: int) -> nn.Module:
    """Two branches of stride 2 and ``half`` channels each, mixed."""
    first = nn.Sequential(*conv_norm(in_channels, in_channels, 3, 2, groups=in_channels),
                          *conv_norm_relu(in_channels, half))
    second = nn.Sequential(*conv_norm_relu(in_channels, half), *conv_norm(half, half, 3, 2, groups=half),
                           *conv_norm_relu(half, half))
    return nn.Sequential(Concatenation(first, second), ShuffleChannels())
