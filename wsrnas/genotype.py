"""Genotype: the two cells of an architecture, checked when created, stored as JSON.

A cell has the inputs 0 and 1 (the outputs of the last but one and of the last cell) and the nodes 2, 3, ... A node is
the sum of its edges; an edge is an operation on an input or an earlier node. The output of the cell concatenates the
nodes listed in its concat. Source: Liu et al., "DARTS", ICLR 2019, Sec. 2.1.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.reading import json_kind, read_as

with deferred_imports():
    import torch

    from wsrnas import operations as library

Edge = tuple[str, int]
Nodes = tuple[tuple[Edge, ...], ...]
Edges = Sequence[Edge] | Sequence[Sequence[Edge]]  # two edges a node, or one list of edges a node

FORMAT = 1
KINDS = ("normal", "reduce")
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_PAIRS = "(operation, input) pairs"


class Diagram(NamedTuple):
    """A cell as it is drawn.

    Args:
        title: What cell it is.
        inputs: The names of its inputs; they have the numbers from 0.
        nodes: The edges of the following nodes.
        concat: The nodes whose outputs are concatenated.
        concatenates: Whether its output is called a concatenation; False where it is always one node.
    """

    title: str
    inputs: tuple[str, ...]
    nodes: Nodes
    concat: tuple[int, ...]
    concatenates: bool = True


@dataclass(frozen=True)
class Genotype:
    """Normal and reduction cell of an architecture.

    Args:
        normal: Either a flat sequence of (operation, input) pairs, where the pairs 2k and 2k+1 belong to node k+2, or a
            sequence of nodes, each a sequence of such pairs. It is stored as tuples, flat if every node has exactly two
            edges, otherwise by node. So a cell is equal to itself in whichever form it was written.
        normal_concat: The nodes whose outputs are concatenated; a node may be listed twice.
        reduce: The same as ``normal`` for the reduction cell.
        reduce_concat: The same as ``normal_concat`` for the reduction cell.

    Raises:
        InputError: A cell is malformed; the sentence names the place.
    """

    normal: Edges
    normal_concat: Sequence[int]
    reduce: Edges
    reduce_concat: Sequence[int]

    def __post_init__(self) -> None:
        for kind in KINDS:
            nodes = _check_cell(kind, getattr(self, kind))
            concat = _check_concat(kind, getattr(self, f"{kind}_concat"), len(nodes))
            flat = all(len(edges) == 2 for edges in nodes)
            object.__setattr__(self, kind, tuple(itertools.chain(*nodes)) if flat else nodes)
            object.__setattr__(self, f"{kind}_concat", concat)

    def nodes(self, kind: str) -> Nodes:
        """Return the edges of the cell ``kind`` ("normal" or "reduce") by node; entry k holds those of node k+2.

        Raises:
            InputError: ``kind`` is neither of them.
        """
        if kind not in KINDS:
            raise InputError(f"unknown cell kind {kind!r}; expected 'normal' or 'reduce'")
        cell = getattr(self, kind)
        if isinstance(cell[0][0], str):
            return tuple(cell[k:k + 2] for k in range(0, len(cell), 2))
        return cell

    def diagrams(self) -> tuple[Diagram, ...]:
        """Return both cells as they are drawn."""
        return tuple(Diagram(f"{kind} cell", ("c[k-2]", "c[k-1]"), self.nodes(kind),
                             tuple(getattr(self, f"{kind}_concat"))) for kind in KINDS)

    def to_json(self) -> str:
        """Return the genotype as JSON text, with one field in each line."""
        return _to_json(self, None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the genotype of a JSON text that ``to_json`` or ``save`` wrote; its object ``meta`` is ignored.

        Raises:
            InputError: The text is not JSON, has missing or unknown keys, or holds a malformed cell.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the genotype is not JSON text: {error}") from error
        if not isinstance(document, dict):
            raise InputError(f"the genotype is {json_kind(document)}; expected an object")
        required = ("format", *_FIELDS)
        if missing := [key for key in required if key not in document]:
            raise InputError(f"the genotype lacks the keys {', '.join(missing)}; "
                             f"expected {', '.join(required)}")
        if unknown := sorted(set(document) - {*required, "meta"}):
            raise InputError(f"the genotype has unknown keys: {', '.join(unknown)}; "
                             f"expected {', '.join(required)} and, if wanted, meta")
        if type(document["format"]) is not int or document["format"] != FORMAT:
            raise InputError(f"the genotype has format {shown(document['format'])}; expected format {FORMAT}")
        if not isinstance(document.get("meta", {}), dict):
            raise InputError(f"the genotype's meta is {shown(document['meta'])}; expected an object")
        return cls(**{field: document[field] for field in _FIELDS})

    def save(self, path: str | Path, meta: dict[str, Any] | None = None) -> None:
        """Write the genotype, and ``meta`` (JSON values) beside it, to ``path``, wholly or not at all."""
        write_atomic(Path(path), (_to_json(self, meta) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the genotype file ``path``.

        Raises:
            InputError: The file cannot be read or is not a genotype; the sentence names the file.
        """
        return read_as(cls.from_json, path, "the genotype file")


