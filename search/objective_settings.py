"""The fields of the Wsr-NAS search that say what it minimises, apart from the strengths."""

from dataclasses import dataclass

from search.spaces import SPACES
from search.strategy.objective import OBJECTIVES
from wsrnas.runtime.config import option, require


@dataclass(frozen=True)
class ObjectiveConfig:
    """The fields about the objective."""

    objective: str = option("robust", "what the search minimises", choices=OBJECTIVES, added=True, group="objective")
    sensitivity: float = option(0.16, "weight in nats of log F in the objectives sensitive and robust-sensitive",
                                added=True)
    size_weight: float = option(0.0, "weight in nats of log parameters, which counts as good in every objective: "
                                "how far the search trusts size, because measurements err; 0: they alone count",
                                added=True)
    naswot_weight: float = option(0.0, "weight in nats of the training-free score NASWOT, in deviations of random "
                                  "architectures, which counts as good in every objective; 0: it is not computed",
                                  added=True)
    ntk_weight: float = option(0.0, "weight in nats of the training-free score NTK, minus log of a condition number, "
                               "which counts as good in every objective; 0: it is not computed", added=True)
    training_free_layers: int = option(0, "cells of the untrained networks whose NASWOT and NTK count, best as many "
                                       "as the networks to be trained will have; 0: as many as the supernet",
                                       added=True)
    alpha: float = option(0.8, "weight of the natural loss in Eq. 10")
    beta: float = option(0.2, "weight of the adversarial losses in Eq. 10; alpha + beta = 1")

    @property
    def prior_weights(self) -> dict[str, float]:
        """The weights of the entries of ``search.priors`` that count, by name."""
        weights = {"size": self.size_weight, "naswot": self.naswot_weight, "ntk": self.ntk_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def require_training_free(self, space: str) -> None:
        """Refuse a number of cells that no training-free score uses, or that networks of a space cannot have.

        Raises:
            InputError: It is so.
        """
        if self.training_free_layers:
            require(bool(self.naswot_weight or self.ntk_weight), "training_free_layers is "
                    f"{self.training_free_layers}, but no training-free score counts; expected --ntk_weight or "
                    "--naswot_weight above 0")
            SPACES[space].check_layers(self.training_free_layers, "training_free_layers")
