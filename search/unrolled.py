"""The gradient of the upper loss with respect to A, to the first or to the second order (DARTS, Eq. 6 and 7)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]
DIFFERENCE = 0.01  # length of the finite difference in weight space, DARTS' 0.01 / ||v||


def architecture_gradient(upper: Loss, alphas: Tensor) -> Tensor:
    """Return the gradient of ``upper`` at ``alphas`` with fixed network weights (first order); same shape as alphas.

    It is zero where no input reaches the output: a sampled path may have ``none`` wherever it counts.
    """
    leaf = alphas.detach().requires_grad_(True)
    return _gradients(upper(leaf), [leaf])[0]


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a scalar; zero for inputs on which it does not depend."""
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True))


def unrolled_gradient(upper: Loss, lower: Loss, alphas: Tensor, weights: Sequence[nn.Parameter],
                      steps: Sequence[Tensor | None], rate: float) -> Tensor:
    """Return the gradient for weights that take one optimiser step at ``alphas`` (second order).

    It is grad_a U(w', a) - rate * grad_a,w L(w, a) grad_w' U(w', a) with w' = w - rate * step. The product of the mixed
    derivative is a central difference of grad_a L. Afterwards the weights are restored bit for bit.

    Args:
        upper: U, A -> scalar on D_v at the current weights.
        lower: L, A -> scalar on D_t.
        alphas: A, (M, E, O).
        weights: parameters of the supernet.
        steps: the optimiser's direction for each weight at the current A (momentum and weight decay included), None
            for one that it leaves alone.
        rate: learning rate of that step.
    """
    kept = [weight.detach().clone() for weight in weights]

    def move(directions: Sequence[Tensor | None], length: float | Tensor) -> None:
        with torch.no_grad():
            for weight, old, direction in zip(weights, kept, directions, strict=True):
                weight.copy_(old if direction is None else old + length * direction)

    try:
        move(steps, -rate)
        leaf = alphas.detach().requires_grad_(True)
        direct, *slopes = _gradients(upper(leaf), [leaf, *weights])
        # On the device, so that the host need not wait; without slopes, both sides are equal. In float64, because the
        # squares of small slopes are 0 in float32.
        size = torch.stack([torch.linalg.vector_norm(slope, dtype=torch.float64) for slope in slopes]).norm()
        length, sides = DIFFERENCE / size.clamp_min(torch.finfo(torch.float32).tiny), []
        for sign in (1, -1):
            move(slopes, sign * length)
            sides.append(architecture_gradient(lower, alphas))
        return direct - rate * (sides[0] - sides[1]) / (2 * length)
    finally:
        move([None] * len(kept), 0)


def sgd_direction(optimizer: torch.optim.Optimizer,
                  loss: Tensor) -> tuple[list[nn.Parameter], list[Tensor | None], float]:
    """Compute the next step of SGD down a loss without taking it.

    Args:
        optimizer: SGD, with one group of weights.
        loss: scalar, with a graph to the weights.

    Returns:
        The weights; the direction of each, momentum and weight decay included (None: no gradient reaches it, and it
        stays); the learning rate.
    """
    group = optimizer.param_groups[0]
    weights, directions = group["params"], []
    for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
        velocity = optimizer.state.get(weight, {}).get("momentum_buffer")
        if slope is not None:
            slope = slope + group["weight_decay"] * weight.detach()
            slope = slope if velocity is None else slope + group["momentum"] * velocity
        directions.append(slope)
    return weights, directions, group["lr"]
