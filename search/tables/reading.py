"""Open a table by the path of its file, or the one that the project makes itself by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import Unreadable, json_kind, read_json

with deferred_imports():
    from search.tables.darts_cells import read as read_cells
    from search.tables.darts_cells import recognise as are_cells
    from search.tables.demo import demo
    from search.tables.nas_robbench import read as read_graphs
    from search.tables.nas_robbench import recognise as are_graphs
    from search.tables.table import Table

DEMO = "demo"


@dataclass(frozen=True)
class TableFormat:
    """One form of tables.

    Args:
        recognise: function that says whether a JSON object is meant as such a table.
        read: function from the object, the file's name and the columns (empty: the usual ones) to the table.
        help: what the file holds, in a few words.
    """

    recognise: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str, tuple[str, ...]], Table]
    help: str


FORMATS: dict[str, TableFormat] = {
    "nas-robbench-201": TableFormat(are_graphs, read_graphs,
                                    "graphs of NAS-Bench-201: arch, ops, edges, row_of, columns, results"),
    "darts-cells": TableFormat(are_cells, read_cells,
                               "DARTS cells: cells, each with genotype and accuracies in percent"),
}


def open_table(path: str, columns: tuple[str, ...] = ()) -> Table:
    """Return the table in a JSON file, or the synthetic one for the name "demo".

    Args:
        path: path of the file, or "demo".
        columns: accuracies that count, on clean images first; empty: the usual ones of the table's form.

    Raises:
        InputError: there is no such file, or it holds no table of a form in ``FORMATS``.
    """
    if path == DEMO:
        return demo(columns)
    try:
        document = read_json(path, "the table")
    except Unreadable as error:
        raise InputError(f"{error} (a table is a JSON file, or {DEMO})") from None
    require(isinstance(document, dict), f"the table {path} is {json_kind(document)}; expected an object")
    for form in FORMATS.values():
        if form.recognise(document):
            return form.read(document, Path(path).stem, columns)
    raise InputError(f"the table {path} is of no known form; expected "
                     + " or ".join(form.help for form in FORMATS.values()))
