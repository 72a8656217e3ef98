"""Wsr-NAS: search for cells robust over a wide spectrum of noise strengths (Cheng et al., AAAI 2023, Algorithm 1).

    python -m search.wsr_nas --preset paper --data DATA
    torchrun --standalone --nproc_per_node=4 -m search.wsr_nas --preset paper --data DATA

The run directory holds the genotype of every iteration and ``genotype.json``, the last one. The same command resumes.
"""

from __future__ import annotations

import io
import shlex
from collections import Counter
from contextlib import nullcontext
from typing import Any

from search.measure_settings import MEASURES, SHORT
from search.not_finite import finite
from search.search_run import open_search, resume, save_genotype
from search.spaces import SPACES
from search.spaces.space import Space
from search.strategy.step import Step
from search.strategy.strengths import column_name
from search.training_paths import PATHS
from search.wsr_nas_settings import PRESETS, SearchConfig, rungs, schedule
from wsrnas.data.image_set import DataSet
from wsrnas.report import refresh
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.config import describe, format_epsilon, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import World, print_on_main
from wsrnas.runtime.preemption import stop_requests
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory

with deferred_imports():
    import numpy as np
    import torch

    from search.collapse import collapse_warnings
    from search.cost import PhaseClock, iteration_passes, total_passes, training_free_passes
    from search.rankings.sample import open_sample, rank_sample
    from search.short_training import ShortTraining
    from search.split import first_split, stored_split
    from search.wsr_nas_parts import choose_images
    from search.wsr_nas_searcher import Searcher
    from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds, readable
    from wsrnas.estimators import build_estimator
    from wsrnas.evaluation.caveats import saturated_strengths
    from wsrnas.training.batch_norm import average_buffers

PROGRAM = "search.wsr_nas"


def main(argv: list[str] | None = None) -> None:
    """Run Algorithm 1, line by line.

    The lines that only loop or repeat (3, 5-7, 17, 19 and 22) have no mark: ``schedule`` lists the steps that they
    lead to.
    """
    opened = open_search(SearchConfig, PRESETS, argv, PROGRAM, check, dry_run)
    if opened is None:
        return
    config, data, run = opened
    searcher = Searcher(config, data, stored_split(run, data), run.world)  # line 1: D_t and D_v
    searcher.trainer.graphs = config.graphs(run.world.device, run.log)
    sample, steps = open_sample(config), schedule(config)
    short = ShortTraining(searcher) if config.measure == SHORT else None
    completed = resume(run, searcher, PROGRAM)
    with stop_requests(run.world) as searcher.stop:
        for step in steps[completed:]:
            clock = PhaseClock(run.world)
            row: dict[str, Any] = {"phase": step.phase, "number": step.number}
            searcher.sample(step)                                                       # lines 2 and 20: H_i
            if config.trains_supernet:
                with clock("train"):
                    row["train"] = searcher.train_supernet(step)                        # lines 4, 8 and 21
            if step.phase != "warm-up":
                measured = []
                with short.apart.by_itself() if short else nullcontext():
                    # In the paper, there is one path.
                    for first in short.each_path(step, clock, row) if short else searcher.each_path():
                        with clock("recalibrate"):
                            searcher.recalibrate(step)
                        if first and searcher.learns_to_estimate:
                            with clock("estimator"):
                                searcher.update_estimator_memory(step)                  # line 9: M_a
                                row["estimator"] = searcher.train_estimator(step)       # line 10
                                if short:
                                    short.share_estimator()
                        with clock("validate"):
                            measured.append(searcher.validate(step))                    # lines 11-15
                        if first and searcher.checks:
                            with clock("estimator_check"):
                                # Compare the estimated noise with PGD's.
                                row["estimator_check"] = check_estimator(run, searcher, step)
                    measured = short.all_measured(measured, row, clock) if short else measured
                row |= searcher.remember(step, measured)                                # line 16: M_v
                row |= name_columns(config, measured[short.kept[0] if short else 0])
            if sample and config.ranks_in(step):
                with clock("ranking"):
                    row["ranking"] = rank_sample(searcher, sample, step, short)
            if step.trains_losses:
                with clock("loss_estimator"):
                    row["loss_estimator"]["squared_error"] = searcher.train_loss_estimator(step)  # lines 18 and 23
            if step.moves:
                with clock("architecture"):
                    row["predicted_objective"] = searcher.update_architecture(step)     # line 24: A
                if config.bounded:
                    with clock("projection"):
                        row["projection"] = searcher.project_architecture(step)         # RNAS, Eq. 9
            finish_step(run, searcher, step, row, clock, len(steps))

    finish(run, searcher, steps[-1], again=completed == len(steps))


