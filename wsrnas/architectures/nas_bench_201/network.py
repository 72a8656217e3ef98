"""Networks of NAS-Bench-201: three stages of equal cells, with a residual block of stride 2 between two stages.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, Sec. 2.1, and the published counts of parameters and operations,
which fix what the paper leaves open. No attribute is called "model" or "module", because checkpoint loaders remove
these words from keys.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.architectures.nas_bench_201.graph import EDGES, OPERATIONS, STAGES, CellGraph
from wsrnas.network import IMAGENET_MEAN, ImageNetStem, Normalize
from wsrnas.operations import DropPath, FactorizedReduce, Zero
from wsrnas.quick.states import SharedReLU, shared_states
from wsrnas.quick.strided import convolution
from wsrnas.runtime.errors import InputError


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
                 affine: bool = True) -> nn.Module:
    """Return ReLU, convolution and BatchNorm."""
    return nn.Sequential(SharedReLU(),
                         convolution(in_channels, out_channels, kernel_size, stride, kernel_size // 2),
                         nn.BatchNorm2d(out_channels, affine=affine))


def nb201_operation(name: str, in_channels: int, out_channels: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Build the operation called ``name``: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ...).

    Args:
        name: One of ``OPERATIONS``.
        in_channels: Channels of the input.
        out_channels: Channels of the output; only convolutions change them.
        stride: Stride, 1 or 2; the cells of NAS-Bench-201 have 1.
        affine: Whether BatchNorm layers learn a scale and a shift.

    Raises:
        InputError: ``name`` is unknown, or cannot change the number of channels.
    """
    if name not in OPERATIONS:
        raise InputError(f"unknown operation {name!r}; known operations: {', '.join(OPERATIONS)}")
    if name.startswith("nor_conv"):
        return _convolution(in_channels, out_channels, 1 if name == "nor_conv_1x1" else 3, stride, affine)
    if in_channels != out_channels:
        raise InputError(f"{name} has {in_channels} channels and cannot give {out_channels}; expected as many")
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(in_channels, out_channels, affine)
    return Zero(stride) if name == "none" else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


class CellNB201(nn.Module):
    """The cell of a graph: (B, C, H, W) -> (B, C, H, W).

    Edges that do not influence the output are built and run, because the published counts hold them. In training,
    ``drop_path`` (by default the cell's own) follows every operation except the identity.
    """

    def __init__(self, graph: CellGraph, channels: int, drop_path: DropPath | None = None) -> None:
        super().__init__()
        self.drop_path = DropPath() if drop_path is None else drop_path
        self.edges: Any = nn.ModuleList(nb201_operation(name, channels, channels) for name in graph.operations)
        self.inputs = tuple(tuple((number, source) for number, (source, to) in enumerate(EDGES)
                                  if to == node and graph.operations[number] != "none")
                            for node in range(1, EDGES[-1][1] + 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the output node."""
        with shared_states():
            states = [features]
            for edges in self.inputs:
                total = None
                for number, source in edges:
                    operation = self.edges[number]
                    output = operation(states[source])
                    output = output if isinstance(operation, nn.Identity) else self.drop_path(output)
                    total = output if total is None else total + output
                states.append(torch.zeros_like(features) if total is None else total)
        return states[-1]


class ReductionBlock(nn.Module):
    """Halve height and width, rounded up: two 3x3 convolutions, and a mean over 2x2 pixels with a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(in_channels, out_channels, 3, 2),
                                  _convolution(out_channels, out_channels, 3))
        # Published images have even sides; ceil_mode is for the others.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True),
                                      nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both paths: (B, C, H, W) -> (B, C', ceil(H / 2), ceil(W / 2))."""
        return self.body(features) + self.shortcut(features)


class StagedNetwork(nn.Module):
    """Stem, cells in three stages, mean over the image, linear classifier: images in [0,1] -> logits (B, K).

    The stages have C, 2C and 4C channels. Large images pass ImageNet's normalisation and the stem of
    ``NetworkImageNet``, which divides height and width by 8.

    Args:
        make_cell: Function of the channels of a cell; returns a module that keeps them. It is called once for each
            cell, in order.
        init_channels: Channels C of the first stage.
        cells_per_stage: Number N of cells in each stage.
        num_classes: Number K of classes.
        channels: Channels of the images.
        imagenet: Whether the images are large.

    Raises:
        InputError: A number is too small, or large images do not have three channels.
    """

    def __init__(self, make_cell: Callable[[int], nn.Module], init_channels: int, cells_per_stage: int,
                 num_classes: int, channels: int = 3, imagenet: bool = False) -> None:
        super().__init__()
        for name, value in {"init_channels": init_channels, "cells_per_stage": cells_per_stage,
                            "num_classes": num_classes, "channels": channels}.items():
            if value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        if imagenet and channels != len(IMAGENET_MEAN):
            raise InputError(f"channels is {channels}; expected {len(IMAGENET_MEAN)} for imagenet")
        self.imagenet = imagenet
        self.normalize: nn.Module = Normalize() if imagenet else nn.Identity()
        # Deviation: NAS-Bench-201 has no network for large images; the stem is that of DARTS for ImageNet.
        self.stem: Any = ImageNetStem(channels, init_channels) if imagenet else nn.Sequential(
            nn.Conv2d(channels, init_channels, 3, padding=1, bias=False), nn.BatchNorm2d(init_channels))
        widths = [init_channels * 2**stage for stage in range(STAGES)]
        self.cells = nn.ModuleList(make_cell(width) for width in widths for _ in range(cells_per_stage))
        self.reductions = nn.ModuleList(ReductionBlock(width, 2 * width) for width in widths[:-1])
        self.activation = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.classifier = nn.Linear(widths[-1], num_classes)

    def run_cell(self, cell: nn.Module, features: Tensor) -> Tensor:
        """Apply one cell; networks whose cells take more than their input override this method."""
        return cell(features)

    def forward(self, images: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """Return the logits (B, K).

        Args:
            images: Images (B, channels, H, W) in [0,1].
            outputs: List to which the output of every cell is appended.
        """
        features = self.stem(self.normalize(images))
        features = features[1] if self.imagenet else features  # the stem of DARTS has two outputs
        per_stage = len(self.cells) // STAGES
        for number, cell in enumerate(self.cells):
            if number and number % per_stage == 0:
                features = self.reductions[number // per_stage - 1](features)
            features = self.run_cell(cell, features)
            if outputs is not None:
                outputs.append(features)
        return self.classifier(self.activation(features).mean((2, 3)))


class NetworkNB201(StagedNetwork):
    """The network of a graph: (B, channels, H, W) in [0,1] -> logits (B, K).

    Args:
        graph: The cell.
        init_channels: Channels C of the first stage.
        cells_per_stage: Number N of cells in each stage.
        num_classes: Number K of classes.
        channels: Channels of the images.
        imagenet: Whether the images are large.

    Raises:
        InputError: A number is too small, or large images do not have three channels.
    """

    def __init__(self, graph: CellGraph, init_channels: int = 16, cells_per_stage: int = 5, num_classes: int = 10,
                 channels: int = 3, imagenet: bool = False) -> None:
        drop_path = DropPath()
        super().__init__(lambda width: CellNB201(graph, width, drop_path), init_channels, cells_per_stage, num_classes,
                         channels, imagenet)
        self.graph, self.drop_path = graph, drop_path
