"""Load published cells by name, and cells from files: ``load`` takes a name, an alias or a path.

The cells are entries in ``wsrnas/architectures/published_cells.py``; ``python -m wsrnas.models --list`` shows their
sources.
"""

from wsrnas.architectures.catalogue import ENTRIES
from wsrnas.architectures.cells import aliases, load, names
from wsrnas.genotype import Genotype

PUBLISHED: dict[str, Genotype] = {name: genotype for name in names() if (genotype := ENTRIES[name].genotype)}
ALIASES: dict[str, str] = aliases()

__all__ = ["ALIASES", "PUBLISHED", "load", "names"]
