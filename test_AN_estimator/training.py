"""One epoch of an AN-Estimator on the study's training noises (Wsr-NAS, Eq. 5): the same tasks for every estimator."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from test_AN_estimator.noises import Noises, read, rotations, training_batches, training_file
from test_AN_estimator.settings import BenchmarkConfig, Setting
from wsrnas.data.image_set import DataSet
from wsrnas.estimators import build_estimator
from wsrnas.estimators.base import NoiseEstimator
from wsrnas.estimators.training import hide_each, train_estimator
from wsrnas.runtime.errors import Preempted
from wsrnas.runtime.finite import require_finite
from wsrnas.runtime.progress import progress
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.seeding import generator, seeded_weights


def trained_estimator(config: BenchmarkConfig, setting: Setting, name: str, data: DataSet, noises: Path,
                      run: RunDirectory, stop: Callable[[], bool]) -> NoiseEstimator:
    """Train an estimator for its epoch, from the last saved rotation, and return it in evaluation mode.

    Args:
        config: configuration of the study.
        setting: strengths of the question.
        name: name of the estimator.
        data: the data set.
        noises: folder of the training noises.
        run: directory of this estimator in this setting.
        stop: function that returns whether to stop before the next rotation.

    Raises:
        Preempted: a signal asked to stop; the last complete rotation is saved.
    """
    device = run.world.device
    estimator = initial_estimator(config, name, data).to(device)
    optimizer = config.estimator_optimizer(estimator)
    if optimizer is None:
        return estimator.eval()
    state = run.restore()
    if state is not None:
        estimator.load_state_dict(state["estimator"])
        optimizer.load_state_dict(state["optimizer"])
    begin, step = (state["step"], state["optimizer_step"]) if state else (0, 0)
    count, total_steps = rotations(config, data), optimizer_steps(config, setting, data)
    for rotation in progress(range(begin, count), f"{name}, {setting.name}", run.world, count, initial=begin):
        if stop():
            raise Preempted(f"{name}, {setting.name}: stopped before rotation {rotation + 1}/{count}")
        errors = []
        for number, tasks in enumerate(training_tasks(config, setting, read(training_file(noises, rotation), device))):
            error, step = train_estimator(
                estimator, optimizer, tasks, 1, generator(config.seed, "tasks", setting.name, rotation, number),
                learning_rate=config.estimator_learning_rate, step=step, total_steps=total_steps,
                batch_size=config.estimator_batch_size)
            require_finite(error, f"{name}, {setting.name}: the error of the estimator in rotation {rotation + 1}",
                           "start under another --save with a lower --estimator_learning_rate")
            errors.append(error)
        run.record(rotation, {"relative_error": sum(errors) / len(errors)})
        run.save({"step": rotation + 1, "optimizer_step": step, "estimator": estimator.state_dict(),
                  "optimizer": optimizer.state_dict()})
    return estimator.eval()


def initial_estimator(config: BenchmarkConfig, name: str, data: DataSet) -> NoiseEstimator:
    """Build the estimator with seeded weights, the same in every setting."""
    with seeded_weights(config.seed):
        return build_estimator(name, data.image_shape)


def training_tasks(config: BenchmarkConfig, setting: Setting, made: Noises) -> Iterator[dict[str, Tensor]]:
    """Yield the leave-one-out tasks of every batch of a rotation."""
    columns = [config.fixed_strengths.index(epsilon) for epsilon in setting.sources] + [setting.drawn]
    for rows in torch.arange(len(made.images), device=made.images.device).split(config.batch_size):
        yield hide_each(made.images[rows], made.epsilons[rows][:, columns], made.noises[rows][:, columns])


def optimizer_steps(config: BenchmarkConfig, setting: Setting, data: DataSet) -> int:
    """Count the optimiser steps of the whole epoch, for the schedule."""
    tasks = config.batch_size * (len(setting.sources) + 1)
    return training_batches(config, data) * -(-tasks // config.estimator_batch_size)
