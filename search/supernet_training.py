"""The supernet of a search, its optimiser and its adversarial training: the same in both searches."""

import torch

from search.spaces import SPACES
from search.spaces.supernet import Supernet
from search.supernet_settings import SupernetConfig
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import generator
from wsrnas.training.losses import LOSSES
from wsrnas.training.trainer import Refinements, Trainer


def build_supernet(config: SupernetConfig, num_classes: int) -> Supernet:
    """Build the supernet on the CPU; torch's global generator makes its weights, a seeded one A."""
    return SPACES[config.space].supernet(config.init_channels, config.layers, num_classes, config.tau, config.alpha_std,
                                         generator(config.seed, "alphas"))


def build_trainer(config: SupernetConfig, supernet: Supernet, world: World) -> Trainer:
    """Build the adversarial training of the supernet's weights, with SGD."""
    return Trainer(supernet, LOSSES[config.adv_loss], config.loss_settings(), config.sgd(supernet.weight_parameters()),
                   world, config.seed, refinements=Refinements(grad_clip=config.grad_clip), single_path=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups of an optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = rate
