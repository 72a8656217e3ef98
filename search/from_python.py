"""Search a table of measured architectures from Python; ``search.tabular`` compares strategies over many seeds."""

import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from search.strategies import STRATEGIES
from search.tables.reading import DEMO, open_table
from search.tables.table import Table
from search.tables.task import table_task
from search.tabular_search import search
from search.tabular_settings import TabularConfig
from wsrnas.runtime.config import from_dict, require, to_dict
from wsrnas.runtime.distributed import World


def search_table(table: str = DEMO, strategy: str = "wsr", queries: int | Sequence[int] = (25, 50, 100), seed: int = 0,
                 columns: str | Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """Let a strategy search a table once, and say how far from the best is what it finds.

    Args:
        table: JSON file of measured architectures (docs/SEARCH.md), or "demo" for a synthetic table.
        strategy: name in ``STRATEGIES``: wsr, random, evolution, local-search and so on.
        queries: number of measured architectures after which the result is reported, or several in increasing order.
        seed: seed of the search.
        columns: accuracies that count, on clean images first; empty: the usual ones of the table.
        **settings: other fields of ``TabularConfig``: noise, proxy, size_class, budget and so on.

    Returns:
        ``found``: the architecture with the best measured objective, a ``Genotype`` or ``CellGraph``;
        ``regret``: by number of queries and kind of output, the distance from the best in points; ``curve``: the regret
        of the best one after every query; ``measured``: the architectures in the order of their measurement.

    Raises:
        InputError: there is no such table, strategy or setting, or one has a wrong type or value.
    """
    require(isinstance(strategy, str) and strategy in STRATEGIES,
            f"unknown strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}")
    require(isinstance(seed, Integral) and int(seed) >= 0, f"seed is {seed!r}; expected a whole number from 0")
    given = {"table": os.fspath(table) if isinstance(table, os.PathLike) else table, "strategy": [strategy],
             "queries": _listed(queries), "columns": _listed(columns)}
    given |= {name: _listed(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    config = from_dict(TabularConfig, to_dict(TabularConfig()) | given, "search_table")
    opened = open_table(config.table, config.columns)
    task = table_task(opened, config.objective(opened.columns), config.size_class, config.budget,
                      config.budget_tolerance)
    require(config.queries[-1] <= len(task.distinct), f"queries asks for {config.queries[-1]} architectures; "
            f"{opened.name} has {len(task.distinct)} different ones")
    result = search(config, task, strategy, seed, World(), lambda: False)
    # The strategy saw noisy losses, so the best one is that of its curve, which need not be the truly best.
    found = min(result["measured"], key=lambda place: abs(float(task.truth[place] - task.best) - result["curve"][-1]))
    return {"found": _architecture(opened, found), "regret": result["regret"], "curve": result["curve"],
            "measured": [_architecture(opened, place) for place in result["measured"]]}


def _listed(given: Any) -> Any:
    """Return one value or several as a list of plain values."""
    given = given.tolist() if hasattr(given, "tolist") else given  # an array or a tensor
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    return [int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value for value in given]


def _architecture(table: Table, place: int) -> Any:
    return table.space.decode(table.choices[place])
