"""How robust networks are: their accuracy under attacks of many strengths, and whether the numbers can be believed.

    python -m retrain.evaluate --model runs/retrain/NAME --data DATA
    python -m retrain.evaluate --model RUN_A RUN_B --protocol spectrum --data DATA
    python -m retrain.evaluate --model my_network.py:build --dataset cifar10 --attacks autoattack --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.evaluate --model RUN --protocol rnas --data DATA

Attack and prediction see the same network, in evaluation mode and float32. Results are stored chunk by chunk: after a
stop, the same command resumes. Results, figures and a report page go to the run directory.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from retrain.evaluate_files import comparison_folder, file_label, images_label, is_complete, store
from retrain.evaluate_settings import EvaluateConfig
from retrain.evaluate_subjects import (
    Subject,
    check_subjects,
    load_images,
    make_subjects,
    named_architectures,
    open_named,
)
from wsrnas.complexity import count_parameters, multiply_adds, readable
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
from wsrnas.report import refresh, write_report
from wsrnas.runtime import run_files
from wsrnas.runtime.config import describe, parse_config, require
from wsrnas.runtime.distributed import World, barrier, initialize
from wsrnas.runtime.environment import environment
from wsrnas.runtime.folders import overwrite_requested
from wsrnas.runtime.locks import hold
from wsrnas.runtime.program import run_program
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.naming import weights_label
from wsrnas.subjects.opening import open_model
from wsrnas.subjects.program_mode import uses_batch_norm


@exact_arithmetic()
def main(argv: list[str] | None = None) -> None:
    """Evaluate the networks that the command line names."""
    config, invocation = parse_config(EvaluateConfig, argv=argv, prog="retrain.evaluate")
    require(bool(config.model), "nothing to evaluate: pass --model RUN_DIRECTORY_OR_FILE [...]")
    config.chosen(config.dataset)  # a wrong attack is refused before anything is read
    architectures = named_architectures(config)
    networks = [] if architectures else [open_model(given, config.weights) for given in config.model]
    world = initialize(config.device)
    images = load_images(config, networks, world)
    networks = networks or open_named(config, architectures, images)
    protocol, attacks = config.chosen(images.dataset)
    for attack in attacks:
        check_classes(attack, images.num_classes, f"{images.dataset} has")
    if invocation.dry_run:
        if world.is_main:
            print(describe(config))
            print(dry_run(networks, images, attacks, config.check_images))
        return
    subjects = make_subjects(config, networks)
    check_subjects(config, subjects, images, world)
    results: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        results[subject.name] = evaluate(config, subject, images, protocol, attacks, world, invocation.overwrite)
        if world.is_main:
            print("\n".join(["honesty checks", *check_lines(results[subject.name])]), flush=True)
            write_report([subject.folder])
    if world.is_main:
        conclude(config, results, [subject.folder for subject in subjects])
    barrier(world)


# -- the evaluation -------------------------------------------------------------------------------------------------

def evaluate(config: EvaluateConfig, subject: Subject, images: EvaluationImages, protocol: str,
             attacks: tuple[Attack, ...], world: World, overwrite: bool,
             stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Attack one network; its result file is written as soon as an attack is completed.

    Args:
        config: The configuration.
        subject: The network with its name, folder and transfer source.
        images: The images that are attacked.
        protocol: The name of the protocol.
        attacks: Its attacks.
        world: The processes.
        overwrite: Whether to measure everything again.
        stop: Whether to stop at the next chunk.

    Returns:
        Everything that the result file holds.

    Raises:
        InputError: Another evaluation of the same network and images is running.
    """
    name, network, source = subject.name, subject.network, subject.source
    source_name = source.fingerprint[:8] if source else ""
    attacks = tuple(replace(attack, source=source_name) if attack.entry.needs_source else attack
                    for attack in attacks)
    evaluations = subject.folder / run_files.EVALUATIONS
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
            refresh(subject.folder, world)

    result = measure(evaluation, attacks, config.check_images, keep)
    published = compare_official(evaluation, result, attacks, chunks / "official.pt", header) \
        if protocol == "official" else None
    result = {**about, **result, "official": published}
    if world.is_main:
        store(path, result)
    if held:
        held.close()
    return result


def compare_official(evaluation: Evaluation, result: dict[str, Any], attacks: tuple[Attack, ...], state: Path,
                     header: dict[str, Any]) -> list[dict[str, Any]]:
    """Evaluate as the published code does; return its accuracies together with those of ``result``.

    Args:
        evaluation: The network, images and processes.
        result: Result with the same attacks.
        attacks: The attacks, each of another strength.
        state: The file to resume from.
        header: Values that the stored state must agree with.
    """
    strengths = [attack.epsilon for attack in attacks]
    flags = official_accuracy(evaluation.model, evaluation.loader, strengths, evaluation.world, state=state,
                              header=header, label=evaluation.name)
    if not uses_batch_norm(evaluation.model):
        evaluation.log(f"{evaluation.name}: no BatchNorm, so the published way cannot differ by its statistics")
    return official_rows(strengths, flags, [torch.from_numpy(flags_of(row)) for row in result["attacks"]])


def begin(journal: Journal, overwrite: bool) -> Any:
    """Lock the folder of chunks for this process, and empty it on ``overwrite``; return the lock, to be closed.

    Raises:
        InputError: Another evaluation of the same network and images is running.
    """
    journal.folder.mkdir(parents=True, exist_ok=True)
    held = hold(journal.folder)
    if overwrite_requested(overwrite):
        journal.forget()
        (journal.folder / "official.pt").unlink(missing_ok=True)
    return held


def describe_run(config: EvaluateConfig, subject: Subject, images: EvaluationImages, protocol: str,
                 world: World) -> dict[str, Any]:
    """Return what a result file records in addition to the numbers."""
    network, source = subject.network, subject.source
    described = network.description or {}
    genotype = json.loads(described["genotype"]) if "genotype" in described else None
    return {"format": FORMAT, "name": subject.name, "protocol": protocol, "dataset": images.dataset,
            "seed": config.seed, "image_set": images.fingerprint,
            "model": {"source": network.source, "fingerprint": network.fingerprint, "genotype": genotype,
                      "parameters": count_parameters(network.model)},
            "transfer_source": source.source if source else None, "batch_size": config.batch_size,
            "environment": environment(world)}


def conclude(config: EvaluateConfig, results: dict[str, dict[str, Any]], folders: list[Path]) -> None:
    """Print the table, the published way's numbers, paired differences, and where the page is."""
    print(table(results))
    for name, result in results.items():
        if result["official"]:
            print(f"{name}: the published evaluation and the honest one\n{official_table(result['official'])}")
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
    """Say what the evaluation would cost."""
    count = len(images.loader.image_set)
    lines = [f"images: {count} of {images.dataset}, {images.num_classes} classes, {images.shape}"]
    for network in networks:
        lines.append(f"network: {network.source}, {readable(count_parameters(network.model))} parameters"
                     + (f", {readable(multiply_adds(network.model, images.shape))} multiply-adds per image"
                        if network.description else ""))
    for attack in attacks:
        both, forward = attack.passes
        lines.append(f"attack: {attack}: at most {readable(count * both)} images forward and backward, "
                     f"{readable(count * forward)} forward, for each network")
    lines.append(f"honesty checks: on at most {check_images} images, about 250 passes forward and backward and 500 "
                 "forward for each")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
