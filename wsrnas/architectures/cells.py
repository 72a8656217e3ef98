"""Published cells by name, and cells from files: ``load`` takes a name, an alias or a path."""

import os
from pathlib import Path
from typing import Any

from wsrnas.architectures import catalogue, searched
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError, shown, type_in_words
from wsrnas.runtime.reading import shown_path
from wsrnas.runtime.spelling import closest


def names() -> list[str]:
    """Return the names of all published cells, without aliases."""
    return [name for name, entry in catalogue.ENTRIES.items() if entry.cell]


def aliases() -> dict[str, str]:
    """Return the name of the published cell that each alias stands for."""
    return {alias: name for name in names() for alias in catalogue.ENTRIES[name].aliases}


def find(spec: str) -> str | None:
    """Return the name in ``names()`` that is meant, or None; spelled as ``catalogue.find`` takes it."""
    name = catalogue.find(spec)
    return name if name in names() else None


def load(spec: str | Path) -> Any:
    """Return the cell called ``spec``.

    Args:
        spec: A published name or alias, spelled as ``find`` takes it, or else the path of a genotype's JSON file or of
            a run directory that holds ``genotype.json``, or a graph of NAS-Bench-201 as the published tables spell it.

    Returns:
        A ``Genotype`` for a name; for a file or a graph, an architecture of its space: ``Genotype`` or ``CellGraph``.

    Raises:
        InputError: There is no such name or file, the file is not a genotype, or the graph is malformed.
    """
    if not isinstance(spec, (str, os.PathLike)):
        raise InputError(f"the cell is {type_in_words(spec)}; expected a name or a path")
    spec = os.fspath(spec)
    name = catalogue.find(spec)
    if name and (genotype := catalogue.ENTRIES[name].genotype):
        return genotype
    if os.path.isdir(spec):
        file = Path(spec, run_files.GENOTYPE)
        if not file.exists():
            raise InputError(f"the directory {spec} holds no {run_files.GENOTYPE}; expected that of a run")
        return searched.load(file)
    if os.path.lexists(spec):
        return searched.load(spec)
    if (graph := searched.spelled(spec)) is not None:
        return graph
    if is_path(spec):
        raise InputError(f"the genotype file {shown_path(spec)} does not exist; expected a JSON file or a run "
                         "directory")
    if name:
        raise InputError(f"{name} has no cell, because it is a network with a design of its own; expected an "
                         "architecture of cells")
    if reason := catalogue.why_unavailable(spec):
        raise InputError(reason)
    known = names()
    others = aliases()
    near = list(dict.fromkeys(others.get(name, name) for name in closest(spec, [*known, *others])))
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise InputError(f"unknown architecture {shown(spec)}{hint} known names: {', '.join(known)}; "
                     f"aliases: {', '.join(others)}; or give the path of a genotype JSON or of a run directory")


def is_path(spec: str) -> bool:
    """Return whether ``spec`` can only be meant as a file or folder."""
    return "/" in spec or os.sep in spec or spec.endswith(".json")
