"""An architecture with the weights of a supernet: losses, accuracies and vulnerabilities, clean and under PGD."""

from dataclasses import dataclass

import torch
from torch import Tensor

from search.measurement import measure
from search.rankings.bench import Bench, Measure, Values, strengths_of, use_path
from wsrnas.attacks import multi_strength_pgd, rows_at_once
from wsrnas.training.batch_norm import recalibrate_batch_norm


@dataclass(frozen=True)
class Distortion:
    """Ask for the vulnerability of feature maps.

    Args:
        distance: distance of feature maps.
        standardize: whether maps are divided by the clean channel's deviation.
        measures_vulnerability: whether it is measured.
    """

    distance: str
    standardize: bool
    measures_vulnerability: bool = True


def inherited(bench: Bench, trained: bool = True) -> Measure:
    """Return the function that measures an architecture inside the supernet.

    Its BatchNorm statistics are renewed on D_t first. PGD attacks every strength.

    Args:
        bench: supernet, images and attack.
        trained: whether the supernet has its trained weights, or those that it began with.
    """
    supernet, strengths = bench.trained.build(trained, bench.world.device), strengths_of(bench)
    distortion = Distortion(bench.trained.config.distance, bench.trained.config.standardize)

    @torch.no_grad()
    def measured(choices: Tensor) -> Values:
        use_path(bench, supernet, choices, trained)
        recalibrate_batch_norm(supernet, bench.recalibration, bench.world)
        sums = torch.zeros(3, 1 + len(strengths), dtype=torch.float64, device=bench.world.device)
        for images, labels in bench.batches:
            attacked = multi_strength_pgd(supernet, images, labels, strengths, steps=bench.num_steps,
                                          rows=rows_at_once(images))
            sums += measure(supernet, [images, *attacked.unbind(1)], labels, distortion)
        losses, accuracies, vulnerabilities = (sums / bench.images).tolist()
        return {"losses": losses, "accuracies": accuracies, "vulnerabilities": vulnerabilities[1:]}

    return measured


def path_passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture sends through the supernet, forward and backward, and forward alone."""
    strengths, calibrated = len(bench.strengths), sum(len(labels) for _, labels in bench.recalibration)
    return bench.images * strengths * bench.num_steps, calibrated + bench.images * (1 + strengths)
