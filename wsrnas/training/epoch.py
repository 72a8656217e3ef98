"""An epoch of training, which can stop after any step and resume there."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from wsrnas.runtime.distributed import World, all_min, all_sum
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.progress import progress
from wsrnas.training.metrics import Metrics, add_metrics
from wsrnas.training.trainer import Trainer

NEVER = 2**62


class Diverged(InputError):
    """The training loss is not finite: the learning rate or the data do not suit the network."""


class Loader(Protocol):
    """Source of batches: ``BatchLoader`` or ``ImageFileLoader``."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int = 0, start: int = 0) -> Any:
        """Yield the batches (images (b, C, H, W) in [0, 1], labels (b,)) of an epoch from number ``start`` on."""
        ...


@dataclass
class Epoch:
    """Progress of an epoch on this process; a checkpoint in the middle of an epoch holds it.

    Args:
        batches: number of complete batches.
        seconds: time spent on them.
        sums: sum over this process' samples and their number, by metric.
        diverged: number of the first batch whose loss or gradient was not finite, and that loss (on the device).
    """

    batches: int = 0
    seconds: float = 0.0
    sums: Metrics = field(default_factory=dict)
    diverged: tuple[Tensor, Tensor] | None = None

    def add(self, metrics: Metrics, gradient_norm: Tensor | None = None) -> None:
        """Add the metrics of one more batch, and look whether the norm of its gradient is finite."""
        total, count = metrics["loss"]
        loss = total / count
        if self.diverged is None:
            self.diverged = loss.new_full((), NEVER, dtype=torch.int64), loss
        first, value = self.diverged
        whole = loss.isfinite() if gradient_norm is None else loss.isfinite() & gradient_norm.isfinite()
        begins = ~whole & (first == NEVER)
        self.diverged = torch.where(begins, self.batches, first), torch.where(begins, loss, value)
        add_metrics(self.sums, metrics)
        self.batches += 1

    def state_dict(self, world: World) -> dict[str, Any]:
        """Return batches, seconds and the sums of all processes; called by every process."""
        names = sorted(self.sums)
        if not names:
            return {"batches": self.batches, "seconds": self.seconds, "sums": {}}
        totals = torch.stack([self.sums[name][0] for name in names])
        counts = torch.tensor([self.sums[name][1] for name in names], device=totals.device, dtype=totals.dtype)
        totals, counts = all_sum(torch.stack([totals, counts]), world).tolist()
        return {"batches": self.batches, "seconds": self.seconds,
                "sums": {name: [t, int(c)] for name, t, c in zip(names, totals, counts, strict=True)}}

    @classmethod
    def load(cls, state: dict[str, Any], world: World) -> "Epoch":
        """Return the epoch of a stored state; the main process takes the sums of all."""
        share = int(world.is_main)  # the others begin with zeros under the same names: sums are exchanged by name
        sums = {name: (torch.tensor(total * share, dtype=torch.float64, device=world.device), count * share)
                for name, (total, count) in state["sums"].items()}
        return cls(state["batches"], state["seconds"], sums)

    def summary(self, world: World) -> dict[str, float]:
        """Return exact global means, ``images`` and, where it was timed, ``seconds`` and ``images_per_second``.

        Called by every process.
        """
        state = self.state_dict(world)
        images = state["sums"]["loss"][1]
        means = {name: total / count for name, (total, count) in state["sums"].items()}
        times = {"seconds": self.seconds, "images_per_second": images / self.seconds} if self.seconds else {}
        return {**means, "images": images, **times}

    def refuse_divergence(self, label: str, world: World) -> None:
        """Stop all processes if the loss of one of them was not finite. This waits for the device.

        Raises:
            Diverged: the loss or its gradient is not finite; the message names the step.
        """
        if self.diverged is None:
            return
        first, value = self.diverged
        step = int(all_min(first.clone(), world))
        if step != NEVER:
            found = value.item() if int(first) == step else math.nan
            what = (f"the gradient is not finite (the training loss is {found:.4g})" if math.isfinite(found) else
                    f"the training loss is {found}" if int(first) == step else
                    "the training loss or its gradient is not finite on another process")
            raise Diverged(f"{label}: {what} at step {step + 1}")


def train_epoch(trainer: Trainer, loader: Loader, number: int, *, epoch: Epoch | None = None, label: str = "train",
                report_freq: int = 50, before_step: Callable[[Epoch], None] | None = None,
                after_step: Callable[[Epoch], None] | None = None,
                log: Callable[[str], None] | None = None) -> dict[str, float]:
    """Train on the rest of an epoch.

    Args:
        trainer: the network in training.
        loader: source of the batches.
        number: number of the epoch, which determines its batches.
        epoch: progress of the epoch; None: its beginning.
        label: name of the epoch in progress line, log and errors.
        report_freq: batches between two updates of the progress line (each waits for the device once).
        before_step: function that is called before every step.
        after_step: function that is called after every step; it may save a checkpoint, or raise ``Preempted``.
        log: function that takes a line from time to time in a long epoch.

    Returns:
        Global means over the images: ``loss``, ``adversarial_accuracy``, ``clean_accuracy`` where the loss sees such
        logits; and ``images``, ``seconds``, ``images_per_second``.

    Raises:
        InputError: there are no batches.
        Diverged: the loss or its gradient became infinite or NaN; the message names the step.
    """
    world, epoch = trainer.world, epoch or Epoch()
    started = last = time.perf_counter()
    seen = 0
    bar = progress(loader.batches(number, start=epoch.batches), label, world, len(loader), epoch.batches, log)
    for images, labels in bar:
        if before_step is not None:
            before_step(epoch)
        epoch.add(trainer.step(images, labels), trainer.gradient_norm)
        seen += len(images) * world.size
        now = time.perf_counter()
        epoch.seconds, last = epoch.seconds + now - last, now
        if epoch.batches % report_freq == 0:
            epoch.refuse_divergence(label, world)
            bar.show(live_metrics(epoch) | {"img/s": f"{seen / (now - started):.0f}"})
        if after_step is not None:
            after_step(epoch)
    if not epoch.batches:
        raise InputError(f"{label}: no batches to train on")
    epoch.refuse_divergence(label, world)
    epoch.seconds += time.perf_counter() - last  # the device's queue is empty now
    return epoch.summary(world)


def live_metrics(epoch: Epoch) -> dict[str, str]:
    """Return the means of this process so far, for the progress line."""
    means = {name: (total / count).item() for name, (total, count) in epoch.sums.items()}
    shown = {"loss": f"{means['loss']:.3f}"}
    words = {"clean": "clean_accuracy", "robust": "adversarial_accuracy"}
    return shown | {word: f"{means[name]:.1%}" for word, name in words.items() if name in means}
