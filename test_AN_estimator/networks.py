"""The networks whose noise is estimated: different cells, trained for different times, and kept."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import genotypes
from test_AN_estimator.settings import BenchmarkConfig
from wsrnas.architectures import searched
from wsrnas.architectures.searched import Searched
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.models import build_model, description
from wsrnas.runtime import run_files
from wsrnas.runtime.config import option, require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.sanity import refuse_absurd
from wsrnas.runtime.seeding import seeded_weights
from wsrnas.runtime.sharing import Task
from wsrnas.subjects.fitting import fitted
from wsrnas.subjects.images import images_of
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.opening import open_model
from wsrnas.training.epoch import Epoch, train_epoch
from wsrnas.training.losses import LOSSES
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

TRAINED_HERE = re.compile(r"(?P<arch>.+):(?P<channels>[1-9]\d*):(?P<epochs>[1-9]\d*)(?P<natural>:natural)?")
PASSED = 64  # images at a time when a network is checked


@dataclass(frozen=True)
class NetworkSpec:
    """Describe one network of the study.

    Args:
        name: unique name in the study; also the name of its folder, if it is trained here.
        given: the network as the user wrote it.
        genotype: genotype of a network trained here; None for one trained before.
        init_channels: width of a network trained here.
        epochs: number of epochs of a network trained here.
        natural: whether it is trained here without attacks.
    """

    name: str
    given: str
    genotype: Searched | None = None
    init_channels: int = 0
    epochs: int = 0
    natural: bool = False


def network_specs(config: BenchmarkConfig) -> list[NetworkSpec]:
    """Return the networks of the configuration, in its order.

    Raises:
        InputError: an entry is neither a genotype with channels and epochs nor a network trained before.
    """
    specs = []
    for number, given in enumerate(config.networks, start=1):
        if found := TRAINED_HERE.fullmatch(given):
            channels, epochs, natural = int(found["channels"]), int(found["epochs"]), bool(found["natural"])
            refuse_absurd({"init_channels": channels, "epochs": epochs})
            genotype = genotypes.load(found["arch"])
            plain = searched.short_name(found["arch"]) or re.sub(r"\W+", "-", Path(found["arch"]).name)[:100]
            name = "-".join([str(number), plain, found["channels"], found["epochs"], *["natural"] * natural])
            specs.append(NetworkSpec(name, given, genotype, channels, epochs, natural))
        else:
            require(Path(given.rpartition(":")[0] or given).exists() or Path(given).exists(),
                    f"networks: {given!r} is neither GENOTYPE:CHANNELS:EPOCHS[:natural] with numbers above 0, as "
                    "cna_r:45:40, nor a run directory or file of a trained network")
            specs.append(NetworkSpec(f"{number}-{re.sub(r'[^0-9A-Za-z_]+', '-', Path(given).name)[:100]}", given))
    return specs


def load_network(spec: NetworkSpec, folder: Path, data: DataSet, device: torch.device) -> nn.Module:
    """Load a trained network in evaluation mode; arguments and errors are those of ``load_source``."""
    return load_source(spec, folder, data, device).model


def load_source(spec: NetworkSpec, folder: Path, data: DataSet, device: torch.device) -> ModelSource:
    """Load a trained network, adapted at the door of all evaluations.

    Args:
        spec: description of the network.
        folder: folder of the networks trained here.
        data: images that it must classify.
        device: device of the network.

    Raises:
        InputError: it cannot be read, does not classify these images, or has no gradient for them.
    """
    given = open_model(str(folder / spec.name) if spec.genotype else spec.given, "last")
    source = fitted(given, images_of(data, PASSED, 0, device), device)
    require(source.has_gradient, f"{source.source} has no gradient for its images (its forward pass runs without "
            "gradients, or detaches); expected one, because estimators learn what PGD finds")
    return source


def training_tasks(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, folder: Path,
                   world: World) -> list[Task]:
    """Return one task for each network that is trained here, the longest first."""
    trained = sorted((spec for spec in specs if spec.genotype), key=lambda spec: -spec.epochs * spec.init_channels)
    return [Task(f"network-{spec.name}", (folder / spec.name / run_files.FINISHED).exists,
                 partial(train_network, config, spec, data, folder / spec.name, world))
            for spec in trained]


@dataclass(frozen=True)
class NetworkConfig:
    """Configure a network trained here; kept in its folder."""

    network: str
    layers: int
    epsilon: float
    train_steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    grad_clip: float
    max_train: int
    seed: int
    track: str = option("", "as for the study", identity=False, added=True)


def train_network(config: BenchmarkConfig, spec: NetworkSpec, data: DataSet, folder: Path, world: World,
                  stop: Callable[[], bool]) -> None:
    """Train a network for its epochs, from the last saved one.

    Raises:
        Preempted: a signal asked to stop; the last completed epoch is saved.
        InputError: the loss diverged.
    """
    assert spec.genotype is not None
    run = RunDirectory(folder, NetworkConfig(
        spec.given, config.layers, config.epsilon, config.train_steps, config.network_batch_size, config.learning_rate,
        config.momentum, config.weight_decay, config.grad_clip, config.max_train, config.seed, config.track), world)
    trainer, loader = make_trainer(config, spec, data, world)
    about = description(spec.genotype, data.num_classes, spec.init_channels, config.layers, data.name, data.image_shape)
    state = run.restore()
    if state is not None:
        trainer.load_state_dict(state["trainer"])
    for number in range(state["step"] if state else 0, spec.epochs):

        def after_step(epoch: Epoch, number: int = number) -> None:
            if stop():
                raise Preempted(f"{spec.name}: stopped after epoch {number}/{spec.epochs}")

        trained = train_epoch(trainer, loader, number, label=f"{spec.name}: epoch {number + 1}/{spec.epochs}",
                              report_freq=config.report_freq, after_step=after_step, log=run.log)
        run.record(number, {"train": trained})
        run.save({"step": number + 1, "trainer": trainer.state_dict(), "network": about,
                  "model": trainer.network.state_dict()})
        accuracy = "clean_accuracy" if spec.natural else "adversarial_accuracy"
        run.log(f"{spec.name}: epoch {number + 1}/{spec.epochs} loss {trained['loss']:.3f}, "
                f"{accuracy.replace('_', ' ')} in training {trained[accuracy]:.1%}, {trained['seconds']:.0f} s")
    run.finish(f"{spec.name}: trained")


def make_trainer(config: BenchmarkConfig, spec: NetworkSpec, data: DataSet,
                 world: World) -> tuple[Trainer, BatchLoader]:
    """Build a network with seeded weights, its SGD with a cosine over its own epochs, and its own order of batches."""
    assert spec.genotype is not None
    with seeded_weights(config.seed, spec.name):
        network = build_model(spec.genotype, data.num_classes, spec.init_channels, config.layers, data.name,
                              data.image_shape[0])
    network.to(world.device).to(memory_format=torch.channels_last)
    loader = BatchLoader(data.train.to(world.device), config.network_batch_size, config.seed,
                         f"training of {spec.name}", shuffle=True, augment=replace(data.augmentation, cutout=0),
                         drop_last=True)
    schedule = Schedule("cosine", config.learning_rate, spec.epochs * len(loader), len(loader))
    trainer = Trainer(network, LOSSES["standard" if spec.natural else "pgd"], config.loss_settings(),
                      config.sgd(network.parameters()), world, config.seed, schedule,
                      Refinements(grad_clip=config.grad_clip))
    return trainer, loader
