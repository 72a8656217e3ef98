"""Measured rows in files: one line of JSON for each architecture, written as soon as it is measured."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from search.rankings.bench import Measure
from search.tables.table import Table
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.progress import progress
from wsrnas.runtime.reading import parse_json
from wsrnas.runtime.sharing import Task

PART = 10  # architectures that a process takes at a time

Row = dict[str, Any]  # the "place" of an architecture in the table, and what was measured


def part_file(folder: Path, name: str, number: int) -> Path:
    """Return the file of one part of a measurement."""
    return folder / f"{name}-{number:04d}.jsonl"


def parts(places: Sequence[int]) -> list[Sequence[int]]:
    """Return the places of the architectures of every part."""
    return [places[first:first + PART] for first in range(0, len(places), PART)]


def read_rows(path: Path) -> dict[int, Row]:
    """Return the complete rows of a file by their places; none where there is no file."""
    found: dict[int, Row] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = parse_json(line.decode())
            if len(row) > 1 and all(map(_is_measured, row.values())):  # the place, and what was measured there
                found[row["place"]] = row
        except (ValueError, TypeError, KeyError):  # the last write was cut off, or the line is damaged
            break
    return found


def _is_measured(value: Any) -> bool:
    """Return whether a JSON value is a number or None, or a list of those."""
    return value is None or type(value) in (int, float) or (isinstance(value, list) and all(map(_is_measured, value)))


def row_tasks(folder: Path, name: str, places: Sequence[int], table: Table, build: Callable[[], Measure],
              world: World) -> list[Task]:
    """Return the tasks of one measurement, one for each part.

    Args:
        folder: folder of the rows.
        name: name of the measurement.
        places: places of the architectures in the table, in the order of measuring.
        table: the table.
        build: function that prepares the measurement; it is called where a process has something to measure.
        world: this process.
    """
    prepared = cache(build)
    tasks = []
    for number, part in enumerate(parts(places)):
        path = part_file(folder, name, number)

        def done(path: Path = path, part: Sequence[int] = part) -> bool:
            return path.exists() and set(part) <= read_rows(path).keys()

        def work(stop: Callable[[], bool], path: Path = path, part: Sequence[int] = part) -> None:
            rows = read_rows(path)
            write_atomic(path, "".join(_line(row) for row in rows.values()).encode())  # without a line that was cut
            def asked() -> bool:
                if stop():
                    raise Preempted(f"stopped in {path.stem}; the architectures before are saved")
                return False

            for place in progress(part, path.stem, world):
                if place in rows:
                    continue
                asked()
                values = prepared()(table.choices[place], asked)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(_line({"place": place, **values}))

        tasks.append(Task(path.stem, done, work))
    return tasks


def all_rows(folder: Path, name: str, places: Sequence[int]) -> list[Row] | None:
    """Return the rows of a measurement in the order of ``places``; None where one is missing."""
    found: dict[int, Row] = {}
    for number in range(len(parts(places))):
        found |= read_rows(part_file(folder, name, number))
    return [found[place] for place in places] if set(places) <= found.keys() else None


def _line(row: Row) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items()}) + "\n"


def _plain(value: Any) -> Any:
    """Return a number, or a list of numbers, for JSON, which knows no infinity: None in its place."""
    if isinstance(value, list):
        return [_plain(number) for number in value]
    return None if value is None or not math.isfinite(value) else value
