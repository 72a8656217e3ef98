"""The check of the AN-Estimator: how far its noise is from PGD's on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.strategy.strengths import column_name

NOISE_SAMPLES = (3, 3)  # images and estimated strengths whose noises the report shows


def estimator_gap(strengths: Sequence[float], estimated: Tensor, attacked: Tensor, images: int) -> dict[str, Any]:
    """Compare the AN-Estimator's noise with PGD's; a gap is positive where the estimate is weaker.

    Args:
        strengths: the T estimated strengths.
        estimated: (2 or 3, T) sums over the images under the estimated noise: loss (nats), number of correct
            predictions and, where there is a bound, vulnerability.
        attacked: the same sums under PGD's noise.
        images: number of images in the sums.

    Returns:
        ``gap`` (accuracy under the estimate minus that under PGD, as shares), ``loss_gap`` and ``vulnerability_gap``
        (under PGD minus under the estimate) and the accuracies, all by strength; ``mean_gap``, ``largest_gap`` and its
        strength ``largest_gap_at`` (if several tie, the weakest).
    """
    losses, accuracies, *vulnerabilities = (torch.stack([estimated, attacked], 1).double() / images).cpu()  # (2, T)
    # Of whole numbers: a gap of 5 of 100 images is exactly 0.05, and equal gaps stay equal.
    gaps = ((estimated[1] - attacked[1]).double() / images).tolist()
    columns = {"gap": gaps, "loss_gap": (losses[1] - losses[0]).tolist(),
               "estimated_accuracy": accuracies[0].tolist(), "pgd_accuracy": accuracies[1].tolist()}
    if vulnerabilities:
        columns["vulnerability_gap"] = (vulnerabilities[0][1] - vulnerabilities[0][0]).tolist()
    names = [column_name(strength) for strength in strengths]
    return {"images": images, "mean_gap": sum(gaps) / len(gaps), "largest_gap": max(gaps),
            "largest_gap_at": strengths[gaps.index(max(gaps))],
            **{key: dict(zip(names, values, strict=True)) for key, values in columns.items()}}


def noise_samples(images: Tensor, epsilons: Tensor, noisy: Mapping[str, Tensor], step: int) -> dict[str, np.ndarray]:
    """Return the arrays of the report: a few ``images`` (B, C, H, W) as bytes, ``epsilons`` (T,), noises and ``step``.

    Args:
        images: (B, C, H, W).
        epsilons: the T estimated strengths.
        noisy: images with noise (B, T, C, H, W) by the name of what made it.
        step: number of the step.
    """
    few, weakest = (slice(count) for count in NOISE_SAMPLES)
    arrays = {"images": (255 * images[few]).round().byte(), "epsilons": epsilons[weakest]}
    arrays |= {name: (values[few, weakest] - images[few].unsqueeze(1)).half() for name, values in noisy.items()}
    return {name: array.cpu().numpy() for name, array in arrays.items()} | {"step": np.array(step)}
