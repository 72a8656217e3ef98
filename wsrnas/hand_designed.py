"""Hand-designed networks for small images, at any width: what searched cells are compared with.

They are the CIFAR variants behind the tables of Wsr-NAS and RNAS: stems of stride 1 without pooling, otherwise the
published networks. ``width`` scales all channels together and is, by default, the published one. In all of them nothing
is computed in place, so that what a hook sees stays as it was; convolutions and linear layers begin with torch's own
random weights. Images may have any size: halved sizes are rounded up, and the classifier sees means over the positions.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wsrnas.errors import InputError
from wsrnas.robnet import ROBNETS


class HandDesignedNetwork(nn.Module):
    """Stages, mean over the image, linear classifier: (B, channels, H, W) in [0,1] -> logits (B, K).

    Args:
        stages: the stem, if there is one, and what follows, in order.
        out_channels: of the last stage.
    """

    def __init__(self, stages: Sequence[nn.Module], out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stages(self.normalize(images)).mean((2, 3)))


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


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1,
              bias: bool = False) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, then BatchNorm."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups,
                                   bias=bias), nn.BatchNorm2d(out_channels))


def conv_norm_relu(*sizes: int, groups: int = 1, bias: bool = False) -> nn.Sequential:
    """``conv_norm`` and a ReLU."""
    return nn.Sequential(*conv_norm(*sizes, groups=groups, bias=bias), nn.ReLU())


def scaled(channels: int, width: int, published: int) -> int:
    """``channels`` of the network of the ``published`` width at another width: rounded, at least 1."""
    return max(1, (2 * channels * width + published) // (2 * published))


# -- the networks ----------------------------------------------------------------------------------------------------

def resnet18(num_classes: int = 10, width: int = 64, channels: int = 3) -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016, Table 1) with a 3x3 stem.

    Args:
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
    """
    return _resnet(_basic_block, (2, 2, 2, 2), 1, num_classes, width, channels)


def resnet50(num_classes: int = 10, width: int = 64, channels: int = 3) -> nn.Module:
    """ResNet-50 (He et al., CVPR 2016, Table 1) with a 3x3 stem; a bottleneck's stride is in its 3x3 convolution.

    Args:
        width: channels inside the bottlenecks of the first stage; those of the others are 2, 4 and 8 times as wide.
    """
    return _resnet(_bottleneck, (3, 4, 6, 3), 4, num_classes, width, channels)


def _resnet(block: Callable[[int, int, int], nn.Module], depths: Sequence[int], expansion: int, num_classes: int,
            width: int, channels: int) -> nn.Module:
    stages, previous = [conv_norm_relu(channels, width, 3)], width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        blocks = []
        for number in range(depth):
            blocks += [block(previous, inner, 2 if stage and not number else 1), nn.ReLU()]
            previous = expansion * inner
        stages.append(nn.Sequential(*blocks))
    return HandDesignedNetwork(stages, previous, num_classes)


def _basic_block(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    body = [*conv_norm_relu(in_channels, out_channels, 3, stride), *conv_norm(out_channels, out_channels, 3)]
    return Residual(nn.Sequential(*body), _projection(in_channels, out_channels, stride))


def _bottleneck(in_channels: int, inner: int, stride: int) -> nn.Module:
    body = [*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride), *conv_norm(inner, 4 * inner)]
    return Residual(nn.Sequential(*body), _projection(in_channels, 4 * inner, stride))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    same = stride == 1 and in_channels == out_channels
    return None if same else conv_norm(in_channels, out_channels, stride=stride)


def wrn_28_10(num_classes: int = 10, width: int = 160, channels: int = 3) -> nn.Module:
    """WRN-28-10 (Zagoruyko and Komodakis, BMVC 2016, Table 1) without dropout.

    Args:
        width: channels of the first group; the others have 2 and 4 times as many, the stem a tenth.
    """
    return _wide_resnet(4, num_classes, width, channels)


def wrn_34_10(num_classes: int = 10, width: int = 160, channels: int = 3) -> nn.Module:
    """WRN-34-10, as WRN-28-10."""
    return _wide_resnet(5, num_classes, width, channels)


