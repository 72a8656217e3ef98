"""The supernet of a search, its optimiser and its adversarial training: the same in both searches."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from search.spaces import SPACES
from search.spaces.supernet import Path, Supernet
from search.supernet_settings import SupernetConfig, cosine_rate
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.seeding import generator
from wsrnas.training.epoch import Epoch, train_epoch
from wsrnas.training.losses import LOSSES
from wsrnas.training.trainer import Refinements, Trainer


def build_supernet(config: SupernetConfig, num_classes: int, channels: int = 3) -> Supernet:
    """Build the supernet for images of so many channels on the CPU; its weights are torch's, A is seeded."""
    return SPACES[config.space].supernet(config.init_channels, config.layers, num_classes, config.tau, config.alpha_std,
                                         generator(config.seed, "alphas"), channels)


def build_trainer(config: SupernetConfig, supernet: Supernet, world: World) -> Trainer:
    """Build the adversarial training of the supernet's weights, with SGD."""
    return Trainer(supernet, LOSSES[config.adv_loss], config.loss_settings(), config.sgd(supernet.weight_parameters()),
                   world, config.seed, refinements=Refinements(grad_clip=config.grad_clip), single_path=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups of an optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Training(Protocol):
    """What trains a supernet; ``SupernetSearcher`` does."""

    supernet: Supernet

    @property
    def stop(self) -> Callable[[], bool]:
        """Function that returns whether a signal asked to stop."""

    @property
    def config(self) -> SupernetConfig:
        """The configuration of the search."""

    @property
    def trainer(self) -> Trainer:
        """The adversarial training of its weights."""


def train_paths(training: Training, loader: BatchLoader, paths: Sequence[Path], number: int,
                title: str) -> dict[str, float]:
    """Train the supernet for one epoch, in which every training step has a path.

    Args:
        training: the supernet and its training.
        loader: batches of D_t.
        paths: one for each batch.
        number: number of the epoch, which determines its batches.
        title: name of the epoch, for the progress line and for errors.

    Returns:
        See ``wsrnas.training.epoch.train_epoch``.

    Raises:
        Preempted: a signal asked to stop.
    """
    def before_step(epoch: Epoch) -> None:
        training.supernet.path = paths[epoch.batches]

    def after_step(epoch: Epoch) -> None:
        if training.stop():
            raise Preempted(f"stopped in {title}; the steps before it are saved")

    repeats = len(paths) if all(path is paths[0] for path in paths) else 1
    with training.trainer.graphs.used(repeats):
        return train_epoch(training.trainer, loader, number, label=f"{title}: train",
                           report_freq=training.config.report_freq, before_step=before_step, after_step=after_step)


def train_alone(training: Training, loader: BatchLoader, path: Path, epochs: range, total: int,
                title: str) -> dict[str, float]:
    """Train one path by itself for some epochs of a training whose learning rate is half a cosine.

    Every path sees the same batches with the same random starts.

    Args:
        training: the supernet and its training, with the weights and the momentum to begin with.
        loader: batches of D_t.
        path: the path, which stays the current one.
        epochs: numbers of the epochs.
        total: epochs of the whole training.
        title: name of the training, for the progress line and for errors.

    Returns:
        The means over the last epoch: see ``wsrnas.training.epoch.train_epoch``.

    Raises:
        Preempted: a signal asked to stop.
    """
    steps, trained = len(loader), {}
    for epoch in epochs:
        set_learning_rate(training.trainer.optimizer, cosine_rate(training.config, epoch, total))
        training.trainer.steps = epoch * steps  # which seeds the random starts
        trained = train_paths(training, loader, [path] * steps, epoch, f"{title}: epoch {epoch + 1} of {total}")
    training.supernet.path = path
    return trained
