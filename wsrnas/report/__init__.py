"""Write the page of a run, of a comparison of several runs, or of a race.

``writing`` is the entry. ``reading`` reads runs and races. ``run_sections`` and ``race`` hold the tables of sections,
``figures`` draws, ``html`` and ``sections`` put the page together.
"""

from wsrnas.report.writing import mend, refresh, write_report

__all__ = ["mend", "refresh", "write_report"]
