"""Every schedule at every step: against torch's own schedulers and against closed forms written another way."""

import dataclasses
import math
import os
import warnings
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.optim import lr_scheduler

from wsrnas.runtime.errors import InputError
from wsrnas.training.schedules import SCHEDULES, Schedule

SHARES = st.floats(0.05, 0.95)
PEAKS = st.floats(1e-4, 1)
STEPS = st.integers(1, 300)


@st.composite
def schedules(draw, names=tuple(SCHEDULES), warmed=True):
    """Any schedule with all its settings."""
    name, peak, steps, per_epoch = draw(st.sampled_from(names)), draw(PEAKS), draw(STEPS), draw(st.integers(1, 5))
    if name in ("cyclic", "one-cycle"):
        share = draw(SHARES)
        assume(name == "cyclic" or share * steps != 1)  # there, torch divides by zero
        return Schedule(name, peak, steps, per_epoch, peak_share=share)
    milestones = draw(st.lists(st.integers(0, 40), max_size=3).map(lambda values: tuple(sorted(values))))
    warm = draw(st.integers(0, steps)) / per_epoch if warmed else 0.0
    return Schedule(name, peak, steps, per_epoch, draw(st.sampled_from([0, 0.3, 1])) * peak, milestones, warm)


def rates(schedule: Schedule) -> list[float]:
    return [schedule(step) for step in range(schedule.total_steps)]


