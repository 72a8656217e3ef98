"""The layers with weights, their gradients and their outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def weighted_layers(network: nn.Module) -> list[nn.Module]:
    """Return the convolutions and linear layers, in the order of the network's modules."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def weight_gradients(network: nn.Module, images: Tensor, labels: Tensor, layers: Sequence[nn.Module]) -> list[Tensor]:
    """Return the gradient of the mean cross-entropy in each layer's weight; 0 for a layer that nothing depends on."""
    weights = [layer.get_parameter("weight") for layer in layers]
    loss = F.cross_entropy(network(images), labels)
    return list(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect the output of each layer that runs inside the context, without its graph."""
    found: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[layer] = output.detach()

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
