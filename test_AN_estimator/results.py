"""The results of a study: read, checked, and turned into gaps with intervals.

Shapes: K networks, T targets, N test images. Accuracies are in percent; gaps, accuracy under the estimated noise minus
accuracy under PGD's, in points: positive where the estimate is weaker than the attack.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from test_AN_estimator.measurement import MEANS
from test_AN_estimator.settings import BenchmarkConfig, Setting
from wsrnas.estimators import AVERAGE, ESTIMATORS
from wsrnas.evaluation.caveats import is_saturated
from wsrnas.evaluation.intervals import accuracy_interval, difference_interval
from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import read_json

FORMAT = "wsrnas AN-Estimator 1"
COSTS = ("parameters", "milliseconds", "pgd_milliseconds", "share_of_pgd")


@dataclass(frozen=True)
class Result:
    """Hold the result of one estimator in one setting.

    Args:
        networks: names of the K networks.
        epsilons: T strengths; None: the random strength.
        clean: (K, N) whether a network is right without noise.
        estimate: (K, T, N) whether it is right under the estimated noise.
        pgd: (K, T, N) whether it is right under PGD's noise.
        means: (T,) over networks and images, by the names in ``measurement.MEANS``.
        cost: costs by the names in ``COSTS``.
        chance: accuracy of a network that always answers the most frequent class; None in older files.
    """

    networks: tuple[str, ...]
    epsilons: tuple[float | None, ...]
    clean: np.ndarray
    estimate: np.ndarray
    pgd: np.ndarray
    means: dict[str, np.ndarray]
    cost: dict[str, float]
    chance: float | None = None

    @property
    def fixed(self) -> list[int]:
        """The targets that averages are over: all but the random strength."""
        return [place for place, epsilon in enumerate(self.epsilons) if epsilon is not None]


# -- reading ----------------------------------------------------------------------------------------------------------

def read_results(config: BenchmarkConfig, study: Path) -> dict[str, dict[str, Result]]:
    """Read the results so far, by setting and estimator, both in the order of their definition."""
    paths = {(setting, name): study / setting.name / name / run_files.RESULT
             for setting in config.settings() for name in ESTIMATORS}
    results: dict[str, dict[str, Result]] = {}
    for (setting, name), path in paths.items():
        if path.exists():
            results.setdefault(setting.name, {})[name] = read_result(path, setting, name)
    require(bool(results), f"{study} holds no result yet; expected SETTING/ESTIMATOR/result.json")
    return results


def read_result(path: Path, setting: Setting, estimator: str) -> Result:
    """Read one ``result.json``.

    Raises:
        InputError: it is not a result of this estimator in this setting.
    """
    expected = {"format": FORMAT, "setting": setting.name, "estimator": estimator}
    epsilons: tuple[float | None, ...] = setting.targets or (*setting.sources, None)
    try:
        document = read_json(path)
        for key, value in expected.items():
            require(document[key] == value, f"{key} is {document[key]!r}, expected {value!r}")
        networks = document["networks"]
        require(bool(networks), "no networks")
        columns = [network["targets"] for network in networks]
        for targets in columns:
            require(tuple(target["epsilon"] for target in targets) == epsilons, "the strengths are not the setting's")
        estimate, pgd = (np.stack([[flags(target[noise]) for target in targets] for targets in columns])
                         for noise in ("estimate", "pgd"))
        numbers = [document[name] for name in COSTS] + [target[name] for targets in columns for target in targets
                                                        for name in MEANS]
        require(all(map(math.isfinite, numbers)), "a number is not finite")
        return Result(
            tuple(str(network["network"]) for network in networks), epsilons,
            np.stack([flags(network["clean"]) for network in networks]), estimate, pgd,
            {name: np.mean([[float(target[name]) for target in targets] for targets in columns], 0) for name in MEANS},
            {name: float(document[name]) for name in COSTS},
            float(document["chance"]) if "chance" in document else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is not a result of {estimator} in {setting.name} ({reason}); move its folder aside, "
                         "and the same command makes it again") from None


def flags(text: str) -> np.ndarray:
    """Return booleans (N,) from one character per image."""
    require(set(text) in ({"0"}, {"1"}, {"0", "1"}), "images are not marked by 0 and 1")
    return np.frombuffer(text.encode(), np.uint8) == ord("1")


def attacked(results: dict[str, dict[str, Result]]) -> dict[float | None, np.ndarray]:
    """Return whether the networks are right (K, N) under PGD at each strength of any result; at 0.0 without noise.

    Raises:
        InputError: two results disagree, so that they are of different networks, images or attacks.
    """
    found: dict[float | None, np.ndarray] = {}
    first = next(iter(next(iter(results.values())).values()))
    for setting, by_estimator in results.items():
        for name, result in by_estimator.items():
            columns = {0.0: result.clean} | dict(zip(result.epsilons, result.pgd.swapaxes(0, 1), strict=True))
            same = all(np.array_equal(found.setdefault(epsilon, column), column) for epsilon, column in columns.items())
            require(same and result.networks == first.networks, f"the result of {name} in {setting} is of other "
                    "networks, images or attacks than those before it; move its folder aside, and the same command "
                    "makes it again")
    return found


def machines(study: Path, results: dict[str, dict[str, Result]]) -> list[str]:
    """Return the machines on which the times were measured, as far as the folders of the results name them."""
    found = []
    for path in (study / setting / name / run_files.ENVIRONMENT for setting in results for name in results[setting]):
        try:
            start = read_json(path)[-1]
            found.append(f"{start['device']} (CPU threads: {start['threads']}), torch {start['torch']}")
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue
    return list(dict.fromkeys(found))


# -- statistics -------------------------------------------------------------------------------------------------------

def percent(correct: np.ndarray) -> float:
    """Return the mean of booleans in percent."""
    return 100 * float(correct.mean())


def paired_gap(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Return accuracy of ``first`` minus that of ``second``, (..., N), with its paired 95 % interval over the images.

    An image's score is its mean over the leading dimensions.
    """
    differences = (first.astype(np.int8) - second.astype(np.int8)).reshape(-1, first.shape[-1])
    # Whole numbers are summed, so that images with equal counts have equal scores; rounding could make them differ.
    scores = differences.sum(0) / len(differences)
    interval = difference_interval(scores, np.zeros_like(scores))
    return {"gap": 100 * float(scores.mean()), "interval": [100 * end for end in interval]}


