"""The fields of a search that say whether it watches how well its supernet ranks."""

from dataclasses import dataclass

from search.tables.reading import FORMATS
from wsrnas.runtime.config import option

LEAST = 10  # architectures of a ranking


@dataclass(frozen=True)
class RankingSampleConfig:
    """The fields about the ranking of a table's architectures during a search."""

    ranking_table: str = option("", lambda: "JSON file of architectures that somebody has trained one by one ("
                                + "; ".join(form.help for form in FORMATS.values()) + "); a sample of them is measured "
                                "as the search measures, to see how well the supernet ranks, and changes nothing; "
                                "empty: none", identity=False, added=True, group="ranking on the way")
    ranking_sample: int = option(40, "architectures of the table that are ranked, a seeded random choice",
                                 identity=False, added=True)
    ranking_every: int = option(10, "iterations from one ranking to the next; the last iteration has one, too",
                                identity=False, added=True)
