"""The strategies by name: how architectures are chosen, whatever measures them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch

    from search.strategy.baselines.evolution import Evolution
    from search.strategy.baselines.gaussian_process import GaussianProcess
    from search.strategy.baselines.largest_first import LargestFirst
    from search.strategy.baselines.local_search import LocalSearch
    from search.strategy.baselines.random_search import RandomSearch
    from search.strategy.paper import PaperStrategy
    from search.strategy.problem import Problem
    from search.strategy.strategy import Strategy
    from search.strategy.wsr import WsrStrategy


@dataclass(frozen=True)
class StrategyEntry:
    """One strategy.

    Args:
        build: (problem, the program's configuration, number of losses, seed) -> strategy.
        help: explanation in one line, for ``--help``.
    """

    build: Callable[[Problem, Any, int, int], Strategy]
    help: str


def _wsr(problem: Problem, settings: Any, columns: int, seed: int) -> WsrStrategy:
    alphas = torch.zeros(problem.space.num_rows, len(problem.space.operations))
    return WsrStrategy(problem, settings, alphas, columns, seed)


def _paper(problem: Problem, settings: Any, columns: int, seed: int) -> PaperStrategy:
    population = settings.warmup_architectures or max(settings.queries[-1] // 2, 1)
    return PaperStrategy(problem, settings, columns, population, settings.loss_memory, settings.tau,
                         settings.alpha_std, seed)


def _baseline(kind: Callable[[Problem], Strategy]) -> Callable[[Problem, Any, int, int], Strategy]:
    return lambda problem, settings, columns, seed: kind(problem)


STRATEGIES: dict[str, StrategyEntry] = {
    "wsr": StrategyEntry(_wsr, "A, a predictor with uncertainty, proposals by expected improvement"),
    "wsr-paper": StrategyEntry(_paper, "A, the VLE and the step of A as the paper has them"),
    "random": StrategyEntry(_baseline(RandomSearch), "random architectures"),
    "evolution": StrategyEntry(_baseline(Evolution), "regularised evolution"),
    "local-search": StrategyEntry(_baseline(LocalSearch), "the first better neighbour; a new start where none is"),
    "largest-first": StrategyEntry(_baseline(LargestFirst), "from the largest to the smallest, without learning"),
    "gp": StrategyEntry(_baseline(GaussianProcess), "Gaussian process over different rows, expected improvement"),
}
