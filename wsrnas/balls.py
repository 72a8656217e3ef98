"""The balls that attacks stay in: random points, directions of a step, projections; each cut to the box [0, 1].

Images are (B, C, H, W), radii (B, 1, 1, 1) or (1, 1, 1, 1) in pixels of [0, 1].
"""

from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from wsrnas.runtime.config import meant
from wsrnas.runtime.errors import InputError, type_in_words

LARGEST = {"linf": 1.0, "l2": float("inf")}  # radius: whole images fit into an L-inf ball of 1


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


def radius_of(epsilon: float | Tensor, images: Tensor, norm: str) -> Tensor:
    """Return the radius of a ball as ``per_image`` does, after a look at what people mistake for one.

    Raises:
        InputError: it is no number, negative or, for ``"linf"``, above 1, or the images are no tensor of floats.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"images are {type_in_words(images)}; expected a torch tensor (B, C, H, W) in [0, 1]")
    if not images.is_floating_point():
        raise InputError(f"images have the type {images.dtype}; expected floating-point numbers in [0, 1]")
    return per_image("epsilon", epsilon, images, LARGEST[norm])


def step_of(step_size: float | Tensor, images: Tensor, norm: str) -> Tensor:
    """Return the length of a step as ``per_image`` does.

    Raises:
        InputError: it is no number, negative or, for ``"linf"``, above 1.25: that step of Fast-AT crosses the box.
    """
    return per_image("step_size", step_size, images, 1.25 * LARGEST[norm])


def per_image(name: str, number: float | Tensor, images: Tensor, largest: float) -> Tensor:
    """Return a length, or one length per image, as (1, 1, 1, 1) or (B, 1, 1, 1).

    Numbers on a GPU are not looked at, because the host would wait for them.
    """
    if not isinstance(number, (Real, Tensor)):
        raise InputError(f"{name} is {number!r}; expected a number or a tensor, in pixels of [0, 1]")
    for value in number.flatten().tolist() if isinstance(number, Tensor) and number.device.type == "cpu" else (
            [] if isinstance(number, Tensor) else [number]):
        if not value >= 0:
            raise InputError(f"{name} is {value:g}; expected 0 or more")
        if value > largest:
            raise InputError(f"{name} is {value:g}; expected pixels of [0, 1], at most {largest:g}{meant(value)}")
    # new_full is a kernel on the device; a tensor made of a Python number would be a copy that the host waits for.
    value = number.to(images) if isinstance(number, Tensor) else images.new_full((), number)
    if value.ndim > 1 or (value.ndim == 1 and len(value) != len(images)):
        raise InputError(f"{name} of shape {tuple(value.shape)} for {len(images)} images: expected one number, or one "
                         "per image")
    return value.reshape(-1, 1, 1, 1)


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
    # What is not finite has no direction. Gradients of confident networks underflow in squares: divide by the largest
    # entry first.
    gradient = gradient.nan_to_num(0, 0, 0)
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
