"""Judge search strategies on a table of measured architectures: no training, minutes instead of days.

    python -m search.tabular --table demo                                    a synthetic table, nothing to download
    python -m search.tabular --table TABLE.json --strategy wsr evolution local-search --seeds 60
    python -m search.tabular --table TABLE.json --size_class 18:20 --queries 25 50 100 150

The folder of the results holds one file for each search, ``results.json`` and ``report.html``. The same command
resumes; started several times at once, it shares its seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from search.strategies import STRATEGIES
from search.tables.reading import open_table
from search.tabular_settings import TabularConfig
from wsrnas.report import write_report
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import describe, parse_config, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import say
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import refuse_to_begin
from wsrnas.runtime.sharing import Task, alone, open_shared_folder, share

with deferred_imports():
    import torch

    from search.tables import demo
    from search.tables.task import TableTask, table_task
    from search.tabular_results import document, is_search, results_table, search_file
    from search.tabular_search import search


def main(argv: list[str] | None = None) -> None:
    """Run the searches that the command line asks for, and write what they found."""
    config, invocation = parse_config(TabularConfig, argv=argv, prog="search.tabular")
    table = open_table(config.table, config.columns)
    task = table_task(table, config.objective(table.columns), config.size_class,
                      config.budget, config.budget_tolerance)
    distinct = len(task.distinct)
    limits = " within these limits" * bool(config.size_class or config.budget)
    require(config.queries[-1] <= distinct, f"queries asks for {config.queries[-1]} architectures; {table.name} has "
            f"{distinct} different ones{limits}")
    folder, inputs = config.folder, {"table": table.fingerprint()}
    if invocation.dry_run:
        refuse_to_begin(folder, config, inputs, invocation.overwrite, flag="--out")
    print(introduction(config, task), flush=True)
    if invocation.dry_run:
        return
    open_shared_folder(folder, config, inputs, invocation.overwrite, flag="--out")
    (folder / run_files.SEARCHES).mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are small; processes are what uses more cores
    try:
        ended = share(searches(config, task, folder), folder / run_files.CLAIMS, "seeds", World(), wait=False)
    finally:
        torch.set_num_threads(threads)
    if ended:
        with alone(folder / run_files.CLAIMS, "report"):
            conclude(config, task, folder)


def searches(config: TabularConfig, task: TableTask, folder: Path) -> list[Task]:
    """Return one task for each seed: a search by every strategy."""
    return [Task(f"seed-{seed}", partial(complete, config, folder, seed), partial(run_seed, config, task, folder, seed))
            for seed in range(config.first_seed, config.first_seed + config.seeds)]


def complete(config: TabularConfig, folder: Path, seed: int) -> bool:
    """Return whether the searches of a seed are done."""
    return all(is_search(search_file(folder, name, seed)) for name in config.strategies)


def run_seed(config: TabularConfig, task: TableTask, folder: Path, seed: int, stop: Callable[[], bool]) -> None:
    """Do the searches of one seed that are not done."""
    for name in config.strategies:
        path = search_file(folder, name, seed)
        if not is_search(path):
            if path.exists():
                say(f"note: {path} is damaged, and its search is done again")
            found = search(config, task, name, seed, World(), stop)
            write_json(path, found | {"in_file": task.table.numbers(torch.tensor(found["measured"]))})


def conclude(config: TabularConfig, task: TableTask, folder: Path) -> None:
    """Write and print the results of all seeds."""
    values = document(config, task, folder)
    write_json(folder / run_files.STRATEGIES, values)
    print(f"\nregret in points of the objective, mean ± standard error over {config.seeds} seeds; "
          f"{len(task.distinct):,} different architectures\n\n{results_table(values)}\n", flush=True)
    if task.table.synthetic:
        print(f"NOTE: {demo.WARNING}", flush=True)
    print(f"report: {write_report([folder])}", flush=True)


def introduction(config: TabularConfig, task: TableTask) -> str:
    """Return the configuration, and what will be searched how often."""
    table, count = task.table, len(config.strategies) * config.seeds
    lines = [f"NOTE: {demo.WARNING}"] * table.synthetic
    return "\n".join([*lines, describe(config), f"table: {table.name}, {len(table.choices):,} architectures of the "
                      f"space {table.space.name}, {int(task.allowed.sum()):,} allowed, {len(task.distinct):,} of them "
                      f"different; columns {', '.join(table.columns)}", *(
                          f"strategy: {name}, {STRATEGIES[name].help}" for name in config.strategies),
                      f"searches: {count}, of {config.queries[-1]} queries each, in {config.folder}"])


if __name__ == "__main__":
    run_program(main)
