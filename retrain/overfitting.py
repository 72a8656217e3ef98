"""Catastrophic overfitting: Fast-AT suddenly resists its own one-step attack alone (Wong et al. 2020)."""

import math

import torch
from torch import nn

from wsrnas.attacks import attack_mode, is_correct, pgd
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.training.epoch import Loader

# Each roll-back multiplies the step of the attack: shorter steps overfit later (Wong et al. 2020, Sec. 5.1).
STEP_FACTOR = 0.75
MAX_ROLLBACKS = 8  # 0.75 ** 8 = 0.1: then a tenth of the step is left


def probe_accuracy(network: nn.Module, loader: Loader, epoch: int, epsilon: float, steps: int,
                   world: World) -> tuple[float, int]:
    """Return the accuracy under PGD on the first training batch of an epoch, and its images, over all processes."""
    batches = loader.batches(epoch)
    images, labels = next(batches)
    batches.close()
    adversarial = pgd(network, images, labels, epsilon, steps)
    with torch.no_grad(), attack_mode(network):
        correct = is_correct(network(adversarial), labels).sum()
    correct, seen = all_sum(torch.stack([correct, correct.new_full((), len(images))]), world).tolist()
    return correct / seen, seen


def has_collapsed(accuracy: float, before: float | None, one_step: float, images: int, drop: float) -> bool:
    """Return whether the accuracy of a probe shows catastrophic overfitting.

    This is so if it has lost more than the share ``drop`` of its best value so far (``before``), or if it is below a
    tenth of the accuracy under the epoch's own one-step attack. Either must hold by more than three standard errors,
    because early accuracies rest on only a few correct images.
    """
    def far_below(reference: float, share: float) -> bool:
        error = math.sqrt(2 * reference * (1 - reference) / images)
        return accuracy < share * reference and reference - accuracy > 3 * error

    return far_below(one_step, 0.1) or (before is not None and far_below(before, 1 - drop))
