"""The page of a run or of a comparison: ``pages`` puts it together from what ``data`` reads.

``evaluation``, ``figures``, ``search_figures`` and ``vulnerability`` draw its sections, ``html`` writes them.
"""

from wsrnas.report.pages import refresh, write_report

__all__ = ["refresh", "write_report"]
