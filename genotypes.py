"""Published cells by name, and cells from files: ``load`` takes a name, an alias or a path.

The cells are literals in ``wsrnas/cells.py``; ``python -m wsrnas.models --list`` says where each was published.
"""

from wsrnas.cells import ALIASES, PUBLISHED, load, names

__all__ = ["ALIASES", "PUBLISHED", "load", "names"]
