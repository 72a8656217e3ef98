"""Scores of an untrained network from one batch of images: a new score is a file here and an entry."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from search.training_free.consistency import consistency
from search.training_free.gradient_norm import gradient_norm
from search.training_free.naswot import naswot
from search.training_free.ntk import ntk


@dataclass(frozen=True)
class ScoreEntry:
    """One score.

    Args:
        score: (network, images (B, C, H, W), labels (B,)) -> number; higher promises more. It may change the network.
        help: what it is, with its source.
        passes: passes of the images forward and backward, and forward alone.
        logarithm: whether its logarithm is what a line over the size is fitted to.
    """

    score: Callable[[nn.Module, Tensor, Tensor], float]
    help: str
    passes: tuple[int, int]
    logarithm: bool = False


TRAINING_FREE: dict[str, ScoreEntry] = {
    "gradient norm": ScoreEntry(gradient_norm, "sum over layers of the norm of the loss' gradient (Abdelfattah et al., "
                                "ICLR 2021)", (1, 0), logarithm=True),
    "consistency": ScoreEntry(consistency, "CRoZe: do features, weights and gradients stay the same under an attack on "
                              "weights and images? (Ha et al., NeurIPS 2023)", (4, 0)),
    "naswot": ScoreEntry(naswot, "NASWOT: how differently the ReLUs see different images (Mellor et al., ICML 2021)",
                         (0, 1)),
    "ntk": ScoreEntry(ntk, "minus log of the condition number of the neural tangent kernel of 16 images (TE-NAS, Chen "
                      "et al., ICLR 2021)", (4, 0)),
}
