"""The common part of both searchers: the supernet, the genotype of its A, and the state that a checkpoint keeps."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from search.architecture_statistics import architecture_statistics
from search.spaces.space import Space
from search.spaces.supernet import Supernet
from search.supernet_settings import SupernetConfig
from search.supernet_training import build_trainer
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.trainer import Trainer


class SupernetSearcher:
    """Own a supernet and its training.

    A subclass sets the attributes below and defines ``genotype``, ``own_state`` and ``load_own_state``. Optimisers are
    made when they are used: with the first one torch imports its compiler, a second that a dry run does not need.
    """

    config: SupernetConfig
    world: World
    space: Space
    supernet: Supernet
    initial_genotype: Any
    stop: Callable[[], bool] = staticmethod(lambda: False)  # whether to stop between two training steps

    @property
    def batch_world(self) -> World:
        """The processes that share the batches of a training or a measurement."""
        return self.config.batch_world(self.world)

    @cached_property
    def trainer(self) -> Trainer:
        """The adversarial training of the supernet's weights."""
        return build_trainer(self.config, self.supernet, self.batch_world)

    def genotype(self) -> Any:
        """Return the architecture of the current A."""
        raise NotImplementedError

    def architecture_statistics(self) -> dict[str, Any]:
        """Return the summary statistics of the current architecture parameters."""
        return architecture_statistics(self.space, self.supernet, self.genotype(), self.initial_genotype)

    def parts(self) -> dict[str, Any]:
        """Return the networks and optimisers by their keys in the checkpoint."""
        return {"supernet": self.supernet, "weight_optimizer": self.trainer.optimizer}

    def own_state(self) -> dict[str, Any]:
        """Return the rest of the state, as tensors and plain containers."""
        raise NotImplementedError

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``own_state``."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and plain containers."""
        return {name: part.state_dict() for name, part in self.parts().items()} | self.own_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of ``state_dict``.

        Raises:
            InputError: the state belongs to another configuration.
        """
        try:
            for name, part in self.parts().items():
                part.load_state_dict(state[name])
            self.load_own_state(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError("the checkpoint belongs to another configuration: "
                             f"{str(error).strip().splitlines()[0]}") from None
