"""The tables of NAS-RobBench-201 (ICLR 2024): every graph of NAS-Bench-201, trained adversarially."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from search.spaces import SPACES
from search.tables.checks import accuracies, listed, means_of_equal
from search.tables.table import Table
from wsrnas.runtime.config import require

SPACE = SPACES["nas-bench-201"]
COLUMNS = ("clean", "pgd_3", "pgd_8")
"""Accuracy on clean images and under PGD at 3/255 and 8/255: what a search minimises unless it is told otherwise."""

NETWORK = (16, 15, 10, (3, 32, 32))  # C, cells, classes and images of the networks of CIFAR-10


def recognise(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is meant as such a table."""
    return "row_of" in document or "results" in document


def read(document: Mapping[str, Any], name: str, columns: tuple[str, ...]) -> Table:
    """Return the table of a JSON object: ``arch`` are digits that index ``ops``, ``row_of`` indexes ``results``.

    Args:
        document: the JSON object.
        name: name of the file, for messages and titles.
        columns: the columns to read, accuracies as shares of 1; empty: ``COLUMNS``.

    Raises:
        InputError: the object does not fit; the sentence says how.
    """
    columns = columns or COLUMNS
    names, operations, edges, architectures, rows, results = (
        listed(document, key, name) for key in ("columns", "ops", "edges", "arch", "row_of", "results"))
    require(len(rows) == len(architectures), f"{name}: row_of has {len(rows)} entries and arch {len(architectures)}; "
            "expected one row for each architecture")
    bad = [row for row in rows if type(row) is not int or not 0 <= row < len(results)]
    require(not bad, f"{name}: row_of names the row {bad[:1]}; expected integers from 0 to {len(results) - 1}, the "
            "rows of results")
    choices = _choices(name, operations, edges, architectures)
    losses, row = 100 * (1 - accuracies(name, names, results, columns, 1.0)), torch.tensor(rows)
    if len(set(rows)) == len(rows):  # each was trained: isomorphic graphs are one architecture, with their mean
        first: dict[Hashable, int] = {}
        row, losses = (torch.tensor([first.setdefault(key, len(first)) for key in SPACE.key(choices)]), losses[row])
        losses = means_of_equal(losses, row)
    return Table(name, str(document.get("source", "")), SPACE, choices, row, losses, columns, NETWORK)


def _edge(name: str) -> tuple[int, int]:
    """Return source and target of an edge such as "in->1"."""
    nodes = {"in": 0, "1": 1, "2": 2, "out": 3}
    source, _, target = name.partition("->")
    return nodes.get(source, -1), nodes.get(target, -1)


def _choices(name: str, operations: list[Any], edges: list[Any], architectures: list[Any]) -> Tensor:
    """Return the choices (n, 6) of the architectures, in the space's order of edges and operations."""
    pairs = [_edge(str(edge)) for edge in edges]
    require(sorted(pairs) == sorted(SPACE.edges) and sorted(map(str, operations)) == sorted(SPACE.operations),
            f"{name} is a table of another space (operations {', '.join(map(str, operations))}; {len(edges)} edges); "
            f"expected {SPACE.name} with the operations {', '.join(SPACE.operations)}")
    digits = {str(digit): SPACE.operations.index(operation) for digit, operation in enumerate(operations)}
    bad = [text for text in architectures
           if not isinstance(text, str) or len(text) != len(edges) or not digits.keys() >= set(text)]
    require(not bad, f"{name}: arch contains {bad[:1]}; expected {len(edges)} digits from 0 to {len(operations) - 1}")
    require(len(set(architectures)) == len(architectures), f"{name}: arch names an architecture twice")
    require(bool(architectures), f"{name}: arch is empty; expected at least one architecture")
    order = [pairs.index(edge) for edge in SPACE.edges]
    return torch.tensor([[digits[text[place]] for place in order] for text in architectures])