def torch_rates(peak: float, steps: int, scheduler, **arguments) -> list[float]:
    """The rates that torch's scheduler gives so many optimiser steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], peak)
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is nothing to optimise before the schedule's step
        schedule = scheduler(optimizer, **arguments)
        for step in range(steps):
            values.append(optimizer.param_groups[0]["lr"])
            if step < steps - 1:
                schedule.step()
    return values


def same(ours: list[float], expected: list[float], relative: float = 1e-12) -> None:
    assert len(ours) == len(expected) and ours == pytest.approx(expected, rel=relative, abs=0)


# -- one schedule at a time -----------------------------------------------------------------------------------------

@given(schedules(["constant"], warmed=False))
def test_a_constant_rate_is_its_peak(schedule):
    assert rates(schedule) == [schedule.peak] * schedule.total_steps


@given(schedules(["multi-step"], warmed=False))
def test_multi_step_is_the_rule_by_epochs_and_torchs(schedule):
    peak, steps, per_epoch = schedule.peak, schedule.total_steps, schedule.steps_per_epoch
    ours = rates(schedule)
    same(ours, [peak * 0.1 ** bisect_right(schedule.milestones, step // per_epoch) for step in range(steps)])
    same(ours, torch_rates(peak, steps, lr_scheduler.MultiStepLR, gamma=0.1,
                           milestones=[epoch * per_epoch for epoch in schedule.milestones]))


def test_multi_step_of_the_published_training():
    ours = rates(Schedule("multi-step", 0.1, 176 * 5, 5, milestones=(99, 149)))
    same(ours, [0.1] * 99 * 5 + [0.01] * 50 * 5 + [0.001] * 27 * 5)


def test_milestones_within_an_epoch():
    # Of 4 steps an epoch: 0.5 epochs are 2 steps, 1.3 are 5.2, and step 5 is the nearest.
    same(rates(Schedule("multi-step", 1.0, 8, 4, milestones=(0.5, 1.3))), [1.0] * 2 + [0.1] * 3 + [0.01] * 3)
    same(rates(Schedule("multi-step", 1.0, 3, 4, milestones=(0.45, 0.55, 9.0))), [1.0] * 2 + [0.01])


@given(schedules(["cosine"], warmed=False))
def test_cosine_is_its_closed_form_and_torchs(schedule):
    peak, minimum, steps = schedule.peak, schedule.minimum, schedule.total_steps
    ours = rates(schedule)
    same(ours, torch_rates(peak, steps, lr_scheduler.CosineAnnealingLR, T_max=steps, eta_min=minimum), 1e-7)
    # cos(2x) = 1 - 2 sin(x)^2, complementary angle: exact where the cosine above cancels.
    same(ours, [minimum + (peak - minimum) * math.sin(math.pi / 2 * (steps - step) / steps) ** 2
                for step in range(steps)], 1e-9)
    assert ours[0] == peak


@pytest.mark.parametrize(("peak", "minimum"), [(0.3, 0.03), (0.01, 0.001)])
def test_a_cosine_does_not_begin_above_its_peak(peak, minimum):
    assert minimum + (peak - minimum) > peak  # rounding
    assert rates(Schedule("cosine", peak, 10, 5, minimum))[0] == peak


@given(schedules(["cyclic"]))
def test_cyclic_is_a_triangle_and_torchs(schedule):
    peak, steps, top = schedule.peak, schedule.total_steps, round(schedule.peak_share * (schedule.total_steps - 1))
    ours = rates(schedule)
    same(ours, np.interp(range(steps), [-1, top, steps], [0, peak, 0]).tolist(), 1e-9)
    # torch's triangle starts with the zero that ours leaves out.
    same(ours, torch_rates(peak, steps + 1, lr_scheduler.CyclicLR, base_lr=0, max_lr=peak, step_size_up=top + 1,
                           step_size_down=steps - top, cycle_momentum=False)[1:], 1e-9)
    assert max(ours) == peak and ours.count(peak) == 1 and ours.index(peak) == top  # exactly, whatever the rounding
    assert min(ours) > 0 and min(ours) == min(ours[0], ours[-1])


@pytest.mark.parametrize("steps", [3, 5, 101])
def test_cyclic_is_symmetric(steps):
    ours = rates(Schedule("cyclic", 0.1, steps, 3))
    same(ours, ours[::-1])
    assert ours[0] == pytest.approx(0.1 * 2 / (steps + 1))


@given(schedules(["one-cycle"]))
def test_one_cycle_is_torchs(schedule):
    same(rates(schedule), torch_rates(
        schedule.peak, schedule.total_steps, lr_scheduler.OneCycleLR, max_lr=schedule.peak, div_factor=25,
        total_steps=schedule.total_steps, pct_start=schedule.peak_share, final_div_factor=1e4,
        cycle_momentum=False), 1e-9)


def test_one_cycle_where_torch_divides_by_zero():
    same(rates(Schedule("one-cycle", 0.1, 2, 1)), [0.1, 0.1 / 25e4])
    ours = rates(Schedule("one-cycle", 0.1, 4, 1, peak_share=0.25))
    assert ours[0] == 0.1 and ours[-1] == pytest.approx(0.1 / 25e4) and ours == sorted(ours, reverse=True)


@pytest.mark.parametrize("name", SCHEDULES)
def test_trainings_of_one_and_two_steps(name):
    assert len(rates(Schedule(name, 0.1, 1, 1))) == 1
    first, second = rates(Schedule(name, 0.1, 2, 1))
    assert first == 0.1
    assert second == pytest.approx({"cosine": 0.05, "cyclic": 0.05, "one-cycle": 4e-7}.get(name, 0.1))


# -- warm-up --------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@given(schedules(["constant", "multi-step", "cosine"]))
def test_a_warm_up_rises_to_exactly_the_peak_and_the_schedule_goes_on_from_there(schedule):
    peak, steps = schedule.peak, schedule.total_steps
    warm = round(schedule.warmup_epochs * schedule.steps_per_epoch)
    ours = rates(schedule)
    same(ours[:warm], [peak * (step + 1) / warm for step in range(warm)], 1e-9)
    if warm > 1:
        same(ours[:warm], torch_rates(peak, warm, lr_scheduler.LinearLR, start_factor=1 / warm, total_iters=warm - 1),
             1e-7)
    if warm and (schedule.name != "multi-step" or not schedule.milestones or
                 schedule.milestones[0] * schedule.steps_per_epoch >= warm):
        assert ours[warm - 1] == peak
    plain = dataclasses.replace(schedule, warmup_epochs=0.0)
    if schedule.name == "cosine" and warm < steps:
        plain = dataclasses.replace(plain, total_steps=steps - warm)  # the cosine falls over what is left
        same(ours[warm:], rates(plain), 1e-9)
    elif schedule.name != "cosine":
        same(ours[warm:], rates(plain)[warm:])


def test_a_part_of_an_epoch_of_warm_up_is_the_nearest_number_of_steps():
    for epochs, warm in ((0, 0), (0.25, 1), (0.5, 2), (0.8, 3), (1, 4), (1.25, 5)):
        ours = rates(Schedule("constant", 0.07, 41, 4, warmup_epochs=epochs))
        same(ours, [0.07 * min(1, (step + 1) / warm) if warm else 0.07 for step in range(41)])


# -- all of them ----------------------------------------------------------------------------------------------------

@given(schedules())
def test_rates_are_positive_and_at_most_the_peak_and_make_one_hill(schedule):
    ours = rates(schedule)
    assert all(0 < rate <= schedule.peak for rate in ours)
    top = ours.index(max(ours))
    assert ours[:top] == sorted(ours[:top]) and ours[top:] == sorted(ours[top:], reverse=True)


@given(schedules())
def test_the_rate_depends_on_the_step_alone(schedule):
    ours = rates(schedule)
    again = dataclasses.replace(schedule)
    assert [again(step) for step in reversed(range(schedule.total_steps))] == ours[::-1]
    assert hash(again) == hash(schedule)
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.peak = 1.0
    for step in (-1, schedule.total_steps, schedule.total_steps + 1):
        with pytest.raises(ValueError, match=f"step {step} of {schedule.total_steps}"):
            schedule(step)


@pytest.mark.parametrize(("fields", "sentence"), [
    ({"name": "cosinus"}, "unknown schedule 'cosinus'; expected one of constant, multi-step, cosine, cyclic, "
                          "one-cycle"),
    ({"total_steps": 0}, "total_steps is 0; expected at least 1"),
    ({"steps_per_epoch": 0}, "steps_per_epoch is 0; expected at least 1"),
    ({"peak": 0.0}, "peak of the schedule is 0; expected a number above 0"),
    ({"peak": math.nan}, "peak of the schedule is nan"),
    ({"peak": math.inf}, "peak of the schedule is inf"),
    ({"minimum": -0.1}, "minimum of the schedule is -0.1; expected 0 to its peak, 0.1"),
    ({"minimum": 0.2}, "minimum of the schedule is 0.2; expected 0 to its peak, 0.1"),
    ({"minimum": math.nan}, "minimum of the schedule is nan"),
    ({"milestones": (5, 2)}, "milestones are (5, 2); expected increasing epochs"),
    ({"milestones": (1, math.inf)}, "milestones are (1, inf)"),
    ({"warmup_epochs": -1.0}, "warmup_epochs is -1; expected at least 0"),
    ({"warmup_epochs": math.inf}, "warmup_epochs is inf"),
    ({"warmup_epochs": 2.2}, "warmup_epochs is 2.2, 11 steps; expected at most the 10 steps of the training"),
    ({"name": "cyclic", "warmup_epochs": 1}, "warmup_epochs is 1; expected 0, the cyclic schedule begins low itself"),
    ({"name": "one-cycle", "warmup_epochs": 0.5}, "the one-cycle schedule begins low itself"),
    ({"name": "cyclic", "peak_share": 0.0}, "peak_share is 0; expected a number between 0 and 1"),
    ({"name": "cyclic", "peak_share": 1.0}, "peak_share is 1;"),
    ({"name": "one-cycle", "peak_share": -0.5}, "peak_share is -0.5;"),
    ({"name": "one-cycle", "peak_share": math.nan}, "peak_share is nan;"),
])
def test_impossible_schedules_are_refused(fields, sentence):
    with pytest.raises(InputError) as caught:
        Schedule(**{"name": "cosine", "peak": 0.1, "total_steps": 10, "steps_per_epoch": 5} | fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_the_place_of_a_peak_matters_only_where_there_is_one():
    for name in ("constant", "multi-step", "cosine"):
        assert rates(Schedule(name, 0.1, 10, 5, peak_share=7.0)) == rates(Schedule(name, 0.1, 10, 5))


# -- a figure for a person to look at -------------------------------------------------------------------------------

FIGURE = {
    "constant, 1 epoch of warm-up": Schedule("constant", 0.1, 300, 10, warmup_epochs=1),
    "multi-step at 15 and 25": Schedule("multi-step", 0.1, 300, 10, milestones=(15, 25)),
    "cosine to 0.001, 3 epochs of warm-up": Schedule("cosine", 0.1, 300, 10, minimum=0.001, warmup_epochs=3),
    "cyclic": Schedule("cyclic", 0.1, 300, 10),
    "cyclic, peak at 0.4": Schedule("cyclic", 0.1, 300, 10, peak_share=0.4),
    "one-cycle, peak at 0.3": Schedule("one-cycle", 0.1, 300, 10, peak_share=0.3),
}


def plot_schedules(schedules: dict[str, Schedule], path: Path) -> Figure:
    """Learning rate over epochs, linear and logarithmic."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, scale in zip(figure.subplots(1, 2), ("linear", "log"), strict=True):
        for label, schedule in schedules.items():
            epochs = np.arange(schedule.total_steps) / schedule.steps_per_epoch
            axes.plot(epochs, rates(schedule), label=label, marker=".", markersize=2, linewidth=1)
        axes.set(xlabel="epoch", ylabel="learning rate", yscale=scale)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
    return figure


@pytest.mark.slow
def test_every_schedule_is_drawn_as_its_rates(tmp_path):
    """With the environment variable WSRNAS_TEST_FIGURES, the picture is kept in that folder."""
    folder = Path(os.environ.get("WSRNAS_TEST_FIGURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    assert {schedule.name for schedule in FIGURE.values()} == set(SCHEDULES)
    figure = plot_schedules(FIGURE, folder / "schedules.png")
    assert (folder / "schedules.png").stat().st_size > 10_000
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == list(FIGURE)
        for line, schedule in zip(axes.lines, FIGURE.values(), strict=True):
            assert line.get_ydata().tolist() == [schedule(step) for step in range(300)]
            assert line.get_xdata().tolist() == [step / 10 for step in range(300)]
