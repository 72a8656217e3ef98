"""One search in a table: the measurements of a strategy with one seed, and what they are worth."""

import copy
import time
from collections.abc import Callable
from typing import Any

import scipy  # its parts are loaded when they are used: scipy.stats takes a second
import torch
from torch import Tensor

from search.strategies import STRATEGIES
from search.strategy.problem import Measured
from search.strategy.strategy import Strategy
from search.tables.queries import Queries
from search.tables.task import TableTask
from search.tabular_settings import TabularConfig
from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import derive_seed, generator

UNSEEN = 500  # architectures that were not measured, on which predictions are ranked
FEWEST = 10  # of them, for a rank correlation


def search(config: TabularConfig, task: TableTask, name: str, seed: int, world: World,
           stop: Callable[[], bool]) -> dict[str, Any]:
    """Run one strategy with one seed, and return its regrets, gains over the mean and rank correlations.

    Args:
        config: number of queries, noise, options of the strategies.
        task: table and truth.
        name: name of the strategy.
        seed: seed of the search.
        world: this process.
        stop: function that returns whether to stop.

    Raises:
        Preempted: a signal asked to stop.
    """
    columns, last = len(task.table.columns), config.queries[-1]
    strategy = STRATEGIES[name].build(task.problem, config, columns, derive_seed(seed, "strategy weights"))
    measured, queries = Measured(task.table.space, columns), Queries(task, seed, last, config.noise, config.proxy)
    random, seconds = generator(seed, "strategy"), 0.0
    outputs: dict[str, dict[str, float | None]] = {}
    gains: dict[str, dict[str, tuple[float, float] | None]] = {}
    tau: dict[str, dict[str, float | None]] = {}
    for number in progress(range(last), f"{name}, seed {seed}", world):
        if stop():
            raise Preempted(f"stopped at query {number} of {name}, seed {seed}")
        began = time.process_time()
        chosen = strategy.propose(measured, random)
        seconds += time.process_time() - began
        require_architecture(chosen, task, name)
        measured.add(chosen.unsqueeze(0), queries(chosen, number).unsqueeze(0))
        if (count := number + 1) in config.queries:
            # Asked for outputs, a strategy fits its predictor. A copy is asked, so that reports change no search.
            observed = copy.deepcopy(strategy, {id(task.problem): task.problem})
            found = observed.outputs(measured, generator(seed, "strategy outputs", count))
            outputs[str(count)] = {kind: task.regret(found[kind]) for kind in OUTPUTS if kind in found}
            gains[str(count)] = {kind: task.gain(found[kind]) for kind in OUTPUTS if kind in found}
            tau[str(count)] = ranking(task, observed, measured, seed, count)
    return {"strategy": name, "seed": seed, "regret": outputs, "gain": gains, "curve": curve(task, measured),
            "tau": tau, "seconds_per_query": seconds / last, "measured": task.table.find(measured.choices).tolist()}


def require_architecture(chosen: Any, task: TableTask, strategy: str) -> None:
    """Refuse what a strategy of a user's own proposes, if it is not an architecture that may be measured.

    Raises:
        InputError: it is none of the space, not in the table, or not allowed; the sentence names the strategy.
    """
    space = task.table.space
    rows, operations = space.num_rows, len(space.operations)
    what = (f"{chosen.dtype} {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else type(chosen).__name__)
    fits = isinstance(chosen, Tensor) and not chosen.is_floating_point() and chosen.shape == (rows,)
    if fits and not 0 <= int(chosen.min()) <= int(chosen.max()) < operations:
        fits, what = False, f"operations from {int(chosen.min())} to {int(chosen.max())}"
    require(fits, f"the strategy {strategy} proposes {what}; expected a tensor of {rows} integers from 0 to "
            f"{operations - 1}, the operation of each row")
    place = int(task.table.find(chosen.unsqueeze(0)))
    where = "" if place < 0 else "which is not among those of the asked size or cost"
    require(place >= 0 and bool(task.allowed[place]), f"the strategy {strategy} proposes {chosen.tolist()}, "
            f"{where or 'which the table does not hold'}; expected an architecture that its problem allows")


def curve(task: TableTask, measured: Measured) -> list[float]:
    """Return the regret (n,) of the architecture with the best observed objective after every query."""
    observed = task.problem.objective(measured.losses).cummin(0).indices
    places = task.table.find(measured.choices)
    return [float(value) for value in task.truth[places][observed] - task.best]


def ranking(task: TableTask, strategy: Strategy, measured: Measured, seed: int, count: int) -> dict[str, float | None]:
    """Return Kendall's τ of predicted and true objectives of architectures that were not measured.

    They are the first of a random order of the allowed ones, which depends on the seed alone. "best fifth" counts
    those of them with the smallest true objectives. Nothing is returned for a strategy that predicts nothing.
    """
    distinct = task.distinct
    order = distinct[torch.randperm(len(distinct), generator=generator(seed, "unseen architectures"))]
    rows = task.table.row
    seen = torch.isin(rows[order], rows[task.table.find(measured.choices)])
    unseen = order[~seen][:UNSEEN]
    if len(unseen) < FEWEST:
        return {}
    predicted = strategy.predict(measured, task.table.choices[unseen], generator(seed, "strategy predictions", count))
    return {} if predicted is None else taus(predicted, task.truth[unseen])


def taus(predicted: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Return Kendall's τ of predictions (n,) with true objectives, among all and among the best fifth."""
    best = truth.argsort(stable=True)[:max(len(truth) // 5, 2)]
    return {"all": _tau(predicted, truth), "best fifth": _tau(predicted[best], truth[best])}


def _tau(a: Tensor, b: Tensor) -> float | None:
    value = float(scipy.stats.kendalltau(a.detach().numpy(), b.numpy()).statistic)
    return None if value != value else value
