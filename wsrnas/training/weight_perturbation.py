"""Adversarial weight perturbation (AWP, Wu et al. 2020): before a step, the weights are attacked as well."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsrnas.runtime.distributed import World, average
from wsrnas.training.batch_norm import running_statistics_kept


@contextmanager
def perturbed_weights(model: nn.Module, loss: Callable[[], Tensor], gamma: float, world: World) -> Iterator[None]:
    """Add v = gamma * |w| / |g| * g to every weight w of ``model`` inside the context; g is its gradient of ``loss``.

    This is one step of Wu et al. 2020, Eq. 9 to 11, layer by layer (|.| is the Frobenius norm). Weights are the
    parameters with more than one dimension; biases and BatchNorm's stay. Afterwards the weights are bit for bit what
    they were before.

    Args:
        model: the unwrapped network, in training mode.
        loss: forward pass of the model, a mean over samples. It does not update BatchNorm's running statistics.
        gamma: relative size of the perturbation.
        world: the processes, whose gradients are averaged so that all perturb alike.
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad]
    with running_statistics_kept(model):
        gradients = list(torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True))
    average(gradients, world)
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                # In float64, for the squares of small gradients are 0 in float32: the weights would be thrown far away.
                length = torch.linalg.vector_norm(gradient, dtype=torch.float64)
                length = length.clamp_min(torch.finfo(gradient.dtype).tiny).to(gradient.dtype)
                weight.add_(gradient / length * (gamma * weight.norm()))
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
