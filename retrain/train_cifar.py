"""Adversarial retraining of a network on small images: CIFAR-10 and -100, SVHN, digits, or a folder of pictures.

    python -m retrain.train_cifar --recipe wsrnet-basic --data DATA
    python -m retrain.train_cifar --recipe strong --arch runs/search/NAME/genotype.json --data DATA
    python -m retrain.train_cifar --recipe strong --arch resnet18 --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.train_cifar --recipe wsrnet-plus --data DATA

Selection uses images held out of the training set. ``best.pt`` (highest robust accuracy there) and ``checkpoint.pt``
(last epoch) are both kept. The same command resumes, from any step.
"""

from dataclasses import replace
from typing import Any

from retrain.batch import check_batch
from retrain.construction import describe_network, make_network, open_run
from retrain.cost import dry_run
from retrain.recipes import RECIPES, parse_recipe
from retrain.retraining import Retraining, train_all_epochs
from retrain.settings import RetrainConfig
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.data.splits import balanced_split
from wsrnas.models import load_architecture
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.program import run_program


def main(argv: list[str] | None = None) -> None:
    """Run the training that the command line asks for."""
    config, invocation = parse_recipe(RetrainConfig, RECIPES, argv, prog="retrain.train_cifar")
    load_architecture(config.arch)  # an error comes before any data is read
    world = initialize(config.device)
    check_batch(config, world)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=config.data_seed)
    if not invocation.dry_run:
        train(config, data, world, invocation.overwrite)
        return
    loader, _ = make_loaders(config, data, world)
    network = make_network(config, load_architecture(config.arch), data.num_classes, data.image_shape[0], world)
    dry_run(config, network, data.image_shape, len(loader.image_set), len(loader), data.num_classes, world)


def train(config: RetrainConfig, data: DataSet, world: World, overwrite: bool = False) -> None:
    """Train the network of a configuration, or resume the training in its run directory.

    Raises:
        Preempted: a signal asked to stop; the state is saved.
        InputError: the loss diverged, or Fast-AT overfitted and the configuration says to stop; the last good state is
            saved.
    """
    arch = load_architecture(config.arch)
    train_loader, held_out_loader = make_loaders(config, data, world)
    network = make_network(config, arch, data.num_classes, data.image_shape[0], world)
    run = open_run(config, world, overwrite, data.fingerprint(), arch, network)
    if run is None:
        return
    training = Retraining(config, run, network, train_loader, held_out_loader,
                          describe_network(config, arch, data.num_classes, data.image_shape))
    train_all_epochs(training)


def make_loaders(config: RetrainConfig, data: DataSet, world: World) -> tuple[BatchLoader, BatchLoader | None]:
    """Return the augmented training batches, and the held-out images without augmentation."""
    shards: dict[str, Any] = {"rank": world.rank, "world_size": world.size}
    train, held_out = data.train, None
    if config.held_out:
        first, rest = balanced_split(data.train.labels, config.held_out, config.data_seed, data.num_classes)
        train = data.train.subset(rest)
        held_out = BatchLoader(data.train.subset(first).to(world.device), config.eval_batch_size, config.seed,
                               "held out", **shards)
    return BatchLoader(train.to(world.device), config.batch_size, config.seed, "training", shuffle=True,
                       augment=replace(data.augmentation, cutout=config.cutout), drop_last=True, **shards), held_out


if __name__ == "__main__":
    run_program(main)
