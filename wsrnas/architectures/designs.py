"""Hand-designed networks for small and large images, at any width: searched cells are compared with them.

All take (num_classes, width, channels of the images, imagenet). For small images, they are the CIFAR variants in the
tables of Wsr-NAS and RNAS: stems of stride 1 without pooling, otherwise the published networks. ``imagenet`` gives the
networks for large images, with the published stem after ImageNet's normalisation. ``width`` scales all channels
together. Nothing is computed in place. Convolutions and linear layers start with
torch's own random weights. Images may have any size, unless a network says otherwise: halved sizes are rounded up, and
the classifier reads means over the positions.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from wsrnas.architectures.blocks import (
    Concatenation,
    Dropout,
    PreActivationBlock,
    Residual,
    ShuffleUnit,
    basic_block,
    bottleneck,
    conv_norm_relu,
    inverted_residual,
    scaled,
    shuffle_down,
)
from wsrnas.network import Normalize


class HandDesignedNetwork(nn.Module):
    """Stages, mean over the image, linear classifier: (B, channels, H, W) in [0,1] -> logits (B, K).

    Args:
        stages: The stem, if there is one, and the following stages in order.
        out_channels: Channels of the last stage.
        num_classes: Number K of classes.
        imagenet: Whether ImageNet's normalisation comes first.
    """

    def __init__(self, stages: Sequence[nn.Module], out_channels: int, num_classes: int,
                 imagenet: bool = False) -> None:
        super().__init__()
        self.normalize: nn.Module = Normalize() if imagenet else nn.Identity()
        self.stages = nn.Sequential(*stages)
        self.classifier: nn.Module = nn.Linear(out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, channels, H, W) in [0,1]."""
        return self.classifier(self.stages(self.normalize(images)).mean((2, 3)))


def _pooled(*layers: nn.Module) -> nn.Sequential:
    """Return the stem for large images: ``layers`` and 3x3 max pooling of stride 2."""
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, padding=1))


# -- the networks ----------------------------------------------------------------------------------------------------

