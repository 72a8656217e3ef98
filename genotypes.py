"""Load published cells by name, and cells from files: ``load`` takes a name, an alias or a path.

The cells are entries in ``wsrnas/architectures/published_cells.py``; ``python -m wsrnas.models --list`` shows their
sources.
"""

from wsrnas.architectures.cells import ALIASES, PUBLISHED, load, names

__all__ = ["ALIASES", "PUBLISHED", "load", "names"]
