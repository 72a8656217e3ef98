"""Scores of an untrained network from one batch of images: a new score is a file here and an entry."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from search.training_free.consistency import consistency
from search.training_free.gradient_norm import gradient_norm
from search.training_free.naswot import naswot
from search.training_free.ntk import IMAGES as NTK_IMAGES
from search.training_free.ntk import ntk


@dataclass(frozen=True)
class ScoreEntry:
    """One score.

    Args:
        score: (network, images (B, C, H, W), labels (B,)) -> number; higher promises more. It may change the network.
        help: what it is, with its source.
        passes: number of images B -> images that one network sees forward and backward, and forward alone.
        logarithm: whether its logarithm is what a line over the size is fitted to.
        networks: number of networks with different weights whose mean score counts.
    """

    score: Callable[[nn.Module, Tensor, Tensor], float]
    help: str
    passes: Callable[[int], tuple[int, int]]
    logarithm: bool = False
    networks: int = 1

    def cost(self, images: int) -> tuple[int, int]:
        """Return the images that all its networks see forward and backward, and forward alone."""
        both, forward = self.passes(images)
        return self.networks * both, self.networks * forward


TRAINING_FREE: dict[str, ScoreEntry] = {
    "gradient norm": ScoreEntry(gradient_norm, "sum over layers of the norm of the loss' gradient (Abdelfattah et al., "
                                "ICLR 2021)", lambda images: (images, 0), logarithm=True),
    "consistency": ScoreEntry(consistency, "CRoZe: do features, weights and gradients stay the same under an attack on "
                              "weights and images? (Ha et al., NeurIPS 2023)", lambda images: (3 * images, 0)),
    "naswot": ScoreEntry(naswot, "NASWOT: how differently the ReLUs see different images (Mellor et al., ICML 2021)",
                         lambda images: (0, images)),
    "ntk": ScoreEntry(ntk, "minus log of the condition number of the neural tangent kernel of 8 images, mean of 4 "
                      "initial weights (TE-NAS, Chen et al., ICLR 2021)",
                      lambda images: (min(images, NTK_IMAGES) ** 2, 0), networks=4),
}
