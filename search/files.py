"""What every search keeps in its run directory beside what it measures: split, genotypes, under which bound."""

from typing import Any

from torch import Tensor

from search.settings import SupernetConfig
from wsrnas.config import load_config, require
from wsrnas.data import DataSet
from wsrnas.distributed import World, barrier, print_on_main
from wsrnas.genotype import Genotype
from wsrnas.run import RunDirectory
from wsrnas.splits import balanced_split, load_split, save_split


def halves(data: DataSet, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of D_t and D_v: class-balanced halves of the training set."""
    return balanced_split(data.train.labels, 0.5, seed, data.num_classes)


def stored_split(run: RunDirectory, data: DataSet, world: World) -> tuple[Tensor, Tensor]:
    """D_t and D_v, drawn at the start of a run and kept in its ``split.json``."""
    path = run.path / "split.json"
    if world.is_main and not run.has_checkpoint:
        save_split(path, *halves(data, run.config.seed))
    barrier(world)
    return load_split(path, len(data.train))


def require_same_bound(used: str, config: SupernetConfig, where: str) -> None:
    """Refuse to go on under another bound than the one that has been in use.

    Until it is, at the end of the warm-up, the bound may still be changed: it is no part of a run's identity.

    Raises:
        InputError: with both.
    """
    require(used == config.vulnerability_bound,
            f"{where} has searched under --vulnerability_bound {used}, not {config.vulnerability_bound}; choose "
            "another --save, or pass --overwrite to move it aside")


def say_finished(run: RunDirectory) -> None:
    """Tell where the cell of a finished run is.

    Raises:
        InputError: it was searched under another bound.
    """
    stored = load_config(type(run.config), run.path / "config.json")
    require_same_bound(stored.vulnerability_bound, run.config, str(run.path))
    print_on_main(run.world, f"{run.path} is finished, its cell is {run.path / 'genotype.json'} (--overwrite begins "
                             "anew)")


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
