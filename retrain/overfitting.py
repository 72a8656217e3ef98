"""Catastrophic overfitting: Fast-AT suddenly resists its own one-step attack and no other (Wong et al. 2020)."""

import math

import torch
from torch import nn

from wsrnas.attacks import attack_mode, pgd
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.training.epoch import Loader

STEP_FACTOR = 0.75  # of the attack's step after a roll-back: shorter steps overfit later (Wong et al. 2020, Sec. 5.1)
MAX_ROLLBACKS = 8  # a tenth of the step is left then


def probe_accuracy(network: nn.Module, loader: Loader, epoch: int, epsilon: float, steps: int,
                   world: World) -> tuple[float, int]:
    """Accuracy under PGD of the first training batch of an epoch, and the number of its images, over all processes."""
    batches = loader.batches(epoch)
    images, labels = next(batches)
    batches.close()
    adversarial = pgd(network, images, labels, epsilon, steps)
    with torch.no_grad(), attack_mode(network):
        correct = (network(adversarial).argmax(1) == labels).sum()
    correct, seen = all_sum(torch.stack([correct, correct.new_full((), len(images))]), world).tolist()
    return correct / seen, seen


def has_collapsed(accuracy: float, before: float | None, one_step: float, images: int, drop: float) -> bool:
    """Whether a probe's accuracy shows catastrophic overfitting.

    It does when it lost more than the share ``drop`` of its best value so far (``before``), or is below a tenth of the
    accuracy under the epoch's own one-step attack; in both cases by more than three standard errors, for in first
    epochs an accuracy over many classes is a few images.
    """
    def far_below(reference: float, share: float) -> bool:
        error = math.sqrt(2 * reference * (1 - reference) / images)
        return accuracy < share * reference and reference - accuracy > 3 * error

    return far_below(one_step, 0.1) or (before is not None and far_below(before, 1 - drop))
