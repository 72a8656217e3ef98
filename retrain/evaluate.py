"""How robust networks are: their accuracy under attacks of many strengths, and whether the numbers can be believed.

    python -m retrain.evaluate --model runs/retrain/NAME --data DATA
    python -m retrain.evaluate --model RUN_A RUN_B --protocol curve --data DATA
    python -m retrain.evaluate --model my_network.py:build --dataset cifar10 --attacks autoattack --data DATA
    torchrun --standalone --nproc_per_node=8 -m retrain.evaluate --model RUN --protocol rnas --data DATA

Attack and prediction see the same network, in evaluation mode and float32. Results are stored chunk by chunk: after a
stop, the same command resumes. Results, figures and a report page go to the run directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrain.evaluate_settings import EvaluateConfig
from wsrnas.evaluation.attack_spec import Attack, attack_of
from wsrnas.evaluation.protocols import PROTOCOLS
from wsrnas.runtime import run_files
from wsrnas.runtime.config import Invocation, describe, parse_config, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import barrier, initialize
from wsrnas.runtime.program import run_program

with deferred_imports():
    from retrain.evaluate_files import comparison_folder
    from retrain.evaluate_network import evaluate
    from retrain.evaluate_subjects import fit_subjects, make_subjects, named_architectures, open_named
    from retrain.evaluated_images import load_images
    from wsrnas.complexity import count_parameters, multiply_adds, readable
    from wsrnas.evaluation.active_test import check_passes
    from wsrnas.evaluation.disagreements import disagreement_lines
    from wsrnas.evaluation.measurement import check_classes
    from wsrnas.evaluation.protocols import fallen_in_words, in_order, passes_of
    from wsrnas.evaluation.results import check_lines, difference_table, differences, official_table, passes_line, table
    from wsrnas.report import refresh, write_report
    from wsrnas.runtime.arithmetic import exact_arithmetic
    from wsrnas.subjects.images import EvaluationImages
    from wsrnas.subjects.model_source import ModelSource
    from wsrnas.subjects.opening import open_model


def main(argv: list[str] | None = None) -> None:
    """Evaluate the networks that the command line names."""
    config, invocation = parse_config(EvaluateConfig, argv=argv, prog="retrain.evaluate")
    require(bool(config.model), "nothing to evaluate: pass --model RUN_DIRECTORY_OR_FILE [...]")
    config.chosen(config.dataset)  # a wrong attack is refused before anything is read
    with exact_arithmetic():
        evaluate_all(config, invocation)


def evaluate_all(config: EvaluateConfig, invocation: Invocation) -> None:
    """Evaluate the networks of a configuration, or say what that would cost."""
    architectures = named_architectures(config)
    networks = [] if architectures else [open_model(given, config.weights) for given in config.model]
    world = initialize(config.device)
    images = load_images(config, networks, world, config.dataset, config.batch_size, config.workers)
    networks = networks or open_named(config, architectures, images)
    protocol, attacks = config.chosen(images.dataset)
    for note in config.notes * world.is_main:
        print(note)
    for attack in attacks:
        check_classes(attack, images.num_classes, f"{images.dataset} has")
    subjects = fit_subjects(config, make_subjects(config, networks), images, world)
    if invocation.dry_run:
        if world.is_main:
            print(describe(config))
            print(dry_run(config, [subject.network for subject in subjects], images, protocol, attacks))
        return
    results: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        results[subject.name] = evaluate(config, subject, images, protocol, attacks, world, invocation.overwrite)
        if world.is_main:
            print("\n".join(["honesty checks", *check_lines(results[subject.name])]), flush=True)
            refresh(subject.folder, world, ended=True)
    if world.is_main:
        conclude(config, results, [subject.folder for subject in subjects])
    barrier(world)


def conclude(config: EvaluateConfig, results: dict[str, dict[str, Any]], folders: list[Path]) -> None:
    """Print the table, the published way's numbers, paired differences, and where the page is."""
    print(table(results))
    for name, result in results.items():
        print("\n".join(f"{name}: {line}" for line in [passes_line(result), *disagreement_lines(
            result["disagreements"])]))
        if any(attack_of(row).source for row in result["attacks"]):
            print(f"{name}: transfer attacks use the images of {result['transfer_source']}")
        if result["official"]:
            print(f"{name}: the published evaluation and the honest one\n{official_table(result['official'])}")
        for row in result["attacks"]:
            if attack_of(row).entry.leaderboard:  # the two lines of RobustBench
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


def dry_run(config: EvaluateConfig, networks: list[ModelSource], images: EvaluationImages, protocol: str,
            attacks: tuple[Attack, ...]) -> str:
    """Say what the evaluation would cost."""
    count = len(images.loader.image_set)
    lines = [f"images: {images}"]
    for network in networks:
        lines.append(f"network: {network.source}, {readable(count_parameters(network.model))} parameters"
                     + (f", {readable(multiply_adds(network.model, images.shape))} multiply-adds per image"
                        if network.description else ""))
    everything = in_order(config.curve, attacks)
    for attack in everything:
        both, forward = attack.passes
        lines.append(f"attack: {attack}: at most {readable(count * both)} images forward and backward, "
                     f"{readable(count * forward)} forward, for each network")
    both, forward = passes_of(everything)
    if PROTOCOLS[protocol].published_way:
        lines.append(f"published way: all images again, {both:,} passes forward and backward and {forward:,} forward "
                     "for each")
    lines.append(f"passes: an image that withstands everything takes {both:,} forward and backward and {forward:,} "
                 f"forward; images that fell at a smaller strength are {fallen_in_words(protocol)}")
    both, forward = check_passes(config.checks, everything)
    lines.append(f"honesty checks ({config.checks}): on at most {config.check_images} images, at most {both} passes "
                 f"forward and backward and {forward} forward for each")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