def resnet18(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build ResNet-18 (He et al., CVPR 2016, Table 1), for small images with a 3x3 stem.

    The width is the number of channels of the first stage; the others have 2, 4 and 8 times as many.
    """
    return _resnet(basic_block, (2, 2, 2, 2), 1, num_classes, width, channels, imagenet)


def resnet50(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build ResNet-50 (He et al., CVPR 2016, Table 1), for small images with a 3x3 stem.

    A bottleneck's stride is in its 3x3 convolution. The width is the number of channels inside the bottlenecks of the
    first stage; those of the other stages are 2, 4 and 8 times as wide.
    """
    return _resnet(bottleneck, (3, 4, 6, 3), 4, num_classes, width, channels, imagenet)


def _resnet(block: Callable[[int, int, int], nn.Module], depths: Sequence[int], expansion: int, num_classes: int,
            width: int, channels: int, imagenet: bool) -> nn.Module:
    stem = _pooled(*conv_norm_relu(channels, width, 7, 2)) if imagenet else conv_norm_relu(channels, width, 3)
    stages, previous = [stem], width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        blocks = []
        for number in range(depth):
            blocks += [block(previous, inner, 2 if stage and not number else 1), nn.ReLU()]
            previous = expansion * inner
        stages.append(nn.Sequential(*blocks))
    return HandDesignedNetwork(stages, previous, num_classes, imagenet)


def wrn_28_10(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build WRN-28-10 (Zagoruyko and Komodakis, BMVC 2016, Table 1) without dropout.

    It was not published for large images: there, a 7x7 convolution of stride 2 and ResNet's pooling come before the
    same three groups. The width is the number of channels of the first group; the others have 2 and 4 times as many,
    the stem a tenth.
    """
    return _wide_resnet(4, num_classes, width, channels, imagenet)


def wrn_34_10(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build WRN-34-10, with the same design as WRN-28-10."""
    return _wide_resnet(5, num_classes, width, channels, imagenet)


def _wide_resnet(blocks: int, num_classes: int, width: int, channels: int, imagenet: bool) -> nn.Module:
    previous = scaled(16, width, 160)
    # BatchNorm and ReLU are those of the first block.
    stages: list[nn.Module] = [_pooled(nn.Conv2d(channels, previous, 7, 2, 3, bias=False)) if imagenet else
                               nn.Conv2d(channels, previous, 3, padding=1, bias=False)]
    for group in range(3):
        current, group_blocks = width * 2**group, []
        for number in range(blocks):
            group_blocks.append(PreActivationBlock(previous, current, 2 if group and not number else 1))
            previous = current
        stages.append(nn.Sequential(*group_blocks))
    stages.append(nn.Sequential(nn.BatchNorm2d(previous), nn.ReLU()))
    return HandDesignedNetwork(stages, previous, num_classes, imagenet)


def vgg16(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build VGG-16 (Simonyan and Zisserman, ICLR 2015, Table 1, D) with BatchNorm and a single linear layer.

    The layers for large images are the same. The width is the number of channels of the first stage; the others have
    2, 4, 8 and 8 times as many.
    """
    stages, previous = [], channels
    for depth, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += conv_norm_relu(previous, factor * width, 3, bias=True)
            previous = factor * width
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    return HandDesignedNetwork(stages, previous, num_classes, imagenet)


def vgg16_4096(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build ``vgg16`` with two hidden linear layers of 4096 channels, each with ReLU and dropout 0.5.

    With 100 classes it has the 34 million parameters of RNAS' CIFAR-100 table. The linear layers read means over the
    positions; those published for ImageNet read all 7x7 positions. Dropout draws from the ``noise`` of the child
    ``dropout``. The width is that of ``vgg16``; the hidden layers keep their published ratio to it, rounded.
    """
    network = vgg16(num_classes, width, channels, imagenet)
    hidden, dropout = scaled(4096, width, 64), Dropout(0.5)
    network.classifier = nn.Sequential(nn.Linear(8 * width, hidden), nn.ReLU(), dropout,
                                       nn.Linear(hidden, hidden), nn.ReLU(), dropout, nn.Linear(hidden, num_classes))
    network.dropout = dropout
    return network


def densenet121(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build DenseNet-121 (Huang et al., CVPR 2017, Table 1), for small images with a single 3x3 convolution as stem.

    The width is the growth rate k, the number of channels that each layer adds; the stem has 2k, a bottleneck 4k.
    """
    previous = 2 * width
    stages: list[nn.Module] = [_pooled(*conv_norm_relu(channels, previous, 7, 2)) if imagenet else
                               nn.Conv2d(channels, previous, 3, padding=1, bias=False)]
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
    stages.append(nn.Sequential(nn.BatchNorm2d(previous), nn.ReLU()))
    return HandDesignedNetwork(stages, previous, num_classes, imagenet)


def mobilenet_v2(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build MobileNetV2 (Sandler et al., CVPR 2018, Table 2).

    For small images, the stem and the second row of the table have stride 1; for large ones 2, as published. As in the
    networks that the papers measured, every block of stride 1 has a shortcut, which is a 1x1 convolution with BatchNorm
    where the channels change; the first block has an expanding convolution, too; and ReLU replaces ReLU6. The width is
    the number of channels of the stem; all others keep their published ratio to it, rounded.
    """
    previous, early_stride = width, 2 if imagenet else 1
    stages = [conv_norm_relu(channels, previous, 3, early_stride)]
    for expansion, published, depth, stride in ((1, 16, 1, 1), (6, 24, 2, early_stride), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        current, blocks = scaled(published, width, 32), []
        for number in range(depth):
            blocks.append(inverted_residual(previous, current, expansion, 1 if number else stride))
            previous = current
        stages.append(nn.Sequential(*blocks))
    last = scaled(1280, width, 32)
    return HandDesignedNetwork([*stages, conv_norm_relu(previous, last)], last, num_classes, imagenet)


def shufflenet_v2(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build ShuffleNetV2 1x (Ma et al., ECCV 2018, Table 5), for small images with a stem of stride 1 and no pooling.

    The width is the number of channels of the first stage, rounded up to an even number; the others have 2 and 4 times
    as many. Stem and last layer keep their published ratio to it, rounded.
    """
    previous = scaled(24, width, 116)
    stages: list[nn.Module] = [_pooled(*conv_norm_relu(channels, previous, 3, 2)) if imagenet else
                               conv_norm_relu(channels, previous, 3)]
    for factor, depth in ((1, 4), (2, 8), (4, 4)):
        half = factor * scaled(58, width, 116)
        stages.append(nn.Sequential(shuffle_down(previous, half), *(ShuffleUnit(half) for _ in range(depth - 1))))
        previous = 2 * half
    last = scaled(1024, width, 116)
    return HandDesignedNetwork([*stages, conv_norm_relu(previous, last)], last, num_classes, imagenet)


def squeezenet(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build SqueezeNet 1.0 (Iandola et al., 2016, Table 1 and Fig. 2, simple bypass) with BatchNorm.

    Poolings of stride 2 follow the stem and the fire modules 4 and 8; the fire modules 3, 5 and 7 have a bypass. For
    small images, the stem is 3x3 and the windows of the poolings are 2x2. For large ones, of at least 21 pixels, the
    stem is 7x7 of stride 2 without padding and the windows are 3x3, as published. The last convolution is the
    classifier, without a ReLU. The width is the number of channels of the stem; all others keep their published ratio
    to it, rounded.
    """
    previous = width
    pooling = partial(nn.MaxPool2d, kernel_size=3 if imagenet else 2, stride=2, ceil_mode=True)
    stem = nn.Conv2d(channels, previous, 7, 2) if imagenet else nn.Conv2d(channels, previous, 3, padding=1)
    stages = [nn.Sequential(stem, nn.BatchNorm2d(previous), nn.ReLU(), pooling())]
    fires: list[nn.Module] = []
    for number, published in enumerate((16, 16, 32, 32, 48, 48, 64, 64), start=2):
        squeezed, expanded = scaled(published, width, 96), scaled(4 * published, width, 96)
        fire = nn.Sequential(conv_norm_relu(previous, squeezed, bias=True),
                             Concatenation(conv_norm_relu(squeezed, expanded, bias=True),
                                           conv_norm_relu(squeezed, expanded, 3, bias=True)))
        fires.append(Residual(fire) if number in (3, 5, 7) else fire)
        previous = 2 * expanded
        if number in (4, 8):
            stages.append(nn.Sequential(*fires, pooling()))
            fires = []
    return HandDesignedNetwork([*stages, nn.Sequential(*fires)], previous, num_classes, imagenet)
