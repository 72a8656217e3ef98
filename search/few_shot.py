"""Few-shot supernets: one for every operation on one edge.

Zhao et al., "Few-shot Neural Architecture Search", ICML 2021. Paths with different operations on an edge pull the
weights that they share apart. Each of these supernets begins with the weights of a trained one, and goes on with paths
of one of the operations alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from search.spaces.space import Space
from search.spaces.supernet import Supernet
from wsrnas.runtime.config import require

Weights = dict[str, Tensor]


def own_weights(supernet: Supernet) -> Weights:
    """Return a copy of a supernet's state without A."""
    return {name: value.clone() for name, value in supernet.state_dict().items() if not name.startswith("alphas_")}


def load_weights(supernet: Supernet, weights: Mapping[str, Tensor]) -> None:
    """Give a supernet other weights; its A stays."""
    supernet.load_state_dict({**supernet.state_dict(), **weights})


@dataclass
class FewShot:
    """Hold the supernets of one edge.

    Args:
        space: the search space.
        row: row of A that stands for the edge.
        members: weights of each supernet, by the operation in that row.
        first: weights with which those begin that are to be trained.
        current: the supernet that was given weights last, and the operation that they are for; None: not known.
    """

    space: Space
    row: int
    members: dict[int, Weights] = field(default_factory=dict)
    first: Weights | None = None
    current: tuple[Supernet, int] | None = None

    def operation(self, gates: Tensor) -> int:
        """Return the operation that a path with these gates (M, E, O) has on the edge."""
        return int(gates.flatten(0, 1)[self.row].argmax())

    def use(self, supernet: Supernet, gates: Tensor) -> None:
        """Give the supernet the weights that were trained for a path with these gates (M, E, O).

        Raises:
            InputError: none were.
        """
        operation = self.operation(gates)
        known = ", ".join(self.space.operations[member] for member in self.members)
        require(operation in self.members, f"no supernet was trained for {self.space.operations[operation]} in row "
                f"{self.row} of A, only for {known}; expected the same --paths as in the training of the supernets")
        if not self.current or self.current[0] is not supernet or self.current[1] != operation:
            load_weights(supernet, self.members[operation])
            self.current = supernet, operation

    def state_dict(self) -> dict[str, Weights]:
        """Return the weights by the names of the operations."""
        return {self.space.operations[operation]: weights for operation, weights in self.members.items()}

    def load_state_dict(self, state: Mapping[str, Weights]) -> None:
        """Take the weights of ``state_dict``."""
        places = {name: place for place, name in enumerate(self.space.operations)}
        self.members = {places[name]: dict(weights) for name, weights in state.items()}
        self.current = None
