"""Compare predictors: how well each ranks architectures that it has not seen (docs/SEARCH.md).

    python -m studies.predictor_ranks --table TABLE --seeds 20              # a table of all graphs of a space
    python -m studies.predictor_ranks --table TABLE --size_class 18:20      # the same among graphs of equal size
    python -m studies.predictor_ranks --table CELLS --confirm 150           # a list of cells: the last are kept apart
    python -m studies.predictor_ranks --table CELLS --confirm 150 --columns pgd

Every predictor learns from the same random architectures. Kendall's tau is that of the predicted and the true
mean accuracy of 500 others, and of the best fifth of these. Of a list of cells, the first ``--confirm`` are used in
random parts, to choose a predictor; then it learns from all of them and ranks the cells that were kept apart, with a
bootstrap interval over these. "At equal size" is tau of what a straight line over log parameters leaves of both.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from search.rankings.statistics import without_size
from search.spaces.darts import DARTS
from search.strategy.baselines.gaussian_process import GaussianProcess
from search.strategy.predictors import PREDICTORS
from search.strategy.problem import Measured, Problem
from search.strategy.settings import StrategyConfig
from search.strategy.targets import targets
from search.tables.reading import open_table
from search.tables.task import TableTask, table_task
from wsrnas.runtime.config import Parser, require, within
from wsrnas.runtime.program import run_program

COUNTS, UNSEEN, RESAMPLES = (25, 50, 100), 500, 2000
LEAST = 10  # cells to learn from in parts, and to confirm on
Ranker = Callable[[Problem, Measured, Tensor, int], Tensor]  # problem, measurements, choices (n, R), seed -> (n,)


def by_predictor(name: str) -> Ranker:
    """Return the function that fits a predictor and predicts the objective."""
    def rank(problem: Problem, measured: Measured, choices: Tensor, seed: int) -> Tensor:
        config = StrategyConfig()
        predictor = PREDICTORS[name].build(problem, config, measured.losses.shape[1], seed)
        fitted = predictor.fit(measured.gates(), targets(measured.losses, problem.objective, config.loss_quantile),
                               torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return fitted.mean(problem.space.gates(choices).double())
    return rank


def by_gaussian_process(problem: Problem, measured: Measured, choices: Tensor, seed: int) -> Tensor:
    """Predict by a Gaussian process over the number of different rows."""
    predicted = GaussianProcess(problem).predict(measured, choices, torch.Generator().manual_seed(seed))
    assert predicted is not None
    return predicted


def by_size(problem: Problem, measured: Measured, choices: Tensor, seed: int) -> Tensor:
    """Predict that the larger one is better."""
    return -problem.sizes(problem.space.gates(choices).double())[:, 0]


RANKERS: dict[str, Ranker] = {name: by_predictor(name) for name in PREDICTORS} | {
    "gp": by_gaussian_process, "parameters": by_size}


def tau(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    """Return Kendall's tau of two lists (n,); NaN where all values of one are equal."""
    return float(kendalltau(np.asarray(a), np.asarray(b)).statistic)


def shown(*values: float, form: str = "{:.3f}") -> str:
    """Return numbers as text; a dash where one of them is not known."""
    return "–" if np.isnan(values).any() else form.format(*values)


def standard_error(found: np.ndarray) -> np.ndarray:
    """Return the standard error of means over rows (n, columns); NaN for one row."""
    return found.std(0, ddof=1) / len(found)**0.5 if len(found) > 1 else np.full(found.shape[1], np.nan)


def with_error(mean: float, error: float) -> str:
    """Return a mean with its standard error as text, where that is known."""
    return shown(mean, error, form="{:.3f}±{:.3f}") if not np.isnan(error) else shown(mean)


def measurements(task: TableTask, places: Tensor) -> Measured:
    """Return the true losses of architectures at these places of the table."""
    table = task.table
    measured = Measured(table.space, table.losses.shape[1])
    measured.add(table.choices[places], table.losses[table.row[places]])
    return measured


