"""NTK: does an untrained network learn all directions at a like speed?

The neural tangent kernel of images is K = J Jᵀ; a row of J is the gradient of an image's output in all weights. Under
gradient descent, the error along an eigenvector of K shrinks as fast as its eigenvalue is large, so a network whose
largest eigenvalue is far above the smallest one is hard to train.

Source: Chen et al., "Neural architecture search on ImageNet in four GPU hours", ICLR 2021 (TE-NAS), Sec. 3.1.1. As in
the published code, an image's output is the sum of its logits, and BatchNorm takes the statistics of the batch. The
number differs with the initial weights by as much as between good graphs, so it is averaged over several, and of fewer
images: their kernel takes a quarter of the time, and varies less (docs/SEARCH.md).
"""

import math

import torch
from torch import Tensor, nn

IMAGES = 8  # the first of the batch: each takes a backward pass of them all
LARGEST = 14.0  # logarithm of a condition number of 1.2 million: single precision sees no larger one


def ntk(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return minus the logarithm of the condition number of the neural tangent kernel, from -14 to 0."""
    network.train()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    outputs = network(images[:IMAGES]).sum(1)
    rows = [torch.cat([gradient.flatten() for gradient in torch.autograd.grad(
        output, weights, retain_graph=True, allow_unused=True, materialize_grads=True)]) for output in outputs]
    jacobian = torch.stack(rows).double()
    if not bool(jacobian.isfinite().all()):
        return -LARGEST
    values = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    smallest, largest = values[0].item(), values[-1].item()
    if not 0 < largest < math.inf:  # no weight matters
        return -LARGEST
    return -min(math.log(largest / max(smallest, largest * math.exp(-LARGEST))), LARGEST)