def random_genotype(generator: torch.Generator, nodes: int = 4) -> Genotype:
    """Draw two cells uniformly from the DARTS space: each node has two edges from different sources, without ``none``.

    This is the usual baseline of architecture search (Li and Talwalkar, UAI 2019).

    Args:
        generator: Generator on the CPU.
        nodes: Nodes of a cell.
    """
    operations = library.PRIMITIVES[1:]

    def cell() -> list[Edge]:
        return [(operations[int(torch.randint(len(operations), (), generator=generator))], source)
                for node in range(2, nodes + 2) for source in torch.randperm(node, generator=generator)[:2].tolist()]

    concat = tuple(range(2, nodes + 2))
    return Genotype(normal=cell(), normal_concat=concat, reduce=cell(), reduce_concat=concat)


def count_differences(a: Genotype, b: Genotype) -> int:
    """Return the number of choices (cell kind, node, operation, input) of ``a`` that ``b`` lacks.

    The order of a node's edges does not matter. A choice that is made twice counts twice. Concats are not compared.
    """
    return (_choices(a) - _choices(b)).total()


def _choices(genotype: Genotype) -> Counter:
    return Counter((kind, node, *edge) for kind in KINDS
                   for node, edges in enumerate(genotype.nodes(kind), start=2) for edge in edges)


def _to_json(genotype: Genotype, meta: dict[str, Any] | None) -> str:
    document = {"format": FORMAT} | {field: getattr(genotype, field) for field in _FIELDS}
    if meta is not None:
        document["meta"] = meta
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_cell(kind: str, cell: Any) -> Nodes:
    """Return the cell in its form by node."""
    if not _is_list(cell):
        raise InputError(f"the {kind} cell is {cell!r}; expected a list of {_PAIRS} or of nodes")
    if not cell:
        raise InputError(f"the {kind} cell is empty; expected {_PAIRS}")
    by_node = _is_list(cell[0]) and all(_is_list(item) for item in cell[0])
    if not by_node:
        if len(cell) % 2:
            raise InputError(f"the {kind} cell has an odd number of pairs, {len(cell)}; a flat list has two "
                             "per node, otherwise write one list a node")
        cell = [cell[k:k + 2] for k in range(0, len(cell), 2)]
    return tuple(_check_node(kind, node, edges) for node, edges in enumerate(cell, start=2))


def _check_node(kind: str, node: int, edges: Any) -> tuple[Edge, ...]:
    if not _is_list(edges):
        raise InputError(f"node {node} of the {kind} cell is {edges!r}; expected a list of {_PAIRS}")
    if not edges:
        raise InputError(f"node {node} of the {kind} cell has no edge; expected a list of {_PAIRS}")
    return tuple(_check_edge(f"edge {k} of node {node} in the {kind} cell", node, edge)
                 for k, edge in enumerate(edges))


def _check_edge(place: str, node: int, edge: Any) -> Edge:
    if not _is_list(edge) or len(edge) != 2:
        raise InputError(f"{place} is {edge!r}; expected an (operation, input) pair")
    operation, source = edge
    if not isinstance(operation, str) or operation not in library.OPERATIONS:
        raise InputError(f"unknown operation {operation!r} at {place}; "
                         f"known operations: {', '.join(library.OPERATIONS)}")
    if not _is_integer(source):
        raise InputError(f"the input of {place} is {source!r}; expected an integer from 0 to {node - 1}")
    if source < 0:
        raise InputError(f"the input of {place} is negative, {source}; expected 0 to {node - 1}")
    if source >= node:
        raise InputError(f"{place} refers forward, to {source}; expected an input from 0 to {node - 1}")
    return operation, source


def _check_concat(kind: str, concat: Any, number: int) -> tuple[int, ...]:
    if not _is_list(concat):
        raise InputError(f"{kind}_concat is {concat!r}; expected a list of nodes")
    if not concat:
        raise InputError(f"{kind}_concat is empty; expected a list of nodes from 2 to {number + 1}")
    for node in concat:
        if not _is_integer(node) or not 2 <= node < number + 2:
            raise InputError(f"{kind}_concat names node {node!r}, which does not exist; "
                             f"the {kind} cell has the nodes 2 to {number + 1}")
    return tuple(concat)
