"""The relaxation of RNAS: from architecture parameters A to the operations that the supernet runs."""

from dataclasses import dataclass

from torch import Tensor

from search.spaces.supernet import Supernet, gumbel_noise, gumbel_softmax
from wsrnas.runtime.seeding import generator


@dataclass(frozen=True)
class Relaxation:
    """Run mixed operations (DARTS), or one operation for each edge, sampled by Gumbel-softmax.

    The gradient of a sampled operation flows through its gate.

    Attributes:
        kind: ``"mixed"`` or ``"sampled"``.
        tau: temperature of the Gumbel-softmax.
        seed: seed of its noise.
    """

    kind: str
    tau: float
    seed: int

    def follow(self, supernet: Supernet, alphas: Tensor, *draw: int | str) -> None:
        """Make a supernet run given architecture parameters; a gradient flows to them if they need one.

        Args:
            supernet: network that runs them.
            alphas: A, (M, E, O).
            *draw: names of the noise of a sampled path: the same names give the same noise at any A.
        """
        if self.kind == "mixed":
            supernet.mix(alphas.softmax(-1))
        else:
            noise = gumbel_noise(tuple(alphas.shape), generator(self.seed, "path", *draw))
            supernet.use(gumbel_softmax(alphas.cpu(), noise, self.tau))
