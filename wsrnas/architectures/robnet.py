"""RobNets: networks that were found by sampling, with a code of two bits on every edge of a cell.

Source: Guo et al., "When NAS Meets Robustness", CVPR 2020; codes, sizes and the layers' details are those of the
authors' release (gmh14/RobNets at 0fbcb036), RobNet-small's code that of zhicheng2T0/Wsr-NAS at 7736f5da, the only
published copy. RobNet-medium was never published.

Stem, cells and classifier are those of ``wsrnas.network``, with four differences: every node has an edge from each
input and from each node before it, an edge may have two operations, one code describes normal and reduction cells, and
the BatchNorm layers of the cells learn neither scale nor shift.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsrnas.genotype import Genotype
from wsrnas.network import Cell, CellNetwork, CifarStem, ImageNetStem, Normalize
from wsrnas.runtime.errors import InputError

# The outputs of an edge's operations are added. A separable convolution is DARTS's, which is applied twice; at stride 2
# a skip connection is a FactorizedReduce.
OPERATIONS_OF = {"00": ("none",), "01": ("sep_conv_3x3",), "10": ("skip_connect",),
                 "11": ("sep_conv_3x3", "skip_connect")}
"""Code of an edge -> its operations."""

# A cell's nodes are separated by commas; a node's codes are those of its edges from inputs 0 and 1, then from nodes.
SMALL = "11 11, 01 10 11, 10 01 00 01, 10 00 10 11 10"
LARGE = "11 11, 11 11 11, 01 11 01 10, 11 01 01 01 11"
FREE = (
    "11 10, 11 11 10, 11 01 01 10, 11 11 00 11 01",
    "11 00, 01 10 01, 00 10 10 00, 01 11 10 11 00",
    "11 11, 11 01 01, 11 01 00 10, 00 10 10 00 11",
    "10 11, 10 01 01, 10 10 01 10, 11 00 00 01 10",
    "11 11, 01 00 10, 10 10 01 10, 01 00 10 01 11",
    "11 10, 11 11 11, 01 10 11 00, 10 01 11 01 11",
    "11 11, 11 10 10, 01 11 10 01, 10 10 10 01 10",
    "01 11, 11 11 01, 11 11 11 01, 11 01 11 10 00",
    "11 11, 11 11 11, 01 01 11 10, 01 00 10 01 11",
    "10 11, 01 00 11, 11 10 11 01, 11 11 11 11 00",
    "11 10, 11 00 00, 00 11 00 01, 10 00 01 10 11",
    "01 11, 01 11 11, 10 10 11 10, 11 01 11 10 00",
    "11 11, 10 10 01, 00 10 11 11, 01 10 10 00 01",
    "01 11, 11 11 01, 01 11 01 01, 11 11 01 10 10",
    "01 11, 11 11 11, 01 00 01 10, 10 11 10 10 11",
    "11 11, 00 11 11, 01 00 01 10, 00 11 01 11 11",
    "11 11, 01 11 11, 10 11 10 10, 10 10 10 11 11",
    "10 11, 01 11 11, 01 11 00 11, 11 00 10 00 01",
    "11 10, 11 11 11, 11 11 10 11, 00 11 01 11 11",
    "11 11, 01 01 11, 11 01 00 00, 10 00 01 01 11",
)
NODES = 4


def cell_of(codes: str) -> Genotype:
    """Return the cell of a code such as ``SMALL``; an edge with two operations becomes two edges.

    Raises:
        InputError: Nodes or codes are missing, too many, or unknown.
    """
    nodes = [node.split() for node in codes.split(",")]
    if len(nodes) != NODES:
        raise InputError(f"the RobNet cell {codes!r} has {len(nodes)} nodes; expected {NODES}, separated by commas")
    for number, node in enumerate(nodes, start=2):
        if len(node) != number:
            raise InputError(f"node {number} of the RobNet cell {codes!r} has {len(node)} codes; expected {number}")
        for code in node:
            if code not in OPERATIONS_OF:
                raise InputError(f"unknown code {code!r} at node {number} of the RobNet cell {codes!r}; "
                                 f"known codes: {', '.join(OPERATIONS_OF)}")
    edges = tuple(tuple((name, source) for source, code in enumerate(node) for name in OPERATIONS_OF[code])
                  for node in nodes)
    concat = tuple(range(2, NODES + 2))
    return Genotype(edges, concat, edges, concat)


class RobNet(CellNetwork):
    """Stem, one cell for each of ``cells``, means, linear classifier: (B, channels, H, W) in [0,1] -> logits (B, K).

    Args:
        cells: Codes as ``cell_of`` takes them, layer by layer.
        init_channels: Channels C of the nodes of the first cells.
        num_classes: Number K of classes.
        channels: Channels of the images.
        parts: The classifier reads the means over parts x parts rectangles of the image.
        imagenet: Whether to use ImageNet's normalisation and stem instead of CIFAR's.

    Raises:
        InputError: There is no cell, one is malformed, or a number is below 1.
    """

    def __init__(self, cells: Sequence[str], init_channels: int, num_classes: int, channels: int = 3,
                 parts: int = 1, imagenet: bool = False) -> None:
        if parts < 1:
            raise InputError(f"parts is {parts}; expected at least 1")
        genotypes = iter([cell_of(codes) for codes in cells])

        def make_cell(prev_prev: int, prev: int, current: int, reduction: bool, reduction_prev: bool) -> Cell:
            return _without_scale_and_shift(
                Cell(next(genotypes), prev_prev, prev, current, reduction, reduction_prev))

        super().__init__(make_cell, init_channels, len(cells), num_classes, channels,
                         ImageNetStem if imagenet else CifarStem, Normalize() if imagenet else None)
        self.parts = parts
        self.classifier = nn.Linear(parts**2 * self.classifier.in_features, num_classes)

    def pool(self, features: Tensor) -> Tensor:
        """Return the means over the parts of the last cell's output."""
        return means_of_parts(features, self.parts)


