"""Train a network of any origin for some epochs, from Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.attacks import attack_mode, require_gradients
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.quick.strided import right_gradients
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, named_line, type_in_words
from wsrnas.training.epoch import train_epoch
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import SCHEDULES, Schedule
from wsrnas.training.strengths import SIX_STRENGTHS, read_strengths
from wsrnas.training.trainer import Refinements, Trainer


def train(model: nn.Module, data: DataSet, epochs: int = 10, loss: str = "pgd", epsilon: float | str = 8 / 255,
          steps: int = 7, *, step_size: float | str | None = None, random_start: bool = False, beta: float = 6.0,
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
        seed: seed of the order of images, their augmentation and random starts. Dropout draws from torch's global
            generator.
        log: function that takes one line after each epoch, and in a long one another every five minutes.

    Returns:
        One row for each epoch: means over its images of ``loss``, ``adversarial_accuracy`` and, where it was measured,
        ``clean_accuracy``; ``images``, ``seconds``, ``images_per_second``.

    Raises:
        InputError: there is no such loss or schedule, a number is out of range, the network does not fit the data, has
            no gradient for images or no weights to train, the call is inside ``torch.inference_mode``, or the loss
            diverged.
    """
    require(isinstance(data, DataSet), f"data is {type_in_words(data)}; expected a data set, as load_dataset or "
            "own_data return it")
    _require_known(loss, schedule, step_size)
    _require_numbers({"epochs": epochs, "steps": steps, "batch_size": batch_size}, seed,
                     {"learning_rate": learning_rate, "beta": beta}, weight_decay)
    settings = _loss_settings(epsilon, steps, step_size, random_start, beta, strengths)
    require(any(weight.requires_grad for weight in model.parameters()), "all weights of the network are frozen; "
            "expected model.requires_grad_(True) before a training")
    device = next(model.parameters()).device
    _require_fits(model, data, device, LOSSES[loss].attacks)
    loader = BatchLoader(data.train.to(device), min(batch_size, len(data.train)), seed, "training", shuffle=True,
                         augment=data.augmentation, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, 0.9, weight_decay=weight_decay)
    trainer = Trainer(model, LOSSES[loss], settings, optimizer, World(device=device), seed,
                      Schedule(schedule, learning_rate, epochs * len(loader), len(loader)),
                      Refinements(grad_clip=5.0, clean_accuracy=True))
    try:
        return _train_epochs(model, trainer, loader, epochs, log)
    finally:
        model.eval()


def _loss_settings(epsilon: Any, steps: int, step_size: Any, random_start: bool, beta: float,
                   strengths: Any) -> LossSettings:
    """Return the attack and the weights of the loss, with strengths as numbers."""
    several = read_strengths("strengths", strengths)
    require(bool(several), "strengths is empty; expected at least one")
    return LossSettings(_one_strength("epsilon", epsilon), steps,
                        None if step_size is None else _one_strength("step_size", step_size), random_start,
                        trades_beta=beta, strengths=several)


def _train_epochs(model: nn.Module, trainer: Trainer, loader: BatchLoader, epochs: int,
                  log: Callable[[str], None]) -> list[dict[str, float]]:
    """Train, and return one row for each epoch."""
    rows = []
    try:
        with right_gradients(model), torch.enable_grad():
            for number in range(epochs):
                label = f"epoch {number + 1}/{epochs}"
                rows.append(train_epoch(trainer, loader, number, label=label, log=log))
                log(f"{label}: {_words(rows[-1])}")
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(f"batch_size is {loader.batch_size}, and a BatchNorm layer of the network sees one number of "
                         "each channel; expected at least 2") from None
    return rows


def _one_strength(name: str, given: float | str) -> float:
    """Return a strength that a user gave; one alone is expected."""
    strength, *others = read_strengths(name, given) or (None,)
    require(strength is not None and not others, f"{name} is {given!r}; expected one strength (loss='multi' takes "
            "several as strengths)")
    assert strength is not None
    return strength


def _require_fits(model: nn.Module, data: DataSet, device: torch.device, attacked: bool) -> None:
    """Refuse a network that has other logits than the data has classes, or no gradient to attack images with."""
    require_gradients()
    images = (data.train.images[:2].to(device).float() / 255).requires_grad_(True)
    try:
        with torch.enable_grad(), attack_mode(model):
            logits = model(images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's code
        raise InputError(f"the network cannot take images of shape {tuple(images.shape)} ({named_line(error)})"
                         ) from None
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type_in_words(logits)
    require(isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(images)
            and logits.shape[1] >= data.num_classes, f"the network returns {shape} for {len(images)} images; expected "
            f"logits ({len(images)}, {data.num_classes})")
    if attacked:
        with torch.enable_grad():
            gradient = (torch.autograd.grad(logits.sum(), images, allow_unused=True)[0] if logits.requires_grad
                        else None)
        require(gradient is not None, "the network has no gradient for its images, so that no attack moves them; "
                "expected neither torch.no_grad nor .detach() inside of it, or loss='standard'")


def _require_known(loss: str, schedule: str, step_size: float | str | None) -> None:
    """Refuse a loss or a schedule that ``train`` does not have, and a step size that the loss does not read."""
    require(isinstance(loss, str) and loss in LOSSES, f"unknown loss {loss!r}; expected one of {', '.join(LOSSES)}")
    shapes = [name for name, shape in SCHEDULES.items() if not shape.has_milestones]
    require(schedule in shapes, f"unknown schedule {schedule!r}; expected one of {', '.join(shapes)}")
    read = "step_size" in LOSSES[loss].reads or not LOSSES[loss].attacks
    require(step_size is None or read, f"step_size is {step_size}, but the loss {loss} does not read it; expected None")


def _require_numbers(counts: Mapping[str, Any], seed: Any, positive: Mapping[str, Any], weight_decay: Any) -> None:
    """Refuse numbers that are out of range or no numbers."""
    for name, count in {**counts, "seed": seed}.items():
        least = 0 if name == "seed" else 1
        require(isinstance(count, Integral) and int(count) >= least, f"{name} is {count!r}; expected a whole number of "
                f"at least {least}")
    for name, number in {**positive, "weight_decay": weight_decay}.items():
        is_number = isinstance(number, Real) and 0 <= float(number) < math.inf
        require(is_number and (number > 0 or name not in positive), f"{name} is {number!r}; expected a number "
                f"{'above 0' if name in positive else 'of 0 or more'}")


def _words(row: dict[str, Any]) -> str:
    accuracies = {"clean": "clean_accuracy", "under attack": "adversarial_accuracy"}
    return ", ".join([f"loss {row['loss']:.3f}", *(f"{word} {row[name]:.1%}" for word, name in accuracies.items()
                                                  if name in row), f"{row['seconds']:.1f} s"])
