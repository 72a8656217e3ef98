"""Adversarial examples that are planted, for an evaluation's own attacks to find: an active test of an evaluation.

After the binarisation test of Zimmermann et al. (NeurIPS 2022). Around each image, a linear readout of the network's
own logits tells noise of half the strength from one noise of full strength: an adversarial example exists for certain.
An attack that follows the network's gradient must find one, and random noise hardly does. The readout's margin is as
large as the network's own, so that logits that saturate the loss saturate it here, too.

Shapes: B images, S samples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wsrnas.attacks import attack_mode, margins
from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.attack_table import OWN_ATTACK
from wsrnas.evaluation.autoattack import LEAST_CLASSES
from wsrnas.evaluation.check_levels import CHECK_LEVELS, NONE, QUICK
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.curve_results import attacks_of
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.seeding import generator

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from wsrnas.evaluation.measurement import Evaluation
    from wsrnas.evaluation.planted_network import Planted, Readouts, marked

INNER, OUTER = 24, 8  # samples inside the ball, and on its corners
INNER_SHARE = 0.5  # strength of the inner ones, as a share of the ball's
RIDGE = 1e-3  # share of the logits' mean variance that is added to all of them
MOST_STEPS = 20  # of gradient ascent; each is as much longer, so that the steps together reach as far
MARKED_UP_TO = 0.49  # largest strength at which no pixel of a number is mistaken
AUTOATTACK_PASSES = {"apgd-ce": 100, "apgd-t": 900}  # its gradient attacks, and their passes of an image


def own_attacks(measured: Sequence[Attack], strength: float, level: str) -> list[Attack]:
    """Return the attacks of an evaluation that look for planted examples, each kind once, those of most steps first.

    These are the attacks that follow gradients; of others only where it has no such attack. Gradient ascent takes at
    most ``MOST_STEPS`` steps, which reach as far together; AutoAttack its gradient attacks. An evaluation without
    attacks is tested by PGD, as are functions of a user: the planted network has other classes, labels and images than
    they may have been written for. None, where an evaluation has attacks alone that the quick checks leave out and that
    do not follow gradients: PGD would show nothing about it.

    Args:
        measured: the attacks of the evaluation.
        strength: L-inf radius in pixels of [0, 1], at which all attacks are asked.
        level: key of ``CHECK_LEVELS``; the quick checks leave out what takes many passes and cannot be shortened.
    """
    strength = min(strength, MARKED_UP_TO)
    bounded = [attack for attack in measured if attack.epsilon is not None and not attack.entry.needs_source
               and attack.entry.help != OWN_ATTACK]
    linf = [attack for attack in bounded if attack.norm == "linf"] or bounded
    followers = [attack for attack in linf if attack.entry.white_box] or linf
    families = dict.fromkeys(attack.family for attack in followers)
    found = [short for attack in families if (short := _shortened(attack, strength, level))]
    found.sort(key=lambda attack: (bool(attack.entry.stages), -attack.passes[0], -attack.passes[1]))
    if not found and followers and not followers[0].entry.white_box:
        return []
    return list(dict.fromkeys(found)) or [at_strength(parse_attack("pgd-20"), strength)]


def _shortened(family: Attack, strength: float, level: str) -> Attack | None:
    """Return an attack as it looks for planted examples; None where the quick checks leave it out."""
    entry, steps = family.entry, family.steps
    if entry.step_factor and steps:
        steps = min(steps, MOST_STEPS)
    elif level == QUICK and entry.stages:
        return None
    elif level == QUICK and steps:
        steps = min(steps, MOST_STEPS)
    ratio = family.step_size * max(family.steps, 1) / max(steps, 1) if family.step_size else 0.0
    attack = replace(family, norm="linf", steps=steps, restarts=1)
    return replace(attack, epsilon=strength, step_size=ratio * strength if entry.step_factor else None)


def check_passes(level: str, measured: Sequence[Attack | Curve]) -> tuple[int, int]:
    """Return the most passes of an image under the honesty checks: forward with backward, and forward alone.

    Args:
        level: key of ``CHECK_LEVELS``.
        measured: all that the evaluation measures, which looks for planted examples in the place of PGD.
    """
    most = CHECK_LEVELS[level].passes
    if level == NONE:
        return most
    attacks = [one for each in measured for one in (attacks_of(each) if isinstance(each, Curve) else [each])]
    spent = [(sum(AUTOATTACK_PASSES[stage] for stage in parts), len(parts)) if (parts := [
        stage for stage in attack.stages if stage in AUTOATTACK_PASSES]) else attack.passes
        for attack in own_attacks(attacks, 1.0, level)]
    usual = parse_attack("pgd-20").passes
    both, forward = (max(most[i], most[i] - usual[i] + sum(passes[i] for passes in spent)) for i in (0, 1))
    return both, forward


def planted_examples(evaluation: Evaluation, images: Tensor, labels: Tensor, indices: Tensor,
                     attacks: Sequence[Attack]) -> tuple[Tensor, Tensor]:
    """Plant an adversarial example for each image, and attack; what one attack misses, the next one tries.

    Args:
        evaluation: the evaluation of the network.
        images: (B, C, H, W) in [0, 1], classified correctly.
        labels: (B,) classes.
        indices: (B,) numbers of the images, which their noise depends on.
        attacks: L-inf attacks, all at one strength.

    Returns:
        Which images have a planted example, and for which of them an attack found it or another one, (B,) bool.
    """
    readouts = plant(evaluation.model, images, labels, indices, attacks[0].epsilon or 0.0, evaluation.seed)
    numbered, rows = marked(images)
    network = Planted(evaluation.model, readouts, rows)
    standing = readouts.planted.clone()
    for attack in attacks:
        for number, stage in enumerate(attack.stages):
            left = standing.nonzero().flatten()
            if not len(left) or (attack.entry.stages and attack.entry.white_box and stage not in AUTOATTACK_PASSES):
                continue
            task = evaluation.task(attack, stage, number, numbered[left], torch.zeros_like(left), indices[left.cpu()],
                                   network, LEAST_CLASSES)
            adversarial = attack.entry.run(task)
            with torch.no_grad(), attack_mode(network):
                standing[left] = ~(network(adversarial)[:, 1] > 0)
    return readouts.planted, readouts.planted & ~standing


def whitened(inner: Tensor, outer: Tensor) -> Tensor:
    """Return S⁻¹ o for each row o of ``outer`` (B, M, K), with S the mean of i iᵀ over rows i of ``inner`` (B, N, K).

    S gets a ridge. Where there are more classes than rows, the system of N equations is solved in place of that of K
    (Woodbury's identity): 1,000 classes would take gigabytes.
    """
    _, count, classes = inner.shape
    ridge = RIDGE * inner.square().sum((1, 2)).div(count * classes).clamp_min(torch.finfo(torch.float32).tiny)
    ridge = ridge[:, None, None]
    eye = torch.eye(min(classes, count), dtype=inner.dtype, device=inner.device)
    if classes <= count:
        spread = inner.transpose(1, 2) @ inner / count + ridge * eye
        return torch.linalg.solve(spread, outer.transpose(1, 2)).transpose(1, 2)
    weights = torch.linalg.solve(inner @ inner.transpose(1, 2) + count * ridge * eye, inner @ outer.transpose(1, 2))
    return (outer - weights.transpose(1, 2) @ inner) / ridge


def plant(model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, strength: float, seed: int) -> Readouts:
    """Return the readouts of images.

    Args:
        model: network from images to logits, in evaluation mode.
        images: (B, C, H, W) in [0, 1], classified correctly.
        labels: (B,) classes.
        indices: (B,) numbers of the images, which their noise depends on.
        strength: L-inf radius in pixels of [0, 1].
        seed: seed of the noise.
    """
    with torch.no_grad(), attack_mode(model):
        own = model(images)
        sampled = torch.stack([model(noisy) for noisy in noisy_images(images, indices, strength, seed)], 1)
    centers = own.double()[:, None]  # (B, 1, K)
    inner, outer = (part.double() - centers for part in sampled.split([INNER, OUTER], 1))
    directions = whitened(inner, outer)  # (B, OUTER, K), one for each corner
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
    weights, offsets, margin = (values.nan_to_num().to(own.dtype)
                                for values in (weights, offsets, margin.where(planted, 1.0)))
    return Readouts(weights, offsets, margin, planted)


def noisy_images(images: Tensor, indices: Tensor, strength: float, seed: int):
    """Yield the noisy images (B, C, H, W): those inside the ball, then those on its corners."""
    draws = [generator(seed, "planted", int(index)) for index in indices.tolist()]
    for number in range(INNER + OUTER):
        noise = torch.stack([torch.rand(images.shape[1:], generator=draw) for draw in draws]).to(images) * 2 - 1
        noise = INNER_SHARE * noise if number < INNER else noise.sign()
        yield (images + strength * noise).clamp(0, 1)
