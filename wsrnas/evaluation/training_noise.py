"""How much the trainings of one network differ, learned from all networks of a race, and intervals that count it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsrnas.evaluation.intervals import student_reach


@dataclass(frozen=True)
class TrainingNoise:
    """What is known about the difference of two trainings of one network.

    Args:
        deviation: standard deviation of the accuracy over trainings, without what a seed does to all networks.
        freedom: degrees of freedom of this estimate; 0: nothing is known.
    """

    deviation: float = 0.0
    freedom: int = 0


UNKNOWN = TrainingNoise()


def training_noise(accuracies: Sequence[Mapping[int, float]]) -> TrainingNoise:
    """Estimate the deviation over trainings, which is taken to be the same for all networks.

    An accuracy is that of its network, plus what its seed does to all networks, plus noise: least squares of this sum,
    as in an analysis of variance. With E networks of n seeds each, the noise has (E - 1)(n - 1) degrees of freedom.

    Args:
        accuracies: for each network, the accuracy of its training with each seed.
    """
    rows = [(network, seed, value) for network, found in enumerate(accuracies) for seed, value in found.items()]
    if not rows:
        return UNKNOWN
    networks, seeds, values = (np.array(column) for column in zip(*rows, strict=True))
    design = np.hstack([networks[:, None] == np.unique(networks), seeds[:, None] == np.unique(seeds)]).astype(float)
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(rows) - int(rank)
    if not freedom:
        return UNKNOWN
    rest = np.where(np.abs(values - design @ fitted) > 1e-12, values - design @ fitted, 0.0)  # without rounding
    return TrainingNoise(float(np.sqrt(rest @ rest / freedom)), freedom)


def with_trainings(difference: float, interval: Sequence[float], seeds: int, noise: TrainingNoise
                   ) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two networks for other images *and* other trainings.

    The distances from the difference to the ends for other images alone, and for other trainings alone (Student's t),
    are added as squares (method of variance estimates recovery: Zou and Donner, Statistics in Medicine 2008).

    Args:
        difference: mean over the seeds.
        interval: its 95 % interval for other images alone.
        seeds: trainings of each of the two.
        noise: how much trainings differ; where it is unknown, the interval counts images alone.
    """
    low, high = interval
    if not noise.freedom:
        return low, high
    reach = student_reach(noise.freedom) * noise.deviation * (2 / seeds)**0.5
    return difference - float(np.hypot(difference - low, reach)), difference + float(np.hypot(high - difference, reach))
