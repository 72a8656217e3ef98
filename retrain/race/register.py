"""List of a race's entrants, in its folder. Any process may add entrants and seeds; none are removed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from retrain.race.entrants import Entrant
from wsrnas.architectures import searched
from wsrnas.architectures.catalogue import find
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import read_json
from wsrnas.runtime.sharing import alone

MOST_SEEDS = 10_000


def genotype_file(race: Path, name: str) -> Path:
    """Return the path of an entrant's cell."""
    return race / run_files.GENOTYPES / f"{name}.json"


def enter(race: Path, entrants: Sequence[Entrant], seeds: int) -> None:
    """Add entrants, and seeds for the trainings of all, to the list of the race.

    Raises:
        InputError: see ``joined``.
    """
    with alone(race / run_files.CLAIMS, "entering"):
        together = joined(race, entrants)
        for entrant in together:
            if not isinstance(entrant.arch, str):
                path = genotype_file(race, entrant.name)
                path.parent.mkdir(exist_ok=True)
                entrant.arch.save(path, {"entrant": entrant.name, "source": entrant.source})
        write_json(race / run_files.ENTRANTS, {"seeds": max(seeds, entered(race)[1]),
                                                "entrants": [_to_json(entrant) for entrant in together]})


def joined(race: Path, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return the entrants of the race together with the new ones.

    Raises:
        InputError: an entrant of the race has the same name and another architecture or size.
    """
    known = {entrant.name.lower(): entrant for entrant in entered(race)[0]}
    for entrant in entrants:
        old = known.setdefault(entrant.name.lower(), entrant)
        same = (old.name, old.arch, old.init_channels) == (entrant.name, entrant.arch, entrant.init_channels)
        require(same, f"{entrant.name} ({entrant.source}) has changed since it entered the race in {race}; choose "
                "another --save, or pass --overwrite to move the race aside")
    return list(known.values())


def as_entered(entrants: Sequence[Entrant], there: Sequence[Entrant]) -> list[Entrant]:
    """Return the entrants with the random cells of ``there``, which were drawn until the budget was met.

    Args:
        entrants: what the command line asks for.
        there: entrants of the race from earlier starts.
    """
    drawn = {entrant.name: entrant for entrant in there if entrant.drawn}
    return [drawn.get(entrant.name, entrant) if entrant.drawn else entrant for entrant in entrants]


def entered(race: Path) -> tuple[list[Entrant], int]:
    """Return all entrants of a race in the order in which they entered, and the number of trainings of each.

    Raises:
        InputError: the list is damaged.
    """
    path = race / run_files.ENTRANTS
    if not path.exists():
        return [], 0
    try:
        values = read_json(path)
        entrants = [_from_json(entry) for entry in values["entrants"]]
        seeds = int(values["seeds"])
        if not all(isinstance(entrant.name, str) for entrant in entrants) or not 0 <= seeds <= MOST_SEEDS:
            raise ValueError("a name that is no text, or too many seeds")
        return entrants, seeds
    except (ValueError, KeyError, TypeError, OverflowError):
        raise InputError(f"{path} is damaged; remove it, and name all entrants again") from None


def _to_json(entrant: Entrant) -> dict[str, Any]:
    arch = entrant.arch
    return asdict(replace(entrant, arch="")) | {
        "arch": arch if isinstance(arch, str) else json.loads(arch.to_json())}


def _from_json(entry: dict[str, Any]) -> Entrant:
    arch = entry["arch"]
    for field in "layers", "init_channels", "parameters", "multiply_adds":
        if type(entry[field]) is not int and not (field == "layers" and entry[field] is None):
            raise TypeError(f"{field} is no whole number")
    if isinstance(arch, str) and find(arch) != arch:
        raise ValueError("a name of no architecture")
    return Entrant(**entry | {"arch": arch if isinstance(arch, str) else searched.read(json.dumps(arch))})