def _without_scale_and_shift(cell: Cell) -> Cell:
    """Remove scale and shift from a cell's BatchNorm layers; ``Cell`` has no argument for it."""
    for module in cell.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.affine = False
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
    return cell


def means_of_parts(features: Tensor, parts: int) -> Tensor:
    """Return flattened adaptive average pooling: (B, C, H, W) -> (B, C * parts**2).

    Torch's own function has no deterministic backward pass on CUDA.
    """
    rows, columns = ([(k * size // parts, -(-(k + 1) * size // parts)) for k in range(parts)]
                     for size in features.shape[2:])
    means = [features[:, :, top:bottom, left:right].mean((2, 3)) for top, bottom in rows for left, right in columns]
    return torch.stack(means, dim=2).flatten(1)


# -- the networks ----------------------------------------------------------------------------------------------------

def robnet_small(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build RobNet-small: 20 equal cells, 4.36 million parameters on CIFAR-10."""
    return RobNet([SMALL] * 20, width, num_classes, channels, imagenet=imagenet)


def robnet_large_v1(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build RobNet-large: 20 equal cells, 6.84 million parameters on CIFAR-10, 12.76 million on ImageNet."""
    return RobNet([LARGE] * 20, width, num_classes, channels, imagenet=imagenet)


def robnet_large_v2(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build RobNet-large v2: RobNet-large's cell 33 times, 33.36 million parameters on CIFAR-10.

    On small images the classifier reads 2 x 2 means.
    """
    return RobNet([LARGE] * 33, width, num_classes, channels, 1 if imagenet else 2, imagenet)


def robnet_free(num_classes: int, width: int, channels: int = 3, imagenet: bool = False) -> nn.Module:
    """Build RobNet-free: 20 different cells, 5.44 million parameters on CIFAR-10."""
    return RobNet(FREE, width, num_classes, channels, imagenet=imagenet)
