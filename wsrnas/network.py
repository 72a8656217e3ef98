"""Networks of cells: CIFAR networks, ImageNet networks and the supernet share one stack with other stems and cells.

Source: Liu et al., "DARTS", ICLR 2019, Sec. 2.1 and 3, and its code for the auxiliary head. Parameter counts are those
of the published networks. No attribute is called "model" or "module", because checkpoint loaders remove these words
from keys.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.genotype import Genotype, Nodes
from wsrnas.operations import DropPath, FactorizedReduce, ReLUConvBN, build_operation
from wsrnas.quick.gradients import concatenate
from wsrnas.quick.states import shared_states
from wsrnas.runtime.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MakeCell = Callable[[int, int, int, bool, bool], Any]  # a module with the attribute out_channels
MakeStem = Callable[[int, int], Any]  # a module with the attributes out_channels and reduction
MakeHead = Callable[[int, int], nn.Module]


class Normalize(nn.Module):
    """(B, C, H, W) images in [0,1] -> (images - mean) / std, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images."""
        return (images - self.mean) / self.std


class CifarStem(nn.Module):
    """3x3 convolution to 3C channels, BatchNorm: images -> (s0, s1), both (B, 3C, H, W)."""

    reduction = False
    before_norm = ("conv",)

    def __init__(self, in_channels: int, init_channels: int) -> None:
        super().__init__()
        self.out_channels = 3 * init_channels
        self.conv = nn.Conv2d(in_channels, self.out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return s0 and s1, which are the same features."""
        features = self.norm(self.conv(images))
        return features, features


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2: images -> s0 (B, C, H/4, W/4), s1 (B, C, H/8, W/8), rounded up."""

    reduction = True  # s1 is half as large as s0, as after a reduction cell

    def __init__(self, in_channels: int, init_channels: int) -> None:
        super().__init__()
        if init_channels < 2:
            raise InputError(f"init_channels is {init_channels}; the ImageNet stem needs at least 2")
        self.out_channels = init_channels
        half = init_channels // 2
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, init_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(init_channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(init_channels, init_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(init_channels),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return s0 and s1."""
        s0 = self.first(images)
        return s0, self.second(s0)


def build_preprocess(channels_prev_prev: int, channels_prev: int, channels: int, reduction_prev: bool,
                     affine: bool = True) -> tuple[nn.Module, nn.Module]:
    """Return the two modules that bring a cell's inputs to ``channels`` and to one size."""
    first = FactorizedReduce if reduction_prev else ReLUConvBN
    return first(channels_prev_prev, channels, affine), ReLUConvBN(channels_prev, channels, affine)


class Cell(nn.Module):
    """One cell of a genotype: s0 (B, C_pp, H0, W0), s1 (B, C_p, H, W) -> (B, len(concat) * C, H', W').

    H' is H, or ceil(H / 2) in a reduction cell; H is H0, or ceil(H0 / 2) after a reduction cell. Parts without
    influence on the output are not built: ``none`` edges (a node with no other edges is zero), and nodes and inputs
    without a path to the concat. In training, ``drop_path`` (by default the cell's own) follows every operation except
    the identity, as in DARTS.
    """

    def __init__(self, genotype: Genotype, channels_prev_prev: int, channels_prev: int, channels: int,
                 reduction: bool, reduction_prev: bool, drop_path: DropPath | None = None) -> None:
        super().__init__()
        self.drop_path = DropPath() if drop_path is None else drop_path
        kind = "reduce" if reduction else "normal"
        self.concat = genotype.reduce_concat if reduction else genotype.normal_concat
        self.out_channels = len(self.concat) * channels
        nodes, inputs_used = _influential(genotype.nodes(kind), self.concat)
        preprocess = build_preprocess(channels_prev_prev, channels_prev, channels, reduction_prev)
        self.preprocess = nn.ModuleList(
            module if used else nn.Identity() for module, used in zip(preprocess, inputs_used, strict=True))
        self.inputs = tuple(tuple(source for _, source in edges) for edges in nodes)
        self.nodes: Any = nn.ModuleList(
            nn.ModuleList(build_operation(name, channels, 2 if reduction and source < 2 else 1)
                          for name, source in edges)
            for edges in nodes)

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """Return the concatenated outputs of the nodes in the concat."""
        with shared_states(s0, s1):
            states: list[Any] = [self.preprocess[0](s0), self.preprocess[1](s1)]
            for operations, sources in zip(self.nodes, self.inputs, strict=True):
                total = None
                for operation, source in zip(operations, sources, strict=True):
                    output = operation(states[source])
                    if not isinstance(operation, nn.Identity):
                        output = self.drop_path(output)
                    total = output if total is None else total + output
                states.append(total)
        return concatenate([states[node] for node in self.concat])


