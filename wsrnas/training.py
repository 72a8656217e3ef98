"""One epoch of adversarial training, and the BatchNorm statistics it leaves behind."""

import math
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wsrnas.attacks import BATCH_NORM
from wsrnas.distributed import World, all_sum, average, average_gradients
from wsrnas.errors import InputError
from wsrnas.losses import AttackSettings, TrainingLoss
from wsrnas.run import progress

Batches = Iterable[tuple[Tensor, Tensor]]


def train_epoch(model: nn.Module, batches: Batches, total: int, loss_function: TrainingLoss,
                settings: AttackSettings, optimizer: torch.optim.Optimizer, world: World, *, grad_clip: float = 0.0,
                generator: torch.Generator | None = None, label: str = "train",
                report_freq: int = 50) -> dict[str, float]:
    """Train ``model`` on one epoch of batches.

    Parameters that take no part in a step (operations off the sampled path) keep a gradient of None, so that the
    optimiser leaves them, their momentum and their weight decay untouched.

    Args:
        batches: (images (b, C, H, W) in [0, 1], labels (b,)); ``total`` of them, shown as progress.
        loss_function: a value of ``losses.LOSSES``.
        grad_clip: largest gradient norm; 0 does not clip.
        report_freq: batches between two updates of the progress line (each waits for the device once).

    Returns:
        Global means: ``loss``, ``adversarial_accuracy`` and ``clean_accuracy`` where the loss sees them, and
        ``images``, ``seconds``, ``images_per_second``.

    Raises:
        InputError: the loss became infinite or NaN (the step is named).
    """
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums: dict[str, Tensor] = {}
    seen = 0
    started = time.perf_counter()
    bar = progress(batches, label, world, total)
    for step, (images, labels) in enumerate(bar):
        loss, metrics = loss_function(model, images, labels, settings, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters, world)
        if grad_clip:
            nn.utils.clip_grad_norm_(parameters, grad_clip)
        optimizer.step()
        seen += len(images)
        for name, value in {"loss": loss.detach() * len(images), **metrics}.items():
            sums[name] = sums.get(name, 0) + value
        if (step + 1) % report_freq == 0:
            mean = sums["loss"].item() / seen
            _refuse_divergence(mean, label, step)
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
    if not sums:
        raise InputError(f"{label}: no batches to train on")
    sums["images"] = sums["loss"].new_full((), seen)
    totals = dict(zip(sums, all_sum(torch.stack([v.double() for v in sums.values()]), world).tolist(), strict=True))
    seconds = time.perf_counter() - started
    images = totals.pop("images")
    _refuse_divergence(totals["loss"], label, total - 1)
    result = {name.replace("_correct", "_accuracy"): value / images for name, value in totals.items()}
    return {**result, "images": images, "seconds": seconds, "images_per_second": images / seconds}


def _refuse_divergence(loss: float, label: str, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(f"{label}: the training loss is {loss} at step {step}; start under another --save with "
                         "a lower --learning_rate (the last checkpoint here is intact)")


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Batches, world: World) -> None:
    """Replace BatchNorm's running statistics by the plain average over ``batches``.

    The running statistics of a freshly sampled path are those of other paths. They are reset, then averaged over the
    batches with equal weight (and over the processes), whatever the layers' momentum. Modes are restored.
    """
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in modes if isinstance(module, BATCH_NORM)}
    try:
        for norm in momenta:
            norm.reset_running_stats()
        model.train()
        for number, (images, _) in enumerate(batches, start=1):
            for norm in momenta:
                # The cumulative average. torch's own (momentum None) asks the device for its count in every layer.
                norm.momentum = 1 / number
            model(images)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    average_buffers(model, world)


def average_buffers(model: nn.Module, world: World) -> None:
    """Make floating-point buffers (BatchNorm's running statistics) their mean over the processes."""
    average([buffer for buffer in model.buffers() if buffer.is_floating_point()], world)
