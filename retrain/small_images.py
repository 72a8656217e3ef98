"""Training on images that fit into memory: the held-out part, the batches, and the training from start to end."""

from dataclasses import replace
from typing import Any

from retrain.construction import describe_network, make_network, open_run
from retrain.retraining import Retraining, train_all_epochs
from retrain.settings import RetrainConfig
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.data.splits import balanced_split
from wsrnas.models import load_architecture
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World


def train(config: RetrainConfig, data: DataSet, world: World, overwrite: bool = False) -> None:
    """Train the network of a configuration, or resume the training in its run directory.

    Raises:
        Preempted: a signal asked to stop; the state is saved.
        InputError: the loss diverged, or Fast-AT overfitted and the configuration says to stop; the last good state is
            saved.
    """
    arch = load_architecture(config.arch)
    train_loader, held_out_loader = make_loaders(config, data, world)
    network = make_network(config, arch, data.num_classes, data.image_shape, world)
    named = {"dataset_name": config.dataset_name} if config.dataset_name else {}
    run = open_run(config, world, overwrite, data.fingerprint(), arch, network)
    if run is None:
        return
    training = Retraining(config, run, network, train_loader, held_out_loader,
                          describe_network(config, arch, data.num_classes, data.image_shape) | named)
    train_all_epochs(training)


def make_loaders(config: RetrainConfig, data: DataSet, world: World) -> tuple[BatchLoader, BatchLoader | None]:
    """Return the augmented training batches, and the held-out images without augmentation."""
    side = min(data.image_shape[1:])
    require(config.cutout <= side, f"cutout is {config.cutout}; expected at most {side}, the side of an image")
    shards: dict[str, Any] = {"rank": world.rank, "world_size": world.size}
    train, held_out = data.train, None
    if config.held_out:
        first, rest = balanced_split(data.train.labels, config.held_out, config.data_seed, data.num_classes,
                                     "--held_out", data.class_names)
        train = data.train.subset(rest)
        held_out = BatchLoader(data.train.subset(first).to(world.device), config.eval_batch_size, config.seed,
                               "held out", **shards)
    return BatchLoader(train.to(world.device), config.batch_size, config.seed, "training", shuffle=True,
                       augment=replace(data.augmentation, cutout=config.cutout), drop_last=True, **shards), held_out