def _influential(nodes: Nodes, concat: Sequence[int]) -> tuple[Nodes, tuple[bool, bool]]:
    """Return the edges that influence the output, node by node, and which of the two inputs they read.

    A node with ``none`` edges alone keeps one of them, which gives its zeros a shape.
    """
    needed, kept = set(concat), []
    for node in reversed(range(2, len(nodes) + 2)):
        edges = nodes[node - 2]
        real = tuple(edge for edge in edges if edge[0] != "none") or edges[:1]
        kept.append(real if node in needed else ())
        needed.update(source for _, source in kept[-1])
    return tuple(reversed(kept)), (0 in needed, 1 in needed)


class AuxiliaryHead(nn.Module):
    """A second classifier between the cells, which helps to train them: (B, C, H, W) -> logits (B, K).

    Its layers are ReLU, means over 5x5 windows, 1x1 and 2x2 convolution, mean over the remaining positions, linear. In
    DARTS the input has 8x8 pixels (ImageNet: 7x7), which give one position of the 2x2 convolution; larger inputs give
    several. A side that is too short for two windows still has two, one at each end, scaled down with the side.
    """

    window = 5

    def __init__(self, in_channels: int, num_classes: int, imagenet: bool = False) -> None:
        super().__init__()
        self.step = 2 if imagenet else 3
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.Identity() if imagenet else nn.BatchNorm2d(768),  # DARTS left it out by mistake and then kept it so
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        return self.classifier(self.features(self.pool(F.relu(x))).mean((2, 3)))

    def pool(self, x: Tensor) -> Tensor:
        """Return means over windows, at least two on each side: (B, C, H, W) -> (B, C, H', W')."""
        height, width = (max(side, 2) for side in x.shape[2:])
        (tall, down), (wide, across) = self._window(height), self._window(width)
        return F.avg_pool2d(x.expand(-1, -1, height, width), (tall, wide), (down, across))  # one pixel becomes two

    def _window(self, side: int) -> tuple[int, int]:
        """Return the length of a window and the step to the next one."""
        shortest = self.window + self.step
        if side >= shortest:
            return self.window, self.step
        length = round(self.window * side / shortest)
        return length, side - length


