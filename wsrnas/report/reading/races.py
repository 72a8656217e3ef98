"""Read the race.json of a race; what is damaged becomes a sentence, and the rest is still used."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsrnas.evaluation.comparison import FORMAT
from wsrnas.report.reading.networks import AVERAGE
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import Unreadable, read_json

CLEAN = "clean"
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Score:
    """What an entrant reached under one measure, as shares of the images.

    Args:
        values: One value for each seed that is done.
        mean: Mean over the seeds.
        deviation: Sample standard deviation over the seeds; None with one seed.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Measure:
    """What is measured: accuracy under an attack, clean accuracy, or an average.

    Args:
        name: Its name.
        attack: The attack; None for clean accuracy and averages.
        norm: Norm of the attack.
        epsilon: Strength of the attack, in pixels of [0, 1].
    """

    name: str
    attack: str | None = None
    norm: str | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Entrant:
    """An architecture of the race.

    Args:
        number: Its place in the file, from 1.
        name: Its name.
        document: Part of the file about it.
        scores: Results by weights (``"best"``, ``"last"``) and measure.
    """

    number: int
    name: str
    document: dict[str, Any]
    scores: dict[str, dict[str, Score]]

    def score(self, weights: str, measure: str | None) -> Score | None:
        """Return the result of these weights under a measure; None where there is none yet."""
        return self.scores[weights].get(measure or "")

    def quantity(self, key: str) -> float | None:
        """Return the number that the file holds under ``key``."""
        return number(self.document.get(key))

    def listed(self, key: str) -> list[Any]:
        """Return the list that the file holds under ``key``."""
        return listed(self.document.get(key))


@dataclass(frozen=True)
class Difference:
    """First minus second entrant under one measure, paired by seed and by image.

    Args:
        first: Name of the first entrant.
        second: Name of the second entrant.
        weights: ``"best"`` or ``"last"``.
        measure: Name of the measure.
        difference: Mean over the seeds, as a share of the images.
        deviation: Sample standard deviation over the seeds; None with one seed.
        interval: 95 % interval of the mean for other test images and, if it is known how much they differ, trainings.
        distinct: Whether that is known and the interval excludes 0.
    """

    first: str
    second: str
    weights: str
    measure: str
    difference: float
    deviation: float | None
    interval: tuple[float, float] | None
    distinct: bool


@dataclass(frozen=True)
class Race:
    """A race, as far as its document could be read.

    Args:
        document: The whole document.
        entrants: The entrants in the order of the file.
        measures: Measures of the race.
        differences: Differences of entrants.
        problems: One sentence for each part that is damaged.
        links: Addresses of the jobs' pages, relative to the page of the race.
    """

    document: dict[str, Any]
    entrants: list[Entrant] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)

    def quantity(self, key: str) -> float | None:
        """Return the number that the document holds under ``key``."""
        return number(self.document.get(key))

    @property
    def complete(self) -> bool:
        """Whether all jobs are done."""
        return self.document.get("complete") is True

    @property
    def weights(self) -> str:
        """The weights that entrants are ranked by: the best, or the last where no images were held out."""
        return LAST if not any(e.scores[BEST] for e in self.entrants) and any(
            e.scores[LAST] for e in self.entrants) else BEST

    @property
    def ranking(self) -> str | None:
        """The measure that entrants are ranked by; None before any result.

        It is the one that the document names, otherwise the average, otherwise the first attack.
        """
        attacks = [measure.name for measure in self.measures if measure.attack]
        names = [str(self.document.get("main")), AVERAGE, *attacks, *(measure.name for measure in self.measures)]
        return next((name for name in names if any(e.score(self.weights, name) for e in self.entrants)), None)

    @property
    def standing(self) -> list[Entrant]:
        """The entrants, best first; those without a result last."""
        def place(entrant: Entrant) -> float:
            score = entrant.score(self.weights, self.ranking)
            return -score.mean if score else math.inf
        return sorted(self.entrants, key=place)

    def difference(self, first: str, second: str) -> Difference | None:
        """Return the difference of two entrants, in either order, under the measure that ranks them."""
        return next((d for d in self.differences if {d.first, d.second} == {first, second}
                     and (d.weights, d.measure) == (self.weights, self.ranking)), None)


def read_race(folder: Path) -> dict[str, Any]:
    """Return the document of a race.

    Raises:
        InputError: The folder holds no race.json, or one that is not JSON or of another format.
    """
    path = Path(folder) / run_files.RACE
    try:
        document = read_json(path)
    except Unreadable as error:
        raise InputError(f"{error}; expected the folder of a race, as python -m retrain.compare writes it") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(f"{path} has the format {found!r}; expected {FORMAT!r}, which the same command of "
                         "retrain.compare writes")
    # JSON can escape half a character, which no file can hold: "?" stands for it.
    return json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))


