"""The evaluation of one network: attack it chunk by chunk, and write its result file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from retrain.evaluate_files import (
    checks_kept,
    file_label,
    images_label,
    is_complete,
    result_file,
    store,
    subject_label,
)
from retrain.evaluate_settings import EvaluateConfig
from retrain.evaluate_subjects import Subject
from wsrnas.complexity import count_parameters
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.caveats import chance
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.official import official_accuracy, official_rows
from wsrnas.evaluation.protocols import PROTOCOLS
from wsrnas.evaluation.results import FORMAT, flags_of, measure
from wsrnas.report import refresh
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.environment import environment
from wsrnas.runtime.folders import move_aside, overwrite_requested
from wsrnas.runtime.locks import hold
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.program_mode import uses_batch_norm


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
    path = result_file(evaluations, f"{file_label(config, protocol, attacks, images.dataset)}-"
                       f"{subject_label(config, network)}", images.fingerprint)
    header = {"format": FORMAT, "model": network.fingerprint, "image_set": images.fingerprint, "seed": config.seed}
    chunks = evaluations / f"chunks-{images_label(config, images.dataset)}-{subject_label(config, network)}"
    journal = Journal(chunks, header, world.rank)
    held = begin(journal, overwrite) if world.is_main else None
    barrier(world)
    evaluation = Evaluation(network.model, images.loader, images.num_classes, world, config.seed, config.batch_size,
                            journal, source.model if source else None, source_name, name,
                            print if world.is_main else lambda line: None, stop, network.has_gradient)
    about = describe_run(config, subject, images, protocol, world)

    def keep(result: dict[str, Any]) -> None:
        if world.is_main:
            journal.stay()
        if world.is_main and not is_complete(path, network):  # until the new numbers are whole, the old ones stay
            store(path, {**about, **result, "official": None})
            refresh(subject.folder, world)

    result = measure(evaluation, attacks, config.check_images, keep,
                     spare_fallen=PROTOCOLS[protocol].spares_the_fallen, level=config.checks,
                     curve=config.curve)
    published = compare_official(evaluation, result, attacks, chunks / run_files.OFFICIAL, header) \
        if PROTOCOLS[protocol].published_way else None
    result = {**about, **result, "official": published}
    if world.is_main:
        journal.stay()
        store(path, checks_kept(path, result))
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
    """Lock the folder of chunks for this process, on ``overwrite`` a new one; return the lock, to be closed.

    The folder holds the chunks of all attacks on these images, so the old one is moved aside, not emptied.

    Raises:
        InputError: Another evaluation of the same network and images is running.
    """
    if overwrite_requested(overwrite) and journal.folder.is_dir():
        hold(journal.folder, "--out").close()  # a process at work there would go on writing under the same name
        move_aside(journal.folder)
    journal.stay()
    return hold(journal.folder, "--out")


def describe_run(config: EvaluateConfig, subject: Subject, images: EvaluationImages, protocol: str,
                 world: World) -> dict[str, Any]:
    """Return what a result file records in addition to the numbers."""
    network, source = subject.network, subject.source
    described = network.description or {}
    genotype = json.loads(described["genotype"]) if "genotype" in described else None
    return {"format": FORMAT, "name": subject.name, "protocol": protocol, "dataset": images.dataset,
            "seed": config.seed, "image_set": images.fingerprint,
            "chance": chance(images.loader.image_set.labels.tolist(), images.num_classes),
            "model": {"source": network.source, "fingerprint": network.fingerprint, "genotype": genotype,
                      "parameters": count_parameters(network.model), "notes": list(network.notes)},
            "transfer_source": source.source if source else None, "batch_size": config.batch_size,
            "environment": environment(world)}
