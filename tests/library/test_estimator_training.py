"""Leave-one-out tasks, their schedule, and the passes over them."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from wsrnas.attacks import pgd
from wsrnas.estimators import build_estimator
from wsrnas.estimators.training import leave_one_out, schedule_factor, train_estimator

SOURCES = torch.tensor([0.03, 0.06, 0.09])
SIZE = (3, 16, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(64, 3)).double()


def make_tasks(images: int = 4, sources: Tensor = SOURCES, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    pixels = torch.rand(images, *SIZE, generator=seeded(1), dtype=torch.float64)
    labels = torch.arange(images) % 3
    return leave_one_out(network(), pixels, labels, sources, 0.15, 2, seeded(seed)), pixels, labels


def to_float(tasks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in tasks.items()}


# ---- tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_strength_is_hidden_once_and_asked_of_the_others(count):
    tasks, images, _ = make_tasks(4, SOURCES[:count])
    shapes = {name: tuple(value.shape) for name, value in tasks.items()}
    rows = 4 * (count + 1)
    assert shapes == {"images": (rows, *SIZE), "source_noises": (rows, count, *SIZE), "source_epsilons": (rows, count),
                      "target_epsilons": (rows, 1), "target_noises": (rows, *SIZE)}
    assert (tasks["source_epsilons"].diff(dim=1) >= 0).all()
    for image in range(4):
        group = slice(image * (count + 1), (image + 1) * (count + 1))
        assert torch.equal(tasks["images"][group], images[image].expand(count + 1, *SIZE))
        every = set()
        for kept, hidden in zip(tasks["source_epsilons"][group].tolist(), tasks["target_epsilons"][group].tolist(),
                                strict=True):
            every.add(tuple(sorted(kept + hidden)))
        assert len(every) == 1, "the tasks of an image share their strengths"
        strengths, = every
        assert tasks["target_epsilons"][group].flatten().tolist() == list(strengths)
        drawn = [s for s in strengths if min(abs(s - known) for known in SOURCES[:count].double().tolist()) > 1e-9]
        assert len(drawn) == 1 and 0 < drawn[0] <= 0.15


def test_every_noise_is_that_of_a_direct_attack():
    tasks, _, labels = make_tasks()
    model, labels = network(), labels.repeat_interleave(4)
    images = tasks["images"]
    expected = pgd(model, images, labels, tasks["target_epsilons"].flatten(), 2) - images
    torch.testing.assert_close(tasks["target_noises"], expected)
    for source in range(3):
        expected = pgd(model, images, labels, tasks["source_epsilons"][:, source], 2) - images
        torch.testing.assert_close(tasks["source_noises"][:, source], expected)


def test_strengths_are_drawn_for_each_image_from_the_generator():
    first, again, other = (make_tasks(seed=seed)[0]["target_epsilons"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    tasks, _, _ = make_tasks(200, SOURCES[:1])
    drawn = tasks["target_epsilons"].reshape(200, 2)
    drawn = drawn[(drawn - 0.03).abs() > 1e-8]
    assert len(drawn) == 200 == len(drawn.unique())
    assert drawn.mean() == pytest.approx(0.075, abs=5 * 0.15 / (12 * 200) ** 0.5)
    assert drawn.min() < 0.01 and drawn.max() > 0.14


# ---- schedule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 10, 100, 2500])
def test_schedule_rises_to_one_and_falls_to_nothing(total):
    factors = [schedule_factor(step, total) for step in range(total)]
    warm = max(1, round(0.04 * total))
    assert 0 < factors[0] == pytest.approx(1 / warm)
    assert factors[warm - 1] == 1.0 == max(factors)
    assert all(b > a for a, b in itertools.pairwise(factors[:warm]))
    fall = factors[warm:]
    assert all(b < a for a, b in itertools.pairwise(fall))
    if total >= 10:
        assert schedule_factor(total, total) == pytest.approx(0, abs=1e-12)
        middle = warm + (total - warm) / 2
        assert schedule_factor(middle, total) == pytest.approx(0.5)


# ---- passes --------------------------------------------------------------------------------------------------


def linear_interpolation(sources: list[float], noises: Tensor, target: float) -> Tensor:
    """WA-ANE for one task, as a person would write it."""
    if target < sources[0]:
        return noises[0] * target / sources[0]
    for i in range(len(sources) - 1):
        if sources[i] <= target < sources[i + 1]:
            way = (target - sources[i]) / (sources[i + 1] - sources[i])
            return (1 - way) * noises[i] + way * noises[i + 1]
    return noises[-1] * target / sources[-1]


@pytest.mark.parametrize("passes, batch_size", [(1, 64), (3, 5)])
def test_without_an_optimizer_the_estimator_is_only_measured(passes, batch_size):
    tasks, _, _ = make_tasks()
    error = size = 0.0
    for row in range(16):
        guess = linear_interpolation(tasks["source_epsilons"][row].tolist(), tasks["source_noises"][row],
                                     tasks["target_epsilons"][row].item())
        error += (guess - tasks["target_noises"][row]).square().sum().item()
        size += tasks["target_noises"][row].square().sum().item()
    measured, step = train_estimator(build_estimator("WA-ANE", SIZE), None, tasks, passes, seeded(), learning_rate=1e-3,
                                     step=7, total_steps=100, batch_size=batch_size)
    assert step == 7
    assert measured == pytest.approx(error / size, rel=1e-5)
    assert 0 < measured < 1


def test_a_learned_estimator_is_measured_without_learning():
    torch.manual_seed(0)
    estimator, (tasks, _, _) = build_estimator("A-ANE", SIZE), make_tasks()
    before = {name: value.clone() for name, value in estimator.state_dict().items()}
    train_estimator(estimator, None, to_float(tasks), 1, seeded(), learning_rate=1e-3, step=0, total_steps=10)
    assert all(torch.equal(value, before[name]) for name, value in estimator.state_dict().items())
    assert all(p.grad is None for p in estimator.parameters())


def test_steps_are_counted_and_follow_the_schedule():
    torch.manual_seed(0)
    estimator, (tasks, _, _) = build_estimator("A-ANE", SIZE), make_tasks()
    tasks = to_float(tasks)
    optimizer = torch.optim.AdamW(estimator.parameters(), 123.0)
    rates: list[float] = []
    optimizer.register_step_pre_hook(lambda opt, *_: rates.append(opt.param_groups[0]["lr"]))
    arguments = {"learning_rate": 1e-3, "total_steps": 100, "batch_size": 5}
    _, step = train_estimator(estimator, optimizer, tasks, 3, seeded(), step=0, **arguments)
    assert step == 3 * math.ceil(16 / 5) == len(rates)
    _, step = train_estimator(estimator, optimizer, tasks, 1, seeded(), step=step, **arguments)
    assert step == 16
    assert rates == pytest.approx([1e-3 * schedule_factor(s, 100) for s in range(16)])
    assert not estimator.training


def test_a_step_is_down_the_gradient_of_the_squared_error():
    """One batch, plain gradient descent: parameters move by the gradient of the mean over tasks of Eq. 5."""
    torch.manual_seed(0)
    estimator, (tasks, _, _) = build_estimator("A-ANE", SIZE), make_tasks()
    tasks = to_float(tasks)
    before = [p.detach().clone() for p in estimator.parameters()]
    optimizer = torch.optim.SGD(estimator.parameters(), 1.0)
    relative, _ = train_estimator(estimator, optimizer, tasks, 1, seeded(), learning_rate=1.0, step=0, total_steps=1)
    after = [p.detach().clone() for p in estimator.parameters()]
    with torch.no_grad():
        for parameter, value in zip(estimator.parameters(), before, strict=True):
            parameter.copy_(value)
    estimate = estimator.unprojected(tasks["source_noises"], tasks["images"], tasks["source_epsilons"],
                                     tasks["target_epsilons"])[:, 0]
    squared = (estimate - tasks["target_noises"]).square().sum((1, 2, 3))
    assert relative == pytest.approx((squared.sum() / tasks["target_noises"].square().sum()).item(), rel=1e-4)
    optimizer.zero_grad()
    squared.mean().backward()
    for parameter, old, new in zip(estimator.parameters(), before, after, strict=True):
        expected = old if parameter.grad is None else old - parameter.grad
        torch.testing.assert_close(new, expected, rtol=1e-3, atol=1e-5)
    assert any((new - old).abs().max() > 1e-4 for old, new in zip(before, after, strict=True))


def test_the_order_of_the_tasks_follows_the_generator():
    tasks = to_float(make_tasks()[0])
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        estimator = build_estimator("A-ANE", SIZE)
        train_estimator(estimator, torch.optim.SGD(estimator.parameters(), 1.0), tasks, 1, seeded(seed),
                        learning_rate=1e-3, step=0, total_steps=10, batch_size=3)
        states.append(torch.cat([p.detach().flatten() for p in estimator.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
