"""The jobs of a race: one training with its evaluations for each entrant and seed, in a run directory of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retrain.construction import run_inputs
from retrain.evaluate_files import file_label, result_file, store
from retrain.evaluate_network import evaluate
from retrain.evaluate_subjects import fit_subjects, make_subjects
from retrain.race.entrants import Entrant
from retrain.race.register import genotype_file
from retrain.race.settings import CompareConfig
from retrain.settings import RetrainConfig
from retrain.small_images import train
from wsrnas.data.image_set import DataSet
from wsrnas.evaluation.check_levels import was_checked
from wsrnas.report import refresh
from wsrnas.report.reading.evaluations import evaluation_problem
from wsrnas.runtime import run_files
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.distributed import World
from wsrnas.runtime.reading import read_json
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.sharing import Task
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.opening import open_model


@dataclass(frozen=True)
class Job:
    """One training of an entrant, with the evaluations of its weights.

    Args:
        entrant: entrant that is trained.
        seed: seed of the training.
        config: configuration of the training, as retrain.train_cifar takes it.
    """

    entrant: Entrant
    seed: int
    config: RetrainConfig

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.config.save

    @property
    def folder(self) -> Path:
        """Path of the run directory."""
        return Path(self.config.runs) / "retrain" / self.name


def race_jobs(config: CompareConfig, race: Path, entrants: Sequence[Entrant], seeds: int) -> list[Job]:
    """Return the jobs of these entrants, seed by seed, so that all entrants are trained once before the second seed."""
    jobs = []
    for seed in range(config.seed, config.seed + seeds):
        for entrant in entrants:
            arch = entrant.arch if isinstance(entrant.arch, str) else str(genotype_file(race, entrant.name))
            jobs.append(Job(entrant, seed, config.training(arch, entrant.init_channels, entrant.layers, seed, str(race),
                                                           f"{entrant.name}-seed{seed}")))
    return jobs


def check_jobs(jobs: list[Job], data: DataSet) -> None:
    """Refuse finished trainings of another configuration before the race starts.

    Raises:
        InputError: a finished training differs; the message names its run directory and the fields.
    """
    for job in jobs:
        if (job.folder / run_files.FINISHED).exists():
            RunDirectory(job.folder, job.config, World(), inputs=run_inputs(data.fingerprint(), job.entrant.arch))


def tasks(config: CompareConfig, jobs: list[Job], data: DataSet, images: EvaluationImages, world: World,
          keep: Callable[[], None]) -> list[Task]:
    """Return the jobs as tasks that processes share.

    Args:
        config: configuration of the race.
        jobs: jobs of the race.
        data: training and test images.
        images: test images on which all networks are attacked.
        world: this process by itself.
        keep: function that is called after each job, to update the race's page.
    """
    def work(job: Job, stop: Callable[[], bool]) -> None:
        if not (job.folder / run_files.FINISHED).exists():
            train(job.config, data, world)
        for weights in kept_weights(config):
            evaluate_job(config, job, weights, images, world, stop)
        refresh(job.folder, world, ended=True)
        keep()

    return [Task(job.name, partial(is_done, config, job, images.fingerprint), partial(work, job)) for job in jobs]


def is_done(config: CompareConfig, job: Job, image_set: str) -> bool:
    """Return whether a job is trained and measured."""
    return len(results(config, job, image_set)) == len(kept_weights(config))


def kept_weights(config: CompareConfig) -> list[str]:
    """Return which weights a training leaves: the best of the selection, if there is one, and the last."""
    return ["best", "last"] if config.held_out else ["last"]


def evaluate_job(config: CompareConfig, job: Job, weights: str, images: EvaluationImages, world: World,
                 stop: Callable[[], bool]) -> None:
    """Attack one network of a job on the race's test images; an evaluation that was stopped resumes."""
    found = results(config, job, images.fingerprint)
    if weights in found:
        return
    settings = config.evaluation(model=(str(job.folder),), names=(f"{job.name} {weights}",), weights=weights)
    protocol, attacks = settings.chosen(images.dataset)
    subject, = make_subjects(settings, [open_model(str(job.folder), weights)])
    for other in found.values():
        if other["model"]["fingerprint"] == subject.network.fingerprint:  # the last epoch is also the best one
            store(evaluation_file(config, job, weights, images.fingerprint), {**other, "name": subject.name})
            return
    subject, = fit_subjects(settings, [subject], images, world)
    with exact_arithmetic():
        evaluate(settings, subject, images, protocol, attacks, world, overwrite=False, stop=stop)


def results(config: CompareConfig, job: Job, image_set: str) -> dict[str, dict[str, Any]]:
    """Return the complete evaluations of a job on these test images, checked as asked or better, by weights."""
    found = {}
    if (job.folder / run_files.FINISHED).exists():
        for weights in kept_weights(config):
            result = read_object(evaluation_file(config, job, weights, image_set))
            if result.get("complete") is True and result.get("image_set") == image_set and was_checked(
                    result, config.checks) and evaluation_problem(result) is None:
                found[weights] = result
    return found


def evaluation_file(config: CompareConfig, job: Job, weights: str, image_set: str) -> Path:
    """Return the path of an evaluation of a job on these test images."""
    settings = config.evaluation()
    label = file_label(settings, *settings.chosen(config.dataset), config.dataset)
    return result_file(job.folder / run_files.EVALUATIONS, f"{label}-{Path(run_files.WEIGHTS[weights]).stem}",
                       image_set)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or damaged."""
    try:
        result = read_json(path)
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
