"""How the architecture parameters A become what the supernet runs."""

from dataclasses import dataclass

from torch import Tensor

from search.supernet import Supernet, gumbel_noise, gumbel_softmax
from wsrnas.runtime.seeding import generator


@dataclass(frozen=True)
class Relaxation:
    """Mixed operations (DARTS), or one an edge drawn by the Gumbel-softmax, whose gate carries the gradient.

    Attributes:
        kind: ``"mixed"`` or ``"sampled"``.
        tau: temperature of the Gumbel-softmax.
        seed: of its noise.
    """

    kind: str
    tau: float
    seed: int

    def follow(self, supernet: Supernet, alphas: Tensor, *draw: int | str) -> None:
        """Make ``supernet`` run A = ``alphas`` (2, E, O), to which a gradient flows if they need one.

        Args:
            draw: names the noise of a sampled path: the same names, the same noise at any A.
        """
        if self.kind == "mixed":
            supernet.mix(alphas.softmax(-1))
        else:
            noise = gumbel_noise(tuple(alphas.shape), generator(self.seed, "path", *draw))
            supernet.use(gumbel_softmax(alphas.cpu(), noise, self.tau))
