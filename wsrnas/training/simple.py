"""Train a network of any origin for some epochs, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.quick.strided import right_gradients
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.training.epoch import train_epoch
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import SCHEDULES, Schedule
from wsrnas.training.strengths import SIX_STRENGTHS, read_strengths
from wsrnas.training.trainer import Refinements, Trainer


def train(model: nn.Module, data: DataSet, epochs: int = 10, loss: str = "pgd", epsilon: float | str = 8 / 255,
          steps: int = 7, *, step_size: float | None = None, random_start: bool = False, beta: float = 6.0,
          strengths: Sequence[float | str] = SIX_STRENGTHS, batch_size: int = 128, learning_rate: float = 0.1,
          weight_decay: float = 5e-4, schedule: str = "cosine", seed: int = 0,
          log: Callable[[str], None] = print) -> list[dict[str, float]]:
    """Train a network on the training images of a data set, on the device of its parameters.

    The steps are those of ``python -m retrain.train_cifar``: SGD with momentum 0.9, gradients clipped at 5, the data
    set's augmentation. That program also selects by held-out images, resumes and uses several GPUs.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); it is changed in place, and left in
            evaluation mode.
        data: data set, as ``load_dataset`` or ``own_data`` return it.
        epochs: number of epochs.
        loss: name of the loss in ``LOSSES``: pgd, trades, mart, multi, fast or standard.
        epsilon: L-inf radius of the training attack in pixels of [0, 1]; ``"8/255"`` is understood.
        steps: steps of the training attack.
        step_size: step of the training attack in pixels of [0, 1]; None: ``2.5 * epsilon / steps``.
        random_start: whether the losses pgd and multi start uniformly in the ball.
        beta: weight of the robust term of trades and mart.
        strengths: L-inf radii of the loss multi.
        batch_size: images of a step; a smaller data set is one batch.
        learning_rate: learning rate at the peak of the schedule.
        weight_decay: weight decay.
        schedule: name of the schedule in ``SCHEDULES``: constant, cosine, cyclic or one-cycle.
        seed: seed of the order of images, their augmentation and random starts.
        log: function that takes one line after each epoch.

    Returns:
        One row for each epoch: means over its images of ``loss``, ``adversarial_accuracy`` and, where it was measured,
        ``clean_accuracy``; ``images``, ``seconds``, ``images_per_second``.

    Raises:
        InputError: there is no such loss or schedule, a number is out of range, or the loss diverged.
    """
    _require_known(loss, schedule, step_size)
    require(epochs >= 1, f"epochs is {epochs}; expected at least 1")
    epsilon, *others = read_strengths("epsilon", epsilon)
    require(not others, "epsilon has several strengths; expected one, or loss='multi' with strengths")
    require(steps >= 1, f"steps is {steps}; expected at least 1")
    require(any(weight.requires_grad for weight in model.parameters()), "all weights of the network are frozen; "
            "expected model.requires_grad_(True) before a training")
    device = next(model.parameters()).device
    loader = BatchLoader(data.train.to(device), min(batch_size, len(data.train)), seed, "training", shuffle=True,
                         augment=data.augmentation, drop_last=True)
    settings = LossSettings(epsilon, steps, step_size, random_start, trades_beta=beta,
                            strengths=read_strengths("strengths", strengths))
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, 0.9, weight_decay=weight_decay)
    trainer = Trainer(model, LOSSES[loss], settings, optimizer, World(device=device), seed,
                      Schedule(schedule, learning_rate, epochs * len(loader), len(loader)),
                      Refinements(grad_clip=5.0, clean_accuracy=True))
    rows = []
    with right_gradients(model):
        for number in range(epochs):
            label = f"epoch {number + 1}/{epochs}"
            rows.append(train_epoch(trainer, loader, number, label=label))
            log(f"{label}: {_words(rows[-1])}")
    model.eval()
    return rows


def _require_known(loss: str, schedule: str, step_size: float | None) -> None:
    """Refuse a loss or a schedule that ``train`` does not have, and a step size that the loss does not read."""
    require(loss in LOSSES, f"unknown loss {loss!r}; expected one of {', '.join(LOSSES)}")
    shapes = [name for name, shape in SCHEDULES.items() if not shape.has_milestones]
    require(schedule in shapes, f"unknown schedule {schedule!r}; expected one of {', '.join(shapes)}")
    read = "step_size" in LOSSES[loss].reads or not LOSSES[loss].attacks
    require(step_size is None or read, f"step_size is {step_size}, but the loss {loss} does not read it; expected None")


def _words(row: dict[str, Any]) -> str:
    accuracies = {"clean": "clean_accuracy", "under attack": "adversarial_accuracy"}
    return ", ".join([f"loss {row['loss']:.3f}", *(f"{word} {row[name]:.1%}" for word, name in accuracies.items()
                                                  if name in row), f"{row['seconds']:.1f} s"])
