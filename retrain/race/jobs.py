"""The jobs of a race: one training with its evaluations for each entrant and seed, in a run directory of its own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain.evaluate import EvaluationImages, evaluate, make_subjects, refuse_misfit, test_images
from retrain.evaluate_files import file_label
from retrain.race.entrants import Entrant
from retrain.race.settings import CompareConfig
from retrain.recipes import RetrainConfig
from retrain.train_cifar import train
from wsrnas.config import require
from wsrnas.data import DataSet
from wsrnas.distributed import World
from wsrnas.evaluation.measurement import exact_arithmetic
from wsrnas.genotype import Genotype
from wsrnas.model_source import open_model
from wsrnas.report import refresh
from wsrnas.run import RunDirectory
from wsrnas.sharing import Task

FILES = {"best": "best", "last": "checkpoint"}


@dataclass(frozen=True)
class Job:
    """One training of an entrant.

    Args:
        config: of the training, as retrain.train_cifar takes it.
    """

    entrant: Entrant
    seed: int
    config: RetrainConfig

    @property
    def name(self) -> str:
        return self.config.save

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return Path(self.config.runs) / "retrain" / self.name


def race_jobs(config: CompareConfig, entrants: list[Entrant], race: Path) -> list[Job]:
    """All jobs, seed by seed, so that the first seed of all entrants is there first."""
    jobs = []
    for seed in range(config.seed, config.seed + config.seeds):
        for entrant in entrants:
            arch = entrant.arch if isinstance(entrant.arch, str) else str(genotype_file(race, entrant))
            jobs.append(Job(entrant, seed, config.training(arch, entrant.init_channels, entrant.layers, seed, str(race),
                                                           f"{entrant.name}-seed{seed}")))
    return jobs


def genotype_file(race: Path, entrant: Entrant) -> Path:
    """Where the cell of an entrant is kept."""
    return race / "genotypes" / f"{entrant.name}.json"


def keep_genotypes(race: Path, entrants: list[Entrant]) -> None:
    """Store every entrant's cell beside the race, which then needs nothing else.

    Raises:
        InputError: an entrant of the same name has another cell there.
    """
    for entrant in entrants:
        path = genotype_file(race, entrant)
        if not isinstance(entrant.arch, Genotype):
            continue
        if path.exists():
            require(Genotype.load(path) == entrant.arch, f"{entrant.source} has changed since it entered the race "
                    f"({path}); choose another --save, or pass --overwrite to move the race aside")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        entrant.arch.save(path, {"entrant": entrant.name, "source": entrant.source})


def check_jobs(jobs: list[Job], data: DataSet) -> None:
    """Refuse at once trainings that are already there with another configuration.

    Raises:
        InputError: naming the run directory and the fields that differ.
    """
    for job in jobs:
        if (job.folder / "FINISHED").exists():
            genotype = {"genotype": job.entrant.arch.to_json()} if isinstance(job.entrant.arch, Genotype) else {}
            RunDirectory(job.folder, job.config, World(), inputs={"data set": data.fingerprint()} | genotype)


def tasks(config: CompareConfig, jobs: list[Job], data: DataSet, world: World,
          keep: Callable[[], None]) -> list[Task]:
    """The jobs as tasks to share.

    Args:
        keep: called after each one, to bring the race's page up to date.
    """
    images = test_images(config.evaluation(), data, world)

    def work(job: Job, stop: Callable[[], bool]) -> None:
        if not (job.folder / "FINISHED").exists():
            train(job.config, data, world)
        for weights in kept_weights(config):
            evaluate_job(config, job, weights, images, world, stop)
        refresh(job.folder, world, ended=True)
        keep()

    return [Task(job.name, lambda job=job: len(results(config, job)) == len(kept_weights(config)),
                 lambda stop, job=job: work(job, stop)) for job in jobs]


def kept_weights(config: CompareConfig) -> list[str]:
    """Which weights a training leaves: the best of the selection, if there is one, and the last."""
    return ["best", "last"] if config.held_out else ["last"]


def evaluate_job(config: CompareConfig, job: Job, weights: str, images: EvaluationImages, world: World,
                 stop: Callable[[], bool]) -> None:
    """Attack one network of a job on the race's test images, from wherever its chunks say that this stands."""
    if weights in results(config, job):
        return
    settings = config.evaluation(model=(str(job.folder),), names=(f"{job.name} {weights}",), weights=weights)
    protocol, attacks = settings.chosen(images.dataset)
    subject, = make_subjects(settings, [open_model(str(job.folder), weights)])
    for network in (subject.network, subject.source):
        if network:
            refuse_misfit(settings, network, images, world)
    with exact_arithmetic():
        evaluate(settings, subject, images, protocol, attacks, world, overwrite=False, stop=stop)


def results(config: CompareConfig, job: Job) -> dict[str, dict[str, Any]]:
    """The complete evaluations of a job, by weights."""
    settings = config.evaluation()
    label = file_label(settings, *settings.chosen(config.dataset), config.dataset)
    found = {}
    if (job.folder / "FINISHED").exists():
        for weights in kept_weights(config):
            result = read_object(job.folder / "eval" / f"{label}-{FILES[weights]}.json")
            if result.get("complete") is True:
                found[weights] = result
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; an empty one where the file is missing or damaged."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
