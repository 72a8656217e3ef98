"""One epoch of the supernet's training: a sampled path, a path a step, or the few-shot supernet whose turn it is."""

from typing import Protocol

from search.few_shot import FewShot, load_weights, own_weights
from search.spaces.space import Space
from search.strategy.step import Step
from search.supernet_training import Training, set_learning_rate, train_paths
from search.training_paths import paths_of_epoch
from search.wsr_nas_settings import SearchConfig, learning_rate
from wsrnas.data.loader import BatchLoader


class PathTraining(Training, Protocol):
    """What trains a supernet path by path; ``Searcher`` does."""

    config: SearchConfig
    space: Space
    train_loader: BatchLoader
    few_shot: FewShot | None


def train_epoch_of_paths(training: PathTraining, step: Step) -> dict[str, float]:
    """Train the current path, or one path in every step, adversarially on D_t for one epoch.

    All few-shot supernets see the same batches with the same random starts. With ``--paths edges`` they train the same
    paths apart from the edge; with ``--paths cell`` each trains those paths that are cells with its operation.

    Returns:
        See ``wsrnas.training.epoch.train_epoch``.

    Raises:
        Preempted: a signal asked to stop.
    """
    config, sampled, steps = training.config, training.supernet.current_path, len(training.train_loader)
    epoch = begin_member(training, step) if config.few_shot else step.index
    set_learning_rate(training.trainer.optimizer, learning_rate(config, step))
    training.trainer.steps = epoch * steps
    fixed = (config.few_shot_edge, config.member(step)) if config.few_shot else None
    paths = [sampled] * steps if config.path_every == "epoch" else paths_of_epoch(
        training.space, config.path_kind, config.seed, epoch, steps, fixed)
    trained = train_paths(training, training.train_loader, paths, epoch, step.title)
    training.supernet.path = sampled
    if training.few_shot and epoch == config.warmup_architectures - 1 and config.few_shot:
        training.few_shot.members[config.member(step)] = own_weights(training.supernet)
    return trained


def begin_member(training: PathTraining, step: Step) -> int:
    """Begin or go on with a few-shot supernet.

    Returns:
        The number of the epoch in its training.
    """
    epoch = step.number % training.config.warmup_architectures
    if epoch == 0:
        assert training.few_shot is not None and training.few_shot.first is not None
        load_weights(training.supernet, training.few_shot.first)
        training.trainer.optimizer.state.clear()  # the momentum of the supernet before
    return epoch
