"""Max pooling over windows of three by three, without gradient, in less than half of torch's time on a CPU.

Torch compares the nine pixels of a window and stores the place of the largest. Here rows are compared first and then
columns, four comparisons in all, and no place is stored. The numbers are the same. docs/PERFORMANCE.md has what it
saves.
"""

from typing import Any

import torch
from torch import Tensor, nn


def is_three_by_three(module: Any) -> bool:
    """Return whether a module is max pooling by three of stride 1 that keeps height and width."""
    return type(module) is nn.MaxPool2d and not module.return_indices and not module.ceil_mode and all(
        value in (expected, (expected, expected)) for value, expected in (
            (module.kernel_size, 3), (module.stride, 1), (module.padding, 1), (module.dilation, 1)))


def three_by_three(x: Tensor) -> Tensor:
    """Return ``F.max_pool2d(x, 3, stride=1, padding=1)`` of x (B, C, H, W).

    Where a gradient is asked for, and on other devices, torch does it.
    """
    if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
        return torch.max_pool2d(x, 3, 1, 1)
    return _along(_along(x, 2), 3)


def _along(x: Tensor, dim: int) -> Tensor:
    """Return the largest of each number and its two neighbours along a dimension."""
    found = x.clone(memory_format=torch.preserve_format)
    count = x.shape[dim] - 1
    for target, neighbour in ((0, 1), (1, 0)):
        part = found.narrow(dim, target, count)
        torch.maximum(part, x.narrow(dim, neighbour, count), out=part)
    return found
