"""The search space of a run, as a search records it: kinds of cell, edges, operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsrnas.genotype import KINDS
from wsrnas.operations import PRIMITIVES
from wsrnas.runtime.errors import InputError

TITLES = {"normal": "normal cell", "reduce": "reduction cell"}
INPUTS = {1: ("input",), 2: ("cₖ₋₂", "cₖ₋₁")}  # names of the states that no edge leads to, by their number


@dataclass(frozen=True)
class RecordedSpace:
    """What the page of a search needs to know of its space.

    Args:
        cells: Kinds of cell.
        edges: (source, target) of the edges of a cell, in the order of the rows of A.
        operations: Names of the operations, in the order of the columns of A.
        choices: Number of decisions among which changed ones are counted.
    """

    cells: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    operations: tuple[str, ...]
    choices: int

    def state(self, number: int) -> str:
        """Return the name of an input, or the number of a node."""
        inputs = {source for source, _ in self.edges} - {target for _, target in self.edges}
        names = INPUTS.get(len(inputs), ())
        return names[number] if number < len(names) else str(number)

    def operations_of(self, row: Mapping[str, Any], kind: str) -> list[list[str]]:
        """Return the operations on every edge of a cell, as a row of ``metrics.jsonl`` records the architecture.

        A row holds one name for each edge, or two (operation, input) pairs for each node of a DARTS cell.
        """
        recorded: Sequence[Any] = row["architecture"]["genotype"][kind]
        if all(isinstance(item, str) for item in recorded):
            return [[name] for name in recorded]
        first = self.edges[0][1]
        return [sorted(name for name, i in recorded[2 * (node - first):2 * (node - first + 1)] if i == source)
                for source, node in self.edges]


DARTS = RecordedSpace(KINDS, tuple((source, node) for node in range(2, 6) for source in range(node)), PRIMITIVES, 16)


def cell_title(kind: str) -> str:
    """Return a kind of cell in words."""
    return TITLES.get(kind, kind)


def recorded_space(document: Mapping[str, Any]) -> RecordedSpace:
    """Return the space of a ``space.json``.

    Raises:
        InputError: The document lacks something.
    """
    try:
        edges = tuple((int(source), int(target)) for source, target in document["edges"])
        cells, operations = (tuple(map(str, document[name])) for name in ("cells", "operations"))
        return RecordedSpace(cells, edges, operations, int(document["choices"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"it is no search space: {error!r}") from None
