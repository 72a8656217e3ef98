"""AN-Estimators: adversarial noise at new strengths from noise at a few strengths (Eq. 3).

A new estimator is a subclass of ``NoiseEstimator`` and one entry of ``ESTIMATORS``. The choices and the help of the
search and of the AN-Estimator benchmark, and the table in docs/AN_ESTIMATOR.md, read that table.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch

    from wsrnas.estimators import base
    from wsrnas.estimators.attention import AANE
    from wsrnas.estimators.base import NoiseEstimator
    from wsrnas.estimators.continuation import CANE
    from wsrnas.estimators.encoding import EANE, EANEMinus
    from wsrnas.estimators.interpolation import WAANE, WAANEPaper
    from wsrnas.estimators.plus import AANEPlus

__all__ = ["AVERAGE", "ESTIMATORS", "EstimatorEntry", "build_estimator", "names"]


@dataclass(frozen=True)
class EstimatorEntry:
    """One AN-Estimator.

    Args:
        estimator: the class, built with the number of image channels.
        help: explanation in one line, for ``--help`` and for docs/AN_ESTIMATOR.md.
        learned: whether it has weights to train.
        extends_average: whether its estimate is that of ``AVERAGE`` plus something: a study compares the two.
    """

    estimator: type[NoiseEstimator]
    help: str
    learned: bool = False
    extends_average: bool = False

    def gradients(self, targets: int) -> int:
        """Return the number of forward and backward passes of the network per image for ``targets`` strengths."""
        return self.estimator.gradients(targets)


AVERAGE = "WA-ANE"
ESTIMATORS: dict[str, EstimatorEntry] = {
    AVERAGE: EstimatorEntry(WAANE, "weighted average of the noises at the neighbouring strengths; Eq. 6, corrected"),
    "WA-ANE-paper": EstimatorEntry(WAANEPaper, "weighted average as Eq. 6 is printed"),
    "A-ANE": EstimatorEntry(AANE, "attention over vectors, added to WA-ANE; Fig. 2", learned=True,
                            extends_average=True),
    "E-ANE": EstimatorEntry(EANE, "attention over feature maps, added to WA-ANE", learned=True, extends_average=True),
    "E-ANE-minus": EstimatorEntry(EANEMinus, "E-ANE without attention and without WA-ANE", learned=True),
    "A-ANE-plus": EstimatorEntry(AANEPlus, "E-ANE with wider blocks; the published code's estimator for WsrNet-Plus",
                                 learned=True, extends_average=True),
    "C-ANE": EstimatorEntry(CANE, "WA-ANE between more sources: one step of PGD at about every fourth target",
                            extends_average=True),
}


def names() -> list[str]:
    """Return the names that ``build_estimator`` knows."""
    return list(ESTIMATORS)


def build_estimator(name: str, image_shape: tuple[int, int, int] = (3, 32, 32)) -> NoiseEstimator:
    """Build an AN-Estimator by name.

    Args:
        name: key of ``ESTIMATORS``.
        image_shape: (C, H, W). Weights depend on C alone: any image size from 8x8 on works afterwards.

    Returns:
        A module called with (source_noises (B, S, C, H, W), images (B, C, H, W), source_epsilons (S,) or
        (B, S), target_epsilons (T,) or (B, T)), all in pixels of [0,1]; gives (B, T, C, H, W).

    Raises:
        InputError: the name is unknown, or the image shape is not valid.
    """
    if name not in ESTIMATORS:
        raise InputError(f"unknown AN-Estimator {name!r}; expected one of {', '.join(ESTIMATORS)}")
    if len(image_shape) != 3 or image_shape[0] < 1 or min(image_shape[1:]) < base.MIN_IMAGE_SIZE:
        raise InputError(
            f"image_shape: expected (C, H, W) with H and W of at least {base.MIN_IMAGE_SIZE}, got {image_shape}"
        )
    # Twice as fast on a CPU where filters are many and depth-wise.
    estimator: NoiseEstimator = ESTIMATORS[name].estimator(image_shape[0])
    return estimator.to(memory_format=torch.channels_last)
