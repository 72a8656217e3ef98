"""Published cells by name, and cells from files: ``load`` takes a name, an alias or a path.

The cells are literals in ``wsrnas/architectures/cells.py``; ``python -m wsrnas.models --list`` names their sources.
"""

from wsrnas.architectures.cells import ALIASES, PUBLISHED, load, names

__all__ = ["ALIASES", "PUBLISHED", "load", "names"]
