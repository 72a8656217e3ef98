"""The table of training losses. A new loss is an attack, an objective and one entry of ``LOSSES``.

The choices and the help of ``--adv_loss``, the cost that ``--dry_run`` prints and the table in docs/RETRAIN.md read
that entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.loss_settings import Attack, LossSettings, Metrics, Objective

with deferred_imports():
    from torch import Tensor, nn

    from wsrnas.training.objectives import adversarial_objective, mart_objective, standard_objective, trades_objective
    from wsrnas.training.training_attacks import (
        fast_attack,
        mart_attack,
        multi_strength_attack,
        multi_strength_passes,
        no_attack,
        pgd_attack,
        trades_attack,
    )

ATTACKED = ("epsilon", "steps", "step_size", "batch_statistics")  # settings of an attack at one strength
TARGET = ("label_smoothing", "auxiliary_weight")  # settings of the cross-entropy


@dataclass(frozen=True)
class TrainingLoss:
    """An attack and the objective that is minimised on its images.

    Args:
        attack: inner maximisation.
        objective: outer minimisation.
        attack_passes: function of the settings: forward-backward passes of an image in the attack, and passes forward
            alone.
        objective_passes: function of the settings: forward-backward passes of an image in the objective.
        reads: names of the settings that the loss reads.
        programs: programs that offer the loss: ``retrain``, ``search`` (Wsr-NAS), ``rnas``.
        one_step: whether the attack takes a single step, so that a training can overfit catastrophically to it.
        help: line for ``--help`` and the documents.
    """

    attack: Attack
    objective: Objective
    attack_passes: Callable[[LossSettings], tuple[int, int]] = lambda settings: (settings.steps, 0)
    objective_passes: Callable[[LossSettings], int] = lambda settings: 1
    reads: tuple[str, ...] = (*ATTACKED, *TARGET)
    programs: tuple[str, ...] = ("retrain",)
    one_step: bool = False
    help: str = ""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                 noise: BatchNoise | None = None) -> tuple[Tensor, Metrics]:
        """Return loss and metrics of a batch; without ``noise``, torch's global generator makes the random starts."""
        adversarial = self.attack(model, images, labels, settings, noise or BatchNoise())
        return self.objective(model, images, adversarial, labels, settings)

    @property
    def attacks(self) -> bool:
        """Whether there is an attack: it reads its strength, or its strengths."""
        return bool(set(self.reads) & {"epsilon", "strengths"})

    @property
    def selects_by(self) -> str:
        """Name of the accuracy on held-out images that selects ``best.pt``: without an attack, the clean one.

        PGD soon breaks every image of a network that was trained without attack, and would select its worst epoch.
        """
        return "robust_accuracy" if self.attacks else "clean_accuracy"

    def passes(self, settings: LossSettings) -> tuple[int, int]:
        """Return forward-backward passes, and passes forward alone, of an image in a step: attack and objective."""
        both, forward = self.attack_passes(settings)
        return both + self.objective_passes(settings), forward


LOSSES: dict[str, TrainingLoss] = {
    "pgd": TrainingLoss(
        pgd_attack, adversarial_objective, reads=(*ATTACKED, "random_start", *TARGET),
        programs=("retrain", "search", "rnas"), help="Madry: cross-entropy under PGD"),
    "trades": TrainingLoss(
        trades_attack, trades_objective, lambda settings: (settings.steps, 1), lambda settings: 2,
        reads=(*ATTACKED, "trades_beta", *TARGET), programs=("retrain", "search", "rnas"),
        help="clean cross-entropy + trades_beta * KL(clean || adversarial)"),
    "mart": TrainingLoss(
        mart_attack, mart_objective, objective_passes=lambda settings: 2,
        reads=(*ATTACKED, "trades_beta", "auxiliary_weight"),
        help="misclassification-aware; its lambda is trades_beta"),
    "multi": TrainingLoss(
        multi_strength_attack, adversarial_objective, multi_strength_passes,
        lambda settings: len(settings.strengths),
        reads=("strengths", "steps", "random_start", "batch_statistics", *TARGET),
        help="PGD at all strengths in one batch"),
    "fast": TrainingLoss(
        fast_attack, adversarial_objective, lambda settings: (1, 0),
        reads=("epsilon", "step_size", "batch_statistics", *TARGET), programs=("retrain", "search", "rnas"),
        one_step=True, help="Fast-AT: one step from a random start"),
    "standard": TrainingLoss(no_attack, standard_objective, lambda settings: (0, 0), reads=TARGET, help="no attack"),
}


def losses_of(program: str) -> dict[str, TrainingLoss]:
    """Return the losses that a program offers: ``retrain``, ``search`` (Wsr-NAS) or ``rnas``."""
    return {name: loss for name, loss in LOSSES.items() if program in loss.programs}


def selection_words(adv_loss: str) -> str:
    """Return ``robust accuracy`` or ``clean accuracy``, by which ``best.pt`` is selected under a loss of any name."""
    return LOSSES[adv_loss].selects_by.replace("_", " ") if adv_loss in LOSSES else "robust accuracy"


def loss_table() -> str:
    """Return the table of the losses in Markdown, for docs/RETRAIN.md."""
    return markdown_table(
        ("`--adv_loss`", "what it is", "settings that it reads", "programs"),
        ((f"`{name}`", loss.help, ", ".join(f"`{field}`" for field in loss.reads), ", ".join(loss.programs))
         for name, loss in LOSSES.items()))
