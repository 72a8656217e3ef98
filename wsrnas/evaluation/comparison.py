"""Comparison of several trainings of several architectures: statistics over seeds and paired differences."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import attack_of
from wsrnas.evaluation.caveats import is_at_chance
from wsrnas.evaluation.intervals import difference_interval
from wsrnas.evaluation.results import scores_by_attack
from wsrnas.evaluation.training_noise import UNKNOWN, TrainingNoise, training_noise, with_trainings

FORMAT = "wsrnas race 2"
DIGITS = 12  # of an accuracy; what follows is rounding

# The result of an evaluation for each seed.
Trainings = Mapping[int, Mapping[str, Any]]


def measures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an evaluation measured, in its order.

    Returns:
        Rows with ``name``, as in ``scores_by_attack``, and for an attack its ``attack`` (the name without strength),
        ``norm`` and ``epsilon``.
    """
    attacks = [attack_of(row) for row in result["attacks"]]
    rows: dict[str, dict[str, Any]] = {"clean": {"attack": None, "norm": None, "epsilon": 0.0}}
    rows |= {str(attack): {"attack": str(replace(attack, epsilon=None)), "norm": attack.norm, "epsilon": attack.epsilon}
             for attack in attacks}
    rows |= {name: {"attack": None, "norm": None, "epsilon": None} for name in scores_by_attack(dict(result))
             if name not in rows}
    return [{"name": name, **about} for name, about in rows.items()]


def main_measure(found: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the measure that ranks the entrants: the average over strengths, else AutoAttack, else the lowest one.

    Args:
        found: result of ``measures``.
        summaries: result of ``over_seeds`` for each entrant.
    """
    names = [measure["name"] for measure in found]
    if "average robust" in names:
        return "average robust"
    bounded = [measure for measure in found if measure["attack"] and measure["epsilon"]]
    strict = [measure["name"] for measure in bounded if measure["attack"].startswith("AutoAttack")]
    measured = [summary for summary in summaries if summary]
    return min(strict or [measure["name"] for measure in bounded] or names, default="clean", key=lambda name: sum(
        summary[name]["mean"] for summary in measured if name in summary))


def over_seeds(trainings: Trainings) -> dict[str, dict[str, Any]]:
    """Summarise each measure over seeds.

    Returns:
        For each measure ``values`` (accuracies in [0, 1], one per seed), their ``mean`` and their sample ``deviation``,
        which is None for a single training.
    """
    scores = [scores_by_attack(dict(trainings[seed])) for seed in sorted(trainings)]
    return {name: spread([float(score[name].mean()) for score in scores]) for name in (scores[0] if scores else ())}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return values with their mean and their sample standard deviation.

    Values and mean are rounded: the errors of sums would decide which accuracies are equal.
    """
    kept = [round(value, DIGITS) for value in values]
    return {"values": kept, "mean": round(fmean(kept), DIGITS), "deviation": stdev(kept) if len(kept) > 1 else None}


def against_random(scores: Mapping[str, Mapping[str, Any] | None], random: Collection[str],
                   seeds: Mapping[str, Collection[int]]) -> list[dict[str, Any]]:
    """Return how each entrant stands among random cells: the chance that a random cell does as well.

    If an entrant is no better than a random cell, every rank among n random cells and itself is equally likely. So with
    k of them as good or better, p = (1 + k) / (1 + n), one-sided and exact (a permutation test).

    Args:
        scores: for each entrant its row of ``spread``, or None where it has no results.
        random: names of the entrants that are random cells; those trained with the same seeds are compared.
        seeds: for each entrant the seeds of its trainings.

    Returns:
        Rows with ``entrant``, ``random`` (n), ``as_good`` (k), ``p``, ``difference`` from the mean of the random cells,
        their sample ``deviation`` (None for one), and a ``summary``.
    """
    rows = []
    for name, score in scores.items():
        others = [other["mean"] for cell, other in scores.items() if cell in random and other and score
                  and set(seeds[cell]) == set(seeds[name])]
        if name in random or not score or not others:
            continue
        as_good, level = sum(other >= score["mean"] for other in others), spread(others)
        p, difference, deviation = (1 + as_good) / (1 + len(others)), score["mean"] - level["mean"], level["deviation"]
        differ = "" if deviation is None else f", which differ by {100 * deviation:.1f} (standard deviation)"
        rows.append({"entrant": name, "random": len(others), "as_good": as_good, "p": p, "difference": difference,
                     "deviation": deviation, "summary":
                     f"{name}: {as_good} of {len(others)} random cells are as good or better, so a random cell does "
                     f"as well with p = {p:.2g} (one-sided). It is {100 * difference:+.1f} points from their "
                     f"mean{differ}."})
    return rows


def noises(entrants: Sequence[Trainings]) -> dict[str, TrainingNoise]:
    """Return for each measure how much the trainings of one entrant differ.

    Trainings at chance are left out: they are alike, which says nothing about how others differ.

    Args:
        entrants: trainings of every entrant, on the same test images.
    """
    scores = [{seed: scores_by_attack(dict(result)) for seed, result in trainings.items()
               if not is_at_chance(result)} for trainings in entrants]
    names = dict.fromkeys(name for found in scores for score in found.values() for name in score)
    return {name: training_noise([{seed: round(float(score[name].mean()), DIGITS) for seed, score in found.items()
                                   if name in score} for found in scores]) for name in names}


def paired(first: Trainings, second: Trainings, noise: Mapping[str, TrainingNoise] | None = None,
           only: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Compare two entrants seed by seed and image by image.

    Args:
        first: trainings of the first entrant.
        second: trainings of the second entrant.
        noise: how much trainings differ, for each measure; None: it is not known.
        only: measures to compare; None compares all.

    Returns:
        Rows with ``measure``, ``values`` (the difference first minus second of the accuracies for each common seed),
        ``difference`` (their mean), ``deviation`` over seeds, ``images_interval`` (95 %, bootstrap over the test
        images, of the mean over seeds), ``interval`` (95 %, other images and other trainings), and ``distinct``:
        whether it is known how much trainings differ, and the interval excludes 0. No rows where the test images
        differ.
    """
    seeds = sorted(set(first) & set(second))
    pairs = [(first[seed], second[seed]) for seed in seeds]
    if len({result["image_set"] for pair in pairs for result in pair}) != 1:
        return []
    scores = [(scores_by_attack(dict(one)), scores_by_attack(dict(other))) for one, other in pairs]
    rows = []
    for measure in scores[0][0]:
        if any(measure not in score for pair in scores for score in pair) or (only is not None and measure not in only):
            continue
        seedwise = spread([float((one[measure] - other[measure]).mean()) for one, other in scores])
        low, high = difference_interval(np.asarray(sum(one[measure] for one, _ in scores)) / len(scores),
                                        np.asarray(sum(other[measure] for _, other in scores)) / len(scores))
        known = (noise or {}).get(measure, UNKNOWN)
        whole = with_trainings(seedwise["mean"], (low, high), len(pairs), known)
        rows.append({"measure": measure, "values": seedwise["values"], "difference": seedwise["mean"],
                     "deviation": seedwise["deviation"], "images_interval": [low, high], "interval": list(whole),
                     "distinct": known.freedom > 0 and (whole[0] > 0 or whole[1] < 0)})
    return rows
