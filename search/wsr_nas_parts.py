"""Build what a Wsr-NAS search owns: loaders of D_t and D_v, networks, optimisers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from search.few_shot import FewShot, own_weights
from search.frozen_supernet import FrozenSupernet
from search.measure_settings import SHORT
from search.spaces import SPACES
from search.spaces.supernet import Supernet
from search.strategy.objective import Objective
from search.strategy.supernet import SupernetStrategy
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.supernet_training import build_supernet
from search.training_free.untrained import IMAGES
from search.wsr_nas_settings import SearchConfig
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.data.loader import BatchLoader, require_batches
from wsrnas.data.splits import balanced_subset
from wsrnas.estimators import build_estimator
from wsrnas.estimators.base import NoiseEstimator
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.seeding import generator, seeded_weights
from wsrnas.training.batch_norm import synchronize_batch_norm


@dataclass(frozen=True)
class Loaders:
    """Hold the images of a search and their loaders.

    Args:
        train_set: D_t.
        training: augmented batches of D_t that train the supernet.
        recalibration: augmented batches of D_t that renew BatchNorm statistics.
        validation: D_v.
        check: the part of D_v on which estimates are compared with PGD.
        few: the part of D_v that training-free scores see.
    """

    train_set: ImageSet
    training: BatchLoader
    recalibration: BatchLoader
    validation: BatchLoader
    check: BatchLoader
    few: ImageSet


@dataclass(frozen=True)
class Images:
    """Hold the images of a search, as indices in the training set.

    Args:
        train: D_t.
        trained: the part of D_t that trains: all of it, but for short trainings.
        validation: D_v, as far as it is measured on.
        check: the part of D_v on which estimates are compared with PGD.
        few: the part of D_v that training-free scores see.
    """

    train: Tensor
    trained: Tensor
    validation: Tensor
    check: Tensor
    few: Tensor


def choose_images(config: SearchConfig, data: DataSet, split: tuple[Tensor, Tensor], world: World) -> Images:
    """Choose the images of a search; the arguments are those of ``build_loaders``.

    Raises:
        InputError: there are too few images for a batch, or for each class.
    """
    def balanced(indices: Tensor, count: int, purpose: str) -> Tensor:
        return indices[balanced_subset(data.train.labels[indices], count, config.seed, purpose, data.num_classes)]

    train, validation = split[0], balanced(split[1], config.max_validation, "D_v")
    # Once: images of a folder come class by class, and F and NTK compare the images of a batch.
    validation = validation[torch.randperm(len(validation), generator=generator(config.seed, "order of D_v"))]
    require(not 0 < config.check_images < data.num_classes, f"check_images is {config.check_images}; expected 0 or at "
            f"least one image of each of the {data.num_classes} classes")
    check = balanced(validation, max(config.check_images, data.num_classes), "check_images")
    short = config.measure == SHORT and config.short_images
    trained = balanced(train, config.short_images, "short_images") if short else train
    require_batches(len(trained), config.batch_size, "training", True, world.size)
    require_batches(len(train), config.batch_size, "recalibration", True, world.size)
    require_batches(len(validation), config.eval_batch_size, "validation")
    few = balanced(validation, min(max(IMAGES, data.num_classes), len(validation)), "training-free")
    return Images(train, trained, validation, check, few)


def build_loaders(config: SearchConfig, data: DataSet, split: tuple[Tensor, Tensor], world: World) -> Loaders:
    """Build the loaders of D_t and D_v.

    Args:
        config: configuration of the search.
        data: the data set.
        split: indices of D_t and D_v in the training set.
        world: processes that share the batches.

    Raises:
        InputError: see ``choose_images``.
    """
    images = choose_images(config, data, split, world)

    def copied(indices: Tensor) -> ImageSet:
        return data.train.subset(indices).to(world.device)

    def augmented(part: ImageSet, purpose: str) -> BatchLoader:
        return BatchLoader(part, config.batch_size, config.seed, purpose, shuffle=True, augment=data.augmentation,
                           drop_last=True, rank=world.rank, world_size=world.size)

    def plain(part: ImageSet, purpose: str) -> BatchLoader:
        return BatchLoader(part, config.eval_batch_size, config.seed, purpose, rank=world.rank,
                           world_size=world.size)

    train = copied(images.train)
    trained = train if images.trained is images.train else copied(images.trained)
    return Loaders(train, augmented(trained, "training"), augmented(train, "recalibration"),
                   plain(copied(images.validation), "validation"), plain(copied(images.check), "check"),
                   copied(images.few))


def few_shot_of(config: SearchConfig, supernet: Supernet) -> FewShot | None:
    """Return the few-shot supernets that a search runs on, or those that it is to train; None where there are none.

    Those that it is to train begin with the weights that ``supernet`` has now.
    """
    found = FrozenSupernet(config.source_run).few_shot if config.source_run else None
    asked = "--few_shot_edge" if config.few_shot else f"--measure {SHORT}" if config.measure == SHORT else ""
    require(not (found and asked), f"supernet is {config.source_run}, which has trained few-shot supernets; expected a "
            f"run with one supernet for {asked}")
    if not config.few_shot:
        return found
    return FewShot(SPACES[config.space], config.few_shot_edge, first=own_weights(supernet))


def build_networks(config: SearchConfig, data: DataSet, objective: Objective,
                   world: World) -> tuple[Supernet, NoiseEstimator, SupernetStrategy]:
    """Build supernet, AN-Estimator and strategy on the device of this process.

    Their weights are seeded; the supernet may take those of an earlier run.
    """
    with seeded_weights(config.seed):
        supernet = build_supernet(config, data.num_classes, data.image_shape[0]).to(world.device)
        supernet.to(memory_format=torch.channels_last)
        estimator = build_estimator(config.estimator, data.image_shape).to(world.device)
        if config.source_run:
            supernet.load_state_dict(supernet.state_dict() | FrozenSupernet(config.source_run).weights())
        if config.sync_bn:
            synchronize_batch_norm(supernet, config.batch_world(world))
        strategy = SUPERNET_STRATEGIES[config.strategy].build(config, data, objective, supernet, world)
    return supernet, estimator, strategy
