"""Learning rates as pure functions of the step, so that a resumed training needs no stored state of them."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from wsrnas.runtime.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every optimiser step: ``schedule(step)``, with steps counted from 0.

    Args:
        name: key of ``SCHEDULES``.
        peak: largest learning rate.
        total_steps: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps of an epoch.
        minimum: learning rate towards which the cosine falls; it would be reached at step ``total_steps``.
        milestones: epochs, fractions allowed, from which the multi-step rate is a tenth again.
        warmup_epochs: epochs, fractions allowed, of a linear rise to the peak. It replaces the first steps of a
            constant or multi-step training; the cosine begins after it. Cyclic and one-cycle have a rise of their own.
        peak_share: share of the steps after which cyclic and one-cycle have their peak, inside (0, 1).

    Raises:
        InputError: a field cannot be used; the message says which and what was expected.
    """

    name: str
    peak: float
    total_steps: int
    steps_per_epoch: int
    minimum: float = 0.0
    milestones: tuple[float, ...] = ()
    warmup_epochs: float = 0.0
    peak_share: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise InputError(f"unknown schedule {self.name!r}; expected one of {', '.join(SCHEDULES)}")
        for name in ("total_steps", "steps_per_epoch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.peak < math.inf:
            raise InputError(f"the peak of the schedule is {self.peak:g}; expected a number above 0")
        if not 0 <= self.minimum <= self.peak:
            raise InputError(f"the minimum of the schedule is {self.minimum:g}; expected 0 to its peak, {self.peak:g}")
        # Equal ones count twice, as different ones of the same step do.
        if not all(0 <= milestone < math.inf for milestone in self.milestones) or list(self.milestones) != sorted(
                self.milestones):
            raise InputError(f"milestones are {self.milestones}; expected increasing epochs from 0 on")
        if not 0 <= self.warmup_epochs < math.inf:
            raise InputError(f"warmup_epochs is {self.warmup_epochs:g}; expected at least 0")
        if SCHEDULES[self.name].begins_low:
            if self.warmup_epochs:
                raise InputError(f"warmup_epochs is {self.warmup_epochs:g}; expected 0, the {self.name} schedule "
                                 "begins low itself")
            if not 0 < self.peak_share < 1:
                raise InputError(f"peak_share is {self.peak_share:g}; expected a number between 0 and 1")
        if self.warmup_steps > self.total_steps:
            raise InputError(f"warmup_epochs is {self.warmup_epochs:g}, {self.warmup_steps} steps; expected at most "
                             f"the {self.total_steps} steps of the training")

    @property
    def warmup_steps(self) -> int:
        """Number of optimiser steps of the warm-up."""
        return round(self.warmup_epochs * self.steps_per_epoch)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step.

        Raises:
            ValueError: the training has no such step.
        """
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} of {self.total_steps}")
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps)
        return SCHEDULES[self.name].rate(self, step)


def _constant(schedule: Schedule, step: int) -> float:
    return schedule.peak


def _multi_step(schedule: Schedule, step: int) -> float:
    steps = [round(epoch * schedule.steps_per_epoch) for epoch in schedule.milestones]
    return schedule.peak * 0.1 ** bisect_right(steps, step)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _cosine(schedule: Schedule, step: int) -> float:
    """Return the rate of half a cosine without restarts (Loshchilov & Hutter 2017)."""
    share = (step - schedule.warmup_steps) / (schedule.total_steps - schedule.warmup_steps)
    # Rounding may lift the first rate above the peak.
    return min(schedule.peak, _half_cosine(schedule.peak, schedule.minimum, share))


def _cyclic(schedule: Schedule, step: int) -> float:
    """Return the rate of the triangle of fast adversarial training (Wong et al. 2020).

    Its zeros lie one step before the first and one after the last. So every step trains, and exactly one step has the
    peak, where the quotient below is 1.
    """
    top = round(schedule.peak_share * (schedule.total_steps - 1))
    if step <= top:
        return schedule.peak * ((step + 1) / (top + 1))
    return schedule.peak * ((schedule.total_steps - step) / (schedule.total_steps - top))


def _one_cycle(schedule: Schedule, step: int) -> float:
    """Return the rate of half a cosine up and half a cosine down (Smith & Topin 2018), torch's ``OneCycleLR``."""
    low = schedule.peak / 25
    last = schedule.total_steps - 1
    top = schedule.peak_share * schedule.total_steps - 1  # between two steps, as a rule
    if 0 < top >= step:
        return _half_cosine(low, schedule.peak, step / top)
    # Trainings of so few steps that the rise takes less than one begin here.
    return _half_cosine(schedule.peak, low / 1e4, (step - top) / (last - top))


@dataclass(frozen=True)
class Shape:
    """The course of the learning rate over a training.

    Args:
        rate: function of schedule and step -> learning rate after the warm-up.
        help: line for ``--help`` and the documents.
        begins_low: whether the shape has a rise of its own (it reads ``peak_share``) and takes no warm-up.
        has_milestones: whether the shape reads ``milestones``.
        is_whole: whether the rate of a step depends on the number of steps of the whole training.
    """

    rate: Callable[[Schedule, int], float]
    help: str
    begins_low: bool = False
    has_milestones: bool = False
    is_whole: bool = False


SCHEDULES: dict[str, Shape] = {
    "constant": Shape(_constant, "the peak in every step"),
    "multi-step": Shape(_multi_step, "a tenth from every milestone on", has_milestones=True),
    "cosine": Shape(_cosine, "half a cosine down to the minimum", is_whole=True),
    "cyclic": Shape(_cyclic, "linear up and down, as in Fast-AT", begins_low=True, is_whole=True),
    "one-cycle": Shape(_one_cycle, "half a cosine up and down", begins_low=True, is_whole=True),
}