def _wide_resnet(blocks: int, num_classes: int, width: int, channels: int) -> nn.Module:
    previous = scaled(16, width, 160)
    stages: list[nn.Module] = [nn.Conv2d(channels, previous, 3, padding=1, bias=False)]
    for group in range(3):
        current, group_blocks = width * 2**group, []
        for number in range(blocks):
            group_blocks.append(PreActivationBlock(previous, current, 2 if group and not number else 1))
            previous = current
        stages.append(nn.Sequential(*group_blocks))
    return HandDesignedNetwork([*stages, nn.Sequential(nn.BatchNorm2d(previous), nn.ReLU())], previous, num_classes)


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


def vgg16(num_classes: int = 10, width: int = 64, channels: int = 3) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman, ICLR 2015, Table 1, D) with BatchNorm and a single linear layer.

    Args:
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
    """
    stages, previous = [], channels
    for depth, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += conv_norm_relu(previous, factor * width, 3, bias=True)
            previous = factor * width
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    return HandDesignedNetwork(stages, previous, num_classes)


def densenet121(num_classes: int = 10, width: int = 32, channels: int = 3) -> nn.Module:
    """DenseNet-121 (Huang et al., CVPR 2017, Table 1) with a 3x3 stem.

    Args:
        width: the growth rate k, the channels that each layer adds; the stem has 2k, a bottleneck 4k.
    """
    previous = 2 * width
    stages: list[nn.Module] = [nn.Conv2d(channels, previous, 3, padding=1, bias=False)]
    for depth in (6, 12, 24, 16):
        if len(stages) > 1:
            stages.append(nn.Sequential(nn.BatchNorm2d(previous), nn.ReLU(),
                                        nn.Conv2d(previous, previous // 2, 1, bias=False),
                                        nn.AvgPool2d(2, ceil_mode=True)))
            previous //= 2
        layers = []
        for _ in range(depth):
            layers.append(Concatenation(nn.Identity(), nn.Sequential(
                nn.BatchNorm2d(previous), nn.ReLU(), *conv_norm_relu(previous, 4 * width),
                nn.Conv2d(4 * width, width, 3, padding=1, bias=False))))
            previous += width
        stages.append(nn.Sequential(*layers))
    return HandDesignedNetwork([*stages, nn.Sequential(nn.BatchNorm2d(previous), nn.ReLU())], previous, num_classes)


def mobilenet_v2(num_classes: int = 10, width: int = 32, channels: int = 3) -> nn.Module:
    """MobileNetV2 (Sandler et al., CVPR 2018, Table 2) with stride 1 in the stem and in the second row of the table.

    As in the networks that the papers measured, every block of stride 1 has a shortcut, a 1x1 convolution with
    BatchNorm where the channels change, the first block expands by a convolution, too, and ReLU stands for ReLU6.

    Args:
        width: channels of the stem; all others keep their published ratio to them, rounded.
    """
    previous = width
    stages = [conv_norm_relu(channels, previous, 3)]
    for expansion, published, depth, stride in ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        current, blocks = scaled(published, width, 32), []
        for number in range(depth):
            blocks.append(_inverted_residual(previous, current, expansion, 1 if number else stride))
            previous = current
        stages.append(nn.Sequential(*blocks))
    last = scaled(1280, width, 32)
    return HandDesignedNetwork([*stages, conv_norm_relu(previous, last)], last, num_classes)


def _inverted_residual(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Module:
    inner = expansion * in_channels
    body = nn.Sequential(*conv_norm_relu(in_channels, inner), *conv_norm_relu(inner, inner, 3, stride, groups=inner),
                         *conv_norm(inner, out_channels))
    return body if stride > 1 else Residual(body, _projection(in_channels, out_channels, 1))


def shufflenet_v2(num_classes: int = 10, width: int = 116, channels: int = 3) -> nn.Module:
    """ShuffleNetV2 1x (Ma et al., ECCV 2018, Table 5) with a stem of stride 1 and no pooling after it.

    Args:
        width: channels of the first stage, an even number (an odd one gives the next); the others have 2 and 4 times
            as many, stem and last layer keep their published ratio to it, rounded.
    """
    previous = scaled(24, width, 116)
    stages: list[nn.Module] = [conv_norm_relu(channels, previous, 3)]
    for factor, depth in ((1, 4), (2, 8), (4, 4)):
        half = factor * scaled(58, width, 116)
        stages.append(nn.Sequential(_shuffle_down(previous, half), *(ShuffleUnit(half) for _ in range(depth - 1))))
        previous = 2 * half
    last = scaled(1024, width, 116)
    return HandDesignedNetwork([*stages, conv_norm_relu(previous, last)], last, num_classes)


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


def _shuffle_down(in_channels: int, half: int) -> nn.Module:
    first = nn.Sequential(*conv_norm(in_channels, in_channels, 3, 2, groups=in_channels),
                          *conv_norm_relu(in_channels, half))
    second = nn.Sequential(*conv_norm_relu(in_channels, half), *conv_norm(half, half, 3, 2, groups=half),
                           *conv_norm_relu(half, half))
    return nn.Sequential(Concatenation(first, second), ShuffleChannels())


def squeezenet(num_classes: int = 10, width: int = 96, channels: int = 3) -> nn.Module:
    """SqueezeNet 1.0 (Iandola et al., 2016, Table 1 and Fig. 2, simple bypass) with a 3x3 stem and BatchNorm.

    Poolings of 2x2 follow the stem and fire modules 3 and 5. The last convolution is the classifier, without a ReLU.

    Args:
        width: channels of the stem; all others keep their published ratio to them, rounded.
    """
    previous = width
    stages = [nn.Sequential(*conv_norm_relu(channels, previous, 3, bias=True), nn.MaxPool2d(2, ceil_mode=True))]
    fires: list[nn.Module] = []
    for number, published in enumerate((16, 16, 32, 32, 48, 48, 64, 64), start=2):
        squeezed, expanded = scaled(published, width, 96), scaled(4 * published, width, 96)
        fire = nn.Sequential(conv_norm_relu(previous, squeezed, bias=True),
                             Concatenation(conv_norm_relu(squeezed, expanded, bias=True),
                                           conv_norm_relu(squeezed, expanded, 3, bias=True)))
        fires.append(Residual(fire) if number % 2 and number < 9 else fire)
        previous = 2 * expanded
        if number in (3, 5, 9):
            stages.append(nn.Sequential(*fires, *[nn.MaxPool2d(2, ceil_mode=True)] * (number < 9)))
            fires = []
    return HandDesignedNetwork(stages, previous, num_classes)


# -- by name --------------------------------------------------------------------------------------------------------

_BY_NAME: dict[str, Callable[[int, int, int], nn.Module]] = {build.__name__: build for build in (
    resnet18, resnet50, wrn_28_10, wrn_34_10, vgg16, densenet121, mobilenet_v2, shufflenet_v2, squeezenet)} | ROBNETS
_BY_PLAIN_NAME = {name.replace("_", ""): name for name in _BY_NAME}


def names() -> list[str]:
    """The hand-designed networks, and the RobNets, which are named and sized like them."""
    return list(_BY_NAME)


def find(spec: str) -> str | None:
    """The name in ``names()`` that is meant; upper and lower case, with or without "-" and "_", are the same."""
    return _BY_PLAIN_NAME.get(spec.lower().replace("-", "").replace("_", ""))


def closest(spec: str) -> list[str]:
    """Names that ``spec`` may be a misspelling of."""
    return difflib.get_close_matches(spec.lower().replace("-", "_"), _BY_NAME, n=3)


def published_width(name: str) -> int:
    """``width`` of the published network."""
    return inspect.signature(_BY_NAME[name]).parameters["width"].default


def build(name: str, num_classes: int = 10, width: int | None = None, channels: int = 3) -> nn.Module:
    """The network called ``name``: images (B, channels, H, W) in [0, 1] -> logits (B, num_classes).

    Args:
        width: as the network's own function says; None is the published one.
    Raises:
        InputError: a number is below 1.
    """
    width = published_width(name) if width is None else width
    for number, value in {"init_channels": width, "num_classes": num_classes, "channels": channels}.items():
        if value < 1:
            raise InputError(f"{number} is {value}; expected at least 1")
    return _BY_NAME[name](num_classes, width, channels)
