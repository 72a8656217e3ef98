"""What all architectures of a ranking are measured on: the same images, strengths and BatchNorm batches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from search.rankings.trained import TrainedSupernet
from search.spaces import SPACES
from search.spaces.space import Space
from search.spaces.supernet import Supernet
from search.training_free.untrained import IMAGES
from wsrnas.data.loader import BatchLoader, require_batches
from wsrnas.data.splits import balanced_subset
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World

Batches = list[tuple[Tensor, Tensor]]  # images (B, C, H, W) and labels (B,)
Values = Mapping[str, float | list[float]]
Stop = Callable[[], bool]  # raises Preempted if a signal asked to stop
Measure = Callable[[Tensor, Stop], Values]  # choices (R,) of an architecture -> what was measured of it


@dataclass(frozen=True)
class ShortTrainings:
    """Hold what the trainings of all architectures by themselves share.

    Args:
        loader: augmented batches of D_t.
        epochs: epochs of each.
        learning_rate: at their beginning.
    """

    loader: BatchLoader
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Bench:
    """Hold what the measurements of all architectures share.

    Args:
        trained: the supernet that is asked.
        batches: batches of D_v.
        few: the batch of D_v that training-free scores see.
        recalibration: batches of D_t that renew BatchNorm statistics.
        strengths: strengths of PGD.
        num_steps: its steps.
        world: this process.
        training_free_layers: cells of the networks that training-free scores see; 0: those of the supernet.
        short: the trainings of architectures by themselves; None: there are none.
    """

    trained: TrainedSupernet
    batches: Batches
    few: tuple[Tensor, Tensor]
    recalibration: Batches
    strengths: tuple[float, ...]
    num_steps: int
    world: World
    training_free_layers: int = 0
    short: ShortTrainings | None = None

    @property
    def space(self) -> Space:
        """The search space."""
        return SPACES[self.trained.config.space]

    @property
    def images(self) -> int:
        """The number of images of D_v."""
        return sum(len(labels) for _, labels in self.batches)


def build_bench(trained: TrainedSupernet, images: int, strengths: tuple[float, ...], num_steps: int,
                recalibration_batches: int, batch_size: int, seed: int, world: World,
                training_free_layers: int = 0, short: ShortTrainings | None = None) -> Bench:
    """Choose the images of D_v, and draw the augmented batches of D_t.

    Args:
        trained: the supernet.
        images: number of images of D_v; 0: all.
        strengths: strengths of PGD.
        num_steps: its steps.
        recalibration_batches: number of batches of D_t, each as large as in the search.
        batch_size: images of D_v at a time.
        seed: seed of the choice.
        world: this process.
        training_free_layers: cells of the networks that training-free scores see; 0: those of the supernet.
        short: the trainings of architectures by themselves.
    """
    config, data = trained.config, trained.data
    train, validation = (data.train.subset(indices) for indices in trained.split)
    # Shuffled once: F compares the maps of a batch, and images of a folder come class by class.
    def plain(count: int, size: int, name: str) -> Batches:
        kept = balanced_subset(validation.labels, count, seed, name, data.num_classes)
        return list(BatchLoader(validation.subset(kept).to(world.device), size, seed, f"ranking {name}",
                                shuffle=True).batches())

    few = min(max(IMAGES, data.num_classes), len(validation))
    augmented = BatchLoader(train.to(world.device), config.batch_size, trained.seed, "recalibration", shuffle=True,
                            augment=data.augmentation, drop_last=True)
    return Bench(trained, plain(images, batch_size, "images"), plain(few, few, "few images")[0],
                 list(islice(augmented.batches(), recalibration_batches)), strengths, num_steps, world,
                 training_free_layers, short)


def build_short(trained: TrainedSupernet, images: int, epochs: int, learning_rate: float,
                world: World) -> ShortTrainings:
    """Choose the images that train architectures by themselves: those of a search with ``--measure short``.

    Args:
        trained: the supernet, whose run names batch size and seed.
        images: number of images of D_t; 0: as in the run, whose 0 is all.
        epochs: epochs of each training; 0: as in the run.
        learning_rate: at their beginning; 0: as in the run.
        world: this process.

    Raises:
        InputError: there are too few images for a batch, or for each class, or the learning rate would rise.
    """
    config, data, train = trained.config, trained.data, trained.data.train.subset(trained.split[0])
    rate = learning_rate or config.learning_rate
    require(rate >= config.learning_rate_min, f"short_learning_rate is {rate:g}; expected at least the run's "
            f"learning_rate_min, {config.learning_rate_min:g}, to which it falls")
    kept = balanced_subset(train.labels, images or config.short_images, trained.seed, "short_images", data.num_classes)
    require_batches(len(kept), config.batch_size, "training", True, world.size)
    loader = BatchLoader(train.subset(kept).to(world.device), config.batch_size, trained.seed, "training", shuffle=True,
                         augment=data.augmentation, drop_last=True)
    return ShortTrainings(loader, epochs or config.short_epochs, rate)


def use_path(bench: Bench, supernet: Supernet, choices: Tensor, trained: bool = True) -> None:
    """Make an architecture (R,) the path of a supernet; few-shot supernets then have the weights for its operation.

    Args:
        bench: search space, and the few-shot supernets of the run.
        supernet: one that ``bench.trained.build`` has returned.
        choices: the architecture.
        trained: whether the supernet has its trained weights, or those that it began with.
    """
    path = supernet.use(bench.space.gates(choices).view(bench.space.shape))
    if trained and bench.trained.few_shot:
        bench.trained.few_shot.use(supernet, path.gates)


def strengths_of(bench: Bench) -> Tensor:
    """Return the strengths (S,) on the device."""
    return torch.tensor(bench.strengths, device=bench.world.device)
