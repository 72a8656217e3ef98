"""A fair race between architectures: one budget, one recipe, one split, one protocol, several seeds.

    python -m retrain.compare --archs WsrNet_Basic,RACL,AdvRush,resnet18,random:2 --budget params=4.53M --data DATA
    python -m retrain.compare --archs runs/search/NAME,WsrNet_Basic --budget macs=700M --data DATA

The race's folder holds one run directory for each entrant and seed, ``race.json``, ``race.md`` and ``report.html``. The
same command resumes; started several times at once, it shares its jobs.
"""

from __future__ import annotations

from pathlib import Path

from retrain.race.settings import CompareConfig, parse_race
from wsrnas.data.datasets import load_dataset_once
from wsrnas.data.image_set import DataSet
from wsrnas.runtime import run_files
from wsrnas.runtime.budget import parse_budget
from wsrnas.runtime.config import describe, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, barrier, initialize
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import overwrite_requested
from wsrnas.runtime.program import run_program
from wsrnas.runtime.same_work import refuse_to_begin

with deferred_imports():
    from retrain.batch import check_batch
    from retrain.cost import training_memory_gib, training_passes
    from retrain.race.costs import write_costs
    from retrain.race.entrants import Entrant, load_entrants, shapes_of, widen
    from retrain.race.jobs import check_jobs, kept_weights, race_jobs, read_object, tasks
    from retrain.race.register import as_entered, enter, entered, joined
    from retrain.race.results import document, keep_document
    from retrain.race.tables import standing
    from retrain.small_images import make_loaders
    from wsrnas.complexity import readable
    from wsrnas.evaluation.active_test import check_passes
    from wsrnas.evaluation.measurement import check_classes
    from wsrnas.evaluation.power import Noise, planned, power
    from wsrnas.evaluation.protocols import in_order, passes_of
    from wsrnas.report import refresh, write_report
    from wsrnas.runtime.sharing import alone, open_shared_folder, share
    from wsrnas.subjects.images import images_of


def main(argv: list[str] | None = None) -> None:
    """Run the race that the command line asks for."""
    config, invocation = parse_race(argv)
    check_batch(config, World())
    race = Path(config.runs) / "compare" / config.name
    asked = load_entrants(config.archs, config.layers, config.seed)
    there = [] if overwrite_requested(invocation.overwrite) else entered(race)[0]
    entrants = as_entered(asked, there)
    require(bool(entrants or there), "the race has no entrants; pass --archs NAME,NAME,random:2")
    world = initialize(config.device)
    data = load_dataset_once(world, config.dataset, config.data, config.download, max_train=config.max_train,
                             max_test=config.max_test, seed=config.seed)
    entrants = widen(entrants, parse_budget(config.budget), config.tolerance, data.num_classes, data.image_shape,
                     config.dataset, config.seed)
    check(config, entrants, data)
    inputs = {"data set": data.fingerprint()}
    if invocation.dry_run:
        refuse_to_begin(race, config, inputs, invocation.overwrite)
        if world.is_main:
            fresh = overwrite_requested(invocation.overwrite)
            dry_run(config, entrants if fresh else joined(race, entrants),
                    config.seeds if fresh else max(config.seeds, entered(race)[1]), data)
        return
    if world.is_main:
        open_shared_folder(race, config, inputs, invocation.overwrite)
        check_jobs(race_jobs(config, race, joined(race, entrants), config.seeds), data)
        before = len(entered(race)[0])
        enter(race, entrants, config.seeds)
        print(f"race {race}\n{describe(config)}\n{entrant_lines(entered(race)[0])}"
              + f"\n({before} of them are from an earlier start)" * bool(before), flush=True)
    barrier(world)
    # From here on, processes share only the files of the race.
    run_race(config, race, data, world.alone(), wait=world.size > 1, concludes=world.is_main)


def run_race(config: CompareConfig, race: Path, data: DataSet, world: World, wait: bool, concludes: bool) -> None:
    """Train and evaluate all entrants; write the results and the page.

    Args:
        config: configuration of the race.
        race: folder of the race.
        data: training and test images.
        world: this process by itself.
        wait: whether to stay until the jobs of other processes are done.
        concludes: whether this process writes the final results.

    Raises:
        InputError: jobs failed; the others are done.
    """
    images = images_of(data, config.eval_batch_size, config.seed, world.device)
    claims = race / run_files.CLAIMS

    def keep() -> None:
        with alone(claims, "report"):
            keep_document(race, document(config, race, images.fingerprint))
            refresh(race, world)

    jobs = tasks(config, race_jobs(config, race, *entered(race)), data, images, world, keep)
    before = read_object(race / run_files.RACE)
    if before.get("complete") is True and before.get("jobs") != len(jobs):
        keep()  # an entrant or a seed has come
    ended, failed = False, None
    try:
        # Processes of one launcher end together; a process that was started alone ends when no job is left for it.
        ended = share(jobs, claims, "jobs", world, wait=wait)
    except InputError as error:
        failed = error
    if (ended or failed) and concludes:
        with alone(claims, "report"):
            conclude(config, race, images.fingerprint, data, world)
    if failed:
        raise failed


