"""The networks of a page: what several evaluations of one network on one set of images say together."""

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import Attack, attack_of
from wsrnas.evaluation.results import scores_by_attack
from wsrnas.report.data import Evaluation

PARAMETERS = ("attack", "method", "norm", "epsilon", "steps", "step_size", "restarts", "random_start", "loss", "source")
CLEAN, AVERAGE, AREA = "no attack", "average robust", "area under the curve"
DAMAGE = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Network:
    """One network on one set of images, with all that was measured of it: a column of the table.

    Args:
        name: tells it from the others of the page.
        evaluations: its files, oldest first; where two measured the same, the newer has the word.
    """

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def newest(self) -> dict[str, Any]:
        return self.evaluations[-1].result

    @property
    def attacks(self) -> dict[Hashable, dict[str, Any]]:
        """The row of each attack, by all of its parameters."""
        return {attack_key(row): row for evaluation in self.evaluations for row in evaluation.result["attacks"]}

    @property
    def sums(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The newest result with an average or an area over each list of attacks."""
        return {series(e.result): e.result for e in self.evaluations
                if e.result.get("average_robust") or e.result.get("area")}

    @property
    def unfinished(self) -> list[Evaluation]:
        return [evaluation for evaluation in self.evaluations if evaluation.result.get("complete") is not True]

    @property
    def unchecked(self) -> list[Evaluation]:
        """The finished evaluations in which no honesty check ran."""
        return [evaluation for evaluation in self.evaluations if evaluation not in self.unfinished
                and all(check.get("passed") is None for check in evaluation.checks)]

    @property
    def mark(self) -> str:
        """A word of warning to go with its numbers, where they need one."""
        return "unfinished" if self.unfinished else "unchecked" if self.unchecked else ""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.mark})" if self.mark else self.name

    def every(self, key: str) -> str:
        """What its files say under ``key``, each value once."""
        found = dict.fromkeys(str(e.result[key]) for e in self.evaluations if e.result.get(key) is not None)
        return ", ".join(found) or "–"


def networks_of(evaluations: Sequence[Evaluation]) -> list[Network]:
    """The networks that evaluations are about, in the order of their first file.

    Weights with another fingerprint, or other images, are another network; what lacks either stands alone.
    """
    groups: dict[Hashable, list[Evaluation]] = {}
    for number, evaluation in enumerate(evaluations):
        known = evaluation.fingerprint and evaluation.image_set
        groups.setdefault((evaluation.fingerprint, evaluation.image_set) if known else number, []).append(evaluation)
    ordered = [tuple(sorted(group, key=lambda e: (e.modified, e.label))) for group in groups.values()]
    names = distinct_names([group[-1] for group in ordered])
    return [Network(name, group) for name, group in zip(names, ordered, strict=True)]


def distinct_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Names for evaluations, no two the same: the network's, with as little as tells it from its namesakes."""
    names = [", ".join([e.network, *_telling(e, [other for other in evaluations if other.network == e.network])])
             for e in evaluations]
    return [name if names.count(name) == 1 else f"{name} [{number}]" for number, name in enumerate(names, start=1)]


def _telling(evaluation: Evaluation, namesakes: Sequence[Evaluation]) -> Sequence[str]:
    """The fewest details in which no two namesakes agree: images, data set, weights, run."""
    details = [_details(namesake) for namesake in namesakes]
    for count in range(len(details[0]) + 1):
        for chosen in itertools.combinations(range(len(details[0])), count):
            if len({tuple(detail[i] for i in chosen) for detail in details}) == len(details):
                return [_details(evaluation)[i] for i in chosen]
    return ()


def _details(evaluation: Evaluation) -> tuple[str, ...]:
    result = evaluation.result
    return (f"{result.get('images', '?')} images", str(result.get("dataset", "?")),
            Path(str(evaluation.model.get("source", "?")).partition(".py:")[0]).stem, evaluation.run)


def series(result: dict[str, Any]) -> tuple[str, ...]:
    """The attacks that a result's average, and its area, are taken over."""
    average = result.get("average_robust")
    return tuple(map(str, average.get("over") or [])) if isinstance(average, dict) else ()


def series_marks(networks: Sequence[Network]) -> dict[tuple[str, ...], str]:
    """What tells averages over different attacks apart: a number in brackets, nothing where there is one kind."""
    kinds = list(dict.fromkeys(over for network in networks for over in network.sums))
    return {over: f" [{number}]" if len(kinds) > 1 else "" for number, over in enumerate(kinds, start=1)}


# -- attacks ----------------------------------------------------------------------------------------------------------

def whole_attack(row: dict[str, Any]) -> Attack | None:
    """The attack of a stored row; None where the row is damaged."""
    try:
        attack = attack_of({"source": "", **row})  # only transfer attacks need to say where they come from
        hash((attack, str(attack), attack.family))
    except DAMAGE:
        return None
    return attack


def attack_key(row: dict[str, Any]) -> Hashable:
    """Equal for rows of one attack at one strength: the attack, or for a damaged row whatever it says of itself."""
    return whole_attack(row) or str([row.get(name) for name in PARAMETERS])


def attack_family(row: dict[str, Any]) -> Attack | str:
    """Equal for rows that differ in nothing but their strength."""
    attack = whole_attack(row)
    return attack.family if attack else str(row["attack"])


def attack_label(row: dict[str, Any]) -> str:
    """An attack's name without its strength."""
    attack = whole_attack(row)
    return str(replace(attack, epsilon=None)) if attack else str(row["attack"])


def attack_names(attacks: Iterable[Attack | str]) -> dict[Attack | str, str]:
    """Names of attacks or of their families, for those that share one with how they go about it."""
    names = {attack: str(attack) for attack in attacks}
    counts = Counter(names.values())
    return {attack: ", ".join([name, *(_manner(attack) if counts[name] > 1 else [])]) for attack, name in names.items()}


def _manner(attack: Attack | str) -> list[str]:
    if isinstance(attack, str):
        return []
    ratio = attack.step_size if attack.epsilon is None else attack.family.step_size  # of a family, it is the ratio
    return [f"step {ratio:.3g} ε"] * bool(ratio) + ["random start"] * attack.random_start


# -- scores of images -------------------------------------------------------------------------------------------------

def image_scores(network: Network) -> dict[Hashable, np.ndarray]:
    """(N,) scores of the images in [0, 1], without what is damaged.

    Returns:
        By ``CLEAN``, by each ``Attack``, and by (``AVERAGE``, attacks) and (``AREA``, attacks).
    """
    found: dict[Hashable, np.ndarray] = {}
    for evaluation in network.evaluations:
        found |= _scores(evaluation.result)
    return found


def _scores(result: dict[str, Any]) -> dict[Hashable, np.ndarray]:
    count = len(_flags(result["clean"]))
    rows = {attack: {"source": "", **row} for row in result["attacks"]
            if (attack := whole_attack(row)) and len(_flags(row)) == count > 0}
    try:
        scores = scores_by_attack({**result, "attacks": list(rows.values())})
    except DAMAGE:
        return {}
    named: dict[Hashable, str] = {CLEAN: "clean"} | {attack: str(attack) for attack in rows}
    if len(rows) == len(result["attacks"]):  # else they would be taken over other attacks than the file says
        named |= {(AVERAGE, series(result)): "average robust", (AREA, series(result)): "area"}
    return {key: scores[name] for key, name in named.items() if name in scores}


def _flags(row: dict[str, Any]) -> str:
    text = row.get("robust")
    return text if isinstance(text, str) and not set(text) - {"0", "1"} else ""
