"""A network in training: one optimiser step, and the state that the next step depends on."""

import copy
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsrnas.attacks import attack_mode, is_correct
from wsrnas.quick.graphs import Graphs, repeated
from wsrnas.quick.modules import modules_in_use, set_flag
from wsrnas.runtime.distributed import World, average_gradients
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.batch_norm import average_buffers, gather_buffers, scatter_buffers
from wsrnas.training.losses import LossSettings, TrainingLoss
from wsrnas.training.metrics import Metrics, add_metrics
from wsrnas.training.schedules import Schedule
from wsrnas.training.weight_average import move_average
from wsrnas.training.weight_perturbation import perturbed_weights

CLEAN_SHARE = 8  # clean accuracy is measured on every 8th image if the loss uses only adversarial ones


@dataclass(frozen=True)
class Refinements:
    """Additions to plain training; all are off by default.

    Args:
        grad_clip: largest gradient norm; 0: off.
        accumulation: number of equal parts in which a process handles its share of a batch, to need less memory. The
            step is the same, except that BatchNorm and AWP see each part alone.
        bfloat16: whether forward passes, those of the attack included, run under autocast.
        awp_gamma: relative size of the adversarial weight perturbation; 0: off.
        awp_from: first step with that perturbation.
        ema_decay: decay of the exponential moving average of weights and BatchNorm statistics; 0: off. The decay
            of step n (from 0) is at most (1 + n) / (10 + n), so that the average forgets the initial weights at once.
        drop_path: drop-path rate at the end of the training; it rises linearly from 0, as in DARTS.
        clean_accuracy: whether to measure the clean accuracy on every ``CLEAN_SHARE``-th image if the loss uses
            only adversarial ones.
    """

    grad_clip: float = 0.0
    accumulation: int = 1
    bfloat16: bool = False
    awp_gamma: float = 0.0
    awp_from: int = 0
    ema_decay: float = 0.0
    drop_path: float = 0.0
    clean_accuracy: bool = False


