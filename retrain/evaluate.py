"""How robust a network is: accuracy under attacks of many strengths, and whether the numbers can be believed.

    python -m retrain.evaluate --model runs/retrain/NAME --data DATA
    python -m retrain.evaluate --model RUN_A RUN_B --protocol spectrum --data DATA
    python -m retrain.evaluate --model my_network.py:build --dataset cifar10 --attacks autoattack --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.evaluate --model RUN --protocol rnas --data DATA

Attack and prediction see the same network, in evaluation mode and float32. What is measured is stored chunk by chunk:
the same command goes on after a kill. Results, figures and a report page go to the run directory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from retrain.evaluate_files import (
    comparison_folder,
    file_label,
    images_label,
    is_complete,
    result_folder,
    store,
    weights_label,
)
from retrain.evaluate_settings import EvaluateConfig
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.image_set import DataSet
from wsrnas.data.imagenet import ImageFileLoader, list_imagenet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack, attack_of
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation, check_classes, exact_arithmetic
from wsrnas.evaluation.official import official_accuracy, official_rows
from wsrnas.evaluation.results import (
    FORMAT,
    check_lines,
    difference_table,
    differences,
    flags_of,
    measure,
    official_table,
    table,
)
from wsrnas.models import load_architecture
from wsrnas.report import refresh, write_report
from wsrnas.runtime import run_files
from wsrnas.runtime.config import describe, parse_config, require
from wsrnas.runtime.distributed import World, barrier, initialize
from wsrnas.runtime.environment import environment
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import overwrite_requested
from wsrnas.runtime.locks import hold
from wsrnas.runtime.program import run_program
from wsrnas.subjects.model_source import ModelSource, check_model, open_model
from wsrnas.subjects.stored_program import can_train, uses_batch_norm


@dataclass(frozen=True)
class EvaluationImages:
    """The images that all networks are evaluated on: how to read them, and what tells them from others."""

    dataset: str
    loader: BatchLoader
    num_classes: int
    shape: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True)
class Subject:
    """A network under evaluation, what it is called, where its results go, and the source of its transfer attacks."""

    name: str
    network: ModelSource
    folder: Path
    source: ModelSource | None


@exact_arithmetic()
def main(argv: list[str] | None = None) -> None:
    config, invocation = parse_config(EvaluateConfig, argv=argv, prog="retrain.evaluate")
    require(bool(config.model), "nothing to evaluate: pass --model RUN_DIRECTORY_OR_FILE [...]")
    config.chosen(config.dataset)  # refused before anything is read
    named = named_architectures(config)
    networks = [open_model(given, config.weights) for given in config.model] if not named else []
    world = initialize(config.device)
    images = load_images(config, networks, world)
    networks = networks or [open_model(given, genotype=genotype, state_dict=weights, **named_sizes(config, images))
                            for given, genotype, weights in zip(config.model, named, config.state_dict, strict=True)]
    protocol, attacks = config.chosen(images.dataset)
    for attack in attacks:
        check_classes(attack, images.num_classes, f"{images.dataset} has")
    if invocation.dry_run:
        if world.is_main:
            print(describe(config))
            print(dry_run(networks, images, attacks, config.check_images))
        return
    subjects = make_subjects(config, networks)
    involved = [network for subject in subjects for network in (subject.network, subject.source) if network]
    for network in {id(network): network for network in involved}.values():
        refuse_misfit(config, network, images, world)

    results: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        results[subject.name] = evaluate(config, subject, images, protocol, attacks, world, invocation.overwrite)
        if world.is_main:
            print("\n".join(["honesty checks", *check_lines(results[subject.name])]), flush=True)
            write_report([subject.folder])
    if world.is_main:
        conclude(config, results, [subject.folder for subject in subjects])
    barrier(world)


# -- what is evaluated ----------------------------------------------------------------------------------------------

def named_architectures(config: EvaluateConfig) -> list[Any]:
    """The architectures of ``--model`` where ``--state_dict`` gives their weights; nothing without it."""
    return [load_architecture(given) for given in config.model] if config.state_dict else []


def named_sizes(config: EvaluateConfig, images: EvaluationImages) -> dict[str, Any]:
    return {"num_classes": images.num_classes, "init_channels": config.init_channels or None,
            "layers": config.layers or None, "dataset": images.dataset, "image_shape": images.shape}


def make_subjects(config: EvaluateConfig, networks: list[ModelSource]) -> list[Subject]:
    """The networks with all that belongs to them; without ``--source``, another one evaluated is the source."""
    given = open_model(config.source, config.weights) if config.source else None
    subjects = []
    for name, network in zip(display_names(config, networks), networks, strict=True):
        others = [given] if given else [*networks, *other_weights(config, network)]
        source = next((other for other in others if other.fingerprint != network.fingerprint), None)
        require(bool(source or not given), f"the source {config.source} of transfer attacks is {network.source}, the "
                "network that is attacked; expected another one")
        subjects.append(Subject(name, network, result_folder(config, network, name), source))
    return subjects


def other_weights(config: EvaluateConfig, network: ModelSource) -> list[ModelSource]:
    """The run's last network for its best one, and the reverse, where there are two."""
    other = "last" if config.weights == "best" else "best"
    file = run_files.CHECKPOINT if other == "last" else run_files.BEST
    found = network.folder is not None and network.folder / file != Path(network.source)
    return [open_model(str(network.folder), other)] if found and (network.folder / file).is_file() else []


