"""Several trainings of several architectures side by side: means and deviations over seeds, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from wsrnas.confidence import difference_interval
from wsrnas.evaluation.protocols import attack_of
from wsrnas.evaluation.results import scores_by_attack

FORMAT = "wsrnas race 1"

# An evaluation's result for each seed.
Trainings = Mapping[int, Mapping[str, Any]]


def measures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an evaluation measured, in its order.

    Returns:
        Rows with ``name``, as ``scores_by_attack`` has it, and of an attack ``attack`` (its name without a strength),
        ``norm`` and ``epsilon``.
    """
    attacks = [attack_of(row) for row in result["attacks"]]
    rows = {"clean": {"attack": None, "norm": None, "epsilon": 0.0}}
    rows |= {str(attack): {"attack": str(replace(attack, epsilon=None)), "norm": attack.norm, "epsilon": attack.epsilon}
             for attack in attacks}
    rows |= {name: {"attack": None, "norm": None, "epsilon": None} for name in scores_by_attack(dict(result))
             if name not in rows}
    return [{"name": name, **about} for name, about in rows.items()]


def over_seeds(trainings: Trainings) -> dict[str, dict[str, Any]]:
    """By measure: ``values`` (accuracies in [0, 1], one a seed), ``mean``, and ``deviation`` (of the sample).

    The deviation of a single training is None.
    """
    scores = [scores_by_attack(dict(trainings[seed])) for seed in sorted(trainings)]
    return {name: spread([float(score[name].mean()) for score in scores]) for name in (scores[0] if scores else ())}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Values with their mean and standard deviation."""
    return {"values": list(values), "mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}


def paired(first: Trainings, second: Trainings) -> list[dict[str, Any]]:
    """How much better ``first`` is than ``second``, seed by seed and image by image.

    Returns:
        Rows with ``measure``, ``values`` (one difference of accuracies a common seed), ``difference`` (their mean),
        ``deviation`` over seeds, ``interval`` (95 %, bootstrap over the test images, of the mean over seeds), and
        ``distinct``: the interval excludes 0 and all seeds agree on the sign. Nothing where the test images differ.
    """
    seeds = sorted(set(first) & set(second))
    pairs = [(first[seed], second[seed]) for seed in seeds]
    if not pairs or any(one["image_set"] != other["image_set"] for one, other in pairs):
        return []
    scores = [(scores_by_attack(dict(one)), scores_by_attack(dict(other))) for one, other in pairs]
    rows = []
    for measure in scores[0][0]:
        if any(measure not in score for pair in scores for score in pair):
            continue
        seedwise = spread([float((one[measure] - other[measure]).mean()) for one, other in scores])
        low, high = difference_interval(sum(one[measure] for one, _ in scores) / len(scores),
                                        sum(other[measure] for _, other in scores) / len(scores))
        agree = all(value > 0 for value in seedwise["values"]) or all(value < 0 for value in seedwise["values"])
        rows.append({"measure": measure, "values": seedwise["values"], "difference": seedwise["mean"],
                     "deviation": seedwise["deviation"], "interval": [low, high],
                     "distinct": agree and (low > 0 or high < 0)})
    return rows
