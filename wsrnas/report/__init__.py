"""The page of a run, of a comparison (``pages``, from what ``data`` reads) or of a race (``race``, ``race_data``).

``evaluation``, ``figures``, ``search_figures``, ``vulnerability``, ``race_tables`` and ``race_figures`` draw their
sections, ``html`` puts them together; ``writing`` is the door.
"""

from wsrnas.report.writing import refresh, write_report

__all__ = ["refresh", "write_report"]
