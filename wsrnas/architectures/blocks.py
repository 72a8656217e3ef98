"""Building blocks of hand-designed networks; nothing is computed in place, so hooks see values that stay."""

import torch
from torch import Tensor, nn

from wsrnas.quick.strided import convolution
from wsrnas.runtime.seeding import BatchNoise


class Residual(nn.Module):
    """The sum of a body and a shortcut: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, nn.Identity() if shortcut is None else shortcut

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of body and shortcut."""
        return self.body(features) + self.shortcut(features)


class Concatenation(nn.Module):
    """The outputs of several branches, channel after channel."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Return the outputs of all branches, channel after channel."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class Dropout(nn.Module):
    """Set some values to zero and scale the others up, in training (Srivastava et al., JMLR 2014).

    Torch's own dropout draws from the global generator, and for the images of each process separately.

    Attributes:
        rate: Probability that a value becomes zero, in [0, 1).
        noise: Source of the draws.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.noise = rate, BatchNoise()

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, in training with some of them dropped."""
        if not self.training or not self.rate:
            return features
        # bfloat16 draws are multiples of 1/256.
        unit = (self.noise.uniform(features.detach().to(torch.promote_types(features.dtype, torch.float32))) + 1) / 2
        return features * (unit >= self.rate) / (1 - self.rate)


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1,
              bias: bool = False) -> nn.Sequential:
    """Return a convolution that keeps the size at stride 1, followed by BatchNorm."""
    return nn.Sequential(convolution(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups, bias),
                         nn.BatchNorm2d(out_channels))


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1,
                   bias: bool = False) -> nn.Sequential:
    """Return ``conv_norm`` followed by a ReLU."""
    return nn.Sequential(*conv_norm(in_channels, out_channels, kernel_size, stride, groups, bias), nn.ReLU())


def scaled(channels: int, width: int, published: int) -> int:
    """Return ``channels`` of a network of the ``published`` width, scaled to another width: rounded, at least 1."""
    return max(1, (2 * channels * width + published) // (2 * published))


# -- ResNets --------------------------------------------------------------------------------------------------------

def basic_block(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Build ResNet-18's block: two 3x3 convolutions and a shortcut."""
    body = [*conv_norm_relu(in_channels, out_channels, 3, stride), *conv_norm(out_channels, out_channels, 3)]
    return Residual(nn.Sequential(*body), projection(in_channels, out_channels, stride))


def bottleneck(in_channels: int, inner: int, stride: int) -> nn.Module:
    """Build ResNet-50's block: 1x1, 3x3 and 1x1 convolution to 4 * ``inner`` channels, and a shortcut."""
    body = [*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride), *conv_norm(inner, 4 * inner)]
    return Residual(nn.Sequential(*body), projection(in_channels, 4 * inner, stride))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Build the shortcut of a block that changes the shape; None where the shape stays."""
    same = stride == 1 and in_channels == out_channels
    return None if same else conv_norm(in_channels, out_channels, stride=stride)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, and a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution of the first convolution's input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
                                  nn.BatchNorm2d(out_channels), nn.ReLU(),
                                  nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        same = stride == 1 and in_channels == out_channels
        self.projection = None if same else convolution(in_channels, out_channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both paths: (B, C, H, W) -> (B, C', H', W')."""
        activated = self.activation(features)
        around = features if self.projection is None else self.projection(activated)
        return self.body(activated) + around


# -- MobileNetV2 ----------------------------------------------------------------------------------------------------

def inverted_residual(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Module:
    """Build MobileNetV2's block: 1x1, depthwise 3x3 and 1x1 convolution, and at stride 1 a shortcut."""
    inner = expansion * in_channels
    body = nn.Sequential(*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride, groups=inner),
                         *conv_norm(inner, out_channels))
    return body if stride > 1 else Residual(body, projection(in_channels, out_channels, 1))


# -- ShuffleNetV2 ---------------------------------------------------------------------------------------------------

class ShuffleChannels(nn.Module):
    """Interleave the channels of the first and of the second half."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the reordered channels: (B, C, H, W) -> (B, C, H, W)."""
        return torch.stack(features.chunk(2, dim=1), dim=2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit of 2 * ``half`` channels: the second half passes three convolutions, then the halves mix."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_norm_relu(half, half), *conv_norm(half, half, 3, groups=half),
                                  *conv_norm_relu(half, half))
        self.shuffle = ShuffleChannels()

    def forward(self, features: Tensor) -> Tensor:
        """Return the mixed halves: (B, 2 * half, H, W) -> (B, 2 * half, H, W)."""
        first, second = features.chunk(2, dim=1)
        return self.shuffle(torch.cat([first, self.body(second)], dim=1))


def shuffle_down(in_channels: int, half: int) -> nn.Module:
    """Build ShuffleNetV2's unit of stride 2: two branches of ``half`` channels each, mixed."""
    first = nn.Sequential(*conv_norm(in_channels, in_channels, 3, 2, groups=in_channels),
                          *conv_norm_relu(in_channels, half))
    second = nn.Sequential(*conv_norm_relu(in_channels, half), *conv_norm(half, half, 3, 2, groups=half),
                           *conv_norm_relu(half, half))
    return nn.Sequential(Concatenation(first, second), ShuffleChannels())
