"""The folder of a study: its identity, and the cost of filling it."""

from pathlib import Path
from typing import Any

from test_AN_estimator.networks import NetworkSpec, load_source
from test_AN_estimator.noises import chunks, rotations, training_batches
from test_AN_estimator.settings import BenchmarkConfig
from wsrnas.attacks import shared_passes
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.data.image_set import DataSet
from wsrnas.estimators import build_estimator
from wsrnas.models import build_model, sizes
from wsrnas.runtime.config import describe, format_epsilon, require
from wsrnas.runtime.distributed import World
from wsrnas.runtime.sharing import open_shared_folder
from wsrnas.subjects.opening import open_model


def check(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, world: World) -> None:
    """Refuse settings that would otherwise stop the study only after its networks are trained.

    Raises:
        InputError: batches larger than the data, images too small, or a network that does not classify them, or has no
            gradient for them.
    """
    training_batches(config, data)
    build_estimator(config.estimators[0], data.image_shape)
    for spec in specs:
        if spec.genotype is None:
            source = load_source(spec, Path(), data, world.device)
            if world.is_main:
                print("".join(f"{source.source}: {note}\n" for note in source.notes), end="", flush=True)
        else:
            sizes(spec.genotype, data.name, layers=config.layers)
            require(config.network_batch_size <= len(data.train), f"network_batch_size is {config.network_batch_size}; "
                    f"expected at most {len(data.train)}, the number of images")


def open_study(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, world: World,
               overwrite: bool = False) -> Path:
    """Open the study's folder: a new one, or that of earlier and other processes.

    Raises:
        InputError: it holds a study of another configuration, other images or other networks, or cannot be written.
    """
    study = study_folder(config)
    if world.is_main:
        open_shared_folder(study, config, study_inputs(specs, data), overwrite)
        print(f"study {study}\n{describe(config)}", flush=True)
    return study


def study_inputs(specs: list[NetworkSpec], data: DataSet) -> dict[str, Any]:
    """Return what the study depends on in addition to its configuration: images and networks."""
    return {"data set": data.fingerprint(), "test images": data.test.fingerprint(),
            "networks": [spec.genotype.to_json() if spec.genotype else open_model(spec.given, "last").fingerprint
                         for spec in specs]}


def study_folder(config: BenchmarkConfig) -> Path:
    """Return the folder of the study."""
    return Path(config.runs) / "test_AN_estimator" / config.name


def dry_run(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, world: World) -> None:
    """Print the configuration and the cost of the study."""
    if not world.is_main:
        return
    lines = [describe(config), f"data: {len(data.train)} training and {len(data.test)} test images {data.image_shape}, "
             f"{data.num_classes} classes"]
    training = 0
    for spec in specs:
        if spec.genotype is None:
            lines.append(f"network {spec.name}: trained before ({spec.given})")
            continue
        network = build_model(spec.genotype, data.num_classes, spec.init_channels, config.layers, data.name,
                              data.image_shape[0])
        images = len(data.train) - len(data.train) % config.network_batch_size
        training += spec.epochs * images * (1 if spec.natural else config.train_steps + 1)
        lines.append(f"network {spec.name}: {readable(count_parameters(network))} parameters, "
                     f"{readable(multiply_adds(network, data.image_shape))} multiply-adds, {spec.epochs} epochs"
                     f"{' without attacks' * spec.natural}")
    strengths = len(config.fixed_strengths) + 2, len(config.tested_strengths) + 1
    attacked = training_batches(config, data) * config.batch_size, len(data.test) * len(specs)
    noises = [images * count for images, count in zip(attacked, strengths, strict=True)]
    # Training images are attacked at all strengths at once, test images at one after the other.
    attacks = attacked[0] * shared_passes(strengths[0], config.num_steps), noises[1] * config.num_steps
    pixels = data.train.images[0].numel()
    lines += [
        f"passes: networks {readable(training)} images forward and backward, noises "
        f"{readable(sum(attacks))} ({readable(attacks[0])} of training images, {readable(attacks[1])} of test images)",
        f"files of noises: {rotations(config, data)} of training images, {chunks(config, data) * len(specs)} of test "
        f"images, {sum(noises) * pixels * 2 / 2**30:.1f} GiB",
        *(f"estimator {name}: {readable(count_parameters(build_estimator(name, data.image_shape)))} parameters"
          for name in config.estimators),
        *(f"setting {setting.name}: sources {_strengths(setting.sources)}; targets "
          f"{_strengths(setting.targets) or 'each source and a random strength, left out in turn'}"
          for setting in config.settings())]
    print("\n".join(lines), flush=True)


def _strengths(epsilons: tuple[float, ...]) -> str:
    return ", ".join(map(format_epsilon, epsilons))
