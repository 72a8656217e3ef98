"""The split of the training set into D_t and D_v."""

from torch import Tensor

from search.frozen_supernet import FrozenSupernet
from search.supernet_settings import SupernetConfig
from wsrnas.data.image_set import DataSet
from wsrnas.data.splits import balanced_split, load_split, save_split
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import barrier
from wsrnas.runtime.run_directory import RunDirectory


def halves(data: DataSet, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of D_t and D_v: class-balanced halves of the training set."""
    return balanced_split(data.train.labels, 0.5, seed, data.num_classes, names=data.class_names)


def first_split(config: SupernetConfig, data: DataSet) -> tuple[Tensor, Tensor]:
    """Return the indices of D_t and D_v for a new run: the halves of its seed, or those of its supernet's run."""
    if config.source_run:
        return FrozenSupernet(config.source_run).split(len(data.train))
    return halves(data, config.seed)


def image_seed(config: SupernetConfig) -> int:
    """Return the seed that chooses the images of a new run: its own, or that of its supernet's run."""
    return FrozenSupernet(config.source_run).seed if config.source_run else config.seed


def stored_split(run: RunDirectory, data: DataSet) -> tuple[Tensor, Tensor]:
    """Return the indices of D_t and D_v, drawn at the start of a run and kept in its ``split.json``."""
    path = run.path / run_files.SPLIT
    if run.world.is_main and not run.has_checkpoint:
        save_split(path, *first_split(run.config, data), seed=image_seed(run.config))
    barrier(run.world)
    return load_split(path, len(data.train))
