"""Training step by step: a network with all that its next step depends on, and epochs that any step can interrupt."""

import copy
import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wsrnas.attacks import attack_mode
from wsrnas.runtime.distributed import World, all_min, all_sum, average_gradients
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.batch_norm import average_buffers, gather_buffers, scatter_buffers
from wsrnas.training.losses import LossSettings, Metrics, TrainingLoss
from wsrnas.training.schedules import Schedule
from wsrnas.training.weight_perturbation import perturbed_weights

CLEAN_SHARE = 8  # every eighth image also shows the clean accuracy where the loss sees adversarial images alone
LOG_SECONDS = 300  # between two lines in the log within an epoch
NEVER = 2**62


class Diverged(InputError):
    """The training loss is not finite: the learning rate or the data do not suit the network."""


class Loader(Protocol):
    """What an epoch is read from: ``BatchLoader`` or ``ImageFileLoader``."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int = 0, start: int = 0) -> Any:
        """Batches (images (b, C, H, W) in [0, 1], labels (b,)) of an epoch from number ``start`` on."""
        ...


@dataclass(frozen=True)
class Refinements:
    """What may be added to plain training; everything is off by default.

    Args:
        grad_clip: largest gradient norm; 0 does not clip.
        accumulation: equal parts in which a process handles its share of a batch, one after the other, for the same
            step (but for BatchNorm and AWP, which see each part alone).
        bfloat16: forward passes, those of the attack included, under autocast.
        awp_gamma: relative size of the adversarial weight perturbation; 0 is without.
        awp_from: first step that is perturbed.
        ema_decay: of the exponential moving average of weights and BatchNorm statistics; 0 is without. That of step n
            (from 0) is at most (1 + n) / (10 + n), so that the initial weights are forgotten at once.
        drop_path: rate that drop-path reaches at the end, rising linearly from 0 over the training, as in DARTS.
        clean_accuracy: measure it on every ``CLEAN_SHARE``-th image where the loss sees no clean logits.
    """

    grad_clip: float = 0.0
    accumulation: int = 1
    bfloat16: bool = False
    awp_gamma: float = 0.0
    awp_from: int = 0
    ema_decay: float = 0.0
    drop_path: float = 0.0
    clean_accuracy: bool = False


class Trainer:
    """A network in training; a step is a function of this object's state, the batch and the number of the step.

    Args:
        network: the unwrapped network. Attacks see it; the training forward goes through DistributedDataParallel where
            there are several processes.
        seed: of the attacks' random starts and of drop-path, drawn anew for each step.
        schedule: learning rate of each step; None leaves the optimiser's own.
        single_path: some parameters take no part in a step (a supernet's operations off the sampled path). They keep a
            gradient of None, so that the optimiser leaves them, their momentum and their weight decay untouched; the
            others' gradients are averaged over the processes in one collective.
    """

    def __init__(self, network: nn.Module, loss: TrainingLoss, settings: LossSettings,
                 optimizer: torch.optim.Optimizer, world: World, seed: int = 0, schedule: Schedule | None = None,
                 refinements: Refinements | None = None, single_path: bool = False) -> None:
        self.network, self.loss, self.settings, self.optimizer = network, loss, settings, optimizer
        self.world, self.seed, self.schedule = world, seed, schedule
        self.refinements, self.single_path = refinements or Refinements(), single_path
        self.steps = 0
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.average = copy.deepcopy(network).requires_grad_(False) if self.refinements.ema_decay else None
        self.distributed = world.size > 1 and not single_path
        self.forward: nn.Module = network
        if self.distributed:
            # Buffers are made equal where they are read (evaluation, checkpoint), not in every forward.
            known = inspect.signature(DistributedDataParallel).parameters
            # The name before torch 2.15 is the second one.
            name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            # Without a search for unused parameters, DDP orders its buckets anew after its first backward pass, and a
            # resumed run would add gradients of three and more processes in another order than the unbroken one.
            self.forward = DistributedDataParallel(network, find_unused_parameters=True, **{name: False})

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and to keep: the average of the weights where there is one."""
        return self.network if self.average is None else self.average

    @property
    def learning_rate(self) -> float:
        """Of the latest step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, images: Tensor, labels: Tensor) -> Metrics:
        """One optimiser step on this process' share of a batch; ``loss`` is among the metrics."""
        refinements = self.refinements
        self.network.train()
        if self.schedule is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule(self.steps)
        stream = generator(self.seed, "attack", self.steps, device=self.world.device)
        noise = BatchNoise(stream, self.world.rank, self.world.size)
        if refinements.drop_path:
            self.network.drop_path.rate = refinements.drop_path * self.steps / self.schedule.total_steps
            self.network.drop_path.noise = noise
        if dropout := getattr(self.network, "dropout", None):
            dropout.noise = noise
        self.optimizer.zero_grad(set_to_none=True)
        sums: Metrics = {}
        parts = list(zip(images.chunk(refinements.accumulation), labels.chunk(refinements.accumulation), strict=True))
        for number, part in enumerate(parts, start=1):
            waits = self.distributed and number < len(parts)  # gradients are exchanged once a step
            with self.forward.no_sync() if waits else nullcontext():
                add_metrics(sums, self._add_gradient(*part, noise, len(parts)))
        if self.single_path:
            average_gradients(self.parameters, self.world)
        if refinements.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, refinements.grad_clip)
        self.optimizer.step()
        if self.average is not None:
            decay = min(refinements.ema_decay, (1 + self.steps) / (10 + self.steps))
            move_average(self.average, self.network, decay)
        self.steps += 1
        return sums

    def _add_gradient(self, images: Tensor, labels: Tensor, noise: BatchNoise, parts: int) -> Metrics:
        """Attack one part of the batch and add the gradient of its loss, a 1 / ``parts`` of the batch's."""
        with self._autocast():
            adversarial = self.loss.attack(self.network, images, labels, self.settings, noise)
        with self._perturbation(images, adversarial, labels):
            # An autocast of its own: autocast keeps the bfloat16 copies of weights, which AWP has just changed.
            with self._autocast():
                loss, metrics = self.loss.objective(self.forward, images, adversarial, labels, self.settings)
            (loss / parts).backward()
        metrics["loss"] = (loss.detach() * len(images), len(images))
        if self.refinements.clean_accuracy and "clean_accuracy" not in metrics:
            some = slice(None, None, CLEAN_SHARE)
            with torch.no_grad(), attack_mode(self.network), self._autocast():
                correct = (self.network(images[some]).argmax(1) == labels[some]).sum()
            metrics["clean_accuracy"] = (correct, len(images[some]))
        return metrics

    def _perturbation(self, images: Tensor, adversarial: Tensor, labels: Tensor) -> AbstractContextManager:
        def loss() -> Tensor:
            with self._autocast():
                return self.loss.objective(self.network, images, adversarial, labels, self.settings)[0]

        gamma = self.refinements.awp_gamma
        active = gamma and self.steps >= self.refinements.awp_from
        return perturbed_weights(self.network, loss, gamma, self.world) if active else nullcontext()

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.refinements.bfloat16)

    # -- state ----------------------------------------------------------------------------------------------------

    def make_buffers_equal(self) -> None:
        """Replace BatchNorm's running statistics by their mean over the processes, before an evaluation."""
        for model in self._models():
            average_buffers(model, self.world)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; called by every process, for each has buffers of its own."""
        return {
            "steps": self.steps, "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "buffers": gather_buffers(self._models(), self.world),
        }

    def weights_to_keep(self, buffers: Tensor) -> dict[str, Tensor]:
        """The state of ``evaluated`` with the mean of all processes' buffers, those that ``state_dict`` gathered."""
        state = dict(self.evaluated.state_dict())
        if len(buffers) > 1:
            named = [(name, b) for name, b in self.evaluated.named_buffers() if b.is_floating_point()]
            sizes = [b.numel() for _, b in named]
            means = buffers.mean(0)[-sum(sizes):].split(sizes)  # ``evaluated`` is the last of the gathered models
            state |= {name: mean.view_as(b) for (name, b), mean in zip(named, means, strict=True)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; with another number of processes, from the mean of their buffers.

        Raises:
            KeyError, RuntimeError, ValueError: it is the state of another network, or of other refinements.
        """
        if (state["average"] is None) != (self.average is None):
            raise ValueError("it was trained with another ema_decay")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        scatter_buffers(self._models(), state["buffers"], self.world)
        self.steps = state["steps"]

    def _models(self) -> list[nn.Module]:
        return [self.network] if self.average is None else [self.network, self.average]


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Make weights and BatchNorm statistics of ``average`` decay * (their own) + (1 - decay) * (``network``'s).

    Counts are copied. torch's AveragedModel does the same, but waits for the device in every step.
    """
    averaged, current = ([*model.parameters(), *model.buffers()] for model in (average, network))
    pairs = list(zip(averaged, current, strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    if counts:
        torch._foreach_copy_(*map(list, zip(*counts, strict=True)))


def add_metrics(sums: Metrics, metrics: Metrics) -> None:
    """Add ``metrics`` to ``sums``, in place."""
    for name, (value, count) in metrics.items():
        total, seen = sums.get(name, (0, 0))
        sums[name] = (total + value.double(), seen + count)


@dataclass
class Epoch:
    """How far an epoch has come on this process: what a checkpoint in its middle needs to go on.

    Args:
        batches: number of batches done.
        seconds: spent on them.
        sums: sum over this process' samples and their number, by metric.
        diverged: number of the first batch whose loss was not finite, and that loss (on the device).
    """

    batches: int = 0
    seconds: float = 0.0
    sums: Metrics = field(default_factory=dict)
    diverged: tuple[Tensor, Tensor] | None = None

    def add(self, metrics: Metrics) -> None:
        """Count one more batch."""
        total, count = metrics["loss"]
        loss = total / count
        if self.diverged is None:
            self.diverged = loss.new_full((), NEVER, dtype=torch.int64), loss
        first, value = self.diverged
        begins = ~loss.isfinite() & (first == NEVER)
        self.diverged = torch.where(begins, self.batches, first), torch.where(begins, loss, value)
        add_metrics(self.sums, metrics)
        self.batches += 1

    def state_dict(self, world: World) -> dict[str, Any]:
        """Batches, seconds and the sums of all processes; called by every process."""
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
        """An epoch to go on with; the main process takes what all have summed up."""
        share = int(world.is_main)  # the others go on from nothing, under the same names: sums are exchanged by name
        sums = {name: (torch.tensor(total * share, dtype=torch.float64, device=world.device), count * share)
                for name, (total, count) in state["sums"].items()}
        return cls(state["batches"], state["seconds"], sums)

    def summary(self, world: World) -> dict[str, float]:
        """Exact global means, ``images`` and, where it was timed, ``seconds`` and ``images_per_second``.

        Called by every process.
        """
        state = self.state_dict(world)
        images = state["sums"]["loss"][1]
        means = {name: total / count for name, (total, count) in state["sums"].items()}
        times = {"seconds": self.seconds, "images_per_second": images / self.seconds} if self.seconds else {}
        return {**means, "images": images, **times}

    def refuse_divergence(self, label: str, world: World) -> None:
        """Stop all processes when the loss of one of them was not finite (waits for the device).

        Raises:
            Diverged: naming the step.
        """
        if self.diverged is None:
            return
        first, value = self.diverged
        step = int(all_min(first.clone(), world))
        if step != NEVER:
            value = value.item() if int(first) == step else "not finite on another process"
            raise Diverged(f"{label}: the training loss is {value} at step {step + 1}")


def train_epoch(trainer: Trainer, loader: Loader, number: int, *, epoch: Epoch | None = None, label: str = "train",
                report_freq: int = 50, after_step: Callable[[Epoch], None] | None = None,
                log: Callable[[str], None] | None = None) -> dict[str, float]:
    """Train on the rest of an epoch.

    Args:
        number: of the epoch, which determines its batches.
        epoch: how far it has come; None is its beginning.
        label: names the epoch in progress line, log and errors.
        report_freq: batches between two updates of the progress line (each waits for the device once).
        after_step: called after every step; may save a checkpoint, or raise ``Preempted``.
        log: takes a line now and then in a long epoch.

    Returns:
        Global means over the images: ``loss``, ``adversarial_accuracy``, ``clean_accuracy`` where the loss sees such
        logits; and ``images``, ``seconds``, ``images_per_second``.

    Raises:
        InputError: there are no batches.
        Diverged: the loss became infinite or NaN (the step is named).
    """
    world, total = trainer.world, len(loader)
    epoch = epoch or Epoch()
    started = last = logged = time.perf_counter()
    seen = 0
    bar = progress(loader.batches(number, start=epoch.batches), label, world, total, initial=epoch.batches)
    for images, labels in bar:
        epoch.add(trainer.step(images, labels))
        seen += len(images) * world.size
        now = time.perf_counter()
        epoch.seconds, last = epoch.seconds + now - last, now
        if epoch.batches % report_freq == 0:
            epoch.refuse_divergence(label, world)
            shown = live_metrics(epoch) | {"img/s": f"{seen / (now - started):.0f}"}
            bar.set_postfix(shown, refresh=False)
            if log is not None and now - logged > LOG_SECONDS:
                logged = now
                left = (now - started) / (seen / (len(images) * world.size)) * (total - epoch.batches)
                log(f"{label} step {epoch.batches}/{total} " + " ".join(f"{k} {v}" for k, v in shown.items())
                    + f", {left / 60:.0f} min left of the epoch")
        if after_step is not None:
            after_step(epoch)
    if not epoch.batches:
        raise InputError(f"{label}: no batches to train on")
    epoch.refuse_divergence(label, world)
    epoch.seconds += time.perf_counter() - last  # the device's queue is empty now
    return epoch.summary(world)


def live_metrics(epoch: Epoch) -> dict[str, str]:
    """Means of this process so far, for the progress line."""
    means = {name: (total / count).item() for name, (total, count) in epoch.sums.items()}
    shown = {"loss": f"{means['loss']:.3f}"}
    words = {"clean": "clean_accuracy", "robust": "adversarial_accuracy"}
    return shown | {word: f"{means[name]:.1%}" for word, name in words.items() if name in means}