@dataclass(frozen=True)
class _LossGradient:
    """The gradient of a training step: all of it that is the same for every batch."""

    what: ClassVar[str] = "gradients of training steps"
    forward: nn.Module
    loss: TrainingLoss
    settings: LossSettings
    autocast: Callable[[], AbstractContextManager]
    parts: int

    def __call__(self, images: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """Add the gradient of the loss over ``parts`` to the parameters; return loss and metrics."""
        # An autocast of its own: autocast keeps the bfloat16 copies of weights, which AWP has just changed.
        with self.autocast():
            loss, metrics = self.loss.objective(self.forward, images, adversarial, labels, self.settings)
        (loss / self.parts).backward()
        return loss.detach(), metrics


class Trainer:
    """A network in training. A step depends on the state of this object, the batch and the number of the step alone.

    Args:
        network: the unwrapped network. Attacks see it; with several processes, the training forward goes through
            DistributedDataParallel.
        loss: training loss, an entry of ``LOSSES``.
        settings: settings of the loss.
        optimizer: optimiser of the network's parameters.
        world: the processes that train together.
        seed: seed of the attacks' random starts and of drop-path, which are drawn again in each step.
        schedule: learning rate of each step; None leaves the optimiser's own.
        refinements: additions to plain training.
        single_path: whether some parameters take no part in a step (a supernet's operations off the sampled path). They
            keep a gradient of None, so that the optimiser does not touch them, their momentum or their weight decay.
            The gradients of the others are averaged over the processes in one collective.

    Attributes:
        graphs: what records steps on a GPU, inside ``graphs.used``; by default nothing.
    """

    def __init__(self, network: nn.Module, loss: TrainingLoss, settings: LossSettings,
                 optimizer: torch.optim.Optimizer, world: World, seed: int = 0, schedule: Schedule | None = None,
                 refinements: Refinements | None = None, single_path: bool = False) -> None:
        self.network, self.loss, self.settings, self.optimizer = network, loss, settings, optimizer
        self.world, self.seed, self.schedule = world, seed, schedule
        self.refinements, self.single_path = refinements or Refinements(), single_path
        self.steps, self.graphs = 0, Graphs()
        self.gradient_norm: Tensor | None = None  # of the latest step, before it was clipped
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.average = copy.deepcopy(network).requires_grad_(False) if self.refinements.ema_decay else None
        if self.refinements.drop_path and schedule is None:
            raise ValueError("drop_path needs a schedule, over whose steps its rate rises")
        self.parallel: DistributedDataParallel | None = None
        if world.size > 1 and not single_path:
            # Buffers are made equal where they are read (evaluation, checkpoint), not in every forward.
            known = inspect.signature(DistributedDataParallel).parameters
            # The name before torch 2.15 is the second one.
            name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            synchronized: dict[str, Any] = {name: False}
            # Without a search for unused parameters, DDP orders its buckets again after its first backward pass, and a
            # resumed run would add gradients of three and more processes in another order than the unbroken one.
            self.parallel = DistributedDataParallel(network, find_unused_parameters=True, **synchronized)

    @property
    def forward(self) -> nn.Module:
        """The network of the training forward: with several processes, DistributedDataParallel around it."""
        return self.network if self.parallel is None else self.parallel

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and to keep: the average of the weights where there is one."""
        return self.network if self.average is None else self.average

    @property
    def learning_rate(self) -> float:
        """Learning rate of the latest step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, images: Tensor, labels: Tensor) -> Metrics:
        """Make one optimiser step on this process' share of a batch; return its metrics, ``loss`` among them."""
        refinements = self.refinements
        self._train_mode()
        if self.schedule is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule(self.steps)
        stream = generator(self.seed, "attack", self.steps, device=self.world.device)
        noise = BatchNoise(stream, self.world.rank, self.world.size)
        network: Any = self.network
        if refinements.drop_path and self.schedule is not None:
            network.drop_path.rate = refinements.drop_path * self.steps / self.schedule.total_steps
            network.drop_path.noise = noise
        dropout: Any = getattr(network, "dropout", None)
        if hasattr(dropout, "noise"):  # a user's network may have another one
            dropout.noise = noise
        self.optimizer.zero_grad(set_to_none=True)
        sums: Metrics = {}
        parts = list(zip(images.chunk(refinements.accumulation), labels.chunk(refinements.accumulation), strict=True))
        for number, part in enumerate(parts, start=1):
            parallel = self.parallel if number < len(parts) else None  # gradients are exchanged once a step
            with nullcontext() if parallel is None else parallel.no_sync():
                add_metrics(sums, self._add_gradient(*part, noise, len(parts)))
        if self.single_path:
            average_gradients(self.parameters, self.world)
        if refinements.grad_clip:
            self.gradient_norm = nn.utils.clip_grad_norm_(self.parameters, refinements.grad_clip).detach()
        self.optimizer.step()
        if self.average is not None:
            decay = min(refinements.ema_decay, (1 + self.steps) / (10 + self.steps))
            move_average(self.average, self.network, decay)
        self.steps += 1
        return sums

    def _train_mode(self) -> None:
        if self.single_path:
            for module in modules_in_use(self.network):
                set_flag(module, "training", True)
        else:
            self.network.train()

    def _add_gradient(self, images: Tensor, labels: Tensor, noise: BatchNoise, parts: int) -> Metrics:
        """Attack one part of the batch and add the gradient of its loss, a 1 / ``parts`` of the batch's."""
        with self._autocast():
            adversarial = self.loss.attack(self.network, images, labels, self.settings, noise)
        with self._perturbation(images, adversarial, labels):
            gradient = _LossGradient(self.forward, self.loss, self.settings, self._autocast, parts)
            loss, metrics = repeated(gradient, (images, adversarial, labels), self.network, True, self._obstacle(parts))
        metrics["loss"] = (loss * len(images), len(images))
        if self.refinements.clean_accuracy and "clean_accuracy" not in metrics:
            some = slice(None, None, CLEAN_SHARE)
            with torch.no_grad(), attack_mode(self.network, path_alone=True), self._autocast():
                correct = is_correct(self.network(images[some]), labels[some]).sum()
            metrics["clean_accuracy"] = (correct, len(images[some]))
        return metrics

    def _obstacle(self, parts: int) -> str:
        """Return why the gradient of a step cannot be recorded, if so."""
        obstacles = {
            "passes run under autocast": self.refinements.bfloat16,
            "a batch is handled in several parts": parts > 1,
            "several processes exchange gradients in the backward pass": self.parallel is not None,
            "each one draws the paths or neurons that it drops": (
                self.refinements.drop_path or getattr(self.network, "dropout", None)),
            "each one perturbs the weights": self.refinements.awp_gamma,
        }
        return next((why for why, found in obstacles.items() if found), "")

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
        """Return all that the next step depends on; called by every process, for each has buffers of its own."""
        return {
            "steps": self.steps, "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "buffers": gather_buffers(self._models(), self.world),
        }

    def weights_to_keep(self, buffers: Tensor) -> dict[str, Tensor]:
        """Return the state of ``evaluated`` with the mean of all processes' buffers, which ``state_dict`` gathered."""
        state = dict(self.evaluated.state_dict())
        if len(buffers) > 1:
            named = [(name, b) for name, b in self.evaluated.named_buffers() if b.is_floating_point()]
            sizes = [b.numel() for _, b in named]
            means = buffers.mean(0)[-sum(sizes):].split(sizes)  # ``evaluated`` is the last of the gathered models
            state |= {name: mean.view_as(b) for (name, b), mean in zip(named, means, strict=True)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from ``state``; with another number of processes, from the mean of their buffers.

        Raises:
            KeyError: the state lacks an entry.
            RuntimeError: the state belongs to another network.
            ValueError: the state belongs to another optimiser or to other refinements.
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