def display_names(config: EvaluateConfig, networks: list[ModelSource]) -> list[str]:
    """Names of the networks, all different.

    Raises:
        InputError: the same network, or the same name, is given twice.
    """
    sources = [network.source for network in networks]
    for given, what in ((list(config.names), "names"), (sources, "networks")):
        twice = next((name for name in given if given.count(name) > 1), None)
        require(twice is None, f"{twice} is among the {what} twice; expected different ones")
    names = list(config.names) or [network.name for network in networks]
    return names if len(set(names)) == len(names) else sources


def load_images(config: EvaluateConfig, networks: list[ModelSource], world: World) -> EvaluationImages:
    """The test images, whole on the device, or as files to decode."""
    dataset = evaluated_dataset(config, networks)
    if dataset == "imagenet":  # resized to what the first network was trained on
        described = [network.network for network in networks if network.network]
        size = described[0]["image_shape"][1] if described else 224
        _, files = list_imagenet(config.data, max_test=config.max_test, seed=config.seed)
        loader = ImageFileLoader(files, config.batch_size, config.seed, "test", image_size=size, workers=config.workers,
                                 device=world.device)
        fingerprint = f"{files.fingerprint(sizes=True)['hash']}-{size}px"  # the pixels depend on the size, too
        return EvaluationImages(dataset, loader, len(files.class_names), (3, size, size), fingerprint)
    return test_images(config, load_dataset_once(world, dataset, config.data, config.download, max_test=config.max_test,
                                                 seed=config.seed), world)


def test_images(config: EvaluateConfig, data: DataSet, world: World) -> EvaluationImages:
    """The test images of a data set in memory."""
    loader = BatchLoader(data.test.to(world.device), config.batch_size, config.seed, "test")
    return EvaluationImages(data.name, loader, data.num_classes, data.image_shape, data.test.fingerprint())


def evaluated_dataset(config: EvaluateConfig, networks: list[ModelSource]) -> str:
    """The data set asked for, or the one all networks were trained on.

    Raises:
        InputError: they were trained on different ones, or say nothing, and none was asked for.
    """
    trained = sorted({network.network["dataset"] for network in networks if network.network})
    if not config.dataset and len(trained) > 1:
        raise InputError(f"the networks were trained on different data sets ({', '.join(trained)}); choose one with "
                         "--dataset")
    require(bool(config.dataset or trained),
            "no network says which data set it was trained on; choose one with --dataset")
    return config.dataset or trained[0]


def refuse_misfit(config: EvaluateConfig, network: ModelSource, images: EvaluationImages, world: World) -> None:
    """Move a network to the device and see that it takes the images and answers with logits of their classes.

    Raises:
        InputError: naming the network and what it does instead.
    """
    require(config.protocol != "official" or can_train(network.model), f"{network.source} is an exported program "
            "without a training mode, which the published way of --protocol official needs")
    expected = network.network
    ours = expected is not None and not config.state_dict  # what retraining wrote takes [0, 1]
    if expected and (expected["num_classes"], *expected["image_shape"]) != (images.num_classes, *images.shape):
        raise InputError(f"{network.source} was trained on {expected['num_classes']} classes of images "
                         f"{tuple(expected['image_shape'])}, but {images.dataset} has {images.num_classes} classes of "
                         f"images {images.shape}")
    network.model.to(world.device, memory_format=torch.channels_last)
    count = len(images.loader.image_set)
    spread = torch.linspace(0, count - 1, min(count, 256)).long().unique()  # files are ordered by class
    pixels, labels = next(iter(images.loader.images_at([spread])))
    try:
        check_model(network.model, pixels, labels, images.num_classes, range_is_known=ours,
                    batch_size=config.batch_size)
    except InputError as error:
        raise InputError(f"{network.source}: {error}") from None


# -- the evaluation -------------------------------------------------------------------------------------------------