def finish(run: RunDirectory, searcher: Searcher, last: Step, again: bool) -> None:
    """Say that the search is finished; if it was before, a damaged genotype is made again."""
    if again and last.phase == "search":
        save_genotype(run, searcher.genotype(), run_files.GENOTYPE, PROGRAM, last.number + 1)
    run.finish(last_words(run, searcher))
    refresh(run.path, run.world, run.log, ended=True)


def last_words(run: RunDirectory, searcher: Searcher) -> str:
    """Say what was done, and how to go on."""
    if searcher.config.train_only:
        return f"supernet trained; search on it with --supernet {shlex.quote(str(run.path))}"
    changed = searcher.architecture_statistics()["changed_choices"]
    return (f"search finished: {changed} of {searcher.space.num_choices} choices differ from the initial cell; "
            f"retrain it with --arch {shlex.quote(str(run.path / run_files.GENOTYPE))}")


def finish_step(run: RunDirectory, searcher: Searcher, step: Step, row: dict[str, Any], clock: PhaseClock,
                total: int) -> None:
    """Report one step, keep its genotype, and save the state to resume from.

    If the check of the step asks for it, PGD attacks one more strength from the next step on.
    """
    architecture = searcher.architecture_statistics()
    passes = iteration_passes(searcher, len(searcher.paths), "ranking" in row, rungs(searcher.config, step))
    row |= {"architecture": architecture, "seconds": clock.seconds, "peak_memory_gib": peak_memory_gib(run.world),
            "passes": {"train": passes["train"]} if step.phase == "warm-up" else passes}
    if step.phase == "search":
        row |= collapse(searcher)
    run.record(step.index, row)
    if step.phase == "search":
        for name in (run_files.genotype_after(step.number), run_files.GENOTYPE):
            save_genotype(run, searcher.genotype(), name, PROGRAM, step.number + 1)
    average_buffers(searcher.supernet, searcher.batch_world)
    check = row.get("estimator_check", {})
    if "fallback" in check:
        name = column_name(check["fallback"])
        gaps = [finite(check[kind][name], step, f"the {kind.replace('_', ' ')} of the AN-Estimator")
                for kind in ("loss_gap", "vulnerability_gap") if kind in check]
        searcher.attack_too(check["fallback"], gaps, step)
    run.save({"step": step.index + 1, "searcher": searcher.state_dict()})
    run.log(f"[{step.index + 1}/{total}] {summary(step, row, searcher.space)}")
    if "fallback" in check:
        tolerated, strength = searcher.config.max_estimator_gap, format_epsilon(check["fallback"])
        run.log(f"estimator gap {100 * check['largest_gap']:.2f} points exceeds {100 * tolerated:g}: {strength} is "
                "attacked by PGD from now on")
    refresh(run.path, run.world, run.log)


def collapse(searcher: Searcher) -> dict[str, list[str]]:
    """Return warnings where the search collapses to skip connections and pools; otherwise nothing."""
    sentences = collapse_warnings(searcher.space, searcher.genotype(), searcher.loss_memory["gates"])
    return {"collapse": sentences} if sentences else {}


