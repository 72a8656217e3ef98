"""A sample of a table's architectures, ranked by the supernet again and again during a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.few_shot import load_weights, own_weights
from search.rankings.compared import MEAN, sizes_of, truth_of
from search.rankings.scores import finite, logarithm, loss_scores
from search.rankings.statistics import estimate
from search.short_training import ShortTraining
from search.spaces.supernet import Path
from search.strategy.step import Step
from search.tables.reading import open_table
from search.tables.table import Table
from search.tables.task import limited, random_order
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import SearchConfig
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError, say

RESAMPLES = 1000  # of the architectures, for the intervals


def open_sample(config: SearchConfig) -> tuple[Table, list[int]] | None:
    """Return the table of ``--ranking_table`` and the places of the sample; None where the search ranks nothing.

    Raises:
        InputError: the table cannot be read, is one of another space, or has fewer architectures.
    """
    if not config.ranking_table:
        return None
    table = open_table(config.ranking_table)
    require(table.space.name == config.space, f"ranking_table is a table of {table.space.name}, but space is "
            f"{config.space}; expected the same space")
    order = random_order(table, config.seed, limited(table))
    require(config.ranking_sample <= len(order), f"ranking_sample is {config.ranking_sample}; {table.name} has "
            f"{len(order)} different architectures")
    return table, order[:config.ranking_sample]


def rank_sample(searcher: Searcher, sample: tuple[Table, Sequence[int]], step: Step,
                short: ShortTraining | None = None) -> dict[str, Any]:
    """Measure the sample as the search measures a path, and correlate with the table's mean accuracy.

    The state of the search does not change, apart from the statistics of BatchNorm, which every measurement renews. An
    architecture whose short training diverges counts as the worst.

    Args:
        searcher: the search.
        sample: the table, and the places of the sample.
        step: the current step.
        short: the training of each architecture by itself, if that is how the search measures.

    Returns:
        ``architectures``, and ``tau``: for the losses and accuracies of the supernet and for the number of parameters,
        Kendall's tau among all and at fixed size, each with its interval.
    """
    table, places = sample
    current, kept = searcher.supernet.path, own_weights(searcher.supernet) if short else {}
    paths = [path_of(searcher, table.choices[place]) for place in places]
    try:
        measured = measured_apart(searcher, paths, step, short) if short else [
            measure(searcher, path, step) for path in paths]
    finally:
        if short:
            load_weights(searcher.supernet, kept)
    if current:
        searcher.use(current)
    losses, accuracies = (np.stack([found[kind].cpu().double().numpy() for found in measured])
                          for kind in ("losses", "accuracies"))
    rows = torch.stack([searcher.row(found, path) for found, path in zip(measured, paths, strict=True)])
    objectives = searcher.objective(rows).cpu().double().numpy()
    size = logarithm(sizes_of(table, places)["parameters"])
    scores = {**loss_scores(losses, accuracies, searcher.config.strengths, objectives), "parameters": size}
    scores = {name: finite(values) for name, values in scores.items()}
    truth = truth_of(table, places)
    target = truth[MEAN if MEAN in truth else table.columns[0]][None]
    values = np.stack(list(scores.values()))
    found = {"all": estimate(values, target, RESAMPLES, searcher.config.seed),
             "fixed size": estimate(values, target, RESAMPLES, searcher.config.seed, size)}
    return {"architectures": len(places), "tau": {name: {subset: plain(of.tau[:, row, 0]) for subset, of in
                                                         found.items()} for row, name in enumerate(scores)}}


def path_of(searcher: Searcher, choices: Tensor) -> Path:
    """Return the path of one architecture."""
    return searcher.supernet.resolve(searcher.space.gates(choices).view(searcher.space.shape))


def measured_apart(searcher: Searcher, paths: Sequence[Path], step: Step,
                   short: ShortTraining) -> list[dict[str, Tensor]]:
    """Measure each architecture after a training of its own; processes share the architectures."""
    with short.apart.by_itself():
        found = short.apart.gather({number: measure_alone(searcher, paths[number], step, short)
                                    for number in short.apart.share(range(len(paths)))})
    for problem in filter(None, (result.pop("problem") for result in found.values())):
        say(f"{problem}; in the ranking, this architecture counts as the worst")
    return list(found.values())


def measure_alone(searcher: Searcher, path: Path, step: Step, short: ShortTraining) -> dict[str, Any]:
    """Measure one architecture after a training of its own; ``problem`` says what was not finite, if anything."""
    try:
        short.train(path, step)
        return measure(searcher, path, step) | {"problem": ""}
    except InputError as error:  # numbers that are not finite
        unknown = torch.full((1 + len(searcher.config.strengths),), torch.nan, device=searcher.world.device)
        found = {"losses": unknown, "accuracies": unknown, "problem": str(error)}
        return found | ({"vulnerabilities": unknown[1:]} if searcher.config.measures_vulnerability else {})


def measure(searcher: Searcher, path: Path, step: Step) -> dict[str, Tensor]:
    """Measure one architecture on D_v as the search measures a path."""
    searcher.use(path)
    searcher.recalibrate(step)
    return searcher.validate(step)


def plain(values: np.ndarray) -> list[float] | None:
    """Return value and ends of the interval for JSON, None where nothing can be ranked."""
    return None if np.isnan(values).any() else values.tolist()
