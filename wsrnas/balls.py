"""The balls that attacks stay in: random points, directions of a step, projections; each cut to the box [0, 1].

Images are (B, C, H, W), radii (B, 1, 1, 1) or (1, 1, 1, 1) in pixels of [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from wsrnas.runtime.errors import InputError


class Ball(NamedTuple):
    """What an attack needs to know of the ball of a norm.

    Args:
        draw: (images, radius, generator) -> noise drawn uniformly in the ball.
        direction: gradient -> direction of a step, whose length is the number that it is multiplied by.
        project: (adversarial, images, radius) -> the nearest images found in the ball and the box.
    """

    draw: Callable[[Tensor, Tensor, torch.Generator | None], Tensor]
    direction: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Tensor, Tensor], Tensor]


def ball(norm: str) -> Ball:
    """Return the ball of a norm.

    Raises:
        InputError: the norm is unknown.
    """
    if norm not in BALLS:
        raise InputError(f"unknown norm {norm!r}; expected one of {', '.join(BALLS)}")
    return BALLS[norm]


def _l2_norm(noise: Tensor) -> Tensor:
    return torch.linalg.vector_norm(noise, dim=(1, 2, 3), keepdim=True)


def _linf_random_start(images: Tensor, radius: Tensor, generator: torch.Generator | None) -> Tensor:
    return radius * (2 * torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator) - 1)


def _l2_random_start(images: Tensor, radius: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw uniformly in the ball: a uniform direction, and the d-th root of a uniform share of the radius."""
    direction = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
    share = torch.rand(len(images), 1, 1, 1, dtype=images.dtype, device=images.device, generator=generator)
    return radius * direction / _l2_norm(direction) * share ** (1 / images[0].numel())


def _linf_step(gradient: Tensor) -> Tensor:
    return gradient.sign()


def _l2_step(gradient: Tensor) -> Tensor:
    # Gradients of confident networks underflow in squares: divide by the largest entry first.
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / _l2_norm(scaled).clamp_min(torch.finfo(gradient.dtype).eps)


def _linf_project(adversarial: Tensor, images: Tensor, radius: Tensor) -> Tensor:
    return adversarial.clamp((images - radius).clamp_min(0), (images + radius).clamp_max(1))


def _l2_project(adversarial: Tensor, images: Tensor, radius: Tensor) -> Tensor:
    # Ball, then box: the images are in the box, so the second clamp moves every pixel towards them, inside the ball.
    noise = adversarial - images
    norm = _l2_norm(noise)
    return (images + noise * (radius / norm.clamp_min(torch.finfo(noise.dtype).tiny)).clamp_max(1)).clamp(0, 1)


BALLS = {"linf": Ball(_linf_random_start, _linf_step, _linf_project),
         "l2": Ball(_l2_random_start, _l2_step, _l2_project)}
