"""Adversarial training losses with one signature: ``(model, images, labels, settings, noise) -> (loss, metrics)``.

A loss is a mean over samples. It has two parts, which ``TrainingLoss`` puts together: the attack (inner maximisation)
sees the unwrapped network, the objective (outer minimisation) is one forward of the network in training, so that any
number of processes and a perturbation of the weights (AWP) fit between the two.

``metrics`` are sums on the batch's device, each with the number of samples in it, so that nothing waits for the GPU:
``clean_accuracy`` and ``adversarial_accuracy`` where the objective sees such logits, counted on the training forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, full_precision, multi_strength_pgd, pgd
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import BatchNoise

Metrics = dict[str, tuple[Tensor, int]]


@dataclass(frozen=True)
class LossSettings:
    """What a training loss needs beside the network and the batch.

    Args:
        epsilon: L-inf radius of the attack in pixels of [0, 1].
        steps: gradient steps of the attack (Fast-AT always takes one).
        step_size: in pixels of [0, 1]; None is ``2.5 * epsilon / steps`` (Fast-AT: ``1.25 * epsilon``).
        random_start: start uniformly in the ball (PGD and multi-strength training; the others have their own start).
        batch_statistics: attack under the batch's BatchNorm statistics (see ``attack_mode``).
        trades_beta: weight of the robust term of TRADES (its 1/lambda) and of MART (its lambda).
        label_smoothing: share of the target that is spread over all classes; also in the attack that maximises a
            cross-entropy, so that what is maximised is what is minimised. MART has none.
        strengths: the L-inf radii of multi-strength training, in place of ``epsilon``.
        auxiliary_weight: of the cross-entropy of the auxiliary head in every objective (DARTS: 0.4); 0 is without.
    """

    epsilon: float
    steps: int
    step_size: float | None = None
    random_start: bool = False
    batch_statistics: bool = False
    trades_beta: float = 1.0
    label_smoothing: float = 0.0
    strengths: tuple[float, ...] = ()
    auxiliary_weight: float = 0.0


Attack = Callable[[nn.Module, Tensor, Tensor, LossSettings, BatchNoise], Tensor]
Objective = Callable[[nn.Module, Tensor, Tensor, Tensor, LossSettings], tuple[Tensor, Metrics]]


@dataclass(frozen=True)
class TrainingLoss:
    """An attack and the objective that is minimised on what it makes.

    Args:
        attack: (model, images (B, C, H, W), labels (B,), settings, noise) -> adversarial images (S * B, C, H, W), the
            whole batch at one strength after the other (S = 1 but for multi-strength training).
        objective: (model, images, adversarial images, labels, settings) -> (loss, metrics); one forward.
    """

    attack: Attack
    objective: Objective

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                 noise: BatchNoise | None = None) -> tuple[Tensor, Metrics]:
        """Loss and metrics of a batch; without ``noise``, torch's global generator makes the random starts."""
        adversarial = self.attack(model, images, labels, settings, noise or BatchNoise())
        return self.objective(model, images, adversarial, labels, settings)


# -- attacks --------------------------------------------------------------------------------------------------------

def _cross_entropy_sum(settings: LossSettings) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(full_precision(logits), labels, reduction="sum",
                               label_smoothing=settings.label_smoothing)
    return loss


def no_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """The images as they are."""
    return images


def pgd_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """PGD on the cross-entropy, from the images or from a uniform point of the ball."""
    start = images + settings.epsilon * noise.uniform(images) if settings.random_start else None
    return pgd(model, images, labels, settings.epsilon, settings.steps, settings.step_size, start=start,
               loss=_cross_entropy_sum(settings), batch_statistics=settings.batch_statistics)


def fast_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """One signed step from a uniform point of the ball (Fast-AT, Wong et al. 2020, Alg. 3)."""
    step = 1.25 * settings.epsilon if settings.step_size is None else settings.step_size
    start = images + settings.epsilon * noise.uniform(images)
    return pgd(model, images, labels, settings.epsilon, 1, step, start=start,
               loss=_cross_entropy_sum(settings), batch_statistics=settings.batch_statistics)


def multi_strength_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                          noise: BatchNoise) -> Tensor:
    """PGD at every one of ``settings.strengths`` as one batch; each step is ``2.5 / steps`` of its strength."""
    # Filled on the device: a tensor made of a list would be a copy that the host waits for.
    epsilons = torch.stack([images.new_full((), strength) for strength in settings.strengths])
    start = None
    if settings.random_start:
        unit = noise.uniform(images.unsqueeze(1).expand(-1, len(epsilons), -1, -1, -1))
        start = (images.unsqueeze(1) + epsilons.view(-1, 1, 1, 1) * unit).flatten(0, 1)
    adversarial = multi_strength_pgd(model, images, labels, epsilons, steps=settings.steps, start=start,
                                     loss=_cross_entropy_sum(settings), batch_statistics=settings.batch_statistics)
    return adversarial.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def trades_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                  noise: BatchNoise) -> Tensor:
    """PGD on KL(clean || adversarial), from 0.001 standard normal noise: at the image itself its gradient is zero."""
    with torch.no_grad(), attack_mode(model, settings.batch_statistics):
        clean_log_probabilities = F.log_softmax(full_precision(model(images)), 1)
    return pgd(model, images, clean_log_probabilities, settings.epsilon, settings.steps, settings.step_size, loss="kl",
               start=images + 0.001 * noise.normal(images), batch_statistics=settings.batch_statistics)


def mart_attack(model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings, noise: BatchNoise) -> Tensor:
    """PGD on the cross-entropy from 0.001 standard normal noise, as the MART code."""
    return pgd(model, images, labels, settings.epsilon, settings.steps, settings.step_size,
               start=images + 0.001 * noise.normal(images), batch_statistics=settings.batch_statistics)


