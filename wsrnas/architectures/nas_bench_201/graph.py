"""Cells of NAS-Bench-201: one of five operations on each of six edges, checked when created, stored as JSON.

A cell is a graph with the nodes 0 (the input) to 3 (the output). A node is the sum of one edge from every node before
it. The order of operations and edges, and the spelling of graphs, are those of the published tables. Source: Dong and
Yang, "NAS-Bench-201", ICLR 2020, Sec. 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.reading import json_kind, read_as
from wsrnas.runtime.spelling import closest

with deferred_imports():
    from wsrnas.genotype import Diagram

SPACE = "nas-bench-201"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, node) of each edge, in the order of ``CellGraph.operations``."""

NODES = 3
STAGES = 3  # of cells in a network
EXAMPLE = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
_KEYS = ("space", "graph")


@dataclass(frozen=True)
class CellGraph:
    """The cell of a NAS-Bench-201 network.

    ``str`` gives its spelling in the published tables.

    Args:
        operations: The names of the operations on the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3 (``EDGES``).

    Raises:
        InputError: The number of operations is not six, or one is unknown.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        given = self.operations
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise InputError(f"the operations are {given!r}; expected a list of {len(EDGES)} names")
        if len(given) != len(EDGES):
            raise InputError(f"the graph has {len(given)} operations; expected {len(EDGES)}, one for each edge")
        for operation, edge in zip(given, EDGES, strict=True):
            _check_operation(operation, f"the edge from node {edge[0]} to node {edge[1]}")
        object.__setattr__(self, "operations", tuple(given))

    def __str__(self) -> str:
        return "+".join("|" + "".join(f"{operation}~{source}|" for operation, source in edges) for edges in self.nodes)

    @classmethod
    def from_string(cls, text: str) -> Self:
        """Return the graph that ``str`` or a published table spells; a node's edges may be in any order.

        Raises:
            InputError: The text is no such graph; the sentence names the place.
        """
        parts = [part.strip() for part in text.split("+")]
        if len(parts) != NODES:
            raise InputError(f"the graph {text!r} has {len(parts)} {'node' if len(parts) == 1 else 'nodes'}; expected "
                             f"{NODES}, as in {EXAMPLE}")
        found: dict[tuple[int, int], str] = {}
        for node, part in enumerate(parts, start=1):
            found |= _edges_of(node, part)
        return cls(tuple(found[edge] for edge in EDGES))

    @classmethod
    def from_choices(cls, choices: Iterable[int]) -> Self:
        """Return the graph with ``OPERATIONS[choices[k]]`` on edge k.

        Raises:
            InputError: There are not six numbers from 0 to 4.
        """
        choices = list(choices)
        for edge, choice in enumerate(choices):
            if not isinstance(choice, int) or isinstance(choice, bool) or not 0 <= choice < len(OPERATIONS):
                raise InputError(f"the choice on edge {edge} is {choice!r}; expected an integer from 0 to "
                                 f"{len(OPERATIONS) - 1}")
        return cls(tuple(OPERATIONS[choice] for choice in choices))

    @property
    def choices(self) -> tuple[int, ...]:
        """The index in ``OPERATIONS`` of each edge's operation."""
        return tuple(map(OPERATIONS.index, self.operations))

    @property
    def nodes(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The edges (operation, source) into the nodes 1, 2 and 3."""
        edges = list(zip(self.operations, EDGES, strict=True))
        return tuple(tuple((operation, source) for operation, (source, to) in edges if to == node)
                     for node in range(1, NODES + 1))

    @property
    def reads_input(self) -> bool:
        """Whether a path without ``none`` leads from the input to the output."""
        reached = [True]
        for edges in self.nodes:
            reached.append(any(operation != "none" and reached[source] for operation, source in edges))
        return reached[-1]

    @property
    def name(self) -> str:
        """A short name that a file may have: the indices of the operations, as in ``nb201-303101``."""
        return "nb201-" + "".join(map(str, self.choices))

    def diagrams(self) -> tuple[Diagram, ...]:
        """Return the cell as it is drawn."""
        return (Diagram("cell", ("input",), self.nodes, (NODES,), concatenates=False),)

    def unique_string(self) -> str:
        """Return a string that graphs of the same function share; there are 6,466 of them.

        This is the rule of the published tables, in which these graphs have the same results. It takes a convolution
        of zeros for zeros, although the shift of BatchNorm may make it a constant. It does not find all equal
        functions, because it keeps a sum of sums apart from the sum of all terms.
        """
        strings = ["0"]
        for edges in self.nodes:
            terms = []
            for operation, source in edges:
                if operation == "none" or strings[source] == "#":
                    terms.append("#")
                else:
                    terms.append(strings[source] if operation == "skip_connect" else f"({strings[source]})@{operation}")
            strings.append("+".join(sorted(terms)))
        return strings[-1]

    def to_json(self) -> str:
        """Return the graph as JSON text, with one field in each line."""
        return self._text(None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the graph of a JSON text that ``to_json`` or ``save`` wrote; its object ``meta`` is ignored.

        Raises:
            InputError: The text is not JSON, has missing or unknown keys, or holds no graph of this space.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the graph is not JSON text: {error}") from error
        expected = f"expected an object with {' and '.join(_KEYS)} and, if wanted, meta"
        if not isinstance(document, dict):
            raise InputError(f"the graph is {json_kind(document)}; {expected}")
        if missing := [key for key in _KEYS if key not in document]:
            raise InputError(f"the graph lacks the {'keys' if missing[1:] else 'key'} {', '.join(missing)}; {expected}")
        if unknown := sorted(set(document) - {*_KEYS, "meta"}):
            raise InputError(f"the graph has unknown keys: {', '.join(unknown)}; {expected}")
        if document["space"] != SPACE:
            raise InputError(f"the graph is of the space {document['space']!r}; expected {SPACE!r}")
        if not isinstance(document["graph"], str):
            raise InputError(f"the graph is {document['graph']!r}; expected text such as {EXAMPLE}")
        if not isinstance(document.get("meta", {}), dict):
            raise InputError(f"the graph's meta is {document['meta']!r}; expected an object")
        return cls.from_string(document["graph"])

    def save(self, path: str | Path, meta: dict[str, Any] | None = None) -> None:
        """Write the graph, and ``meta`` (JSON values) beside it, to ``path``, wholly or not at all."""
        write_atomic(Path(path), (self._text(meta) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the file ``path``.

        Raises:
            InputError: The file cannot be read or holds no graph; the sentence names the file.
        """
        return read_as(cls.from_json, path, "the genotype file")

    def _text(self, meta: dict[str, Any] | None) -> str:
        document = {"space": SPACE, "graph": str(self)} | ({} if meta is None else {"meta": meta})
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
        return "{\n" + ",\n".join(lines) + "\n}"


def is_graph(text: str) -> bool:
    """Return whether a text can only be meant as the spelling of a graph."""
    return "|" in text and "/" not in text


def _check_operation(name: object, place: str) -> None:
    if name in OPERATIONS:
        return
    near = closest(name, OPERATIONS)[:1] if isinstance(name, str) else []
    hint = f"; did you mean {near[0]}?" if near else ";"
    raise InputError(f"unknown operation {name!r} on {place}{hint} known operations: {', '.join(OPERATIONS)}")


def _edges_of(node: int, text: str) -> dict[tuple[int, int], str]:
    """Return the operations on the edges into a node by (source, node)."""
    if len(text) < 2 or text[0] != "|" or text[-1] != "|":
        raise InputError(f"node {node} is {text!r}; expected its edges between bars, such as |skip_connect~0|")
    found: dict[tuple[int, int], str] = {}
    for edge in text[1:-1].split("|"):
        operation, _, source = edge.strip().partition("~")
        if not re.fullmatch(r"[0-9]{1,9}", source):
            raise InputError(f"an edge of node {node} is {shown(edge)}; expected OPERATION~NODE, such as "
                             "skip_connect~0")
        if not int(source) < node:
            raise InputError(f"node {node} has an edge from node {int(source)}; expected one from every node before it")
        if (int(source), node) in found:
            raise InputError(f"node {node} has two edges from node {int(source)}; expected one")
        _check_operation(operation, f"the edge from node {int(source)} to node {node}")
        found[int(source), node] = operation
    if missing := [source for source in range(node) if (source, node) not in found]:
        raise InputError(f"node {node} has no edge from node {missing[0]}; expected one, or none~{missing[0]}")
    return found
