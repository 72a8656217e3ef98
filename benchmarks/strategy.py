"""Measure what a query of the strategy ``wsr`` costs: CPU time of the predictor and of the steps of A, on one thread.

    python -m benchmarks.strategy
    python -m benchmarks.strategy --space nas-bench-201 --predictor lstm --queries 50

The measurements are a formula with noise: no network is trained. Sizes are those of the preset ``wide``.
"""

import argparse
import time

import torch
from torch import Tensor

from search.spaces import SPACES
from search.strategy.predictors import PREDICTORS
from search.strategy.problem import Measured, Problem
from search.strategy.settings import StrategyConfig
from search.strategy.size import Sizes
from search.strategy.wsr import WsrStrategy
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.program import run_program
from wsrnas.runtime.seeding import generator

COLUMNS = 17  # losses of a measurement in the preset ``wide``
NETWORK = (16, 8, 10, (3, 32, 32))  # C, cells, classes and image


def formula(sizes: Sizes, gates: Tensor, noise: torch.Generator) -> Tensor:
    """Return losses (n, L) of gates (n, R, O): the smaller the network, the larger; every operation counts a little."""
    gains = torch.randn(gates.shape[1:], generator=generator(0, "formula"), dtype=torch.float64) / gates.shape[1]**0.5
    value = 2 - 0.3 * sizes(gates).mean(-1) + 0.3 * (gates * gains).sum((1, 2))
    value += 0.05 * torch.randn(len(gates), generator=noise, dtype=torch.float64)
    return value.unsqueeze(-1) * torch.linspace(0.5, 1.5, COLUMNS, dtype=torch.float64)


def measure(space: str, settings: StrategyConfig, queries: int, seed: int) -> list[tuple[float, float]]:
    """Return CPU seconds of the predictor and of everything else, for each query of one search."""
    sizes = Sizes(SPACES[space], *NETWORK)
    problem = Problem(SPACES[space], lambda losses: losses.mean(-1), sizes)
    alphas = torch.zeros(problem.space.num_rows, len(problem.space.operations))
    strategy = WsrStrategy(problem, settings, alphas, COLUMNS, seed)
    measured, random, noise = Measured(problem.space, COLUMNS), generator(seed, "strategy"), generator(seed, "noise")
    seconds: list[tuple[float, float]] = []
    for number in range(queries):
        began = time.process_time()
        if number >= settings.population:
            strategy.fit(measured, random)
        fitted = time.process_time()
        chosen = strategy.propose(measured, random).unsqueeze(0)
        seconds.append((fitted - began, time.process_time() - fitted))
        measured.add(chosen, formula(sizes, problem.space.gates(chosen).double(), noise))
    return seconds


def main() -> None:
    """Time the queries of some searches and print the means."""
    parser = Parser(prog="benchmarks.strategy", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=list(SPACES), default="darts")
    parser.add_argument("--predictor", choices=list(PREDICTORS), default=StrategyConfig().predictor)
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 200], help="after how many queries the mean is "
                        "reported (default: 100 200)")
    parser.add_argument("--seeds", type=int, default=3, help="searches (default: 3)")
    arguments = parser.parse_args()
    counts = sorted(arguments.queries)
    require(min(*counts, arguments.seeds) >= 1, "--queries and --seeds: expected at least 1")
    torch.set_num_threads(1)

    settings = StrategyConfig(predictor=arguments.predictor)
    searches = torch.tensor([measure(arguments.space, settings, counts[-1], seed) for seed in range(arguments.seeds)])
    milliseconds = 1000 * searches.mean(0)
    for count in counts:
        fit, rest = milliseconds[:count].mean(0).tolist()
        print(f"{arguments.predictor} in {arguments.space}, mean of the first {count} queries of {arguments.seeds} "
              f"searches: {fit + rest:.1f} ms CPU time a query, {fit:.1f} of them the predictor; "
              f"the last {milliseconds[count - 1].sum():.1f} ms")


if __name__ == "__main__":
    run_program(main)
