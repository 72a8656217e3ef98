"""The configuration that both searches share: supernet, adversarial training, bound on the vulnerability."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from search.bound import Bound
from search.spaces import SPACES
from search.spaces.darts import DARTS
from wsrnas.data.settings import SmallImagesConfig
from wsrnas.evaluation.vulnerability import DISTANCES
from wsrnas.runtime.config import option, require_step
from wsrnas.runtime.distributed import World
from wsrnas.training.losses import LOSSES, LossSettings, losses_of
from wsrnas.training.sgd import SgdConfig

LEAST_TAU = 1e-6  # below it, the Gumbel-softmax overflows


def layers_help() -> str:
    """Return the help of ``--layers``, with what each space asks for."""
    return "; ".join(["cells of the supernet", *(f"{space.name}: {space.layers_help}" for space in SPACES.values()
                                                 if space.layers_help)])


@dataclass(frozen=True)
class SupernetConfig(SmallImagesConfig, SgdConfig):
    """Configure a search that trains a supernet."""

    space: str = option("darts", "search space", choices=SPACES, added=True, group="supernet")
    init_channels: int = option(16, "channels C of the supernet's first cells")
    layers: int = option(8, layers_help)
    tau: float = option(0.1, "temperature of the Gumbel-softmax (published code)")
    alpha_std: float = option(1e-3, "standard deviation of the initial architecture parameters (published code)")

    adv_loss: str = option("pgd", "adversarial training of the supernet", choices=lambda: losses_of("search"),
                           group="adversarial training")
    trades_beta: float = option(1.0, "weight of TRADES' robust term; 1 is the paper's TRADES-1")
    epsilon: float = option(0.03, "strength of the training attack")
    num_steps: int = option(7, "steps of every PGD attack of the search (PGD-7)")
    step_size: float = option(0.0, "step of the training attack; 0: 2.5 * epsilon / num_steps (fast: 1.25 * epsilon)")
    batch_size: int = option(64, "images per training step, all processes together (in short trainings: each)")
    learning_rate_min: float = option(1e-3, "learning rate at the end of the cosine", group="optimiser")
    weight_decay: float = option(3e-4, "weight decay of the supernet's SGD")
    recalibration_batches: int = option(10, "D_t batches used to recompute BatchNorm statistics before measuring "
                                       "on D_v", group="measurement")

    vulnerability_bound: str = option("inf", "H, upper bound of the vulnerability", group="vulnerability")
    distance: str = option("spatial", "distance between clean and adversarial feature maps in the vulnerability",
                           choices=DISTANCES)
    standardize: bool = option(True, "divide feature maps by the clean channel's deviation before they are compared, "
                               "so that shrinking them does not help")

    def __post_init__(self) -> None:
        self.require_at_least(1, "init_channels", "layers", "num_steps", "batch_size", "recalibration_batches",
                              "report_freq")
        self.require_sgd()
        self.require_positive("trades_beta")
        self.require_at_least(LEAST_TAU, "tau")
        self.require_at_least(0, "max_train", "alpha_std", "learning_rate_min")
        self.require_strength("epsilon")
        require_step("step_size", self.step_size)
        self.bound()
        SPACES[self.space].check_layers(self.layers)

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        names = () if "trades_beta" in LOSSES[self.adv_loss].reads else ("trades_beta",)
        return super().unread() | dict.fromkeys(names, f"adv_loss is {self.adv_loss}; expected --adv_loss trades with "
                                                "it")

    def adapted(self, flags: Mapping[str, Any]) -> Self:
        """Return this configuration as the start of one with other ``flags``: another space has its own layers."""
        if "layers" in flags:
            return self
        return replace(self, layers=SPACES[flags.get("space", self.space)].fitting_layers(self.layers))

    @property
    def name(self) -> str:
        """Name of the run directory; without a time stamp, so that a restarted job finds its run."""
        return self.save or self.default_name

    @property
    def default_name(self) -> str:
        """Name of the run directory without ``--save``."""
        raise NotImplementedError

    @property
    def source_run(self) -> str:
        """Run directory of the trained supernet that the search begins with; empty: it trains its own."""
        return ""

    @property
    def space_prefix(self) -> str:
        """Start of the default name: the space, if it is not that of the papers."""
        return "" if self.space == DARTS.name else f"{self.space}-"

    @property
    def trains_apart(self) -> bool:
        """Whether each process trains and measures architectures of its own, instead of its share of every batch."""
        return False

    def batch_world(self, world: World) -> World:
        """Return those of the processes that share the batches of a training or a measurement."""
        return world.alone() if self.trains_apart else world

    def bound(self) -> Bound:
        """Return H, parsed from the command line.

        Raises:
            InputError: it is not a bound, or not above 0.
        """
        return Bound.parse(self.vulnerability_bound)

    @property
    def bounded(self) -> bool:
        """Whether there is a bound."""
        return self.bound().finite

    @property
    def measures_vulnerability(self) -> bool:
        """Whether measurements on D_v have the vulnerability."""
        return self.bounded

    def loss_settings(self) -> LossSettings:
        """Return the attack of the supernet's training, which sees the BatchNorm statistics of the training itself."""
        return LossSettings(self.epsilon, self.num_steps, self.step_size or None, batch_statistics=True,
                            trades_beta=self.trades_beta)


def cosine_rate(config: SupernetConfig, number: int, total: int) -> float:
    """Return the learning rate of epoch ``number`` of ``total``: half a cosine down to ``learning_rate_min``."""
    share = 0.5 * (1 + math.cos(math.pi * number / total))
    return config.learning_rate_min + (config.learning_rate - config.learning_rate_min) * share
