"""The gradient norm: how strongly one batch pulls at the weights of an untrained network.

Source: Abdelfattah et al., "Zero-cost proxies for lightweight NAS", ICLR 2021, Sec. 3.2.1.
"""

from torch import Tensor, nn

from search.training_free.layers import weight_gradients, weighted_layers


def gradient_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over the layers of the Euclidean norm of the loss' gradient in their weights."""
    network.train()
    return sum(gradient.norm().item() for gradient in weight_gradients(network, images, labels,
                                                                       weighted_layers(network)))
