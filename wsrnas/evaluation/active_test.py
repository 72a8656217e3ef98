"""Adversarial examples that are planted, for an attack to find: an active test of an evaluation.

After the binarisation test of Zimmermann et al. (NeurIPS 2022). Around each image, a linear readout of the network's
own logits tells noise of half the strength from one noise of full strength: an adversarial example exists for certain.
An attack that follows the network's gradient must find one, and random noise hardly does. The readout's margin is as
large as the network's own, so that logits that saturate the loss saturate it here, too.

Shapes: B images, S samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsrnas.attacks import ATTACK_LOSSES, attack_mode, margins, pgd, rows_at_once
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.seeding import generator

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from wsrnas.evaluation.attack_spec import Attack

INNER, OUTER = 24, 8  # samples inside the ball, and on its corners
INNER_SHARE = 0.5  # strength of the inner ones, as a share of the ball's
RIDGE = 1e-3  # share of the logits' mean variance that is added to all of them
SAMPLE_PASSES = INNER + OUTER + 2  # passes forward alone: the samples, the image, and what the attack found


@dataclass(frozen=True)
class Readouts:
    """One linear readout of the logits for each image; it is above 0 where the planted class is.

    Args:
        weights: (B, K).
        offsets: (B,).
        planted: (B,) bool, whether an example could be planted.
    """

    weights: Tensor
    offsets: Tensor
    planted: Tensor

    def scores(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the readouts (b,) of logits (b, K) of the images with these numbers (b,)."""
        return (logits * self.weights[rows]).sum(1) - self.offsets[rows]


def planted_examples(model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, attack: Attack, seed: int
                     ) -> tuple[Tensor, Tensor]:
    """Plant an adversarial example for each image, and attack.

    Args:
        model: network from images to logits, in evaluation mode.
        images: (B, C, H, W) in [0, 1], classified correctly.
        labels: (B,) classes.
        indices: (B,) numbers of the images, which their noise depends on.
        attack: L-inf attack by gradient ascent, at its strength.
        seed: seed of the noise.

    Returns:
        Which images have a planted example, and for which of them the attack found it or another one, (B,) bool.
    """
    strength = attack.epsilon or 0.0
    readouts = plant(model, images, labels, indices, strength, seed)
    rows = torch.arange(len(images), device=images.device)

    def objective(logits: Tensor, chosen: Tensor) -> Tensor:
        scores = readouts.scores(logits, chosen)
        two = torch.stack([torch.zeros_like(scores), scores], 1)  # the network's class, and the planted one
        return ATTACK_LOSSES[attack.loss or "ce"](two, torch.zeros_like(chosen))

    found = pgd(model, images, rows, strength, attack.steps or 1, attack.step_size if attack.steps else strength,
                loss=objective, rows=rows_at_once(images))
    with torch.no_grad(), attack_mode(model):
        scores = readouts.scores(model(found), rows)
    return readouts.planted, readouts.planted & (scores > 0)


def plant(model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, strength: float, seed: int) -> Readouts:
    """Return the readouts of images; arguments as for ``planted_examples``."""
    with torch.no_grad(), attack_mode(model):
        own = model(images)
        sampled = torch.stack([model(noisy) for noisy in noisy_images(images, indices, strength, seed)], 1)
    centers = own.double()[:, None]  # (B, 1, K)
    inner, outer = (part.double() - centers for part in sampled.split([INNER, OUTER], 1))
    spread = inner.transpose(1, 2) @ inner / INNER  # (B, K, K)
    ridge = RIDGE * spread.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float32).tiny)
    spread = spread + ridge[:, None, None] * torch.eye(spread.shape[1], dtype=spread.dtype, device=spread.device)
    directions = torch.linalg.solve(spread, outer.transpose(1, 2)).transpose(1, 2)  # (B, OUTER, K), one for each corner
    highest = (directions @ inner.transpose(1, 2)).amax(2).clamp_min(0)  # the image itself is at 0
    corners = (directions * outer).sum(2)
    gaps, best = ((corners - highest) / corners.clamp_min(torch.finfo(torch.float64).tiny)).max(1)
    rows = torch.arange(len(images), device=images.device)
    thresholds = (corners + highest)[rows, best] / 2
    margin = -margins(own, labels).double()
    planted = (gaps > 0) & sampled.isfinite().flatten(1).all(1) & (thresholds > 0) & (margin > 0)
    scale = torch.where(planted, margin / thresholds.where(planted, 1.0), 0.0)
    weights = directions[rows, best] * scale[:, None]
    offsets = margin.where(planted, 1.0) + (weights * centers[:, 0]).sum(1)
    return Readouts(weights.nan_to_num().to(own.dtype), offsets.nan_to_num().to(own.dtype), planted)


def noisy_images(images: Tensor, indices: Tensor, strength: float, seed: int):
    """Yield the noisy images (B, C, H, W): those inside the ball, then those on its corners."""
    draws = [generator(seed, "planted", int(index)) for index in indices.tolist()]
    for number in range(INNER + OUTER):
        noise = torch.stack([torch.rand(images.shape[1:], generator=draw) for draw in draws]).to(images) * 2 - 1
        noise = INNER_SHARE * noise if number < INNER else noise.sign()
        yield (images + strength * noise).clamp(0, 1)
