"""An architecture with the weights of a supernet: losses, accuracies and vulnerabilities, clean and under PGD."""

from dataclasses import dataclass

import torch
from torch import Tensor

from search.measurement import measure
from search.rankings.bench import Bench, Measure, Stop, Values, strengths_of, use_path
from search.spaces.supernet import Supernet
from wsrnas.attacks import multi_strength_pgd, rows_at_once, shared_passes
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

    Args:
        bench: supernet, images and attack.
        trained: whether the supernet has its trained weights, or those that it began with.
    """
    supernet = bench.trained.build(trained, bench.world.device)

    def measured(choices: Tensor, stop: Stop) -> Values:
        use_path(bench, supernet, choices, trained)
        return path_values(bench, supernet, stop)

    return measured


@torch.no_grad()
def path_values(bench: Bench, supernet: Supernet, stop: Stop) -> Values:
    """Measure the current path of a supernet.

    Its BatchNorm statistics are renewed on D_t first. PGD attacks every strength.

    Args:
        bench: images and attack.
        supernet: the supernet.
        stop: asked before every batch.

    Returns:
        Means over the images, clean and at every strength: ``losses`` and ``accuracies``; at every strength the
        ``vulnerabilities``.
    """
    strengths = strengths_of(bench)
    distortion = Distortion(bench.trained.config.distance, bench.trained.config.standardize)
    recalibrate_batch_norm(supernet, bench.recalibration, bench.world)
    sums = torch.zeros(3, 1 + len(strengths), dtype=torch.float64, device=bench.world.device)
    for images, labels in bench.batches:
        stop()
        attacked = multi_strength_pgd(supernet, images, labels, strengths, steps=bench.num_steps,
                                      rows=rows_at_once(images))
        sums += measure(supernet, [images, *attacked.unbind(1)], labels, distortion)
    losses, accuracies, vulnerabilities = (sums / bench.images).tolist()
    return {"losses": losses, "accuracies": accuracies, "vulnerabilities": vulnerabilities[1:]}


def path_passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture sends through the supernet, forward and backward, and forward alone."""
    strengths, calibrated = len(bench.strengths), sum(len(labels) for _, labels in bench.recalibration)
    return bench.images * shared_passes(strengths, bench.num_steps), calibrated + bench.images * (1 + strengths)
