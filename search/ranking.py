"""How well does a supernet rank? Rank correlations with a table of architectures that were trained one by one.

    python -m search.ranking --run runs/search/NAME --table TABLE.json
    python -m search.ranking --run runs/search/NAME --table TABLE.json --sample 300 --images 400 --num_steps 3

Every architecture inherits the supernet's weights and is measured on D_v. Rows are stored as soon as they are measured:
the same command resumes, and processes that are started at the same time share the architectures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from search.measure_settings import SHORT
from search.ranking_sample_settings import LEAST
from search.rankings.measurements import MEASUREMENTS
from search.rankings.settings import RankingConfig
from search.tables.reading import open_table
from wsrnas.report import write_report
from wsrnas.report.reading.rankings import answers, read_ranking
from wsrnas.report.reading.rows import DAMAGE
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic, write_json
from wsrnas.runtime.config import describe, parse_config, require, to_dict
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import refuse_to_begin
from wsrnas.runtime.sharing import Task, alone, open_shared_folder, share

with deferred_imports():

    from search.rankings.bench import Bench, build_bench, build_short
    from search.rankings.compared import truth_of
    from search.rankings.results import document, ranking_page, summary_table
    from search.rankings.rows import Row, all_rows, row_tasks
    from search.rankings.trained import open_trained
    from search.tables.table import Table
    from search.tables.task import limited, random_order
    from wsrnas.runtime.arithmetic import exact_arithmetic


def main(argv: list[str] | None = None) -> None:
    """Measure the architectures of a table with the weights of a supernet, and compare with the table."""
    config, invocation = parse_config(RankingConfig, argv=argv, prog="search.ranking")
    require(bool(config.run), "nothing to rank with: pass --run RUN_DIRECTORY of search.wsr_nas")
    require(bool(config.table), "nothing to compare with: pass --table FILE")
    world = initialize(config.device)
    require(world.size == 1, f"{world.size} processes were started by torchrun; expected one, or the same command "
            "several times: such processes share the architectures")
    table = open_table(config.table, config.columns)
    config, bench = prepare(config, table, world)
    order = random_order(table, config.seed, limited(table, budget=config.budget, tolerance=config.budget_tolerance))
    there = f"{table.name} has {len(order)} different architectures" + " within the budget" * bool(config.budget)
    require(config.sample <= len(order), f"sample is {config.sample}; {there}")
    require(len(order) >= LEAST, f"{there}; expected at least {LEAST}")
    places = order[:config.sample or None]
    folder = config.folder(bench.trained.steps)
    print(introduction(config, table, bench, places, folder), flush=True)
    inputs = {"supernet": bench.trained.fingerprint(), "data set": bench.trained.data.fingerprint(),
              "architectures": table.restricted(()).fingerprint()}  # other columns change no measurement
    if invocation.dry_run:
        refuse_to_begin(folder, config, inputs, invocation.overwrite)
        return
    open_shared_folder(folder, config, inputs, invocation.overwrite)
    if finished(config, table, folder):
        with alone(folder / run_files.CLAIMS, "report"):
            print(f"{ranked(len(places), folder)}\nfinished before (--overwrite starts again)", flush=True)
        return
    (folder / run_files.FINISHED).unlink(missing_ok=True)
    log(folder, f"{', '.join(config.measure)} of {len(places)} architectures, process {os.getpid()}")
    with exact_arithmetic():
        ended = share(all_tasks(config, table, bench, places, folder), folder / run_files.CLAIMS, "parts", world,
                      wait=False)
    if ended:
        with alone(folder / run_files.CLAIMS, "report"):
            conclude(config, table, bench, places, len(order), folder)


def finished(config: RankingConfig, table: Table, folder: Path) -> bool:
    """Return whether the folder holds the results of this very command, with the accuracies that the table has now."""
    if not (folder / run_files.FINISHED).exists():
        return False
    try:
        results = read_ranking(folder)
        truth = {name: values.tolist() for name, values in truth_of(table, results["values"]["place"]).items()}
        same = (results["table"], results["values"]["truth"]) == (table.name, truth)
    except DAMAGE:  # no results, or damaged ones
        return False
    before = results.get("config")
    return same and isinstance(before, dict) and all(before.get(name) == value for name, value in
                                                     to_dict(config).items() if name in (
                                                         "columns", "sample", "measure", "resamples"))


def ranked(count: int, folder: Path) -> str:
    """Write the page, and return a line that says where it is."""
    return f"{count} architectures ranked: {write_report([folder])}"


def prepare(config: RankingConfig, table: Table, world: World) -> tuple[RankingConfig, Bench]:
    """Open the supernet, and return the configuration with the run's values in place of defaults, and the images.

    Raises:
        InputError: the run or the table cannot be used, or they are of different spaces.
    """
    trained = open_trained(Path(config.run), config.data)
    require(trained.config.space == table.space.name, f"{trained.path} has searched the space {trained.config.space}, "
            f"but {table.name} is a table of {table.space.name}; expected the same space")
    if config.training_free_layers:
        table.space.check_layers(config.training_free_layers, "training_free_layers")
    config = replace(config, strengths=config.strengths or trained.config.strengths,
                     num_steps=config.num_steps or trained.config.measuring_steps,
                     recalibration_batches=config.recalibration_batches or trained.config.recalibration_batches)
    short = build_short(trained, config.short_images, config.short_epochs, config.short_learning_rate,
                        world) if SHORT in config.measure else None
    return config, build_bench(trained, config.images, config.strengths, config.num_steps,
                               config.recalibration_batches, config.eval_batch_size, config.seed, world,
                               config.training_free_layers, short)


def all_tasks(config: RankingConfig, table: Table, bench: Bench, places: Sequence[int], folder: Path) -> list[Task]:
    """Return the parts of all measurements, the supernet's first."""
    (folder / run_files.ROWS).mkdir(exist_ok=True)
    return [task for name in MEASUREMENTS if name in config.measure
            for task in row_tasks(folder / run_files.ROWS, name, places, table,
                                  partial(MEASUREMENTS[name].build, bench), bench.world)]


