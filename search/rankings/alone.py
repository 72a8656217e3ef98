"""An architecture after a short adversarial training of its own, which shares its weights with no other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan

from torch import Tensor

from search.few_shot import load_weights, own_weights
from search.rankings.bench import Bench, Measure, ShortTrainings, Stop, Values, use_path
from search.rankings.inherited import path_passes, path_values
from search.spaces.supernet import Supernet
from search.supernet_training import build_trainer, train_alone
from search.wsr_nas_settings import SearchConfig
from wsrnas.runtime.errors import say
from wsrnas.training.epoch import Diverged
from wsrnas.training.losses import LOSSES
from wsrnas.training.trainer import Trainer


@dataclass
class Alone:
    """Train one path.

    Args:
        supernet: the supernet, which has the weights of that path among others.
        config: configuration of the training.
        trainer: the training.
        stop: asked after every training step.
    """

    supernet: Supernet
    config: SearchConfig
    trainer: Trainer
    stop: Callable[[], bool]


def alone(bench: Bench) -> Measure:
    """Return the function that trains an architecture by itself, and then measures it.

    It is the short training of ``search.wsr_nas --measure short``: all architectures begin with the weights that the
    supernet began with, and see the same batches of D_t with the same random starts.
    """
    settings = trainings(bench)
    config = replace(bench.trained.config, seed=bench.trained.seed, learning_rate=settings.learning_rate)
    supernet = bench.trained.build(False, bench.world.device)
    first = own_weights(supernet)

    def measured(choices: Tensor, stop: Stop) -> Values:
        load_weights(supernet, first)
        use_path(bench, supernet, choices, trained=False)
        assert supernet.path is not None
        training = Alone(supernet, config, build_trainer(config, supernet, bench.world), stop)
        try:
            train_alone(training, settings.loader, supernet.path, range(settings.epochs), settings.epochs,
                        "short training")
        except Diverged as error:
            say(f"{error}; this architecture counts as the worst")
            return unknown_values(len(bench.strengths))
        return path_values(bench, supernet, stop)

    return measured


def unknown_values(strengths: int) -> Values:
    """Return the values of an architecture whose training diverged, at each strength."""
    return {"losses": [nan] * (1 + strengths), "accuracies": [nan] * (1 + strengths),
            "vulnerabilities": [nan] * strengths}


def trainings(bench: Bench) -> ShortTrainings:
    """Return the short trainings of a bench that has some."""
    assert bench.short is not None  # search.ranking builds them where they are measured
    return bench.short


def alone_passes(bench: Bench) -> tuple[int, int]:
    """Return the images that one architecture needs, forward and backward, and forward alone."""
    settings, config = trainings(bench), bench.trained.config
    images = settings.epochs * len(settings.loader) * config.batch_size
    measured = path_passes(bench)
    trained = LOSSES[config.adv_loss].passes(config.loss_settings())
    return images * trained[0] + measured[0], images * trained[1] + measured[1]
