"""CRoZe: do the features, weights and gradients of an untrained network stay the same under an attack on both?

Source: Ha et al., "Generalizable lightweight proxy for robust NAS against diverse perturbations", NeurIPS 2023, Sec. 3.
A copy of the network, whose weights are pushed up the loss, sees images that are attacked on it. Each layer multiplies
three agreements between the network on the clean images and the copy on the attacked ones; the score is their sum.

Deviation: the published code removes BatchNorm, makes all weights positive, moves the images down the loss, compares
the outputs of cells in place of those of layers, and compares the weights before their step. The equations of the
paper, which are followed here, say none of this. The strengths are those of the published code.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.training_free.layers import outputs_of, weight_gradients, weighted_layers

WEIGHT_STRENGTH = 2.0  # norm of the change of a layer's weights, in norms of these weights
IMAGE_STRENGTH = 0.01  # L-inf radius of the attack on the images, in pixels of [0, 1]
STEP = 0.001  # learning rate of the step after which weights are compared


def consistency(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over the layers of (1 + cos features) (1 + cos weights) |cos gradients|."""
    network.train()
    other = copy.deepcopy(network)
    layers, others = weighted_layers(network), weighted_layers(other)
    with outputs_of(layers) as clean:
        gradients = weight_gradients(network, images, labels, layers)
    perturb(others, gradients)
    attacked = attack(other, images, labels)
    with outputs_of(others) as perturbed:
        other_gradients = weight_gradients(other, attacked, labels, others)
    total = 0.0
    for layer, twin, gradient, other_gradient in zip(layers, others, gradients, other_gradients, strict=True):
        if layer in clean:
            features = 1 + cosine(clean[layer], perturbed[twin])
            weights = 1 + cosine(layer.get_parameter("weight").detach() - STEP * gradient,
                                 twin.get_parameter("weight").detach() - STEP * other_gradient)
            total += features * weights * abs(cosine(gradient, other_gradient))
    return total


@torch.no_grad()
def perturb(layers: list[nn.Module], gradients: list[Tensor]) -> None:
    """Push the weights of each layer up the loss, by ``WEIGHT_STRENGTH`` times their norm."""
    for layer, gradient in zip(layers, gradients, strict=True):
        # In float64, because the squares of small gradients are 0 in float32.
        weight, length = layer.get_parameter("weight"), torch.linalg.vector_norm(gradient, dtype=torch.float64)
        if length > 0:
            weight.add_(WEIGHT_STRENGTH * weight.norm() * (gradient / length).to(weight.dtype))


def attack(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Attack images by one step up the loss of a network that normalises by the batch (FGSM)."""
    inputs = images.detach().requires_grad_(True)
    loss = F.cross_entropy(network(inputs), labels)
    gradient = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)[0]
    return (images + IMAGE_STRENGTH * gradient.sign()).clamp(0, 1)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two tensors as vectors; 0 where one of them is 0."""
    a, b = a.flatten().double(), b.flatten().double()
    lengths = a.norm() * b.norm()
    return float(a @ b / lengths) if lengths > 0 else 0.0