def on_table(task: TableTask, seeds: int) -> None:
    """Print tau on unseen architectures of a table, for each predictor and number of measurements.

    Raises:
        InputError: the table has too few for the smallest number.
    """
    places = task.distinct
    counts = [count for count in COUNTS if count + LEAST <= len(places)]
    require(bool(counts), f"the table has {len(places)} different architectures; expected at least {COUNTS[0] + LEAST}")
    for name, ranker in RANKERS.items():
        parts = []
        for count in counts:
            found = []
            for seed in range(seeds):
                order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))]
                seen, unseen = order[:count], order[count:count + UNSEEN]
                truth = task.truth[unseen]
                predicted = ranker(task.problem, measurements(task, seen), task.table.choices[unseen], seed)
                best = truth.argsort()[:len(truth) // 5]
                found.append((tau(predicted, truth), tau(predicted[best], truth[best])))
            (every, fifth), errors = np.mean(found, 0), standard_error(np.array(found))
            parts.append(f"{count}: {with_error(every, errors[0])} ({with_error(fifth, errors[1])})")
        print(f"{name:14} " + "   ".join(parts), flush=True)


def on_cells(task: TableTask, file_order: Tensor, confirm: int, seeds: int) -> None:
    """Print tau on cells that were not learned from: of random parts of the first ones, then of those kept apart."""
    size = -by_size(task.problem, measurements(task, file_order[:1]), task.table.choices, 0)

    def both(predicted: Tensor, places: Tensor) -> tuple[float, float]:
        truth = task.truth[places]
        return tau(predicted, truth), tau(*(without_size(values.numpy(), size[places].numpy())
                                            for values in (predicted, truth)))

    first, last = file_order[:confirm], file_order[confirm:]
    for name, ranker in RANKERS.items():
        found = []
        for seed in range(seeds):
            order = first[torch.randperm(confirm, generator=torch.Generator().manual_seed(seed))]
            seen, unseen = order[:2 * confirm // 3], order[2 * confirm // 3:]
            found.append(both(ranker(task.problem, measurements(task, seen), task.table.choices[unseen], seed), unseen))
        predicted = ranker(task.problem, measurements(task, first), task.table.choices[last], 0)
        drawn = np.random.default_rng(0).integers(len(last), size=(RESAMPLES, len(last)))
        resampled = np.array([both(predicted[rows], last[rows]) for rows in drawn])
        low, high = np.percentile(np.nan_to_num(resampled), (2.5, 97.5), axis=0)  # equal values alone rank nothing
        chosen, confirmed = np.mean(found, 0), both(predicted, last)
        print(f"{name:14} " + "   ".join(
            f"{kind}: {shown(chosen[i])}, confirmed "
            + shown(confirmed[i], low[i], high[i], form="{:.3f} [{:.3f}, {:.3f}]")
            for i, kind in enumerate(("free", "at equal size"))), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for each predictor."""
    parser = Parser(prog="studies.predictor_ranks", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="JSON file of a table, or demo")
    parser.add_argument("--size_class", default="", help="bounds on the weight of the live operations, such as 18:20")
    parser.add_argument("--seeds", type=within(int, 1), default=20, help="random parts (default: 20)")
    parser.add_argument("--confirm", type=within(int, 0), default=0, help="of a list of cells, the number to choose "
                        "by; the rest is kept apart")
    parser.add_argument("--columns", nargs="+", default=[], help="accuracies whose mean is to be predicted (default: "
                        "all usual ones of the table)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    table = open_table(arguments.table, tuple(arguments.columns))
    task = table_task(table, lambda losses: losses.mean(-1), arguments.size_class)
    if not arguments.confirm:
        return on_table(task, arguments.seeds)
    require(table.space is DARTS, f"{table.name} is no list of cells, which --confirm parts; expected one, or no "
            "--confirm")
    places = torch.tensor(table.numbers(torch.arange(len(table.choices)))).argsort()  # in the order of the file
    require(LEAST <= arguments.confirm <= len(places) - LEAST, f"confirm is {arguments.confirm} of {len(places)} "
            f"different cells; expected at least {LEAST}, and as many left")
    return on_cells(task, places, arguments.confirm, arguments.seeds)


if __name__ == "__main__":
    run_program(main)
