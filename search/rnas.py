"""RNAS: search for cells under a bound on the vulnerability of their features (ICLR 2022 submission, Algorithm 1).

    python -m search.rnas --preset paper --data DATA
    torchrun --standalone --nproc_per_node=4 -m search.rnas --preset paper --data DATA

The run directory holds the genotype of every epoch and ``genotype.json``, the last one. The same command resumes.
"""

from __future__ import annotations

import shlex
from typing import Any

from search.bound import TOLERANCE
from search.rnas_settings import PRESETS, RnasConfig
from search.search_run import open_search, resume, save_genotype
from search.spaces.space import Space
from wsrnas.data.image_set import DataSet
from wsrnas.report import refresh
from wsrnas.runtime import run_files
from wsrnas.runtime.config import describe
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.device import peak_memory_gib
from wsrnas.runtime.distributed import World, print_on_main
from wsrnas.runtime.preemption import stop_requests
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory

with deferred_imports():
    from search.cost import PhaseClock, rnas_passes
    from search.rnas_loaders import build_loaders
    from search.rnas_searcher import RnasSearcher
    from search.split import halves, stored_split
    from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds, readable
    from wsrnas.training.batch_norm import average_buffers

PROGRAM = "search.rnas"
TOLERATED_INFEASIBLE = 0.2  # share of an epoch's projections, beyond which the log warns


def main(argv: list[str] | None = None) -> None:
    """Run Algorithm 1, part by part."""
    opened = open_search(RnasConfig, PRESETS, argv, PROGRAM, check, dry_run)
    if opened is None:
        return
    config, data, run = opened
    world = run.world
    searcher = RnasSearcher(config, data, stored_split(run, data), world)
    with stop_requests(world) as searcher.stop:
        for epoch in range(resume(run, searcher, PROGRAM), config.epochs):
            clock, trained = PhaseClock(world), searcher.begin_epoch(epoch)
            row: dict[str, Any] = {"number": epoch}
            if epoch < config.warmup_epochs:                                                    # phase I
                row["phase"] = "warm-up"
                with clock("train"):
                    searcher.warm_up(epoch, trained)
            else:                                                                               # phase II
                row["phase"] = "search"
                if searcher.bound is None:
                    with clock("bound"):
                        row |= searcher.resolve_bound()
                    run.write_json(run_files.BOUND, {"asked": config.vulnerability_bound, **row.get("bound", {})})
                with clock("unconstrained"):                                                    # step 1
                    row["upper_loss"] = searcher.search_freely(epoch, trained)
                with clock("constrained"):                                                      # step 2
                    row["projection"] = searcher.search_constrained(epoch, trained)
            with clock("vulnerability"):
                row["vulnerability"] = searcher.watch()
            row["train"] = trained.summary(world)
            finish_epoch(run, searcher, epoch, row, clock)

    found = searcher.finish()                                                           # output: the last projection
    save_genotype(run, searcher.genotype(), run_files.GENOTYPE, PROGRAM, config.epochs, **found)
    run.write_json(run_files.VULNERABILITY, found | {"architecture": searcher.architecture_statistics()})
    if "projection" in found:
        run.log(f"last projection, over {config.bound_batches} batches: {describe_projections(found['projection'])}")
        warn_of_infeasible(run, found["projection"])
    run.finish(f"search finished: {child_summary(searcher, found)}; retrain it with --arch "
               f"{shlex.quote(str(run.path / run_files.GENOTYPE))}")
    refresh(run.path, run.world, run.log, ended=True)


def finish_epoch(run: RunDirectory, searcher: RnasSearcher, epoch: int, row: dict[str, Any], clock: PhaseClock) -> None:
    """Report an epoch, keep its genotype, and make it the point to resume from."""
    row |= {"architecture": searcher.architecture_statistics(), "seconds": clock.seconds,
            "peak_memory_gib": peak_memory_gib(run.world)}
    run.record(epoch, row)
    if row["phase"] == "search":
        for name in (run_files.genotype_after(epoch), run_files.GENOTYPE):
            save_genotype(run, searcher.genotype(), name, PROGRAM, epoch + 1)
    average_buffers(searcher.supernet, run.world)
    run.save({"step": epoch + 1, "searcher": searcher.state_dict()})
    run.log(f"[{epoch + 1}/{searcher.config.epochs}] {summary(row, searcher.space)}")
    warn_of_infeasible(run, row.get("projection", {}))
    refresh(run.path, run.world, run.log)


