"""NASWOT: how differently the ReLUs of an untrained network see different images.

Source: Mellor et al., "Neural architecture search without training", ICML 2021, Eq. 1 and 2.
"""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return log |det K|: K counts, for each pair of images, the ReLU units that are on or off for both.

    It is minus infinity where two images switch all units alike.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(relu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        active = (output > 0).flatten(1).float()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.ReLU)]
    network.train()
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if len(torch.unique(kernel, dim=0)) < len(kernel):  # rounding would leave a determinant
        return -math.inf
    return torch.linalg.slogdet(kernel).logabsdet.item()
