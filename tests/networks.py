"""Networks as tests compare them with another implementation."""

import torch
from torch import nn

from wsrnas.network import IMAGENET_MEAN, IMAGENET_STD


def seeded(model: nn.Module) -> nn.Module:
    """Random weights and statistics that let no layer go unnoticed, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().to_empty(device="cpu").eval()
    for name, value in model.state_dict().items():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif "running_mean" in name or "bias" in name:
            value.normal_(0, 0.3, generator=generator)
        elif name.startswith("normalize"):
            value.copy_(torch.tensor(IMAGENET_MEAN if name.endswith("mean") else IMAGENET_STD).view(-1, 1, 1))
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
    return model
