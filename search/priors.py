"""What is known of an architecture before it is measured: its size, and a training-free score.

An objective may count them as good (``search.strategy.objective.PriorObjective``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from search.measured_paths import parameters
from search.spaces.space import Space
from search.spaces.supernet import Path
from search.training_free import TRAINING_FREE
from search.training_free.untrained import Network, resized, untrained_network, untrained_score
from search.wsr_nas_settings import SearchConfig
from wsrnas.data.image_set import ImageSet
from wsrnas.runtime.distributed import World, broadcast
from wsrnas.runtime.seeding import generator

Prior = Callable[[Path], float]
REFERENCE = 32  # random architectures whose scores are the scale
LOWEST = -5.0  # deviations: a network in which two images switch all units alike has minus infinity


@dataclass(frozen=True)
class Setting:
    """Hold what priors need to know.

    Args:
        space: search space.
        network: width, number of cells, number of classes and image shape (C, H, W) of the supernet.
        untrained: the same of the networks whose training-free scores count.
        images: what they see.
        seed: seed of their weights, and of the random architectures.
        world: this process.
    """

    space: Space
    network: Network
    untrained: Network
    images: ImageSet
    seed: int
    world: World


def size(setting: Setting) -> Prior:
    """Return the function from a path to the logarithm of its number of parameters."""
    space, network = setting.space, setting.network
    return lambda path: math.log(*parameters(space, space.discrete(path.gates.unsqueeze(0)), network))


class Untrained:
    """Score an architecture by a training-free score of its network.

    Args:
        setting: space, network, images and seed.
        name: name of the score in ``TRAINING_FREE``.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting, self.name, self.entry = setting, name, TRAINING_FREE[name]
        images = setting.images
        self.images = images.images.to(torch.float32, memory_format=torch.channels_last) / 255, images.labels

    def score(self, choices: Tensor) -> float:
        """Return the score of choices (R,), on all processes that of the first one."""
        space, world = self.setting.space, self.setting.world
        architecture = space.decode(choices.cpu())

        def build(number: int) -> nn.Module:
            return untrained_network(space, architecture, self.setting.untrained, self.setting.seed,
                                     number).to(world.device)

        found = torch.tensor(untrained_score(self.entry, build, *self.images), dtype=torch.float64,
                             device=world.device)
        broadcast([found], world)
        return found.item()

    def __call__(self, path: Path) -> float:
        """Return the score of a path."""
        found, = self.setting.space.discrete(path.gates.unsqueeze(0))
        return self.score(found)


class Standardised(Untrained):
    """Score a path in standard deviations from the mean of random architectures; the arguments are the same."""

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of random architectures."""
        drawn = self.setting.space.sample(REFERENCE, generator(self.setting.seed, "NASWOT"))
        scores = torch.tensor([self.score(choices) for choices in drawn], dtype=torch.float64)
        finite = scores[scores.isfinite()]
        if len(finite.unique()) < 2:
            return finite.mean().nan_to_num().item(), 1.0
        return finite.mean().item(), finite.std().item()

    def __call__(self, path: Path) -> float:
        """Return the score of a path."""
        mean, deviation = self.scale
        return max((super().__call__(path) - mean) / deviation, LOWEST)


PRIORS: dict[str, Callable[[Setting], Prior]] = {
    "size": size, "naswot": partial(Standardised, name="naswot"), "ntk": partial(Untrained, name="ntk")}


def priors_of(config: SearchConfig, space: Space, network: Network, images: ImageSet, world: World) -> list[Prior]:
    """Return the priors that count in a search, in the order of their weights.

    Args:
        config: configuration of the search.
        space: its space.
        network: width, number of cells, number of classes and image shape (C, H, W) of the supernet.
        images: what untrained networks see.
        world: this process.
    """
    setting = Setting(space, network, resized(network, config.training_free_layers), images, config.seed, world)
    return [PRIORS[name](setting) for name in config.prior_weights]