def summary(step: Step, row: dict[str, Any], space: Space) -> str:
    """Return one line about a step for the log; ``metrics.jsonl`` holds everything."""
    parts = [step.title]
    if "train" in row:
        parts.append(f"train loss {row['train']['loss']:.3f} robust acc {row['train']['adversarial_accuracy']:.1%}")
    if "losses" in row:
        parts.append("D_v losses " + " ".join(f"{value:.3f}" for value in row["losses"].values()))
    if "estimator" in row:
        parts.append(f"estimator error {row['estimator']['relative_error']:.3f} "
                     f"({row['estimator']['networks']} networks in M_a)")
    if "estimator_check" in row:
        check = row["estimator_check"]
        blind = saturated_strengths(check)
        parts.append(f"estimator gap {100 * check['mean_gap']:+.1f} points "
                     f"(worst {100 * check['largest_gap']:+.1f} at {check['largest_gap_at']:.4f})"
                     + f", of no meaning at {len(blind)} of {len(check['gap'])} strengths, where nearly no image is "
                     "right" * bool(blind))
    if row.get("loss_estimator", {}).get("kendall_tau") is not None:
        parts.append(f"tau {row['loss_estimator']['kendall_tau']:+.2f}")
    if "ranking" in row:
        tau = row["ranking"]["tau"]
        parts.append(f"tau with the table: objective {known(tau['objective'])}, parameters {known(tau['parameters'])}")
    if "projection" in row:
        found = row["projection"]
        parts.append(f"predicted F/H {found['before']:.2f} -> {found['after']:.2f}"
                     + " (H not reached)" * (not found["feasible"]))
    if step.phase == "search":
        parts.append(f"changed {row['architecture']['changed_choices']}/{space.num_choices}")
    parts += [f"COLLAPSE: {sentence}" for sentence in row.get("collapse", [])]
    return " | ".join([*parts, f"{sum(row['seconds'].values()):.1f} s"])


def known(tau: dict[str, list[float] | None]) -> str:
    """Return a rank correlation with its interval, among all."""
    value = tau["all"]
    return f"{value[0]:+.2f} [{value[1]:+.2f}, {value[2]:+.2f}]" if value else "unknown"


def name_columns(config: SearchConfig, measured: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """Name the columns of losses and accuracies (1 + N1 + N2,) and of vulnerabilities (N1 + N2,) by strength."""
    names = ["natural", *map(column_name, config.strengths)]
    return {key: dict(zip(names[-len(values):], values.tolist(), strict=True)) for key, values in measured.items()}


def check_estimator(run: RunDirectory, searcher: Searcher, step: Step) -> dict[str, Any]:
    """Check the estimates of a step, write its noises for the report, and return the row for the metrics."""
    row, noises = searcher.check_estimator(step)
    if run.world.is_main:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **noises)
        write_atomic(run.path / run_files.NOISE_SAMPLES, buffer.getvalue())
    return row


def check(config: SearchConfig, data: DataSet, world: World) -> None:
    """Refuse a table that cannot be used, images too small for the estimator, and numbers that the data cannot give."""
    open_sample(config)
    with torch.device("meta"):
        build_estimator(config.estimator, data.image_shape)
    choose_images(config, data, first_split(config, data), config.batch_world(world))
    require(not config.trains_apart or config.paths_per_iteration >= world.size, f"paths_per_iteration is "
            f"{config.paths_per_iteration}, but {world.size} processes train architectures of their own; expected at "
            f"least {world.size}, or fewer processes")


