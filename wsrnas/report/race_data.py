"""What the race.json of a race holds, read so that a damaged or half-written one still gives what it has."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsrnas.evaluation.comparison import FORMAT
from wsrnas.report.networks import AVERAGE
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError

CLEAN = "clean"
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Score:
    """What an entrant reached under one measure, as shares of the images.

    Args:
        values: one a seed; fewer while the race goes on.
        deviation: sample standard deviation over the seeds; None with one.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Measure:
    """What is measured: an attack at a strength in pixels of [0, 1], or without an attack clean accuracy and sums."""

    name: str
    attack: str | None = None
    norm: str | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Entrant:
    """An architecture of the race.

    Args:
        number: its place in the file, from 1.
        document: what the file says of it.
        scores: by weights (``"best"``, ``"last"``) and measure.
    """

    number: int
    name: str
    document: dict[str, Any]
    scores: dict[str, dict[str, Score]]

    def score(self, weights: str, measure: str | None) -> Score | None:
        return self.scores[weights].get(measure or "")

    def quantity(self, key: str) -> float | None:
        return number(self.document.get(key))

    def listed(self, key: str) -> list[Any]:
        return listed(self.document.get(key))


@dataclass(frozen=True)
class Difference:
    """First minus second entrant under one measure, paired by seed and by image.

    Args:
        deviation: sample standard deviation over the seeds; None with one.
        interval: 95 %, over the test images, of the seeds' mean.
        distinct: the interval excludes 0 and every seed has the same sign.
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
    """A race as far as its document could be read.

    Args:
        entrants: in the order of the file.
        problems: one sentence for each thing that is damaged.
    """

    document: dict[str, Any]
    entrants: list[Entrant] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.document.get("complete") is True

    @property
    def weights(self) -> str:
        """The weights that entrants are ranked by: the best, or the last where nothing was held out to select by."""
        return LAST if not any(e.scores[BEST] for e in self.entrants) and any(
            e.scores[LAST] for e in self.entrants) else BEST

    @property
    def ranking(self) -> str | None:
        """The measure that entrants are ranked by: what the document says, else the average, else the first attack.

        None before any result.
        """
        attacks = [measure.name for measure in self.measures if measure.attack]
        names = [str(self.document.get("main")), AVERAGE, *attacks, *(measure.name for measure in self.measures)]
        return next((name for name in names if any(e.score(self.weights, name) for e in self.entrants)), None)

    @property
    def standing(self) -> list[Entrant]:
        """The entrants, highest first; those without a result last."""
        def place(entrant: Entrant) -> float:
            score = entrant.score(self.weights, self.ranking)
            return -score.mean if score else math.inf
        return sorted(self.entrants, key=place)

    def difference(self, first: str, second: str) -> Difference | None:
        """The difference of two entrants, in either order, on what they are ranked by."""
        return next((d for d in self.differences if {d.first, d.second} == {first, second}
                     and (d.weights, d.measure) == (self.weights, self.ranking)), None)


def read_race(folder: Path) -> dict[str, Any]:
    """The document of a race.

    Raises:
        InputError: the folder holds no race.json, or one that is not JSON or of another format.
    """
    path = Path(folder) / run_files.RACE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}); expected the folder of a "
                         "race, as python -m retrain.compare writes it") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); expected the document of a race") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(f"{path} has the format {found!r}; expected {FORMAT!r}")
    # JSON can escape half a character, which no file can hold: "?" stands for it.
    return json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))


def race_of(document: dict[str, Any]) -> Race:
    """The race that a document tells of, with a sentence for each thing in it that is not what it should be."""
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
    """The whole scores under each measure; null, or no entry, stands for weights without a result yet."""
    if not isinstance(item, dict):
        problems += [f"{where}: the results are damaged and are left out"] if item is not None else []
        return {}
    found = {}
    for measure, row in item.items():
        row = row if isinstance(row, dict) else {}
        mean, deviation = number(row.get("mean")), number(row.get("deviation"))
        values = [number(value) for value in listed(row.get("values"))]
        whole = row.get("deviation") is None or (deviation is not None and deviation >= 0)
        if mean is None or None in values or not whole:
            problems.append(f"{where}: the result under {measure} is damaged and is left out")
        else:
            found[measure] = Score(tuple(values), mean, deviation)
    return found


def _measures(document: dict[str, Any], entrants: list[Entrant], problems: list[str]) -> list[Measure]:
    """The measures of the file, then those that only results name."""
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
    names = [item.get(key) for key in ("first", "second", "weights", "measure")]
    difference = number(item.get("difference"))
    if difference is None or not all(isinstance(name, str) for name in names):
        return None
    ends = [number(end) for end in listed(item.get("interval"))]
    interval = (ends[0], ends[1]) if len(ends) == 2 and None not in ends else None
    return Difference(*names, difference, number(item.get("deviation")), interval, item.get("distinct") is True)


def number(value: Any) -> float | None:
    """A finite number of JSON; None for all else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def listed(value: Any) -> list[Any]:
    """A list of JSON; an empty one for all else."""
    return value if isinstance(value, list) else []