class CellNetwork(nn.Module):
    """Stem, cells, mean over the image, linear classifier: (B, channels, H, W) in [0,1] -> logits (B, K).

    Cells layers // 3 and 2 * layers // 3, counted from 0, are reductions, which double the channels. In training mode,
    the child ``auxiliary`` (None without ``make_head``) reads the output of the second reduction.

    Args:
        make_cell: Function of (channels of the last but one cell, of the last cell, of this cell's nodes, whether this
            cell is a reduction, whether the last one was); returns a module with the attribute ``out_channels``. It is
            called once for each layer, in order.
        init_channels: Channels C of the nodes of the first cells.
        layers: Number of cells.
        num_classes: Number K of classes.
        channels: Channels of the images.
        make_stem: Function of (channels, init_channels); returns a module that maps images to the pair (s0, s1) and has
            the attributes ``out_channels`` and ``reduction`` (whether s1 is half as large as s0).
        normalize: The network's first child; None: images stay unchanged.
        make_head: Function of (channels of its input, num_classes); returns the auxiliary head; None for no head. It is
            called last, so that a seed draws the same other weights with and without a head.

    Raises:
        InputError: A number is below 1.
    """

    def __init__(self, make_cell: MakeCell, init_channels: int, layers: int, num_classes: int,
                 channels: int = 3, make_stem: MakeStem = CifarStem,
                 normalize: nn.Module | None = None, make_head: MakeHead | None = None) -> None:
        super().__init__()
        for name, value in {"init_channels": init_channels, "layers": layers, "num_classes": num_classes,
                            "channels": channels}.items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        self.normalize = nn.Identity() if normalize is None else normalize
        self.stem = make_stem(channels, init_channels)
        self.cells = nn.ModuleList()
        widths = [self.stem.out_channels, self.stem.out_channels]
        reduction_prev, current = self.stem.reduction, init_channels
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            current = 2 * current if reduction else current
            cell = make_cell(widths[-2], widths[-1], current, reduction, reduction_prev)
            self.cells.append(cell)
            widths.append(cell.out_channels)
            reduction_prev = reduction
        self.classifier = nn.Linear(widths[-1], num_classes)
        self.auxiliary = None if make_head is None else make_head(widths[2 + 2 * layers // 3], num_classes)

    def run_cell(self, cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
        """Apply one cell; networks whose cells take more than their two inputs override this method."""
        return cell(s0, s1)

    def forward(self, images: Tensor, outputs: list[Tensor] | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits (B, K), and in training mode with an auxiliary head also the head's logits.

        Args:
            images: Images (B, channels, H, W) in [0,1].
            outputs: List to which the output of every cell is appended.
        """
        s0, s1 = self.stem(self.normalize(images))
        auxiliary = None
        with shared_states():
            for layer, cell in enumerate(self.cells):
                s0, s1 = s1, self.run_cell(cell, s0, s1)
                if outputs is not None:
                    outputs.append(s1)
                if self.auxiliary is not None and self.training and layer == 2 * len(self.cells) // 3:
                    auxiliary = self.auxiliary(s1)
        logits = self.classifier(self.pool(s1))
        return logits if auxiliary is None else (logits, auxiliary)

    def pool(self, features: Tensor) -> Tensor:
        """Return the classifier's input (B, C') from the output of the last cell (B, C', H', W')."""
        return features.mean((2, 3))


class NetworkCIFAR(CellNetwork):
    """The network of a genotype for small images: (B, channels, H, W) in [0,1] -> logits (B, K).

    Args:
        genotype: The cells.
        init_channels: Channels C of the nodes of the first cells.
        layers: Number of cells.
        num_classes: Number K of classes.
        channels: Channels of the images.
        auxiliary: Whether there is an auxiliary head, whose logits join the others in training mode.
    """

    def __init__(self, genotype: Genotype, init_channels: int, layers: int, num_classes: int,
                 channels: int = 3, auxiliary: bool = False) -> None:
        drop_path = DropPath()
        super().__init__(_cells_of(genotype, drop_path), init_channels, layers, num_classes, channels=channels,
                         make_head=AuxiliaryHead if auxiliary else None)
        self.genotype, self.drop_path = genotype, drop_path


class NetworkImageNet(CellNetwork):
    """The network of a genotype for large images: (B, channels, H, W) in [0,1] -> logits (B, K).

    Its first child normalises the images; the stem divides height and width by 8. DARTS pools 7x7 positions before the
    classifier; at 224 x 224 pixels, this is the mean over all positions.

    Args:
        genotype: The cells.
        init_channels: Channels C of the nodes of the first cells.
        layers: Number of cells.
        num_classes: Number K of classes.
        channels: Channels of the images.
        mean: Mean of the training images, one number for each channel.
        std: Standard deviation of the training images, one number for each channel.
        auxiliary: Whether there is an auxiliary head, whose logits join the others in training mode.

    Raises:
        InputError: A number is too small, or ``mean`` and ``std`` do not have ``channels`` entries.
    """

    def __init__(self, genotype: Genotype, init_channels: int, layers: int, num_classes: int,
                 channels: int = 3, mean: Sequence[float] = IMAGENET_MEAN,
                 std: Sequence[float] = IMAGENET_STD, auxiliary: bool = False) -> None:
        if not len(mean) == len(std) == channels:
            raise InputError(f"mean and std have {len(mean)} and {len(std)} entries; "
                             f"expected {channels}, one for each channel")
        drop_path = DropPath()
        super().__init__(_cells_of(genotype, drop_path), init_channels, layers, num_classes, channels=channels,
                         make_stem=ImageNetStem, normalize=Normalize(mean, std),
                         make_head=_imagenet_head if auxiliary else None)
        self.genotype, self.drop_path = genotype, drop_path


def _imagenet_head(in_channels: int, num_classes: int) -> AuxiliaryHead:
    return AuxiliaryHead(in_channels, num_classes, imagenet=True)


def _cells_of(genotype: Genotype, drop_path: DropPath) -> MakeCell:
    def make_cell(prev_prev: int, prev: int, current: int, reduction: bool, reduction_prev: bool) -> Cell:
        return Cell(genotype, prev_prev, prev, current, reduction, reduction_prev, drop_path)
    return make_cell
