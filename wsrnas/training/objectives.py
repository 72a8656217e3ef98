"""Objectives of adversarial training (the outer minimisation): each one is a function of the type ``Objective``.

An objective is a mean over samples and one forward of the network in training, so that it works with any number of
processes and with perturbed weights (AWP).
"""

from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrnas.attacks import full_precision, is_correct
from wsrnas.runtime.errors import InputError
from wsrnas.training.loss_settings import LossSettings, Metrics, Network, Objective


class _LogitsAlone:
    """A network whose answer is its logits alone; the auxiliary logits of its latest forward are kept here."""

    def __init__(self, model: Network) -> None:
        self.model = model
        self.auxiliary: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        output = self.model(images)
        logits, self.auxiliary = output if isinstance(output, tuple) else (output, None)
        return logits


def with_auxiliary_head(objective: Objective) -> Objective:
    """Add ``auxiliary_weight`` times the cross-entropy of the auxiliary logits to an objective.

    The auxiliary logits are those of all images that the objective sees; clean and adversarial images count alike.
    Attacks run in evaluation mode, where there are no auxiliary logits.

    Raises:
        InputError: raised by the objective, if there is a weight but the network returns no auxiliary logits.
    """
    @wraps(objective)
    def both(model: Network, images: Tensor, adversarial: Tensor, labels: Tensor,
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
    return is_correct(logits.detach(), labels).sum(), len(labels)


def _clean_and_adversarial(model: Network, images: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of both, from one forward.

    Deviation: the TRADES and MART codes run two forwards, each half normalised by its own BatchNorm statistics. One
    forward trains the network on statistics of both, and several processes need it (two forwards before one backward
    modify BatchNorm's buffers in place). With ``batch_statistics`` the attack sees the statistics of its own half.
    """
    clean, robust = full_precision(model(torch.cat([images, adversarial]))).chunk(2)
    return clean, robust


@with_auxiliary_head
def standard_objective(model: Network, images: Tensor, adversarial: Tensor, labels: Tensor,
                       settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Return the cross-entropy on the images."""
    logits = full_precision(model(images))
    loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    return loss, {"clean_accuracy": _correct(logits, labels)}


@with_auxiliary_head
def adversarial_objective(model: Network, images: Tensor, adversarial: Tensor, labels: Tensor,
                          settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Return the cross-entropy on the adversarial images alone (Madry et al. 2018)."""
    logits = full_precision(model(adversarial))
    labels = labels.repeat(len(adversarial) // len(images))
    loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    return loss, {"adversarial_accuracy": _correct(logits, labels)}


@with_auxiliary_head
def trades_objective(model: Network, images: Tensor, adversarial: Tensor, labels: Tensor,
                     settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Return the loss of TRADES (Zhang et al. 2019, Eq. 5).

    It is the clean cross-entropy plus ``trades_beta`` times KL(clean || adversarial).
    """
    clean, robust = _clean_and_adversarial(model, images, adversarial)
    divergence = F.kl_div(F.log_softmax(robust, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    loss = F.cross_entropy(clean, labels, label_smoothing=settings.label_smoothing) + settings.trades_beta * divergence
    return loss, {"clean_accuracy": _correct(clean, labels), "adversarial_accuracy": _correct(robust, labels)}


@with_auxiliary_head
def mart_objective(model: Network, images: Tensor, adversarial: Tensor, labels: Tensor,
                   settings: LossSettings) -> tuple[Tensor, Metrics]:
    """Return the loss of misclassification-aware adversarial training (MART, Wang et al. 2020, Eq. 11).

    It is the boosted cross-entropy of the adversarial images, -log p_y - log(1 - max_{k != y} p_k), plus
    ``trades_beta`` times KL(clean || adversarial) weighted by 1 - p_y of the clean image.
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
