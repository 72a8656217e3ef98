"""AN-Estimators: adversarial noise at new strengths from noise at a few strengths (Eq. 3)."""

import torch
from torch import nn

from wsrnas.estimators.attention import AANE
from wsrnas.estimators.base import MIN_IMAGE_SIZE, NoiseEstimator, project
from wsrnas.estimators.continuation import CANE
from wsrnas.estimators.encoding import EANE, EANEMinus
from wsrnas.estimators.interpolation import WAANE, WAANEPaper
from wsrnas.estimators.plus import AANEPlus
from wsrnas.runtime.errors import InputError

__all__ = ["ESTIMATORS", "NoiseEstimator", "build_estimator", "names", "project"]

ESTIMATORS: dict[str, type[NoiseEstimator]] = {
    "WA-ANE": WAANE,
    "WA-ANE-paper": WAANEPaper,
    "A-ANE": AANE,
    "E-ANE": EANE,
    "E-ANE-minus": EANEMinus,
    "A-ANE-plus": AANEPlus,
    "C-ANE": CANE,
}


def names() -> list[str]:
    """The names that `build_estimator` knows."""
    return list(ESTIMATORS)


def build_estimator(name: str, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Build an AN-Estimator by name.

    Args:
        image_shape: (C, H, W). Weights depend on C alone: any image size from 8x8 on works afterwards.
    Returns:
        a module called with (source_noises (B, S, C, H, W), images (B, C, H, W), source_epsilons (S,) or
        (B, S), target_epsilons (T,) or (B, T)), all in pixels of [0,1]; gives (B, T, C, H, W).
    Raises:
        InputError: the name is unknown, or the image shape is none.
    """
    if name not in ESTIMATORS:
        raise InputError(f"unknown AN-Estimator {name!r}; expected one of {', '.join(ESTIMATORS)}")
    if len(image_shape) != 3 or image_shape[0] < 1 or min(image_shape[1:]) < MIN_IMAGE_SIZE:
        raise InputError(
            f"image_shape: expected (C, H, W) with H and W of at least {MIN_IMAGE_SIZE}, got {image_shape}"
        )
    # Twice as fast on a CPU where filters are many and depth-wise.
    return ESTIMATORS[name](channels=image_shape[0]).to(memory_format=torch.channels_last)
