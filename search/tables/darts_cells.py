"""A table of trained DARTS cells: a list of genotypes with their accuracies."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from search.spaces.darts import DARTS
from search.tables.checks import accuracies, listed, means_of_equal
from search.tables.table import Table
from wsrnas.genotype import FORMAT, Genotype
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError

COLUMNS = ("clean", "pgd")
NETWORK = (16, 8, 10, (3, 32, 32))


def recognise(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is meant as such a table."""
    return "cells" in document


def read(document: Mapping[str, Any], name: str, columns: tuple[str, ...]) -> Table:
    """Return the table of a JSON object: ``cells`` are objects with a genotype and accuracies in percent.

    Args:
        document: the JSON object.
        name: name of the file, for messages and titles.
        columns: the columns to read; empty: ``COLUMNS``.

    Raises:
        InputError: the object does not fit; the sentence says how.
    """
    columns, cells = columns or COLUMNS, listed(document, "cells", name)
    require(bool(cells), f"{name}: cells is empty; expected at least one cell")
    choices, names = [], set(cells[0]) - {"genotype"} if isinstance(cells[0], dict) else set()
    for number, cell in enumerate(cells):
        require(isinstance(cell, dict) and "genotype" in cell,
                f"{name}: cell {number} has no genotype; expected an object with a genotype and accuracies")
        names &= set(cell)
        try:
            choices.append(DARTS.encode(genotype_of(cell["genotype"])))
        except InputError as error:
            raise InputError(f"{name}: cell {number}: {error}") from None
    for column in columns:
        missing = [number for number, cell in enumerate(cells) if column not in cell]
        require(not 0 < len(missing) < len(cells), f"{name}: cell {min(missing, default=0)} has no {column}; expected "
                "an accuracy for every cell")
    ordered = sorted(names)
    losses = 100 * (1 - accuracies(name, ordered, [[cell[key] for key in ordered] for cell in cells], columns, 100.0,
                                     "cell {}"))
    shares = [column for column, best in zip(columns, (100 - losses).max(0).values.tolist(), strict=True) if best <= 1]
    require(not shares, f"{name}: no cell has more than 1 in the column {', '.join(shares)}; expected accuracies in "
            "percent, not shares")
    # Cells of equal encoding are one architecture; their results are the mean.
    together, row = torch.unique(torch.stack(choices), dim=0, return_inverse=True)
    first = torch.full((len(together),), len(cells)).scatter_reduce(0, row, torch.arange(len(cells)), "amin")
    return Table(name, str(document.get("source", "")), DARTS, together, torch.arange(len(together)),
                 means_of_equal(losses, row), columns, NETWORK, in_file=first)


def genotype_of(value: Any) -> Genotype:
    """Return the genotype of a JSON object, which may lack the version of our files."""
    fields = {"format": FORMAT} | value if isinstance(value, dict) else value
    return Genotype.from_json(json.dumps(fields))
