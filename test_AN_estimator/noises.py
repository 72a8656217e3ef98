"""PGD noise of the study's networks, made once and kept in files, so that every estimator sees the same noise.

Shapes: B images, K strengths, C channels, H W image.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from test_AN_estimator.networks import NetworkSpec, load_network
from test_AN_estimator.settings import BenchmarkConfig
from wsrnas.attacks import attack_mode, is_correct, multi_strength_pgd
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.estimators.base import project
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator
from wsrnas.runtime.sharing import Task


@dataclass(frozen=True)
class Noises:
    """Hold images and their PGD noises.

    Args:
        images: (B, C, H, W) float32 in [0, 1], channels_last.
        labels: (B,).
        epsilons: (B, K) in pixels of [0, 1]: the fixed strengths in their order, then random ones.
        noises: (B, K, C, H, W) float32, inside their balls and the image box.
        clean_correct: (B,) whether the network is right without noise; test images only.
        pgd_correct: (B, K) whether it is right under each noise; test images only.
    """

    images: Tensor
    labels: Tensor
    epsilons: Tensor
    noises: Tensor
    clean_correct: Tensor
    pgd_correct: Tensor


def training_file(folder: Path, rotation: int) -> Path:
    """Return the file of the training noises of a rotation."""
    return folder / f"train-{rotation:05d}.pt"


def tested_file(folder: Path, spec: NetworkSpec, chunk: int) -> Path:
    """Return a file of the test noises of a network."""
    return folder / f"test-{spec.name}-{chunk:04d}.pt"


def training_batches(config: BenchmarkConfig, data: DataSet) -> int:
    """Count the batches in the one epoch that trains estimators.

    Raises:
        InputError: there are none.
    """
    images = min(config.max_estimator_train or len(data.train), len(data.train))
    require(images >= config.batch_size, f"batch_size is {config.batch_size}, but the estimators' epoch has {images} "
            "images; expected at least one full batch")
    return images // config.batch_size


def rotations(config: BenchmarkConfig, data: DataSet) -> int:
    """Count the rotations: groups of batches, each attacked on one network."""
    return -(-training_batches(config, data) // config.rotation)


def chunks(config: BenchmarkConfig, data: DataSet) -> int:
    """Count the files of a network's test noises."""
    return -(-len(data.test) // config.eval_batch_size)


def noise_tasks(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, networks: Path, folder: Path,
                world: World) -> list[Task]:
    """Return one task for each file: the training set once, on changing networks; the test set on each network."""
    folder.mkdir(exist_ok=True)
    made: dict[str, nn.Module] = {}

    def network(spec: NetworkSpec) -> nn.Module:
        if spec.name not in made:
            made.clear()  # one network in memory
            made[spec.name] = load_network(spec, networks, data, world.device)
        return made[spec.name]

    def write_test_noises(spec: NetworkSpec, chunk: int, path: Path, stop: Callable[[], bool]) -> None:
        write(path, attack_test_images(config, network(spec), data, chunk, world))

    def write_training_noises(spec: NetworkSpec, rotation: int, path: Path, stop: Callable[[], bool]) -> None:
        write(path, attack_training_images(config, network(spec), data, rotation, world))

    tasks = []
    for number, spec in enumerate(specs):
        for chunk in range(chunks(config, data)):
            path = tested_file(folder, spec, chunk)
            tasks.append(Task(path.stem, path.exists, partial(write_test_noises, spec, chunk, path)))
        for rotation in range(number, rotations(config, data), len(specs)):
            path = training_file(folder, rotation)
            tasks.append(Task(path.stem, path.exists, partial(write_training_noises, spec, rotation, path)))
    return tasks


def attack_training_images(config: BenchmarkConfig, model: nn.Module, data: DataSet, rotation: int,
                    world: World) -> dict[str, Tensor]:
    """Make noise at the fixed strengths and at two random ones, on one rotation's augmented training batches."""
    loader = BatchLoader(data.train.to(world.device), config.batch_size, config.seed, "estimators", shuffle=True,
                         augment=data.augmentation, drop_last=True)
    draw = generator(config.seed, "training strengths", rotation)
    largest = torch.tensor([config.leave_one_out_max_epsilon, config.spectrum_max_epsilon])
    parts: list[tuple[Tensor, ...]] = []
    first = rotation * config.rotation
    for images, labels in loader.batches(start=first):
        drawn = largest * (1 - torch.rand(len(images), len(largest), generator=draw))
        epsilons = torch.cat([torch.tensor(config.fixed_strengths).expand(len(images), -1), drawn], 1).to(images)
        noises = multi_strength_pgd(model, images, labels, epsilons, steps=config.num_steps) - images.unsqueeze(1)
        parts.append((images, labels, epsilons, noises.half()))
        if first + len(parts) == training_batches(config, data) or len(parts) == config.rotation:
            break
    return dict(zip(("images", "labels", "epsilons", "noises"), map(torch.cat, zip(*parts, strict=True)), strict=True))


def attack_test_images(config: BenchmarkConfig, model: nn.Module, data: DataSet, chunk: int,
                world: World) -> dict[str, Tensor]:
    """Make noise at all tested strengths and at a random one for the paper's setting, on one chunk of test images."""
    rows = torch.arange(len(data.test)).split(config.eval_batch_size)[chunk]
    some = data.test.subset(rows).to(world.device)
    images = (some.images.float() / 255).contiguous(memory_format=torch.channels_last)
    uniform = torch.rand(len(data.test), 1, generator=generator(config.seed, "test strengths"))[rows]
    epsilons = torch.cat([torch.tensor(config.tested_strengths).expand(len(images), -1),
                          config.leave_one_out_max_epsilon * (1 - uniform)], 1).to(images)
    noises, correct = [], [is_right(model, images, some.labels)]
    for column in epsilons.split(1, 1):  # one strength at a time: no batch is larger than --eval_batch_size
        attacked = multi_strength_pgd(model, images, some.labels, column, steps=config.num_steps)
        noises.append(project((attacked - images.unsqueeze(1)).half().float(), images, column))
        correct.append(is_right(model, images + noises[-1][:, 0], some.labels))
    return {"images": images, "labels": some.labels, "epsilons": epsilons, "noises": torch.cat(noises, 1).half(),
            "clean_correct": correct[0], "pgd_correct": torch.stack(correct[1:], 1)}


@torch.no_grad()
def is_right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return which of the images (B, C, H, W) the network classifies correctly in evaluation mode, (B,) bool."""
    with attack_mode(model):
        return is_correct(model(images.contiguous(memory_format=torch.channels_last)), labels)


def write(path: Path, noises: dict[str, Tensor]) -> None:
    """Write noises to a file, images as bytes and noises in half precision."""
    images = (noises["images"] * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in (noises | {"images": images}).items()}, buffer)
    checkpoint.write_atomic(path, buffer.getvalue())


def read(path: Path, device: torch.device) -> Noises:
    """Read what ``write`` stored; noises are projected after the rounding.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        stored = {name: value.to(device) for name, value in checkpoint.read(path).items()}
    except InputError as error:
        raise InputError(f"{error}; delete the file, then the same command makes it again") from None
    images = (stored["images"].float() / 255).contiguous(memory_format=torch.channels_last)
    none = torch.empty(0, dtype=torch.bool, device=device)
    return Noises(images, stored["labels"], stored["epsilons"],
                  project(stored["noises"].float(), images, stored["epsilons"]), stored.get("clean_correct", none),
                  stored.get("pgd_correct", none))