def summary(row: dict[str, Any], space: Space) -> str:
    """Return one line about an epoch for the log; ``metrics.jsonl`` holds everything."""
    trained = row["train"]
    parts = [row["phase"], f"train loss {trained['loss']:.3f} robust acc {trained['adversarial_accuracy']:.1%}"]
    if "bound" in row:
        parts.append(f"H = {row['bound']['value']:.4g}")
    parts.append(f"F {row['vulnerability']['network']:.4g}")
    if row.get("projection", {}).get("projections"):
        parts.append(f"projections: {describe_projections(row['projection'])}")
    architecture = row["architecture"]
    for name in ("none", "skip"):
        if masses := architecture.get(f"{name}_mass"):
            parts.append(f"{name} " + "/".join(f"{value:.2f}" for value in masses.values()))
    if row["phase"] == "search":
        parts.append(f"changed {architecture['changed_choices']}/{space.num_choices}")
    return " | ".join([*parts, f"{sum(row['seconds'].values()):.1f} s"])


def describe_projections(found: dict[str, Any]) -> str:
    """Describe projections: F before and after, how many moved A, how far, and how many reached the bound."""
    return (f"F {found['before']:.4g} -> {found['after']:.4g}, {found['active']:.0%} moved by {found['distance']:.2g} "
            f"in {found['iterations']:.1f} iterations, multiplier {found['multiplier']:.2g}, "
            f"{found['feasible']:.0%} feasible (F at most {1 + TOLERANCE:g} H)")


def child_summary(searcher: RnasSearcher, found: dict[str, Any]) -> str:
    """Describe the cell at the end of the search."""
    child = found["child"]
    return (f"{searcher.architecture_statistics()['changed_choices']} of {searcher.space.num_choices} choices "
            "differ from the initial cell, "
            f"vulnerability of the discretised network {child['vulnerability']:.4g} (H = {searcher.bound:.4g})")


def warn_of_infeasible(run: RunDirectory, projection: dict[str, Any]) -> None:
    """Warn in the log where many projections of an epoch did not reach the bound."""
    if projection.get("feasible", 1) < 1 - TOLERATED_INFEASIBLE:
        run.log(f"{1 - projection['feasible']:.0%} of the projections did not reach the bound: the least vulnerable "
                "point found was taken; a larger --vulnerability_bound or more --solver_iterations may help")


def check(config: RnasConfig, data: DataSet, world: World) -> None:
    """Refuse numbers of images that the data cannot give."""
    build_loaders(config, data, halves(data, config.seed), world)


def dry_run(config: RnasConfig, data: DataSet, world: World) -> None:
    """Print the configuration and what the search would cost."""
    searcher = RnasSearcher(config, data, halves(data, config.seed), world)
    searcher.follow(searcher.alphas())
    passes, adds = rnas_passes(searcher), multiply_adds(searcher.supernet, data.image_shape)
    parts = ", ".join(f"{name} {readable(count)}" for name, count in passes.items())
    largest = 2 * config.batch_size // world.size  # clean and adversarial images together
    print_on_main(world, "\n".join([
        describe(config), f"data: {len(data.train)} training images {data.image_shape}, {data.num_classes} classes; "
        f"D_t {len(searcher.loaders.train_set)}, D_v {len(searcher.loaders.validation_set)}",
        f"supernet: {readable(count_parameters(searcher.supernet.weight_parameters()))} parameters, "
        f"{readable(adds)} multiply-adds ({config.relaxation} operations)",
        f"epochs: {config.epochs} of {searcher.steps} steps of {config.batch_size} images ({world.size} x "
        f"{config.batch_size // world.size}), {config.warmup_epochs} of them warm-up; after it "
        f"{searcher.unconstrained_steps} steps without the bound and "
        f"{searcher.steps - searcher.unconstrained_steps} that project",
        f"passes: about {readable(sum(passes.values()))} images forward and backward ({parts}), "
        f"{readable(3 * adds * sum(passes.values()))} multiply-adds",
        f"memory: about {activation_bytes(searcher.supernet, data.image_shape) * largest / 2**30:.1f} GiB of "
        f"activations for the largest batch of {largest} images per process",
    ]))


if __name__ == "__main__":
    run_program(main)
