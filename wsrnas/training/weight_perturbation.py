"""Adversarial weight perturbation (AWP, Wu et al. 2020): the weights, too, are moved against the loss before a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsrnas.runtime.distributed import World, average
from wsrnas.training.batch_norm import running_statistics_kept


@contextmanager
def perturbed_weights(model: nn.Module, loss: Callable[[], Tensor], gamma: float, world: World) -> Iterator[None]:
    """Inside, every weight w of ``model`` is w + v, with v = gamma * |w| / |g| * g along its gradient g of ``loss``.

    One step of Wu et al. 2020, Eq. 9 to 11, layer by layer (|.| is the Frobenius norm). Weights are the parameters
    with more than one dimension; biases and BatchNorm's stay. On leaving, the weights are what they were, bit for bit.

    Args:
        model: the unwrapped network, in training mode.
        loss: its forward pass, a mean over samples; BatchNorm's running statistics are not updated by it.
        gamma: relative size of the perturbation.
        world: the gradient is that of all processes, so that all perturb alike.
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad]
    with running_statistics_kept(model):
        gradients = list(torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True))
    average(gradients, world)
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                tiny = torch.finfo(gradient.dtype).tiny
                weight.add_(gradient / gradient.norm().clamp_min(tiny) * (gamma * weight.norm()))
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
