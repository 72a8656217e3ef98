"""The smallest noise found for each image, by FMN and a few steps on the margin: accuracy at every strength at once."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from wsrnas.attacks import PGD_STEP, is_correct, many_attack_steps, rows_at_once
from wsrnas.evaluation.minimum_norm import SmallestNoise, fmn, look, noise_norms
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from wsrnas.balls import ball

FMN_STEPS = 55
MARGIN_STEPS = 5
ROUNDS = 2
REACH = 0.75  # a strength below this share of the smallest noise found is out of the reach of a few steps


@dataclass(frozen=True)
class Curve:
    """A search for each image's smallest noise; its accuracies at some strengths are made sure of.

    Args:
        norm: ``"linf"`` or ``"l2"``.
        strengths: increasing radii in pixels of [0, 1] (for ``"l2"`` norms over all pixels).
        steps: number of steps of FMN.
    """

    norm: str
    strengths: tuple[float, ...]
    steps: int = FMN_STEPS

    def __post_init__(self) -> None:
        require(self.norm in ("linf", "l2"), f"the curve's norm is {self.norm!r}; expected linf or l2")
        require(bool(self.strengths) and all(0 < strength < math.inf for strength in self.strengths),
                f"the curve's strengths are {list(self.strengths)}; expected at least one, all above 0")
        require(list(self.strengths) == sorted(set(self.strengths)), "the curve's strengths must increase")

    @property
    def key(self) -> str:
        """File name that differs where any parameter does."""
        places = hashlib.blake2b(repr(self.strengths).encode(), digest_size=4).hexdigest()
        return f"curve_{self.norm}_{self.steps}_{MARGIN_STEPS}x{ROUNDS}_{places}"

    def __str__(self) -> str:
        return f"curve-{self.steps}" + (" L2" if self.norm == "l2" else "")

    @property
    def passes(self) -> tuple[int, int]:
        """Passes of an image at most, forward with backward and forward alone."""
        return self.steps + ROUNDS * MARGIN_STEPS, ROUNDS

    @property
    def top(self) -> float:
        """The largest strength."""
        return self.strengths[-1]


def smallest_noise(model: nn.Module, images: Tensor, labels: Tensor, curve: Curve) -> tuple[SmallestNoise, list[int]]:
    """Search the smallest noise that fools a network.

    FMN comes first. Then a few steps of PGD on the margin, from the nearest point found, try the largest strength below
    it, twice at most: an image that falls there falls a step of the curve earlier.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        curve: norm, strengths and steps.

    Returns:
        What was found, with distances in float64, and the passes of all images together: forward with backward, and
        forward alone.
    """
    rows = rows_at_once(images) or max(len(images), 1)
    parts = [fmn(model, *part, curve.norm, curve.steps)
             for part in zip(images.split(rows), labels.split(rows), strict=True)]
    # In float64, because 8/255 in float32 is more than 8/255.
    found = SmallestNoise(torch.cat([part.adversarial for part in parts]),
                          torch.cat([part.distances for part in parts]).double())
    spent = [curve.steps * len(images), 0]
    untried = torch.ones_like(labels, dtype=torch.bool)
    for _ in range(ROUNDS):
        target = below(found.distances, curve)
        chosen = (untried & (target > 0)).nonzero().flatten()
        if not len(chosen):
            break
        nearer = on_the_margin(model, images[chosen], labels[chosen], found.adversarial[chosen], target[chosen], curve)
        spent = [spent[0] + MARGIN_STEPS * len(chosen), spent[1] + len(chosen)]
        untried[chosen] = nearer.distances.isfinite()
        better = nearer.distances < found.distances[chosen]
        found.distances[chosen[better]] = nearer.distances[better]
        found.adversarial[chosen[better]] = nearer.adversarial[better]
    return found, spent


def below(distances: Tensor, curve: Curve) -> Tensor:
    """Return for each image the largest strength below its distance, (B,); 0 where none is within reach.

    An image for which nothing was found is tried at the largest strength.
    """
    grid = distances.new_tensor((0.0, *curve.strengths))
    target = grid[(torch.searchsorted(grid, distances) - 1).clamp_min(0)]
    return torch.where(distances.isinf() | (target >= REACH * distances), target, 0)


def on_the_margin(model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, radii: Tensor, curve: Curve
                   ) -> SmallestNoise:
    """Attack images by PGD on the margin, each in a ball of its own, and keep the nearest point that fools the network.

    Args:
        model: the network.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        start: (B, C, H, W) starting points, which are moved into the balls.
        radii: (B,) radii of the balls.
        curve: the norm.

    Returns:
        The points, and their distances, at most the radii; infinite where no point fooled the network.
    """
    _, direction, project = ball(curve.norm)
    radius = radii.to(images).view(-1, 1, 1, 1)
    step = PGD_STEP / MARGIN_STEPS * radius
    point = best = project(start, images, radius)
    distances = torch.full_like(radii, math.inf)
    with many_attack_steps(model):
        for number in range(MARGIN_STEPS + 1):
            if number < MARGIN_STEPS:
                _, gradient, success = look(model, point, labels)
            else:
                with torch.no_grad():
                    success = ~is_correct(model(point), labels)
            # Rounding may put a point on the surface of the ball outside it.
            reached = torch.minimum(noise_norms(point, images, curve.norm).double(), radii)
            better = success & (reached < distances)
            distances = torch.where(better, reached, distances)
            best = torch.where(better.view(-1, 1, 1, 1), point, best)
            point = project(point + step * direction(gradient), images, radius)
    return SmallestNoise(best, distances)