def evaluate(config: EvaluateConfig, subject: Subject, images: EvaluationImages, protocol: str,
             attacks: tuple[Attack, ...], world: World, overwrite: bool,
             stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """One network: everything that its result file holds; it is written as attacks are completed."""
    name, network, folder, source = subject.name, subject.network, subject.folder, subject.source
    source_name = source.fingerprint[:8] if source else ""
    attacks = tuple(replace(attack, source=source_name) if attack.entry.needs_source else attack
                    for attack in attacks)
    evaluations = folder / run_files.EVALUATIONS
    path = evaluations / f"{file_label(config, protocol, attacks, images.dataset)}-{weights_label(network)}.json"
    header = {"format": FORMAT, "model": network.fingerprint, "image_set": images.fingerprint, "seed": config.seed}
    chunks = evaluations / f"chunks-{images_label(config, images.dataset)}-{weights_label(network)}"
    journal = Journal(chunks, header, world.rank)
    held = begin(journal, overwrite) if world.is_main else None
    barrier(world)
    evaluation = Evaluation(network.model, images.loader, images.num_classes, world, config.seed, config.batch_size,
                            journal, source.model if source else None, source_name, name,
                            print if world.is_main else lambda line: None, stop)
    about = describe_run(config, subject, images, protocol, world)

    def keep(result: dict[str, Any]) -> None:
        if world.is_main and not is_complete(path, network):  # until the new numbers are whole, the old ones stay
            store(path, {**about, **result, "official": None})
            refresh(folder, world)

    result = measure(evaluation, attacks, config.check_images, keep)
    published = None
    if protocol == "official":
        strengths = [attack.epsilon for attack in attacks]
        flags = official_accuracy(network.model, images.loader, strengths, world, state=chunks / "official.pt",
                                  header=header, label=name)
        published = official_rows(strengths, flags, [torch.from_numpy(flags_of(row)) for row in result["attacks"]])
        if not uses_batch_norm(network.model):
            evaluation.log(f"{name}: no BatchNorm, so the published way cannot differ by its statistics")
    result = {**about, **result, "official": published}
    if world.is_main:
        store(path, result)
    if held:
        held.close()
    return result


def begin(journal: Journal, overwrite: bool) -> Any:
    """Make the folder of chunks this process' own, empty if so wished; what is returned holds it until closed.

    Raises:
        InputError: another evaluation of the same network and images is running.
    """
    journal.folder.mkdir(parents=True, exist_ok=True)
    held = hold(journal.folder)
    if overwrite_requested(overwrite):
        journal.forget()
        (journal.folder / "official.pt").unlink(missing_ok=True)
    return held


def describe_run(config: EvaluateConfig, subject: Subject, images: EvaluationImages, protocol: str,
                 world: World) -> dict[str, Any]:
    """What a result file says beside the numbers."""
    network, source = subject.network, subject.source
    described = network.network or {}
    genotype = json.loads(described["genotype"]) if "genotype" in described else None
    return {"format": FORMAT, "name": subject.name, "protocol": protocol, "dataset": images.dataset,
            "seed": config.seed, "image_set": images.fingerprint,
            "model": {"source": network.source, "fingerprint": network.fingerprint, "genotype": genotype,
                      "parameters": count_parameters(network.model)},
            "transfer_source": source.source if source else None, "batch_size": config.batch_size,
            "environment": environment(world)}


def conclude(config: EvaluateConfig, results: dict[str, dict[str, Any]], folders: list[Path]) -> None:
    """The table, what the published way would have said, paired differences, and where the pages are."""
    print(table(results))
    for name, result in results.items():
        if result["official"]:
            print(f"{name}: the published way beside the honest number\n{official_table(result['official'])}")
        for row in result["attacks"]:
            if row["method"] == "autoattack":  # the two lines of RobustBench
                print(f"{name}, {attack_of(row)}:\nClean accuracy: {result['clean']['accuracy']:.2%}\n"
                      f"Adversarial accuracy: {row['accuracy']:.2%}")
    if len(results) > 1:
        print(difference_table(differences(results)))
    page = folders[0] / run_files.REPORT
    if len(results) > 1:
        page = write_report(folders, comparison_folder(config, list(results)))
    failed = {name: len(result["failed_checks"]) for name, result in results.items() if result["failed_checks"]}
    for name, count in failed.items():
        print(f"!!! {name}: {count} honesty check(s) FAILED, see above; do not publish these numbers")
    print(f"report: {page}", flush=True)


def dry_run(networks: list[ModelSource], images: EvaluationImages, attacks: tuple[Attack, ...],
            check_images: int) -> str:
    """What the evaluation would cost."""
    count = len(images.loader.image_set)
    lines = [f"images: {count} of {images.dataset}, {images.num_classes} classes, {images.shape}"]
    for network in networks:
        lines.append(f"network: {network.source}, {readable(count_parameters(network.model))} parameters"
                     + (f", {readable(multiply_adds(network.model, images.shape))} multiply-adds an image"
                        if network.network else ""))
    for attack in attacks:
        both, forward = attack.passes
        lines.append(f"attack: {attack}: at most {readable(count * both)} images forward and backward, "
                     f"{readable(count * forward)} forward, for each network")
    lines.append(f"honesty checks: on at most {check_images} images, about 250 passes forward and backward and 500 "
                 "forward for each")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
