"""What all searches in a table together say: means and standard errors, in results.json and on the terminal."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from search.tables.task import TableTask
from search.tabular_search import taus
from search.tabular_settings import TabularConfig
from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.runtime import run_files
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.reading import Unreadable, read_json

FORMAT = 1
KINDS: dict[str, Any] = {"strategy": str, "seed": int, "regret": dict, "tau": dict, "curve": list,
                         "seconds_per_query": int | float}  # of what a search has stored
Estimate = list[float | None]  # mean and standard error; no standard error from one seed


def search_file(folder: Path, strategy: str, seed: int) -> Path:
    """Return the file of one search."""
    return folder / run_files.SEARCHES / f"{strategy}-{seed}.json"


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Return mean and standard error of values; None for no values."""
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if len(known) == 0:
        return None
    error = float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else None
    return [float(known.mean()), error]


def summary(task: TableTask, searches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the searches of one strategy say, one search for each seed."""
    counts = list(searches[0]["regret"])
    outside = {count: {kind: missing for kind in OUTPUTS if (missing := sum(
        kind in search["regret"][count] and search["regret"][count][kind] is None for search in searches))}
        for count in counts}
    return {
        "table": task.table.name, "strategy": searches[0]["strategy"],
        "regret": {count: {kind: estimate(search["regret"][count].get(kind) for search in searches)
                           for kind in OUTPUTS} for count in counts},
        "gain": {count: {kind: {"all": estimate(gains(searches, count, kind, 0)),
                                "size": estimate(gains(searches, count, kind, 1))} for kind in OUTPUTS}
                 for count in counts},
        "outside": {count: found for count, found in outside.items() if found},
        "tau": {count: {part: estimate(search["tau"][count].get(part) for search in searches)
                        for part in ("all", "best fifth")} for count in counts},
        "seconds_per_query": estimate(search["seconds_per_query"] for search in searches)[0],  # type: ignore[index]
        "curve": [estimate(values) for values in zip(*(search["curve"] for search in searches), strict=True)],
        "seeds": [search["seed"] for search in searches],
    }


def gains(searches: Sequence[Mapping[str, Any]], count: str, kind: str, place: int) -> list[float | None]:
    """Return the gain of every search over the mean (place 0), or what size gives of it (1); None where unknown."""
    found = (search.get("gain", {}).get(count, {}).get(kind) for search in searches)
    return [None if gain is None else gain[place] for gain in found]


def is_search(path: Path) -> bool:
    """Return whether a file holds the result of a search."""
    try:
        stored = read_json(path)
    except Unreadable:
        return False
    return isinstance(stored, dict) and all(isinstance(stored.get(key), kind) for key, kind in KINDS.items())


def document(config: TabularConfig, task: TableTask, folder: Path) -> dict[str, Any]:
    """Return the results of all strategies: the first one's at the top, the rest in "others"."""
    table = task.table
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    first, *others = [summary(task, [read_json(search_file(folder, name, seed)) for seed in seeds])
                      for name in config.strategies]
    objective = config.objective(table.columns)
    return first | {"others": others, "task": {
        "source": table.source, "synthetic": table.synthetic, "space": table.space.name, "columns": table.columns,
        "weights": [objective.alpha, *(objective.beta * weight for weight in objective.weights)],
        "noise": config.noise, "proxy": config.proxy, "size_class": config.size_class, "budget": config.budget,
        "architectures": int(task.allowed.sum()), "distinct": len(task.distinct), "best": task.best,
        "size_tau": size_ranking(task)}, "command": sys.argv, "config": to_dict(config), "format": FORMAT}


def size_ranking(task: TableTask) -> dict[str, float | None]:
    """Return Kendall's τ of parameters, larger ones first, with the true objective of the allowed architectures."""
    places = task.distinct
    gates = task.table.space.gates(task.table.choices[places]).double()
    return taus(-task.table.sizes(gates)[:, 0].round(decimals=6), task.truth[places])


def results_table(values: Mapping[str, Any]) -> str:
    """Return the regrets and rank correlations of all strategies in Markdown."""
    counts = list(values["regret"])
    rows = []
    for result in [values, *values["others"]]:
        kinds = [kind for kind in OUTPUTS if any(_given(result, count, kind) for count in counts)]
        for kind in kinds:
            first = kind == kinds[0]
            tau, fifth = (result["tau"][counts[-1]][part] for part in ("all", "best fifth"))
            rows.append([result["strategy"] * first, kind, *(_regret(result, count, kind) for count in counts),
                         *([_shown(tau), _shown(fifth), f"{1000 * result['seconds_per_query']:.1f}"] if first else
                           ["", "", ""])])
    return markdown_table(["strategy", "output", *(f"regret after {count}" for count in counts),
                           f"τ after {counts[-1]}", "τ, best fifth", "ms a query"], rows)


def _given(result: Mapping[str, Any], count: str, kind: str) -> bool:
    return bool(result["regret"][count][kind] or result["outside"].get(count, {}).get(kind))


def _regret(result: Mapping[str, Any], count: str, kind: str) -> str:
    outside = result["outside"].get(count, {}).get(kind, 0)
    text = _shown(result["regret"][count][kind])
    return f"{text} ({outside} not allowed)" if outside else text


def _shown(value: Estimate | None) -> str:
    if value is None:
        return "–"
    return f"{value[0]:.2f}" if value[1] is None else f"{value[0]:.2f} ± {value[1]:.2f}"