def dry_run(config: SearchConfig, data: DataSet, world: World) -> None:
    """Print the configuration and what the search would cost."""
    searcher = Searcher(config, data, first_split(config, data), world)
    searcher.sample(schedule(config)[0])
    sizes = len(searcher.train_set), len(searcher.validation_loader.image_set)
    passes = total_passes(searcher)
    adds = multiply_adds(searcher.supernet, data.image_shape)
    batch = max(config.batch_size, config.eval_batch_size * config.num_pgd_strengths) // searcher.batch_world.size
    attacked = [format_epsilon(e) for e in searcher.source_epsilons.tolist()]
    estimated = [format_epsilon(e) for e in searcher.target_epsilons.tolist()]
    print_on_main(world, "\n".join([
        describe(config), f"data: {len(data.train)} training images {data.image_shape}, {data.num_classes} classes; "
        f"D_t {sizes[0]}, D_v {sizes[1]}",
        f"training paths: {describe_paths(config)}",
        f"strengths by PGD: {', '.join(attacked)}; estimated: {', '.join(estimated) or 'none'}",
        f"estimator check: {describe_check(searcher)}",
        f"supernet: {readable(count_parameters(searcher.supernet.weight_parameters()))} parameters, a sampled path "
        f"{readable(adds)} multiply-adds; estimator {readable(count_parameters(searcher.estimator))} parameters, "
        f"{searcher.strategy.describe()}",
        f"steps: {describe_steps(searcher)}", f"measured: {describe_measurements(config)}",
        f"training-free: {describe_training_free(searcher)}",
        f"passes: {readable(passes['forward_backward'])} images forward and backward, {readable(passes['forward'])} "
        f"forward, {readable(adds * (3 * passes['forward_backward'] + passes['forward']))} multiply-adds"
        + ", more after a fallback" * (searcher.checks and config.max_estimator_gap > 0),
        f"memory: about {activation_bytes(searcher.supernet, data.image_shape) * batch / 2**30:.1f} GiB of activations "
        f"for the largest batch of {batch} images per process",
    ]))


def describe_steps(searcher: Searcher) -> str:
    """Count the epochs by phase, and the batches of each."""
    config, size = searcher.config, searcher.world.size
    steps = schedule(config)
    phases = [f"{count} {name}" for name, count in Counter(step.phase for step in steps).items()]
    if config.measure == SHORT:
        return (f"{len(steps)} ({', '.join(phases)}); a short training has {config.short_epochs} epochs of "
                f"{len(searcher.train_loader)} batches of {config.batch_size}")
    if not config.trains_supernet:
        return f"{len(steps)} measurements ({', '.join(phases)}) without training"
    return (f"{len(steps)} epochs ({', '.join(phases)}) of {len(searcher.train_loader)} batches "
            f"({config.batch_size} = {size} x {config.batch_size // size})")


def describe_measurements(config: SearchConfig) -> str:
    """Count the architectures that are measured."""
    if config.train_only:
        return "nothing"
    anchors = f"; {config.anchors} of the first ones again in every step" if config.anchors else ""
    return (f"{config.measurements} architectures, {config.paths_per_iteration} in an iteration{anchors}; "
            f"{config.measure}: {MEASURES[config.measure]}")


def describe_training_free(searcher: Searcher) -> str:
    """Count the passes of the training-free scores that count, which those of the search do not contain."""
    names, both, forward = training_free_passes(searcher)
    cells = searcher.config.training_free_layers or searcher.config.layers
    return (f"{', '.join(names)} of untrained networks of {cells} cells; for each measured architecture {both} images "
            f"forward and backward and {forward} forward, not counted below") if names else "no scores"


def describe_paths(config: SearchConfig) -> str:
    """Describe the paths that train the supernet."""
    if config.measure == SHORT:
        return "the measured ones, each by itself, from the " + (f"weights of {config.supernet}" if config.supernet
                                                                   else "same first weights")
    if not config.trains_supernet:
        return f"none, the supernet is that of {config.supernet}"
    if config.few_shot:
        space = SPACES[config.space]
        return (f"one for every training step; {len(config.members)} supernets from the weights of {config.supernet}, "
                f"one for each of {', '.join(space.operations[member] for member in config.members)} in row "
                f"{config.few_shot_edge} of A")
    every = "epoch" if config.path_every == "epoch" else "training step, fair over operations"
    return f"one for every {every}; {config.path_kind}: {PATHS[config.path_kind].help}"


def describe_check(searcher: Searcher) -> str:
    """Describe the check of the AN-Estimator against PGD, and what follows from it."""
    if not searcher.checks:
        return "none"
    tolerated = searcher.config.max_estimator_gap
    follows = f"above a gap of {100 * tolerated:g} points PGD attacks the strength with the largest gap from then on"
    return (f"{len(searcher.check_loader.image_set)} images of D_v at the estimated strengths in every iteration; "
            f"{follows if tolerated else 'only reported'}")


if __name__ == "__main__":
    run_program(main)
