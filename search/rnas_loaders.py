"""The images of an RNAS search and how they are read."""

from dataclasses import dataclass

from torch import Tensor

from search.rnas_settings import RnasConfig
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World


@dataclass(frozen=True)
class Loaders:
    """Hold the images of a search and how they are read.

    Args:
        train_set: D_t.
        validation_set: D_v.
        training: augmented batches of D_t that train the weights.
        recalibration: augmented batches of D_t that renew BatchNorm statistics.
        architecture: augmented batches of D_v that move A.
        watched: plain batches of D_v on which the vulnerability is measured.
    """

    train_set: ImageSet
    validation_set: ImageSet
    training: BatchLoader
    recalibration: BatchLoader
    architecture: BatchLoader
    watched: BatchLoader

    @property
    def steps(self) -> int:
        """T, steps of an epoch."""
        return min(len(self.training), len(self.architecture))


def build_loaders(config: RnasConfig, data: DataSet, split: tuple[Tensor, Tensor], world: World) -> Loaders:
    """Build the loaders of D_t and D_v.

    Args:
        config: configuration of the search.
        data: the data set.
        split: indices of D_t and D_v in the training set.
        world: processes that share the batches.

    Raises:
        InputError: the batches do not fit the data, the processes or the steps.
    """
    train, validation = (data.train.subset(indices).to(world.device) for indices in split)

    def loader(images: ImageSet, purpose: str, augment: bool = True) -> BatchLoader:
        return BatchLoader(images, config.batch_size, config.seed, purpose, shuffle=True,
                           augment=data.augmentation if augment else None, drop_last=True, rank=world.rank,
                           world_size=world.size)

    loaders = Loaders(train, validation, loader(train, "training"), loader(train, "recalibration"),
                      loader(validation, "architecture"), loader(validation, "vulnerability", augment=False))
    require(len(loaders.watched) >= config.bound_batches,
            f"D_v has {len(loaders.watched)} batches of {config.batch_size} images; expected at least bound_batches, "
            f"{config.bound_batches} (lower it, or --batch_size)")
    parts = world.size * config.paths
    require(config.batch_size % parts == 0 and config.batch_size >= 2 * parts,
            f"batch_size is {config.batch_size}; expected a multiple of {parts}, at least {2 * parts} "
            f"(processes: {world.size}, paths: {config.paths}, two images each)")
    require(config.order == "first" or world.size == 1, f"order second runs in one process, not in {world.size}")
    require(config.constrained_step != "project" or config.unconstrained_steps(loaders.steps) > 0,
            f"with constrained_step project and unconstrained_share {config.unconstrained_share:g}, no step of an "
            f"epoch would train the weights ({loaders.steps} steps); expected at least one")
    return loaders
