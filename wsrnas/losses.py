"""Adversarial training losses with one signature: ``(model, images, labels, settings, generator) -> (loss, metrics)``.

A loss is a mean over samples. ``metrics`` are sums over the batch on its device, so that nothing waits for the GPU:
``clean_correct`` and ``adversarial_correct`` where the loss sees such logits, counted on the training forward.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, pgd

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class AttackSettings:
    """The inner maximisation of a training loss.

    Args:
        epsilon: L-inf radius in pixels of [0, 1].
        steps: gradient steps.
        step_size: in pixels of [0, 1]; None is ``2.5 * epsilon / steps``.
        random_start: start uniformly in the ball (PGD training only; TRADES has its own start).
        batch_statistics: attack under the batch's BatchNorm statistics (see ``attack_mode``).
        beta: weight of TRADES' robust term (its 1/lambda).
    """

    epsilon: float
    steps: int
    step_size: float | None = None
    random_start: bool = False
    batch_statistics: bool = False
    beta: float = 1.0


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == labels).sum()


def pgd_loss(model: nn.Module, images: Tensor, labels: Tensor, settings: AttackSettings,
             generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
    """Cross-entropy on PGD examples (Madry et al. 2018)."""
    adversarial = pgd(model, images, labels, settings.epsilon, settings.steps, settings.step_size,
                      settings.random_start, generator=generator, batch_statistics=settings.batch_statistics)
    logits = model(adversarial)
    return F.cross_entropy(logits, labels), {"adversarial_correct": _correct(logits, labels)}


def trades_loss(model: nn.Module, images: Tensor, labels: Tensor, settings: AttackSettings,
                generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
    """Clean cross-entropy plus ``beta`` times KL(clean || adversarial) (TRADES, Zhang et al. 2019, Eq. 5).

    The attack maximises the same divergence from a start of 0.001 standard normal noise, where the divergence is
    small but its gradient is not zero.

    Deviation: clean and adversarial images are trained on as one batch, so that they share BatchNorm statistics and
    several processes need one forward; the TRADES code runs them one after the other. With ``batch_statistics`` the
    attack therefore sees the statistics of its own half, not of both.
    """
    with torch.no_grad(), attack_mode(model, settings.batch_statistics):
        clean_log_probabilities = F.log_softmax(model(images), 1)
    noise = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
    adversarial = pgd(model, images, clean_log_probabilities, settings.epsilon, settings.steps, settings.step_size,
                      loss="kl", start=images + 0.001 * noise, batch_statistics=settings.batch_statistics)
    clean, robust = model(torch.cat([images, adversarial])).chunk(2)
    divergence = F.kl_div(F.log_softmax(robust, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    metrics = {"clean_correct": _correct(clean, labels), "adversarial_correct": _correct(robust, labels)}
    return F.cross_entropy(clean, labels) + settings.beta * divergence, metrics


TrainingLoss = Callable[[nn.Module, Tensor, Tensor, AttackSettings, torch.Generator | None], tuple[Tensor, Metrics]]
LOSSES: dict[str, TrainingLoss] = {"pgd": pgd_loss, "trades": trades_loss}
