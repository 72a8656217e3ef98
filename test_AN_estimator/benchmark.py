"""Measure how well AN-Estimators replace the attack (Wsr-NAS, AAAI 2023, Table 5), and which suits a wide search.

    python -m test_AN_estimator.benchmark --preset paper --data DATA
    python -m test_AN_estimator.benchmark --preset tiny --estimators A-ANE

The study's folder keeps the networks and the attacks, which are made once; estimators may be added later. The same
command resumes. Several processes of it share the work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from test_AN_estimator.settings import PRESETS, BenchmarkConfig, Setting
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.image_set import DataSet
from wsrnas.runtime import run_files
from wsrnas.runtime.config import parse_config, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, barrier, initialize
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.same_work import refuse_to_begin

with deferred_imports():
    from test_AN_estimator import results
    from test_AN_estimator.measurement import cost, measure
    from test_AN_estimator.networks import NetworkSpec, load_network, network_specs, training_tasks
    from test_AN_estimator.noises import noise_tasks, read, tested_file
    from test_AN_estimator.report import write_report
    from test_AN_estimator.study import check, dry_run, open_study, study_folder, study_inputs
    from test_AN_estimator.training import trained_estimator
    from wsrnas.complexity import count_parameters
    from wsrnas.evaluation.caveats import chance
    from wsrnas.runtime.arithmetic import exact_arithmetic
    from wsrnas.runtime.sharing import Task, alone, share


def main(argv: list[str] | None = None) -> None:
    """Run the protocol of docs/AN_ESTIMATOR.md, step by step."""
    config, invocation = parse_config(BenchmarkConfig, PRESETS, argv, prog="test_AN_estimator.benchmark")
    world = initialize(config.device)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             max_test=config.max_test, seed=config.seed)
    specs = network_specs(config)
    check(config, specs, data, world)
    if invocation.dry_run:
        refuse_to_begin(study_folder(config), config, study_inputs(specs, data), invocation.overwrite)
        dry_run(config, specs, data, world)
        return
    study = open_study(config, specs, data, world, invocation.overwrite)
    barrier(world)
    with exact_arithmetic():
        run_study(config, specs, data, study, world.alone())  # from here on, processes share only the study's files


def run_study(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, study: Path, world: World) -> None:
    """Train the networks, attack them, study every estimator in every setting, and write the report."""
    networks, noises, claims = study / "networks", study / "noises", study / run_files.CLAIMS

    share(training_tasks(config, specs, data, networks, world), claims, "networks", world)
    share(noise_tasks(config, specs, data, networks, noises, world), claims, "noises", world)
    failure: InputError | None = None
    try:
        share(estimator_tasks(config, specs, data, study, world), claims, "estimators", world)
    except InputError as error:
        failure = error
    if not failure or any(study.glob(f"*/*/{run_files.RESULT}")):  # the estimators that did not fail are reported
        with alone(claims, "report"):
            print(write_report(config, study), flush=True)
    if failure:  # what diverges does so every time
        raise InputError(f"{failure}; --estimators goes on without some") from None


def estimator_tasks(config: BenchmarkConfig, specs: list[NetworkSpec], data: DataSet, study: Path,
                    world: World) -> list[Task]:
    """Return one task for each estimator in each setting: train it, measure it on every network."""
    return [Task(f"{setting.name}-{name}", partial(is_measured, study / setting.name / name),
                 partial(study_estimator, config, setting, name, specs, data, study, world))
            for name in config.estimators for setting in config.settings()]


def is_measured(folder: Path) -> bool:
    """Return whether an estimator is measured in a setting.

    Raises:
        InputError: it was, and its result is gone.
    """
    finished = (folder / run_files.FINISHED).exists()
    require(not finished or (folder / run_files.RESULT).exists(), f"{folder} is finished and has no "
            f"{run_files.RESULT}; move the folder aside, and the same command makes it again")
    return finished


def study_estimator(config: BenchmarkConfig, setting: Setting, name: str, specs: list[NetworkSpec], data: DataSet,
                    study: Path, world: World, stop: Callable[[], bool]) -> None:
    """Train an estimator for one epoch, then measure every network's test set under its estimates."""
    run = RunDirectory(study / setting.name / name, config, world)
    noises = study / "noises"
    estimator = trained_estimator(config, setting, name, data, noises, run, stop)
    measured = []
    for spec in specs:
        if stop():
            raise Preempted(f"{name}, {setting.name}: stopped before measuring {spec.name}")
        model = load_network(spec, study / "networks", data, world.device)
        measured.append(measure(config, setting, spec, model, estimator, data, noises, world.device))
        if spec is specs[0]:
            taken = cost(config, setting, estimator, model, read(tested_file(noises, spec, 0), world.device))
    run.write_json(run_files.RESULT, {
        "format": results.FORMAT, "estimator": name, "setting": setting.name, "sources": setting.sources,
        "parameters": count_parameters(estimator), **taken,
        "chance": chance(data.test.labels.tolist(), data.num_classes), "networks": measured})
    run.finish(f"{name}, {setting.name}: measured")


if __name__ == "__main__":
    run_program(main)
