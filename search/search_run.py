"""The run of a search: open its directory, resume it, keep its genotypes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from search.bound import Bound
from search.spaces import SPACES
from search.supernet_settings import SupernetConfig
from wsrnas.architectures.searched import Searched
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.image_set import DataSet
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import parse_config, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize, print_on_main
from wsrnas.runtime.errors import InputError, say
from wsrnas.runtime.folders import overwrite_requested
from wsrnas.runtime.run_directory import RunDirectory, has_begun
from wsrnas.runtime.same_work import stored_object

with deferred_imports():
    from search.frozen_supernet import FrozenSupernet
    from search.searcher import SupernetSearcher
    from wsrnas.report import mend

Config = TypeVar("Config", bound=SupernetConfig)


def open_search(config_class: type[Config], presets: Mapping[str, Config], argv: Sequence[str] | None, program: str,
                check: Callable[[Config, DataSet, World], None],
                dry_run: Callable[[Config, DataSet, World], None]) -> tuple[Config, DataSet, RunDirectory] | None:
    """Read the command line, load the data and open the run directory.

    Args:
        config_class: class of the program's configuration.
        presets: named configurations of the program.
        argv: arguments; None: those of the process.
        program: name for ``--help``.
        check: function that refuses what does not fit the data, before anything is written.
        dry_run: function that prints the cost of the search.

    Returns:
        Configuration, data and run; None where nothing is left to do: after ``--dry_run``, and where the run is
        finished.

    Raises:
        InputError: the arguments or the data are wrong, or the directory holds another run.
    """
    config, invocation = parse_config(config_class, presets, argv, prog=program)
    world = initialize(config.device)
    frozen = FrozenSupernet(config.source_run) if config.source_run else None
    if frozen:
        frozen.require_same_network(config)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=frozen.seed if frozen else config.seed)
    if frozen:
        frozen.require_same_images(data)
        frozen.require_weights()
    folder = Path(config.runs) / "search" / config.name
    if not overwrite_requested(invocation.overwrite):
        require_same_bound(folder, config.vulnerability_bound)
    inputs = {"data set": data.fingerprint()} | ({"supernet": frozen.fingerprint()} if frozen else {})
    check(config, data, world)
    unsearched = SPACES[config.space].unsearched(config.layers)
    if invocation.dry_run:
        RunDirectory.refuse(folder, config, invocation.overwrite, inputs)
        dry_run(config, data, world)
        for note in unsearched:
            print_on_main(world, f"note: {note}")
        return None
    run = RunDirectory(folder, config, world, invocation.overwrite, inputs)
    if run.finished:
        mend(run.path, world)
        cell = run.path / run_files.GENOTYPE
        print_on_main(world, f"{run.path} is finished" + f", its cell is {cell}" * cell.exists()
                      + " (--overwrite starts again)")
        return None
    run.write_json(run_files.SPACE, SPACES[config.space].record())
    run.log(run.describe())
    for note in unsearched:
        run.log(f"note: {note}")
    return config, data, run


def require_same_bound(path: Path, asked: str) -> None:
    """Refuse to continue a run that has already searched under another bound.

    The bound is not part of an RNAS run's identity, because it may be changed until the warm-up ends.

    Args:
        path: run directory, which may be missing.
        asked: the bound of the command line.

    Raises:
        InputError: the bounds differ; the message names both.
    """
    file = path / run_files.BOUND
    if not has_begun(path):
        return
    try:
        stored = stored_object(file)
        require(stored is None or isinstance(stored.get("asked"), str), f"{file} names no bound")
        require(stored is not None or not has_searched(path / run_files.CHECKPOINT), f"{file} is missing")
        used = stored["asked"] if stored else asked
    except InputError as error:
        # config.json has the same one: another bound is refused before it is written.
        used = (stored_object(path / run_files.CONFIG) or {}).get("vulnerability_bound", asked)
        say(f"note: {error}; the bound {used} of {run_files.CONFIG} counts")
    require(Bound.parse(used) == Bound.parse(asked), f"{path} has searched under --vulnerability_bound {used}, not "
            f"{asked}; choose another --save, or pass --overwrite to move it aside")


def has_searched(file: Path) -> bool:
    """Return whether a checkpoint is of a search under a bound, which is resolved already."""
    try:
        payload, _ = checkpoint.restore(file, lambda line: None)
    except InputError:  # damaged: resuming says what follows
        return False
    return math.isfinite(((payload or {}).get("searcher") or {}).get("bound") or math.inf)


def save_genotype(run: RunDirectory, genotype: Searched, name: str, program: str, iteration: int | None = None,
                  **found: Any) -> None:
    """Write a genotype and its origin to a file of the run.

    Args:
        run: run directory of the search; only its main process writes.
        genotype: the architecture.
        name: name of the file in the run directory.
        program: name of the program that found the cell.
        iteration: counted from 1, after which it was the cell; None before the first.
        found: further facts about the cell.
    """
    config: SupernetConfig = run.config
    if run.world.is_main:
        path = run.path / name
        path.parent.mkdir(exist_ok=True)
        genotype.save(path, {"program": program, "preset": config.preset, "seed": config.seed,
                             "dataset": config.dataset, "iteration": iteration, **found})


def resume(run: RunDirectory, searcher: SupernetSearcher, program: str) -> int:
    """Load the last checkpoint into a searcher, or keep the initial cell of a fresh run.

    Returns:
        The number of completed steps.
    """
    state = run.restore()
    if state is None:
        save_genotype(run, searcher.genotype(), run_files.INITIAL_GENOTYPE, program)
        return 0
    searcher.load_state_dict(state["searcher"])
    return state["step"]
