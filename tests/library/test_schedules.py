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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.optim import lr_scheduler

from wsrnas.runtime.errors import InputError
from wsrnas.training.schedules import SCHEDULES, Schedule

LENGTHS = [1, 2, 3, 4, 5, 7, 10, 41, 100, 1003]
SHARES = [0.05, 0.3, 0.4, 0.5, 0.9]
PEAKS = [0.1, 0.07, 1 / 3, 0.21, 3e-4]  # binary fractions of every kind: equality must not be luck


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

@pytest.mark.parametrize("steps", LENGTHS)
def test_constant(steps):
    assert rates(Schedule("constant", 0.07, steps, 3)) == [0.07] * steps


@pytest.mark.parametrize("milestones", [(), (0,), (1,), (2, 3), (2, 2), (1, 7, 99), (99, 149)])
@pytest.mark.parametrize("steps_per_epoch", [1, 3, 5])
def test_multi_step_is_the_rule_by_epochs(milestones, steps_per_epoch):
    steps = 176 * steps_per_epoch
    for peak in PEAKS:
        ours = rates(Schedule("multi-step", peak, steps, steps_per_epoch, milestones=milestones))
        assert ours == [peak * 0.1 ** bisect_right(milestones, step // steps_per_epoch) for step in range(steps)]
    same(ours, torch_rates(peak, steps, lr_scheduler.MultiStepLR, gamma=0.1,
                           milestones=[epoch * steps_per_epoch for epoch in milestones]))


def test_multi_step_of_the_published_training():
    ours = rates(Schedule("multi-step", 0.1, 176 * 5, 5, milestones=(99, 149)))
    same(ours, [0.1] * 99 * 5 + [0.01] * 50 * 5 + [0.001] * 27 * 5)


def test_milestones_within_an_epoch():
    # Of 4 steps an epoch: 0.5 epochs are 2 steps, 1.3 are 5.2, and step 5 is the nearest.
    same(rates(Schedule("multi-step", 1.0, 8, 4, milestones=(0.5, 1.3))), [1.0] * 2 + [0.1] * 3 + [0.01] * 3)
    same(rates(Schedule("multi-step", 1.0, 3, 4, milestones=(0.45, 0.55, 9.0))), [1.0] * 2 + [0.01])


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("minimum", [0.0, 1e-3, 0.07])
def test_cosine(steps, minimum):
    ours = rates(Schedule("cosine", 0.07, steps, 3, minimum))
    same(ours, torch_rates(0.07, steps, lr_scheduler.CosineAnnealingLR, T_max=steps, eta_min=minimum), 1e-8)
    # cos(2x) = 1 - 2 sin(x)^2, complementary angle: exact where the cosine above cancels.
    same(ours, [minimum + (0.07 - minimum) * math.sin(math.pi / 2 * (steps - step) / steps) ** 2
                for step in range(steps)], 1e-9)
    assert ours[0] == 0.07


@pytest.mark.parametrize(("peak", "minimum"), [(0.3, 0.03), (0.01, 0.001)])
def test_a_cosine_does_not_begin_above_its_peak(peak, minimum):
    assert minimum + (peak - minimum) > peak  # rounding
    assert rates(Schedule("cosine", peak, 10, 5, minimum))[0] == peak


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("share", SHARES)
def test_cyclic(steps, share):
    ours = rates(Schedule("cyclic", 0.07, steps, 3, peak_share=share))
    top = round(share * (steps - 1))
    same(ours, np.interp(range(steps), [-1, top, steps], [0, 0.07, 0]).tolist())
    # torch's triangle starts with the zero that ours leaves out.
    same(ours, torch_rates(0.07, steps + 1, lr_scheduler.CyclicLR, base_lr=0, max_lr=0.07, step_size_up=top + 1,
                           step_size_down=steps - top, cycle_momentum=False)[1:], 1e-9)


@pytest.mark.parametrize("peak", PEAKS)
@pytest.mark.parametrize("share", SHARES)
def test_cyclic_peaks_at_exactly_its_peak(peak, share):
    for steps in range(1, 300):
        ours = rates(Schedule("cyclic", peak, steps, 3, peak_share=share))
        assert max(ours) == peak and ours.count(peak) == 1 and ours.index(peak) == round(share * (steps - 1))
        assert min(ours) > 0 and min(ours) == min(ours[0], ours[-1])


@pytest.mark.parametrize("steps", [3, 5, 101])
def test_cyclic_is_symmetric(steps):
    ours = rates(Schedule("cyclic", 0.1, steps, 3))
    assert ours == ours[::-1] and ours[0] == pytest.approx(0.1 * 2 / (steps + 1))


@pytest.mark.parametrize(("steps", "share"), [(steps, share) for steps in LENGTHS for share in SHARES
                                              if share * steps != 1])  # there, torch divides by zero
def test_one_cycle_is_torchs(steps, share):
    for peak in PEAKS:
        expected = torch_rates(peak, steps, lr_scheduler.OneCycleLR, max_lr=peak, total_steps=steps, pct_start=share,
                               div_factor=25, final_div_factor=1e4, cycle_momentum=False)
        assert rates(Schedule("one-cycle", peak, steps, 3, peak_share=share)) == expected


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

@pytest.mark.parametrize("steps", [5, 41, 100])
@pytest.mark.parametrize(("epochs", "warm"), [(0, 0), (0.25, 1), (0.5, 2), (0.8, 3), (1, 4), (1.25, 5)])
def test_warm_up(steps, epochs, warm):
    constant, multi_step, cosine = (
        rates(Schedule(name, 0.07, steps, 4, 0.001, milestones=(3, 7.5), warmup_epochs=epochs))
        for name in ("constant", "multi-step", "cosine"))
    assert constant[:warm] == multi_step[:warm] == cosine[:warm]
    if warm > 1:
        same(constant[:warm], torch_rates(0.07, warm, lr_scheduler.LinearLR, start_factor=1 / warm,
                                          total_iters=warm - 1), 1e-9)
    same(constant, [0.07 * min(1, (step + 1) / warm) if warm else 0.07 for step in range(steps)])
    same(multi_step[warm:], torch_rates(0.07, steps, lr_scheduler.MultiStepLR, milestones=[12, 30])[warm:])
    if warm < steps:
        same(cosine[warm:], torch_rates(0.07, steps - warm, lr_scheduler.CosineAnnealingLR, T_max=steps - warm,
                                        eta_min=0.001), 1e-8)


@pytest.mark.parametrize("peak", PEAKS)
def test_warm_up_ends_at_exactly_the_peak(peak):
    for warm in range(1, 200):
        ours = rates(Schedule("constant", peak, 200, 1, warmup_epochs=warm))
        assert ours[warm - 1:] == [peak] * (201 - warm) and ours[:warm] == sorted(set(ours))


def test_warm_up_of_a_whole_training():
    for name in ("constant", "multi-step", "cosine"):
        same(rates(Schedule(name, 1.0, 4, 2, warmup_epochs=2)), [0.25, 0.5, 0.75, 1.0])


# -- all of them ----------------------------------------------------------------------------------------------------

def variants(name: str, peak: float, steps: int) -> list[Schedule]:
    """One schedule in all its forms."""
    if name in ("cyclic", "one-cycle"):
        return [Schedule(name, peak, steps, 4, peak_share=share) for share in SHARES]
    return [Schedule(name, peak, steps, 4, minimum * peak, (1, 2.5), warm)
            for minimum in (0, 0.3, 1) for warm in (0, 1, 2) if 4 * warm <= steps]


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_positive_and_at_most_the_peak(name):
    for peak in PEAKS:
        for steps in LENGTHS:
            for schedule in variants(name, peak, steps):
                ours = rates(schedule)
                assert all(0 < rate <= peak for rate in ours), schedule
                # Each is one hill: up, then down.
                top = ours.index(max(ours))
                assert ours[:top] == sorted(ours[:top]) and ours[top:] == sorted(ours[top:], reverse=True), schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_depends_on_the_step_alone(name):
    schedule = Schedule(name, 0.1, 50, 5, milestones=(3, 6))
    ours = rates(schedule)
    again = dataclasses.replace(schedule)
    assert [again(step) for step in reversed(range(50))] == ours[::-1] and hash(again) == hash(schedule)
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.peak = 1.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", [-1, 10, 11])
def test_there_is_no_rate_outside_the_training(name, step):
    with pytest.raises(ValueError, match=f"step {step} of 10"):
        Schedule(name, 0.1, 10, 5)(step)


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


def test_figure(tmp_path):
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
