"""The jobs of a race: one training with its evaluations for each entrant and seed, in a run directory of its own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain.construction import run_inputs
from retrain.evaluate import evaluate
from retrain.evaluate_files import file_label, store
from retrain.evaluate_subjects import check_subjects, make_subjects
from retrain.race.entrants import Entrant
from retrain.race.register import genotype_file
from retrain.race.settings import CompareConfig
from retrain.settings import RetrainConfig
from retrain.train_cifar import train
from wsrnas.data.image_set import DataSet
from wsrnas.evaluation.measurement import exact_arithmetic
from wsrnas.report import refresh
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import World
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.sharing import Task
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.opening import open_model

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


def race_jobs(config: CompareConfig, race: Path, entrants: Sequence[Entrant], seeds: int) -> list[Job]:
    """The jobs of these entrants, seed by seed, so that the first seed of all entrants is there first."""
    jobs = []
    for seed in range(config.seed, config.seed + seeds):
        for entrant in entrants:
            arch = entrant.arch if isinstance(entrant.arch, str) else str(genotype_file(race, entrant.name))
            jobs.append(Job(entrant, seed, config.training(arch, entrant.init_channels, entrant.layers, seed, str(race),
                                                           f"{entrant.name}-seed{seed}")))
    return jobs


def check_jobs(jobs: list[Job], data: DataSet) -> None:
    """Refuse at once trainings that are already there with another configuration.

    Raises:
        InputError: naming the run directory and the fields that differ.
    """
    for job in jobs:
        if (job.folder / run_files.FINISHED).exists():
            RunDirectory(job.folder, job.config, World(), inputs=run_inputs(data.fingerprint(), job.entrant.arch))


def tasks(config: CompareConfig, jobs: list[Job], data: DataSet, images: EvaluationImages, world: World,
          keep: Callable[[], None]) -> list[Task]:
    """The jobs as tasks to share.

    Args:
        images: that all networks are attacked on.
        keep: called after each one, to bring the race's page up to date.
    """
    def work(job: Job, stop: Callable[[], bool]) -> None:
        if not (job.folder / run_files.FINISHED).exists():
            train(job.config, data, world)
        for weights in kept_weights(config):
            evaluate_job(config, job, weights, images, world, stop)
        refresh(job.folder, world, ended=True)
        keep()

    return [Task(job.name, lambda job=job: is_done(config, job, images.fingerprint),
                 lambda stop, job=job: work(job, stop)) for job in jobs]


def is_done(config: CompareConfig, job: Job, image_set: str) -> bool:
    """Whether a job is trained and measured."""
    return len(results(config, job, image_set)) == len(kept_weights(config))


def kept_weights(config: CompareConfig) -> list[str]:
    """Which weights a training leaves: the best of the selection, if there is one, and the last."""
    return ["best", "last"] if config.held_out else ["last"]


def evaluate_job(config: CompareConfig, job: Job, weights: str, images: EvaluationImages, world: World,
                 stop: Callable[[], bool]) -> None:
    """Attack one network of a job on the race's test images, from wherever its chunks say that this stands."""
    found = results(config, job, images.fingerprint)
    if weights in found:
        return
    settings = config.evaluation(model=(str(job.folder),), names=(f"{job.name} {weights}",), weights=weights)
    protocol, attacks = settings.chosen(images.dataset)
    subject, = make_subjects(settings, [open_model(str(job.folder), weights)])
    for other in found.values():
        if other["model"]["fingerprint"] == subject.network.fingerprint:  # the last epoch is the best one
            store(result_file(config, job, weights), {**other, "name": subject.name})
            return
    check_subjects(settings, [subject], images, world)
    with exact_arithmetic():
        evaluate(settings, subject, images, protocol, attacks, world, overwrite=False, stop=stop)


def results(config: CompareConfig, job: Job, image_set: str) -> dict[str, dict[str, Any]]:
    """The complete evaluations of a job on the test images with that fingerprint, by weights."""
    found = {}
    if (job.folder / run_files.FINISHED).exists():
        for weights in kept_weights(config):
            result = read_object(result_file(config, job, weights))
            if result.get("complete") is True and result.get("image_set") == image_set:
                found[weights] = result
    return found


def result_file(config: CompareConfig, job: Job, weights: str) -> Path:
    """Where an evaluation of a job is kept."""
    settings = config.evaluation()
    label = file_label(settings, *settings.chosen(config.dataset), config.dataset)
    return job.folder / run_files.EVALUATIONS / f"{label}-{FILES[weights]}.json"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; an empty one where the file is missing or damaged."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
