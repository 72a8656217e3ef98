"""A network in training: one optimiser step, and the state that the next step depends on."""

import copy
import inspect
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsrnas.attacks import attack_mode
from wsrnas.runtime.distributed import World, average_gradients
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.batch_norm import average_buffers, gather_buffers, scatter_buffers
from wsrnas.training.losses import LossSettings, TrainingLoss
from wsrnas.training.metrics import Metrics, add_metrics
from wsrnas.training.schedules import Schedule
from wsrnas.training.weight_average import move_average
from wsrnas.training.weight_perturbation import perturbed_weights

CLEAN_SHARE = 8  # every eighth image also shows the clean accuracy where the loss sees adversarial images alone


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