def by_strength(result: Result) -> list[dict[str, Any]]:
    """Return every target's accuracies, gap and comparison of the noises, over all networks."""
    return [{"epsilon": epsilon, "accuracy": percent(result.estimate[:, place]), "pgd": percent(result.pgd[:, place]),
             **paired_gap(result.estimate[:, place], result.pgd[:, place]),
             "saturated": is_saturated(float(result.estimate[:, place].mean()), float(result.pgd[:, place].mean())),
             **{name: float(result.means[name][place]) for name in MEANS}}
            for place, epsilon in enumerate(result.epsilons)]


def overall(result: Result) -> dict[str, Any]:
    """Return averages over networks and strengths (without the random one), extremes and cost."""
    fixed = result.fixed
    estimate, pgd = result.estimate[:, fixed], result.pgd[:, fixed]
    gaps = 100 * (estimate.sum(2) - pgd.sum(2)) / pgd.shape[2]  # of whole numbers: equal ones stay equal
    network, place = np.unravel_index(np.abs(gaps).argmax(), gaps.shape)
    clean, accuracy, attack = map(percent, (result.clean, estimate, pgd))
    return {"accuracy": accuracy, "pgd": attack, **paired_gap(estimate, pgd),
            "mean_absolute_gap": float(np.abs(gaps).mean()),
            "largest": {"gap": float(gaps[network, place]), "network": result.networks[network],
                        "epsilon": result.epsilons[fixed[place]]},
            "share_of_drop": (clean - accuracy) / (clean - attack) if clean > attack else None,
            **{name: float(result.means[name][fixed].mean()) for name in MEANS}, **result.cost,
            "networks": [float(gap) for gap in gaps.mean(1)]}


def against_average(by_estimator: dict[str, Result]) -> list[dict[str, Any]]:
    """Compare the mean gap of estimators with that of the average they extend; negative: they are stronger.

    Where both give the same result on every image (C-ANE with few targets is the average), there is no row.
    """
    if AVERAGE not in by_estimator:
        return []
    average = by_estimator[AVERAGE]
    rows = [{"estimator": name, "average": AVERAGE,
             **paired_gap(by_estimator[name].estimate[:, average.fixed], average.estimate[:, average.fixed])}
            for name, entry in ESTIMATORS.items() if entry.extends_average and name in by_estimator
            and not np.array_equal(by_estimator[name].estimate, average.estimate)]
    return [row | {"verdict": verdict(*row["interval"])} for row in rows]


def verdict(low: float, high: float) -> str:
    """Judge the first of two noises by the interval of the difference between the accuracies under them."""
    return "clearly stronger than" if high < 0 else "clearly weaker than" if low > 0 else "cannot be told from"


def summarise(config: BenchmarkConfig, results: dict[str, dict[str, Result]]) -> dict[str, Any]:
    """Return all statistics as plain JSON values; in ``networks``, the strengths of PGD are the sources."""
    right = attacked(results)
    first = next(iter(next(iter(results.values())).values()))
    networks, level = first.networks, first.chance
    return {
        "format": "wsrnas AN-Estimator summary 1", "unit": "accuracies in percent, gaps in points",
        "images": right[0.0].shape[1], "natural": percent(right[0.0]),
        "networks": [{"network": name, "natural": percent(right[0.0][row]),
                      "at_chance": level is not None and accuracy_interval(right[0.0][row])[0] <= level,
                      "pgd": [[e, percent(right[e][row])] for e in config.sources if e in right]}
                     for row, name in enumerate(networks)],
        "settings": {setting: {
            "estimators": {name: overall(result) | {"strengths": by_strength(result)}
                           for name, result in by_estimator.items()},
            "comparisons": against_average(by_estimator)} for setting, by_estimator in results.items()}}
