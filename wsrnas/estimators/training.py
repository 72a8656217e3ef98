"""Training an AN-Estimator: leave-one-out tasks from the attacks of one network, and the passes over them (Eq. 5)."""

import math

import torch
from torch import Tensor, nn

from wsrnas.attacks import multi_strength_pgd, rows_at_once
from wsrnas.estimators.base import NoiseEstimator


def leave_one_out(model: nn.Module, images: Tensor, labels: Tensor, source_epsilons: Tensor, max_epsilon: float,
                  steps: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Make estimation tasks with known answers: attack at S + 1 strengths, and hide each noise in turn.

    The strengths are the S sources of the search and one drawn for each image, uniform in (0, ``max_epsilon``). Within
    a task the remaining S noises are ordered by strength, as the estimators expect.

    Args:
        model: images -> logits, attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        source_epsilons: (S,), in pixels of [0, 1].
        max_epsilon: largest drawn strength, in pixels of [0, 1].
        steps: number of PGD steps.
        generator: CPU source of the drawn strengths.

    Returns:
        One row for each of the B (S + 1) tasks: ``images`` (C, H, W), ``source_noises`` (S, C, H, W),
        ``source_epsilons`` (S,), ``target_epsilons`` (1,), ``target_noises`` (C, H, W).
    """
    drawn = max_epsilon * (1 - torch.rand(len(images), 1, generator=generator))
    epsilons = torch.cat([source_epsilons.to(images).expand(len(images), -1), drawn.to(images)], 1)
    attacked = multi_strength_pgd(model, images, labels, epsilons, steps=steps, rows=rows_at_once(images))
    return hide_each(images, epsilons, attacked - images.unsqueeze(1))


def hide_each(images: Tensor, epsilons: Tensor, noises: Tensor) -> dict[str, Tensor]:
    """Make the tasks of ``leave_one_out`` from noises made before.

    Args:
        images: (B, C, H, W).
        epsilons: (B, S + 1) strengths in any order.
        noises: (B, S + 1, C, H, W).

    Returns:
        As ``leave_one_out``: an image's tasks follow one another, the weakest noise hidden first.
    """
    count = epsilons.shape[1]
    epsilons, order = epsilons.sort(1)
    noises = noises[torch.arange(len(images), device=order.device).unsqueeze(1), order]
    # Counted, not selected by a mask: the host would wait for the number of selected ones.
    hidden, others = torch.arange(count, device=images.device).unsqueeze(1), torch.arange(
        count - 1, device=images.device)
    kept = others + (others >= hidden)  # (S + 1, S): all but one
    return {
        "images": images.repeat_interleave(count, 0),
        "source_noises": noises[:, kept].flatten(0, 1),
        "source_epsilons": epsilons[:, kept].flatten(0, 1),
        "target_epsilons": epsilons.reshape(-1, 1),
        "target_noises": noises.flatten(0, 1),
    }


def schedule_factor(step: int, total_steps: int, warmup: float = 0.04) -> float:
    """Return the share of the learning rate at a step: linear warm-up over the first 4 %, then a half cosine to zero.

    The published schedule has a fixed warm-up of 4,000 of 100,000 steps; its search takes about 2,700 steps and so
    never leaves the warm-up. Deviation: here the total is that of the run.
    """
    warm = max(1, round(warmup * total_steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm)))


def train_estimator(estimator: NoiseEstimator, optimizer: torch.optim.Optimizer | None, tasks: dict[str, Tensor],
                    passes: int, generator: torch.Generator, *, learning_rate: float, step: int, total_steps: int,
                    batch_size: int = 64) -> tuple[float, int]:
    """Train an estimator by the squared error of its unprojected estimates (Eq. 5).

    Args:
        estimator: estimator to train.
        optimizer: optimiser of its weights; None for an estimator without weights, which is only measured.
        tasks: rows as ``leave_one_out`` makes them.
        passes: K_a, passes over the tasks.
        generator: CPU source of the order.
        learning_rate: largest learning rate of the schedule.
        step: optimiser steps taken so far, for the schedule.
        total_steps: number of optimiser steps of the whole run.
        batch_size: tasks per optimiser step.

    Returns:
        The relative error of the estimates before they are trained on, Σ‖φ − δ‖² / Σ‖δ‖² over all passes, and the
        number of optimiser steps taken so far.
    """
    device = tasks["images"].device
    error, size = torch.zeros((), device=device), torch.zeros((), device=device)
    estimator.train()
    for _ in range(passes):
        order = torch.randperm(len(tasks["images"]), generator=generator).to(device)
        for rows in order.split(batch_size):
            target = tasks["target_noises"][rows]
            with torch.set_grad_enabled(optimizer is not None):
                estimate = estimator.unprojected(tasks["source_noises"][rows], tasks["images"][rows],
                                                 tasks["source_epsilons"][rows], tasks["target_epsilons"][rows])
                squared = (estimate.squeeze(1) - target).square().flatten(1).sum(1)
            error += squared.detach().sum()
            size += target.square().sum()
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * schedule_factor(step, total_steps)
                optimizer.zero_grad(set_to_none=True)
                squared.mean().backward()
                optimizer.step()
                step += 1
    estimator.eval()
    return (error / size.clamp_min(1e-30)).item(), step
