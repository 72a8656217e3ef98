"""The networks of a page, each with all evaluations of it on one set of images."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.report.reading.attack_names import attack_key
from wsrnas.report.reading.evaluations import Evaluation

CLEAN, AVERAGE, AREA = "no attack", "average robust", "area under the curve"


@dataclass(frozen=True)
class Network:
    """One network on one set of images with all its measurements: one column of the table.

    Args:
        name: Name that no other network of the page has.
        evaluations: Its evaluations, oldest first; where two measured the same, the newer one counts.
    """

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def newest(self) -> dict[str, Any]:
        """The document of the newest evaluation."""
        return self.evaluations[-1].result

    @property
    def attacks(self) -> dict[Hashable, dict[str, Any]]:
        """The row of each attack, by all of its parameters."""
        return {attack_key(row): row for evaluation in self.evaluations for row in evaluation.result["attacks"]}

    @property
    def averages(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The newest result with an average over each list of attacks."""
        return {series(e.result): e.result for e in self.evaluations if e.result.get("average_robust")}

    @property
    def areas(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The newest result with an area of each kind."""
        return {area_series(e.result): e.result for e in self.evaluations if e.result.get("area")}

    @property
    def unfinished(self) -> list[Evaluation]:
        """The evaluations that are running or were stopped."""
        return [evaluation for evaluation in self.evaluations if evaluation.result.get("complete") is not True]

    @property
    def unchecked(self) -> list[Evaluation]:
        """The finished evaluations in which no honesty check ran."""
        return [evaluation for evaluation in self.evaluations if evaluation not in self.unfinished
                and all(check.get("passed") is None for check in evaluation.checks)]

    @property
    def mark(self) -> str:
        """A word of warning for its numbers; empty where they need none."""
        at_chance = any(evaluation.at_chance for evaluation in self.evaluations)
        return "unfinished" if self.unfinished else "at chance" if at_chance else "unchecked" if self.unchecked else ""

    @property
    def title(self) -> str:
        """The name with its word of warning."""
        return f"{self.name} ({self.mark})" if self.mark else self.name

    def every(self, key: str) -> str:
        """Return the values under ``key`` in all evaluations, each once."""
        found = dict.fromkeys(str(e.result[key]) for e in self.evaluations if e.result.get(key) is not None)
        return ", ".join(found) or "–"


def networks_of(evaluations: Sequence[Evaluation]) -> list[Network]:
    """Return the networks of evaluations in the order of their first file.

    Evaluations belong to one network if they have the same fingerprint of weights and the same images. One that lacks
    either is a network of its own.
    """
    groups: dict[Hashable, list[Evaluation]] = {}
    for number, evaluation in enumerate(evaluations):
        known = evaluation.fingerprint and evaluation.image_set
        groups.setdefault((evaluation.fingerprint, evaluation.image_set) if known else number, []).append(evaluation)
    ordered = [tuple(sorted(group, key=lambda e: (e.modified, e.label))) for group in groups.values()]
    names = distinct_names([group[-1] for group in ordered])
    return [Network(name, group) for name, group in zip(names, ordered, strict=True)]


def distinct_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return different names for evaluations: each network's name, with details only if names are equal."""
    names = [", ".join([e.network, *_telling(e, [other for other in evaluations if other.network == e.network])])
             for e in evaluations]
    return [name if names.count(name) == 1 else f"{name} [{number}]" for number, name in enumerate(names, start=1)]


def _telling(evaluation: Evaluation, namesakes: Sequence[Evaluation]) -> Sequence[str]:
    """Return the fewest details (images, data set, weights, run) in which no two namesakes agree."""
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
    """Return the attacks that a result's average is taken over."""
    average = result.get("average_robust")
    return tuple(map(str, average.get("over") or [])) if isinstance(average, dict) else ()


def area_series(result: dict[str, Any]) -> tuple[str, ...]:
    """Return what a result's area is under: norm and steps of a curve, or attacks, and the largest strength."""
    area, curve = (value if isinstance(value, dict) else {} for value in (result.get("area"), result.get("curve")))
    under = (str(curve.get("norm")), str(curve.get("steps"))) if curve else series(result)
    return *under, str(area.get("up_to"))


def marks_of(sums: Iterable[Iterable[tuple[str, ...]]]) -> dict[tuple[str, ...], str]:
    """Return a mark for each kind of average or area of the networks: a number in brackets, none for a single kind."""
    kinds = list(dict.fromkeys(over for network in sums for over in network))
    return {over: f" [{number}]" if len(kinds) > 1 else "" for number, over in enumerate(kinds, start=1)}
