"""The cost of a search: passes of images through the supernet for each phase, and measured seconds."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from search.measure_settings import SHORT
from search.priors import Untrained
from search.rnas_searcher import RnasSearcher
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import measured_paths, rungs, schedule
from wsrnas.attacks import shared_passes
from wsrnas.runtime.distributed import World
from wsrnas.training.losses import LOSSES

PROJECTION_EVALUATIONS = 4  # evaluations of F in a projection; an assumption of the forecast


def iteration_passes(searcher: Searcher, paths: int = 1, ranked: bool = False,
                     halved: Sequence[int] = ()) -> dict[str, dict[str, int]]:
    """Count the images that go through the supernet in one population or search iteration, by phase.

    The counts hold for the current division of the strengths. ``forward_backward`` counts a forward and a backward pass
    together (one PGD step on one image), ``forward`` the forward passes without gradient.

    Args:
        searcher: the search.
        paths: number of paths that are measured; the first alone trains the AN-Estimator and is checked.
        ranked: whether the sample of a table is measured, too.
        halved: epochs after which the worse half of the paths ends a short training.
    """
    config, steps = searcher.config, searcher.config.measuring_steps
    train_images, validation_images, checked = (len(images) for images in (
        searcher.train_set, searcher.validation_loader.image_set, searcher.check_loader.image_set))
    sources, targets = len(searcher.attacked), len(searcher.estimated)
    asked = searcher.estimator.gradients(targets) if targets else 0  # passes that the AN-Estimator needs
    trained = len(searcher.train_loader) * config.batch_size
    epochs, paths = halved_epochs(paths, config.short_epochs, halved) if config.measure == SHORT else (1, paths)
    both, forward = LOSSES[config.adv_loss].passes(config.loss_settings())
    passes = {
        "train": {"forward_backward": epochs * trained * both, "forward": epochs * trained * forward},
        "recalibrate": {"forward_backward": 0,
                        "forward": paths * min(train_images - train_images % config.batch_size,
                                           config.recalibration_batches * config.batch_size)},
        "validate": {"forward_backward": paths * validation_images * (shared_passes(sources, steps) + asked),
                     "forward": paths * validation_images * (1 + len(config.strengths))},
    }
    if ranked:
        parts = ["recalibrate", "validate", *["train"] * (config.measure == SHORT)]
        shares = {"recalibrate": paths, "validate": paths, "train": epochs}
        passes["ranking"] = {kind: config.ranking_sample * sum(
            passes[part][kind] // shares[part] * (config.short_epochs if part == "train" else 1) for part in parts)
            for kind in passes["validate"]}
    if not config.trains_supernet and config.measure != SHORT:
        del passes["train"]
    if searcher.learns_to_estimate:
        attacked = min(config.estimator_images, train_images) * shared_passes(sources + 1, steps)
        passes["estimator"] = {"forward_backward": attacked, "forward": 0}
    if searcher.checks:
        passes["estimator_check"] = {"forward_backward": checked * (
            shared_passes(sources, steps) + shared_passes(targets, steps) + asked),
                                     "forward": checked * 2 * (targets + config.measures_vulnerability)}
    return passes


def halved_epochs(paths: int, epochs: int, rungs: Sequence[int]) -> tuple[int, int]:
    """Return the epochs of all short trainings of a step together, and its measurements.

    Args:
        paths: architectures of the step.
        epochs: epochs of a whole training.
        rungs: epochs after which the worse half ends; all are measured there.
    """
    total = measured = before = 0
    for rung in (*rungs, epochs):
        total, measured, before = total + paths * (rung - before), measured + paths, rung
        paths = (paths + 1) // 2
    return total, measured


def total_passes(searcher: Searcher) -> dict[str, int]:
    """Count the passes of the whole search, ``forward_backward`` and ``forward``, if no strength falls back to PGD."""
    totals = {"forward_backward": 0, "forward": 0}
    for step in schedule(searcher.config):
        found = iteration_passes(searcher, measured_paths(searcher.config, step) or 1, searcher.config.ranks_in(step),
                                 rungs(searcher.config, step))
        for phase, passes in found.items():
            for kind in totals:
                totals[kind] += passes[kind] * (phase == "train" or step.phase != "warm-up")
    return totals


def training_free_passes(searcher: Searcher) -> tuple[list[str], int, int]:
    """Return the training-free scores that count, and what they cost for one architecture.

    Returns:
        Their names, and the images that their networks see forward and backward, and forward alone.
    """
    scored = [prior for prior in searcher.priors if isinstance(prior, Untrained)]
    costs = [prior.entry.cost(len(prior.setting.images)) for prior in scored]
    return [prior.name for prior in scored], sum(both for both, _ in costs), sum(forward for _, forward in costs)


def rnas_passes(searcher: RnasSearcher) -> dict[str, int]:
    """Estimate the forward-backward passes of one image through the supernet in a whole RNAS search, by part.

    A projection counts as ``PROJECTION_EVALUATIONS`` evaluations; one that begins within the bound needs a single one.
    """
    config, attack = searcher.config, searcher.config.num_steps
    epochs, images = config.epochs - config.warmup_epochs, config.batch_size
    free, constrained = searcher.unconstrained_steps, searcher.steps - searcher.unconstrained_steps
    trained = config.warmup_epochs * searcher.steps + epochs * free
    trained += epochs * constrained * (config.constrained_step != "project")
    descended = epochs * (free + constrained * (config.constrained_step == "descend+project"))
    halves = sum(weight > 0 for weight in config.upper_weights)
    upper_attack, _ = config.upper_attack().attack_passes(config.loss_settings())
    upper = upper_attack * (config.upper_weights[1] > 0) + halves
    lower = upper_attack + 3  # second order: the direction of the step, and two sides of a difference
    bounded = epochs * constrained * config.bound().finite
    return {
        "weights": images * trained * LOSSES[config.adv_loss].passes(config.loss_settings())[0],
        "architecture": images * descended * (upper + lower * (config.order == "second")),
        "projection": images * bounded * (attack + 2 * PROJECTION_EVALUATIONS),
        "vulnerability": images * config.epochs * config.watched_batches * (attack + 2),
    }


class PhaseClock:
    """Measure seconds by phase, with the device idle at both ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        started = time.perf_counter()
        yield
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started
