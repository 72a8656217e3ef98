"""The check of the AN-Estimator: how far its noise is from PGD's on the same images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search.strategy.strengths import column_name


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
    gaps = (accuracies[0] - accuracies[1]).tolist()
    columns = {"gap": gaps, "loss_gap": (losses[1] - losses[0]).tolist(),
               "estimated_accuracy": accuracies[0].tolist(), "pgd_accuracy": accuracies[1].tolist()}
    if vulnerabilities:
        columns["vulnerability_gap"] = (vulnerabilities[0][1] - vulnerabilities[0][0]).tolist()
    names = [column_name(strength) for strength in strengths]
    return {"images": images, "mean_gap": sum(gaps) / len(gaps), "largest_gap": max(gaps),
            "largest_gap_at": strengths[gaps.index(max(gaps))],
            **{key: dict(zip(names, values, strict=True)) for key, values in columns.items()}}
