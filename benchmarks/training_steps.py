"""Run the training steps of a recipe one at a time, here or in a process of its own on another checkout of the project.

This file imports the programs and the library alone, so that an older checkout can run it (``benchmarks.training``).
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from retrain import train_imagenet
from retrain.batch import batch_text, check_batch
from retrain.construction import make_network, make_trainer
from retrain.recipes import IMAGENET_RECIPES, RECIPES, parse_recipe
from retrain.settings import ImageNetConfig, RetrainConfig
from retrain.small_images import make_loaders
from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.imagenet import ImageFileLoader, list_imagenet
from wsrnas.data.loader import BatchLoader
from wsrnas.models import load_architecture
from wsrnas.runtime.config import require
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import World, initialize
from wsrnas.training.losses import LOSSES

MARK = "measured: "  # begins the lines of a process that are meant for the one that started it


@dataclass(frozen=True)
class Training:
    """Hold what a recipe trains on.

    Args:
        config: the recipe.
        world: processes that share a batch.
        loader: loader of the training batches.
        classes: number of classes of the data set.
        image_shape: shape (C, H, W) of its images.
    """

    config: RetrainConfig | ImageNetConfig
    world: World
    loader: BatchLoader | ImageFileLoader
    classes: int
    image_shape: tuple[int, int, int]


def small_images(arguments: list[str]) -> Training:
    """Read the recipe and the data of ``retrain.train_cifar``."""
    config, _ = parse_recipe(RetrainConfig, RECIPES, arguments)
    world = initialize(config.device)
    check_batch(config, world)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             seed=config.data_seed)
    loader, _ = make_loaders(config, data, world)
    return Training(config, world, loader, data.num_classes, data.image_shape)


def imagenet(arguments: list[str]) -> Training:
    """Read the recipe and the list of images of ``retrain.train_imagenet``."""
    config, _ = parse_recipe(ImageNetConfig, IMAGENET_RECIPES, arguments)
    world = initialize(config.device)
    check_batch(config, world)
    files, _ = list_imagenet(config.data, max_train=config.max_train, seed=config.data_seed)
    loader, _ = train_imagenet.make_loaders(config, files, world)
    return Training(config, world, loader, len(files.class_names), (3, config.image_size, config.image_size))


PROGRAMS: dict[str, Callable[[list[str]], Training]] = {"cifar": small_images, "imagenet": imagenet}


class Steps:
    """Training steps of a recipe, one at a time.

    Args:
        program: name in ``PROGRAMS``.
        arguments: flags of that program.
        count: number of steps that will be asked for.
    """

    def __init__(self, program: str, arguments: list[str], count: int) -> None:
        self.training = PROGRAMS[program](arguments)
        self.config, self.world, loader = self.training.config, self.training.world, self.training.loader
        self.network = make_network(self.config, load_architecture(self.config.arch), self.training.classes,
                                    self.training.image_shape, self.world)
        steps = len(loader) * self.config.epochs
        require(0 < count < steps, f"--steps is {count}; expected 1 to {steps - 1}")
        self.about = self._about(len(loader))
        self.trainer = make_trainer(self.config, self.network, len(loader), self.world)
        if self.config.compile:
            self.network.compile()
        self._batches = self._all_batches()

    def _about(self, steps_per_epoch: int) -> dict[str, Any]:
        """Return the sizes of the training; operations and bytes are of an image in a step."""
        config, shape = self.config, self.training.image_shape
        loss, settings = LOSSES[config.adv_loss], config.loss_settings()
        (both, forward), trained = loss.attack_passes(settings), loss.objective_passes(settings)
        # An attack wants the input's gradient alone: as many multiply-adds as the forward pass. The weights' gradient
        # wants as many again. Each activation is written and read, and in a backward pass read again, and its gradient
        # written and read.
        return {"recipe": config.preset, "parameters": count_parameters(self.network), "amp": config.amp,
                "loss": config.adv_loss, "batch": config.batch_size, "batch_text": batch_text(config, self.world),
                "device": str(self.world.device), "processes": self.world.size,
                "epochs": config.epochs, "steps_per_epoch": steps_per_epoch, "threads": torch.get_num_threads(),
                "operations": 2 * multiply_adds(self.network, shape) * (2 * both + forward + 3 * trained),
                "bytes": activation_bytes(self.network, shape) * (5 * (both + trained) + 2 * forward)}

    def _all_batches(self) -> Iterator[Any]:
        epoch = 0
        while True:
            yield from self.training.loader.batches(epoch)
            epoch += 1

    def step(self) -> dict[str, float]:
        """Make one step; return its processor and wall seconds, its loss, and the peak memory so far in GiB."""
        batch = next(self._batches)
        cpu, wall = time.process_time(), time.perf_counter()
        metrics = self.trainer.step(*batch)
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        loss, count = metrics["loss"]
        return {"cpu": cpu, "wall": wall, "loss": loss.item() / count, "peak_gib": peak_memory_gib(self.world)}


def serve(program: str, arguments: list[str], count: int) -> None:
    """Make a step for every line of the standard input, and print what it took as JSON behind ``MARK``."""
    steps = Steps(program, arguments, count)
    print(MARK + json.dumps(steps.about), flush=True)
    for _ in sys.stdin:
        print(MARK + json.dumps(steps.step()), flush=True)
