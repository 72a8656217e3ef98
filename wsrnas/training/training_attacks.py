"""Attacks of adversarial training (the inner maximisation): each one is a function of the type ``Attack``.

Every attack sees the unwrapped network and draws its random numbers from ``noise`` alone.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, full_precision, multi_strength_pgd, pgd, shared_passes
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.loss_settings import LossSettings

FAST_STEP = 1.25  # Fast-AT's step is this number times epsilon (Wong et al. 2020)


@cache
def _cross_entropy_sum(label_smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of an attack, the same function every time: attacks by one function can share a recording."""
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(full_precision(logits), labels, reduction="sum", label_smoothing=label_smoothing)
    return loss


def no_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """Return the images unchanged."""
    return images


def pgd_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """Attack the cross-entropy by PGD, from the images or from a uniform point of the ball."""
    start = images + settings.epsilon * noise.uniform(images) if settings.random_start else None
    return pgd(model, images, labels, settings.epsilon, settings.steps, settings.step_size, start=start,
               loss=_cross_entropy_sum(settings.label_smoothing), batch_statistics=settings.batch_statistics)


def fast_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """Attack by one signed step from a uniform point of the ball (Fast-AT, Wong et al. 2020, Alg. 3)."""
    step = FAST_STEP * settings.epsilon if settings.step_size is None else settings.step_size
    start = images + settings.epsilon * noise.uniform(images)
    return pgd(model, images, labels, settings.epsilon, 1, step, start=start,
               loss=_cross_entropy_sum(settings.label_smoothing), batch_statistics=settings.batch_statistics)


def multi_strength_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                          noise: BatchNoise) -> Tensor:
    """Attack by PGD at all ``settings.strengths`` in one batch; a step is ``2.5 / steps`` of its strength."""
    # Filled on the device: a tensor made of a list would be a copy that the host waits for.
    epsilons = torch.stack([images.new_full((), strength) for strength in settings.strengths])
    start = None
    if settings.random_start:
        unit = noise.uniform(images.unsqueeze(1).expand(-1, len(epsilons), -1, -1, -1))
        start = (images.unsqueeze(1) + epsilons.view(-1, 1, 1, 1) * unit).flatten(0, 1)
    adversarial = multi_strength_pgd(model, images, labels, epsilons, steps=settings.steps, start=start,
                                     loss=_cross_entropy_sum(settings.label_smoothing),
                                     batch_statistics=settings.batch_statistics)
    return adversarial.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def multi_strength_passes(settings: LossSettings) -> tuple[int, int]:
    """Return the passes of an image in ``multi_strength_attack``."""
    if settings.random_start or settings.batch_statistics:
        return settings.steps * len(settings.strengths), 0
    return shared_passes(len(settings.strengths), settings.steps), 0


def trades_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                  noise: BatchNoise) -> Tensor:
    """Attack KL(clean || adversarial) by PGD, from 0.001 standard normal noise: at the image the gradient is zero."""
    with torch.no_grad(), attack_mode(model, settings.batch_statistics, path_alone=True):
        clean_log_probabilities = F.log_softmax(full_precision(model(images)), 1)
    return pgd(model, images, clean_log_probabilities, settings.epsilon, settings.steps, settings.step_size, loss="kl",
               start=images + 0.001 * noise.normal(images), batch_statistics=settings.batch_statistics)


def mart_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """Attack the cross-entropy by PGD from 0.001 standard normal noise, as the MART code does."""
    return pgd(model, images, labels, settings.epsilon, settings.steps, settings.step_size,
               start=images + 0.001 * noise.normal(images), batch_statistics=settings.batch_statistics)
