"""Networks as tests compare them with another implementation."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from wsrnas.network import IMAGENET_MEAN, IMAGENET_STD

DRAWN = torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@contextmanager
def empty_layers():
    """The device meta, on which layers do not go to the length of filling what holds no numbers."""
    with pytest.MonkeyPatch.context() as context, torch.device("meta"):
        for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
            context.setattr(kind, "reset_parameters", lambda self: None)
        yield


def seeded(model: nn.Module) -> nn.Module:
    """Random weights and statistics that let no layer go unnoticed, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().to_empty(device="cpu").eval()
    for name, value in model.state_dict().items():
        if value.ndim == 4:
            value.copy_(normal(value.numel(), generator).view(value.shape)).mul_((2 / value[0].numel()) ** 0.5)
        elif "running_mean" in name or "bias" in name:
            value.normal_(0, 0.3, generator=generator)
        elif name.startswith("normalize"):
            value.copy_(torch.tensor(IMAGENET_MEAN if name.endswith("mean") else IMAGENET_STD).view(-1, 1, 1))
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
    return model


def normal(count: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers (count,) from a stock of normal ones: to draw those of a wide network takes a second."""
    start = int(torch.randint(len(DRAWN), (1,), generator=generator))
    return DRAWN.repeat(1 + (start + count) // len(DRAWN))[start:start + count]