def check(config: CompareConfig, entrants: list[Entrant], data: DataSet) -> None:
    """Refuse before the first training what would stop the race after it.

    Raises:
        InputError: the recipe does not fit an entrant, there are too few images for a batch or for the held-out part,
            or an attack does not fit the data set.
    """
    training = config.training("WsrNet_Basic", 1, 1, config.seed, "", "any cell")
    for entrant in entrants:
        if isinstance(entrant.arch, str):
            config.training(entrant.arch, entrant.init_channels, None, config.seed, "", entrant.name)
    make_loaders(training, data, World())
    for attack in config.evaluation().chosen(config.dataset)[1]:
        check_classes(attack, data.num_classes, f"{config.dataset} has")


def conclude(config: CompareConfig, race: Path, image_set: str, data: DataSet, world: World) -> None:
    """Measure the cost of every entrant on this device, then write and print the results."""
    write_costs(race, entered(race)[0], data, world)
    values = document(config, race, image_set)
    keep_document(race, values)
    text = standing(values)
    (race / run_files.RACE_TABLE).write_text(text + "\n", encoding="utf-8")
    failed = [f"!!! honesty check FAILED: {check}" for entrant in values["entrants"]
              for check in entrant["failed_checks"]]
    print("\n".join([text, *failed]), flush=True)
    print(f"report: {write_report([race])}", flush=True)


def entrant_lines(entrants: list[Entrant]) -> str:
    """Return one line for each entrant, with its size."""
    width = max(len(entrant.name) for entrant in entrants)
    return "\n".join(f"entrant {entrant.name:<{width}}  init_channels {entrant.init_channels}, "
                     f"{f'{entrant.layers} layers' if entrant.layers else 'own depth'}, {readable(entrant.parameters)} "
                     f"parameters, {readable(entrant.multiply_adds)} multiply-adds" for entrant in entrants)


def dry_run(config: CompareConfig, entrants: list[Entrant], seeds: int, data: DataSet) -> None:
    """Print the configuration and the cost of the whole race.

    Args:
        config: configuration of the race.
        entrants: all entrants, also those of earlier starts.
        seeds: trainings of each.
        data: training and test images.
    """
    images, jobs = len(data.train) - config.held_out, len(entrants) * seeds
    both, forward = training_passes(config, images // config.batch_size)
    adds = sum(entrant.multiply_adds for entrant in entrants) * seeds
    memory = max(training_memory_gib(config, shapes_of(entrant, entrant.init_channels, data.num_classes,
                                                       data.image_shape, config.dataset), data.image_shape, World())
                 for entrant in entrants)
    evaluation = config.evaluation()
    everything = in_order(evaluation.curve, evaluation.chosen(config.dataset)[1])
    attacks = passes_of(everything)
    checks = [config.check_images * passes for passes in check_passes(config.checks, everything)]
    attacked = [len(data.test) * len(kept_weights(config)) * passes for passes in attacks]
    print("\n".join([
        describe(config), entrant_lines(entrants),
        f"data: {images} training images {data.image_shape}, {config.held_out} held out, {len(data.test)} test images",
        f"jobs: {jobs}, each of {config.epochs} epochs of {images // config.batch_size} batches: {readable(both)} "
        f"images forward and backward, {readable(forward)} forward",
        f"attacks: in each job at most {readable(attacked[0])} images forward and backward, {readable(attacked[1])} "
        f"forward; honesty checks ({config.checks}): {readable(checks[0])} and {readable(checks[1])} for each network",
        f"multiply-adds: {readable(adds * (3 * both + forward))} for all trainings together, at most "
        f"{readable(adds * (3 * attacked[0] + attacked[1]))} for all attacks",
        f"memory: up to {memory:.1f} GiB of activations",
        f"power: {power(planned(len(entrants), seeds, len(data.test)), Noise())['summary']}"]), flush=True)


if __name__ == "__main__":
    run_program(main)
