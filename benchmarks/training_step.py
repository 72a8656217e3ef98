"""Measure training steps of a recipe: seconds, images per second, peak memory, and the hours of the whole recipe.

    python -m benchmarks.training_step cifar --recipe wsrnet-basic --dataset folder --data DATA
    python -m benchmarks.training_step imagenet --recipe racl --data DATA --held_out 0 --accumulation 32 --steps 2

Further flags are those of the program. The first step is not timed: it also chooses algorithms and fills the loader.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from retrain import train_imagenet
from retrain.batch import batch_text, check_batch
from retrain.construction import make_network, make_trainer
from retrain.recipes import IMAGENET_RECIPES, RECIPES, parse_recipe
from retrain.settings import ImageNetConfig, RetrainConfig
from retrain.small_images import make_loaders
from wsrnas.complexity import count_parameters, readable
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.imagenet import ImageFileLoader, list_imagenet
from wsrnas.data.loader import BatchLoader
from wsrnas.models import load_architecture
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.program import run_program


@dataclass(frozen=True)
class Training:
    """Hold what a recipe trains on.

    Args:
        config: the recipe.
        world: processes that share a batch.
        loader: loader of the training batches.
        classes: number of classes of the data set.
        channels: number of channels of its images.
    """

    config: RetrainConfig | ImageNetConfig
    world: World
    loader: BatchLoader | ImageFileLoader
    classes: int
    channels: int


def small_images(arguments: list[str]) -> Training:
    """Read the recipe and the data of ``retrain.train_cifar``."""
    config, _ = parse_recipe(RetrainConfig, RECIPES, arguments)
    world = initialize(config.device)
    check_batch(config, world)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=config.data_seed)
    loader, _ = make_loaders(config, data, world)
    return Training(config, world, loader, data.num_classes, data.image_shape[0])


def imagenet(arguments: list[str]) -> Training:
    """Read the recipe and the list of images of ``retrain.train_imagenet``."""
    config, _ = parse_recipe(ImageNetConfig, IMAGENET_RECIPES, arguments)
    world = initialize(config.device)
    check_batch(config, world)
    files, _ = list_imagenet(config.data, max_train=config.max_train, seed=config.data_seed)
    loader, _ = train_imagenet.make_loaders(config, files, world)
    return Training(config, world, loader, len(files.class_names), 3)


PROGRAMS = {"cifar": small_images, "imagenet": imagenet}


def main() -> None:
    """Time the steps and print the result."""
    parser = Parser(prog="benchmarks.training_step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=list(PROGRAMS))
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default: 10)")
    arguments, rest = parser.parse_known_args()
    training = PROGRAMS[arguments.program](rest)
    config, world, loader = training.config, training.world, training.loader
    network = make_network(config, load_architecture(config.arch), training.classes, training.channels, world)
    trainer = make_trainer(config, network, len(loader), world)
    if config.compile:
        network.compile()

    steps = len(loader) * config.epochs
    require(0 < arguments.steps < steps, f"--steps is {arguments.steps}; expected 1 to {steps - 1}")

    seconds: list[float] = []
    epoch, batches = 0, loader.batches(0)
    while len(seconds) <= arguments.steps:
        batch = next(batches, None)
        if batch is None:
            epoch += 1
            batches = loader.batches(epoch)
            continue
        started = time.perf_counter()
        metrics = trainer.step(*batch)
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        seconds.append(time.perf_counter() - started)
        if world.is_main:
            loss, count = metrics["loss"]
            print(f"step {len(seconds)}: {seconds[-1]:.2f} s, loss {loss.item() / count:.3f}", flush=True)
    step = statistics.median(seconds[1:])
    if world.is_main:
        hours = step * len(loader) * config.epochs / 3600
        print(f"{config.preset}: {readable(count_parameters(network))} parameters, batch {batch_text(config, world)}, "
              f"{config.adv_loss}, amp {config.amp}: {step:.3g} s a step, {config.batch_size / step:.4g} images/s, "
              f"peak {peak_memory_gib(world):.1f} GiB, {hours:.3g} h for {config.epochs} epochs of {len(loader)} steps")


if __name__ == "__main__":
    run_program(main)
