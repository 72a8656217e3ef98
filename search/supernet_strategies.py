"""The strategies of a supernet search by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.strategy.objective import Objective
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World

with deferred_imports():
    from search.spaces.supernet import Supernet
    from search.strategy.supernet import PaperInSupernet, SupernetStrategy, WsrInSupernet
    from wsrnas.data.image_set import DataSet


@dataclass(frozen=True)
class StrategyEntry:
    """One strategy of a supernet search.

    Args:
        build: (``SearchConfig``, data set, objective, supernet, processes) -> strategy.
        outputs: what ``--output`` may be; the first is the default.
        bounds: whether it keeps to a bound of the vulnerability.
        paths: what a training path is, a key of ``PATHS``, unless ``--paths`` says.
        proposes: whether A proposes architectures from the first iteration on; else they are drawn from A.
        help: explanation in one line, for ``--help``.
    """

    build: Callable[[Any, DataSet, Objective, Supernet, World], SupernetStrategy]
    outputs: tuple[str, ...]
    bounds: bool
    paths: str
    proposes: bool
    help: str


SUPERNET_STRATEGIES: dict[str, StrategyEntry] = {
    "wsr-paper": StrategyEntry(PaperInSupernet, ("argmax",), True, "edges", False,
                               "the paper's: paths drawn from A, one step of A down the VLE in an iteration"),
    "wsr": StrategyEntry(WsrInSupernet, ("argmax", "best", "verified"), False, "cell", True,
                         "proposals by expected improvement; needs fewer measurements"),
}
