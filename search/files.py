"""What every search keeps in its run directory beside what it measures: split, genotypes, under which bound."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from search.settings import SupernetConfig
from wsrnas.data.image_set import DataSet
from wsrnas.data.splits import balanced_split, load_split, save_split
from wsrnas.genotype import Genotype
from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.run_directory import RunDirectory


def halves(data: DataSet, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of D_t and D_v: class-balanced halves of the training set."""
    return balanced_split(data.train.labels, 0.5, seed, data.num_classes)


def stored_split(run: RunDirectory, data: DataSet, world: World) -> tuple[Tensor, Tensor]:
    """D_t and D_v, drawn at the start of a run and kept in its ``split.json``."""
    path = run.path / run_files.SPLIT
    if world.is_main and not run.has_checkpoint:
        save_split(path, *halves(data, run.config.seed))
    barrier(world)
    return load_split(path, len(data.train))


def require_same_bound(path: Path, asked: str) -> None:
    """Refuse to go on with the run in ``path`` under another bound than the one that it has searched under.

    Until the warm-up ends, the bound may still be changed: it is no part of the run's identity.

    Raises:
        InputError: with both.
    """
    file = path / run_files.BOUND
    used = json.loads(file.read_text())["asked"] if file.exists() else asked
    require(used == asked, f"{path} has searched under --vulnerability_bound {used}, not {asked}; choose another "
            "--save, or pass --overwrite to move it aside")


def save_genotype(run: RunDirectory, genotype: Genotype, name: str, program: str, iteration: int | None = None,
                  **found: Any) -> None:
    """Write a cell to the file ``name`` of the run, with where it comes from.

    Args:
        iteration: counted from 1, after which it was the cell; None before the first.
        found: what else is known of it.
    """
    config: SupernetConfig = run.config
    if run.world.is_main:
        path = run.path / name
        path.parent.mkdir(exist_ok=True)
        genotype.save(path, {"program": program, "preset": config.preset, "seed": config.seed,
                             "dataset": config.dataset, "iteration": iteration, **found})


def resume(run: RunDirectory, searcher: Any, program: str) -> int:
    """Load the last checkpoint, or keep the initial cell of a fresh run; the number of completed steps."""
    state = run.restore()
    if state is None:
        save_genotype(run, searcher.genotype(), run_files.INITIAL_GENOTYPE, program)
        return 0
    searcher.load_state_dict(state["searcher"])
    return state["step"]