def measured_rows(config: RankingConfig, folder: Path, places: Sequence[int]) -> Mapping[str, Sequence[Row]]:
    """Return the rows of every measurement that is complete, also of those that an earlier start has made."""
    found = {name: all_rows(folder / run_files.ROWS, name, places) for name in MEASUREMENTS}
    return {name: rows for name, rows in found.items() if rows is not None}


def conclude(config: RankingConfig, table: Table, bench: Bench, places: Sequence[int], available: int,
             folder: Path) -> None:
    """Write and print the rank correlations."""
    results = document(config, table, bench, places, measured_rows(config, folder, places), available)
    write_json(folder / run_files.RANKING, results)
    write_atomic(folder / run_files.RANKING_TABLE, ranking_page(results).encode())
    print("\n".join(["", summary_table(results), "", *answers(results), ""]))
    message = ranked(results["architectures"], folder)
    write_atomic(folder / run_files.FINISHED, (message + "\n").encode())
    log(folder, message)


def log(folder: Path, message: str) -> None:
    """Print a line and append it to ``log.txt``, to which all processes write."""
    print(message, flush=True)
    with open(folder / run_files.LOG, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


def introduction(config: RankingConfig, table: Table, bench: Bench, places: Sequence[int], folder: Path) -> str:
    """Return the configuration, and what will be measured at which cost."""
    lines = [describe(config), f"supernet: {bench.trained.path} {bench.trained.age}",
             f"table: {table.name}, {len(places):,} different architectures of the space {table.space.name}; columns "
             f"{', '.join(table.columns)}"]
    for name in config.measure:
        both, forward = MEASUREMENTS[name].passes(bench)
        lines.append(f"{name}: {both:,} images forward and backward and {forward:,} forward for each architecture")
    return "\n".join([*lines, f"folder: {folder}"])


if __name__ == "__main__":
    run_program(main)