# -- objectives -----------------------------------------------------------------------------------------------------

class _LogitsAlone:
    """A network as objectives see it; the auxiliary logits of its latest forward are kept here."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.auxiliary = model, None

    def __call__(self, images: Tensor) -> Tensor:
        output = self.model(images)
        logits, self.auxiliary = output if isinstance(output, tuple) else (output, None)
        return logits


def with_auxiliary_head(objective: Objective) -> Objective:
    """Add ``auxiliary_weight`` times the cross-entropy of the auxiliary logits of all that ``objective`` looks at.

    Clean and adversarial images count alike in it. Attacks, in evaluation mode, see nothing of it.

    Raises:
        InputError: by the objective, when there is a weight and the network gives no such logits.
    """
    @wraps(objective)
    def both(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
             settings: LossSettings) -> tuple[Tensor, Metrics]:
        network = _LogitsAlone(model)
        loss, metrics = objective(network, images, adversarial, labels, settings)
        if not settings.auxiliary_weight:
            return loss, metrics
        if network.auxiliary is None:
            raise InputError(f"auxiliary_weight is {settings.auxiliary_weight:g}, but the network gives no auxiliary "
                             "logits; expected one with an auxiliary head, in training mode")
        logits = full_precision(network.auxiliary)
        auxiliary = F.cross_entropy(logits, labels.repeat(len(logits) // len(labels)),
                                    label_smoothing=settings.label_smoothing)
        return loss + settings.auxiliary_weight * auxiliary, metrics
    return both


def _correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return (logits.detach().argmax(1) == labels).sum(), len(labels)


def _clean_and_adversarial(model: nn.Module, images: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of both, in one forward.

    Deviation: the TRADES and MART codes run two forwards, each half normalised by its own BatchNorm statistics. One
    forward trains the network on statistics of both, and several processes need it (two forwards before one backward
    modify BatchNorm's buffers in place). With ``batch_statistics`` the attack sees the statistics of its own half.
    """
    clean, robust = full_precision(model(torch.cat([images, adversarial]))).chunk(2)
    return clean, robust


@with_auxiliary_head
def standard_objective(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
                       settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Cross-entropy on the images."""
    logits = full_precision(model(images))
    loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    return loss, {"clean_accuracy": _correct(logits, labels)}


@with_auxiliary_head
def adversarial_objective(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
                          settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Cross-entropy on the adversarial images alone (Madry et al. 2018)."""
    logits = full_precision(model(adversarial))
    labels = labels.repeat(len(adversarial) // len(images))
    loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    return loss, {"adversarial_accuracy": _correct(logits, labels)}


@with_auxiliary_head
def trades_objective(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
                     settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Clean cross-entropy plus ``trades_beta`` times KL(clean || adversarial) (TRADES, Zhang et al. 2019, Eq. 5)."""
    clean, robust = _clean_and_adversarial(model, images, adversarial)
    divergence = F.kl_div(F.log_softmax(robust, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    loss = F.cross_entropy(clean, labels, label_smoothing=settings.label_smoothing) + settings.trades_beta * divergence
    return loss, {"clean_accuracy": _correct(clean, labels), "adversarial_accuracy": _correct(robust, labels)}


@with_auxiliary_head
def mart_objective(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
                   settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Misclassification-aware adversarial training (MART, Wang et al. 2020, Eq. 11).

    Boosted cross-entropy of the adversarial images, -log p_y - log(1 - max_{k != y} p_k), plus ``trades_beta`` times
    KL(clean || adversarial) weighted by 1 - p_y of the clean image.
    """
    clean, robust = _clean_and_adversarial(model, images, adversarial)
    truth = F.one_hot(labels, clean.shape[1]).bool()
    strongest_wrong = F.one_hot(robust.masked_fill(truth, -torch.inf).argmax(1), clean.shape[1]).bool()
    # log(1 - p_k) through the other logits: exact where p_k rounds to 1 (the MART code adds constants instead).
    all_others = robust.masked_fill(strongest_wrong, -torch.inf).logsumexp(1) - robust.logsumexp(1)
    boosted = F.cross_entropy(robust, labels, reduction="none") - all_others
    clean_log, robust_log = F.log_softmax(clean, 1), F.log_softmax(robust, 1)
    divergence = F.kl_div(robust_log, clean_log, reduction="none", log_target=True).sum(1)
    doubt = 1 - clean_log.exp().gather(1, labels.unsqueeze(1)).squeeze(1)
    loss = (boosted + settings.trades_beta * divergence * doubt).mean()
    return loss, {"clean_accuracy": _correct(clean, labels), "adversarial_accuracy": _correct(robust, labels)}


LOSSES: dict[str, TrainingLoss] = {
    "pgd": TrainingLoss(pgd_attack, adversarial_objective),
    "trades": TrainingLoss(trades_attack, trades_objective),
    "mart": TrainingLoss(mart_attack, mart_objective),
    "multi": TrainingLoss(multi_strength_attack, adversarial_objective),
    "fast": TrainingLoss(fast_attack, adversarial_objective),
    "standard": TrainingLoss(no_attack, standard_objective),
}


def objective_passes(name: str, settings: LossSettings) -> int:
    """Forward-backward passes of one image in the objective of the loss ``name``."""
    return {"trades": 2, "mart": 2, "multi": len(settings.strengths)}.get(name, 1)


def step_passes(name: str, settings: LossSettings) -> tuple[int, int]:
    """Forward-backward and forward-only passes of one image in a step of the loss ``name``, attack and objective."""
    attack = {"multi": settings.steps * len(settings.strengths), "fast": 1, "standard": 0}.get(name, settings.steps)
    return attack + objective_passes(name, settings), int(name == "trades")
