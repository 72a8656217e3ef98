"""Catastrophic overfitting: Fast-AT suddenly resists its own one-step attack and no other (Wong et al. 2020)."""

import math

import torch
from torch import nn

from wsrnas.attacks import attack_mode, pgd
from wsrnas.distributed import World, all_sum
from wsrnas.training import Loader

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


def has_collapsed(accuracy: float, before: float | None, images: int, drop: float) -> bool:
    """Whether the probe lost more than the share ``drop`` of its earlier accuracy, beyond three standard errors.

    The second condition keeps first epochs from looking like it, when an accuracy over many classes is a few images.
    """
    if before is None:
        return False
    error = math.sqrt(2 * before * (1 - before) / images)
    return accuracy < (1 - drop) * before and before - accuracy > 3 * error