def race_of(document: dict[str, Any]) -> Race:
    """Return the race of a document, with a sentence for each part that is damaged."""
    problems: list[str] = []
    if not isinstance(document.get("entrants"), list):
        problems.append(f"{run_files.RACE} holds no list of entrants")
    entrants = [entrant for place, item in enumerate(listed(document.get("entrants")), start=1)
                if (entrant := _entrant(place, item, problems))]
    problems += [f"{count} entrants are called {name}; their differences cannot be told apart"
                 for name, count in Counter(entrant.name for entrant in entrants).items() if count > 1]
    differences = []
    for place, item in enumerate(listed(document.get("differences")), start=1):
        difference = _difference(item)
        differences += [difference] if difference else []
        problems += [] if difference else [f"difference {place} of {run_files.RACE} is damaged and is left out"]
    return Race(document, entrants, _measures(document, entrants, problems), differences, problems)


def _entrant(place: int, item: Any, problems: list[str]) -> Entrant | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        problems.append(f"entrant {place} of {run_files.RACE} has no name and is left out")
        return None
    name = item["name"]
    return Entrant(place, name, item, {weights: _scores(f"{name}, {weights} weights", item.get(weights), problems)
                                       for weights in (BEST, LAST)})


def _scores(where: str, item: Any, problems: list[str]) -> dict[str, Score]:
    """Return the undamaged scores by measure; null or no entry stands for weights without a result yet."""
    if not isinstance(item, dict):
        problems += [f"{where}: the results are damaged and are left out"] if item is not None else []
        return {}
    found = {}
    for measure, row in item.items():
        row = row if isinstance(row, dict) else {}
        mean, deviation = number(row.get("mean")), number(row.get("deviation"))
        stored = listed(row.get("values"))
        values = [value for value in map(number, stored) if value is not None]
        whole = row.get("deviation") is None or (deviation is not None and deviation >= 0)
        if mean is None or len(values) < len(stored) or not whole:
            problems.append(f"{where}: the result under {measure} is damaged and is left out")
        else:
            found[measure] = Score(tuple(values), mean, deviation)
    return found


def _measures(document: dict[str, Any], entrants: list[Entrant], problems: list[str]) -> list[Measure]:
    """Return the measures of the file, then those that are named in results alone."""
    found = {}
    for place, item in enumerate(listed(document.get("measures")), start=1):
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            attack, norm = (text if isinstance(text := item.get(key), str) else None for key in ("attack", "norm"))
            found[item["name"]] = Measure(item["name"], attack, norm, number(item.get("epsilon")))
        else:
            problems.append(f"measure {place} of {run_files.RACE} has no name and is left out")
    unknown = dict.fromkeys(name for entrant in entrants for scores in entrant.scores.values() for name in scores
                            if name not in found)
    problems += [f"{run_files.RACE} does not say which attack {name} is"
                 for name in unknown if name not in (CLEAN, AVERAGE)]
    return [*found.values(), *map(Measure, unknown)]


def _difference(item: Any) -> Difference | None:
    item = item if isinstance(item, dict) else {}
    names = [name for key in ("first", "second", "weights", "measure") if isinstance(name := item.get(key), str)]
    difference = number(item.get("difference"))
    if difference is None or len(names) < 4:
        return None
    first, second, weights, measure = names
    stored = listed(item.get("interval"))
    ends = [end for end in map(number, stored) if end is not None]
    interval = (ends[0], ends[1]) if len(stored) == len(ends) == 2 else None
    return Difference(first, second, weights, measure, difference, number(item.get("deviation")), interval,
                      item.get("distinct") is True)


def number(value: Any) -> float | None:
    """Return a finite number of JSON; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def listed(value: Any) -> list[Any]:
    """Return a list of JSON; an empty one for anything else."""
    return value if isinstance(value, list) else []


def budget_of(race: Race) -> str:
    """Return the size that entrants are scaled to, such as ``4.5 M parameters ± 2 %``, or "none"."""
    budget = race.document.get("budget")
    if not isinstance(budget, dict) or (value := number(budget.get("value"))) is None:
        return "none"
    quantity = str(budget.get("quantity"))
    quantity = {"params": "parameters", "macs": "multiply-adds"}.get(quantity, quantity)
    tolerance = number(budget.get("tolerance"))
    return f"{value / 1e6:.4g} M {quantity}" + (f" ± {100 * tolerance:.3g} %" if tolerance is not None else "")
