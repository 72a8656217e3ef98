"""The fast minimum-norm attack FMN (Pintor et al. 2021): the smallest noise found for each image."""

from __future__ import annotations

import math
from typing import NamedTuple

from wsrnas.attacks import input_gradient, is_correct, many_attack_steps, margins
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from wsrnas.balls import ball

DUAL = {"linf": 1.0, "l2": 2.0}  # order of the norm of a gradient that belongs to a norm of noise
ORDER = {"linf": math.inf, "l2": 2.0}
LINF_STEP = 0.15  # L2 length of the first step in a cube, for each root of the number of pixels
LAST_GROWTH = 0.001  # of the ball, at the last step; of the steps' length, a hundredth is left


class SmallestNoise(NamedTuple):
    """What a minimum-norm attack found.

    Args:
        adversarial: (B, C, H, W) in [0, 1], each image's nearest point that fools the network; the image itself where
            none was found.
        distances: (B,) norms of the noise: 0 for an image that is wrong as it is, infinite where nothing was found.
    """

    adversarial: Tensor
    distances: Tensor


def noise_norms(adversarial: Tensor, images: Tensor, norm: str) -> Tensor:
    """Return the norm of the noise of each image, (B,)."""
    return torch.linalg.vector_norm((adversarial - images).flatten(1), ORDER[norm], dim=1)


def _check(numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise InputError(f"FMN's {name} is {value}; expected more than 0")


def look(model: nn.Module, point: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return margins (B,), their gradients (B, C, H, W), zero where they are no numbers, and what is fooled (B,)."""
    seen: list[Tensor] = []

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.detach())
        return margins(logits, labels).sum()

    gradient = input_gradient(model, point, labels, objective)
    return margins(seen[0], labels), gradient.nan_to_num(0, 0, 0), ~is_correct(seen[0], labels)


def fmn(model: nn.Module, images: Tensor, labels: Tensor, norm: str = "linf", steps: int = 100,
        step_size: float | None = None, growth: float = 0.05, as_published: bool = False, start: Tensor | None = None
        ) -> SmallestNoise:
    """Search the smallest noise that fools the network, by steps on the margin in a ball that adapts (Algorithm 1).

    The ball shrinks by a share while the point fools the network, and grows by it while it does not; before anything
    was found, its radius is that at which a network with this margin and gradient would be fooled if it were linear.
    Both the share and the length of the steps decay by a cosine. Every image is attacked on its own: no result depends
    on the batch.

    Deviation: that first radius is exceeded by the share, and grows by it with every step that finds nothing; and a
    gradient that pushes a pixel of 0 or 1 outwards counts as 0. In the paper, the point can come to rest on the
    boundary itself, where it fools nothing and the radius no longer changes, or inside, where such pixels take most of
    each step.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        norm: ``"linf"`` or ``"l2"``, the norm of the noise that is made small.
        steps: number of passes forward and backward.
        step_size: L2 length of the first step (alpha in the paper), in pixels of [0, 1]; None: 1 for ``"l2"``, and
            0.15 times the root of the number of pixels for ``"linf"``.
        growth: share by which the ball grows and shrinks at first (gamma in the paper).
        as_published: whether to follow the paper where this attack deviates.
        start: (B, C, H, W) starting points in [0, 1] in place of the images.

    Raises:
        InputError: The norm is unknown, or a number is not positive.
    """
    direction, project = ball("l2").direction, ball(norm).project
    if step_size is None:
        step_size = 1.0 if norm == "l2" else LINF_STEP * math.sqrt(images.shape[1:].numel())
    _check({"number of steps": steps, "step size": step_size, "growth": growth})
    images = images.detach()
    best, distances = images, images.new_full((len(images),), math.inf)
    point = images if start is None else start.detach()
    radius = images.new_full((len(images),), math.inf)
    first = images.new_zeros(len(images))  # the radius as long as nothing is found
    largest = torch.linalg.vector_norm(torch.maximum(images, 1 - images).flatten(1), ORDER[norm], dim=1)
    with many_attack_steps(model):
        for number in range(steps):
            share = (1 + math.cos(math.pi * number / steps)) / 2
            length = step_size * (0.01 + 0.99 * share)
            gamma = LAST_GROWTH + (growth - LAST_GROWTH) * share
            margin, gradient, success = look(model, point, labels)
            if not as_published:
                gradient = torch.where(torch.where(gradient > 0, point < 1, point > 0), gradient, 0)
            reached = noise_norms(point, images, norm)
            better = success & (reached < distances)
            distances = torch.where(better, reached, distances)
            best = torch.where(better.view(-1, 1, 1, 1), point, best)
            slope = torch.linalg.vector_norm(gradient.flatten(1), DUAL[norm], dim=1)
            boundary = reached + (margin.abs() / slope).nan_to_num(math.inf)
            first = boundary if as_published else torch.maximum(boundary, first) * (1 + gamma)
            outside = torch.where(distances.isfinite(), radius * (1 + gamma), first)
            radius = torch.where(success, torch.minimum(radius * (1 - gamma), distances), outside)
            radius = torch.minimum(radius, largest)
            point = project(point + length * direction(gradient), images, radius.view(-1, 1, 1, 1))
    return SmallestNoise(best, distances)
