"""The power of a race: how large a difference must be for the race to see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from wsrnas.evaluation.intervals import student_reach
from wsrnas.evaluation.training_noise import TrainingNoise

POWER = 0.8  # share of races that shall see a difference
CELLS = 0.0093  # deviation of accuracy between DARTS cells of equal size, PGD, in the 223 cells of docs/SEARCH.md
SEEDS, ALONE = 0.0041, 0.15  # what is assumed before a race; docs/RACE.md says why
DRAWS = 20_000
QUANTILE = 1.96  # of the 95 % interval


@dataclass(frozen=True)
class Noise:
    """How uncertain the measured difference of two networks is.

    Args:
        seeds: standard deviation of the difference between seeds, as a share of the images.
        images: variance over images of the difference of the scores, the mean over seeds. For one seed and flags this
            is the share of the images on which one of the two networks alone is right.
        measured: whether the race has measured both, or they are assumed.
    """

    seeds: float = SEEDS * 2**0.5
    images: float = ALONE
    measured: bool = False


def measured_noise(rows: Sequence[Mapping[str, Any]], images: int, trainings: TrainingNoise) -> Noise | None:
    """Return what a race has measured, on the pairs with the most seeds; None where trainings are not known to differ.

    Args:
        rows: paired differences of one measure (``wsrnas.evaluation.comparison.paired``).
        images: number of test images.
        trainings: how much trainings differ under this measure.
    """
    if not (trainings.freedom and rows):
        return None
    most = max(len(row["values"]) for row in rows)
    widths = np.array([row["images_interval"][1] - row["images_interval"][0] for row in rows
                       if len(row["values"]) == most])
    return Noise(trainings.deviation * 2**0.5, float(np.mean((widths / 2 / QUANTILE)**2) * images), measured=True)


@dataclass(frozen=True)
class Plan:
    """What a race measures.

    Args:
        seeds: trainings of each network.
        images: test images.
        freedom: degrees of freedom of the deviation between trainings, which the race estimates.
    """

    seeds: int
    images: int
    freedom: int


def seen(differences: np.ndarray, plan: Plan, noise: Noise) -> np.ndarray:
    """Return whether a race finds networks distinct that truly differ, one simulated race for each difference.

    The rule is that of ``wsrnas.evaluation.comparison.paired``: the interval for other images and trainings excludes 0.

    Args:
        differences: true differences (n,), shares of the images.
        plan: what is measured.
        noise: how uncertain a measured difference is.
    """
    if not plan.freedom:
        return np.zeros(len(differences), dtype=bool)
    by_images, by_seeds, estimated = _draws(len(differences), plan.freedom)
    images, seeds = (noise.images / plan.images)**0.5, noise.seeds / plan.seeds**0.5
    found = differences + images * by_images + seeds * by_seeds
    return np.abs(found) > np.hypot(QUANTILE * images, student_reach(plan.freedom) * seeds * estimated)


@cache
def _draws(count: int, freedom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each race two normal numbers, and its estimate of a deviation of 1; always the same ones."""
    random = np.random.default_rng(0)
    return (random.standard_normal(count), random.standard_normal(count),
            np.sqrt(random.chisquare(freedom, count) / freedom))


def smallest_difference(plan: Plan, noise: Noise) -> float | None:
    """Return the smallest true difference that ``POWER`` of the races see, within 0.00001; None where there is none."""
    low, high = 0.0, 1.0
    if seen(np.full(DRAWS, high), plan, noise).mean() < POWER:
        return None
    while high - low > 1e-5:
        middle = (low + high) / 2
        enough = seen(np.full(DRAWS, middle), plan, noise).mean() >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def share_of_pairs(plan: Plan, noise: Noise) -> float:
    """Return the share of random pairs of cells of equal size, ``CELLS`` apart, that a race tells apart."""
    apart = np.random.default_rng(1).normal(0, CELLS * 2**0.5, DRAWS)
    return float(seen(apart, plan, noise).mean())


def planned(entrants: int, seeds: int, images: int) -> Plan:
    """Return the plan of a race in which every entrant is trained with every seed."""
    return Plan(seeds, images, max(entrants - 1, 0) * (seeds - 1))


def power(plan: Plan, noise: Noise) -> dict[str, Any]:
    """Return the power of a race as plain values.

    Returns:
        ``seeds``, ``images``, ``freedom``, the noise, ``smallest_difference`` (a share of the images, or None),
        ``share_of_pairs``, ``false_alarms`` (the share of races that tell two equal networks apart) and ``summary``, a
        sentence.
    """
    found = {"seeds": plan.seeds, "images": plan.images, "freedom": plan.freedom, "deviation_over_seeds": noise.seeds,
             "variance_over_images": noise.images, "measured": noise.measured,
             "smallest_difference": smallest_difference(plan, noise), "share_of_pairs": share_of_pairs(plan, noise),
             "false_alarms": float(seen(np.zeros(DRAWS), plan, noise).mean())}
    return found | {"summary": _summary(found)}


def _summary(found: Mapping[str, Any]) -> str:
    """Say which differences a race can see."""
    if not found["freedom"]:
        return ("With one seed no difference counts, whatever its size; a race needs --seeds 2 or more."
                if found["seeds"] < 2 else "One entrant has no rival; a race needs two entrants or more.")
    plan = f"{found['seeds']} seed{'s' * (found['seeds'] > 1)} and {found['images']:,} images"
    error = (found["variance_over_images"] / found["images"])**0.5
    origin = (f"Differences vary by {100 * found['deviation_over_seeds']:.2f} points (standard deviation) between "
              f"seeds and by {100 * error:.2f} between sets of images: "
              f"{'measured in this race' if found['measured'] else 'an assumption'}.")
    if found["smallest_difference"] is None:
        return f"{plan} cannot tell two networks apart. {origin}"
    return (f"{plan} tell two networks apart in {100 * POWER:.0f} % of races if they differ by "
            f"{100 * found['smallest_difference']:.1f} points. They tell apart {100 * found['share_of_pairs']:.0f} % "
            "of the random pairs of DARTS cells of equal size, and, wrongly, "
            f"{100 * found['false_alarms']:.0f} % of equal networks. {origin}")
