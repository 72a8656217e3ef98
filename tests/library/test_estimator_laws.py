"""AN-Estimators on noise whose right answer is known, and what one call costs.

Below, source noises follow a law, and the estimate has to be the law at the targets. Strengths are in pixels of [0, 1].
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.operators import Operators
from tests.quick import slow_after
from wsrnas.estimators import build_estimator, names
from wsrnas.estimators.training import schedule_factor

EXACT = ["WA-ANE", "A-ANE", "E-ANE", "A-ANE-plus", "C-ANE"]  # the learned ones before training
SOURCES = torch.tensor([4, 10, 18], dtype=torch.float64) / 255
TARGETS = torch.tensor([0, 2, 4, 5.5, 7, 10, 13, 17.9, 18, 24], dtype=torch.float64) / 255
TOLERANCE = {"rtol": 1e-12, "atol": 1e-16}
Law = Callable[[Tensor], Tensor]  # strengths (B, N) -> noise (B, N, 3, 8, 8)


pytestmark = pytest.mark.usefixtures("seed")


def grey(batch: int) -> Tensor:
    """Images so far from black and white that no noise here meets the box."""
    return 0.2 + 0.6 * torch.rand(batch, 3, 8, 8, dtype=torch.float64)


def radius(epsilons: Tensor) -> Tensor:
    return epsilons[..., None, None, None]


def linear_law(batch: int) -> Law:
    direction = 2 * torch.rand(batch, 1, 3, 8, 8, dtype=torch.float64) - 1
    return lambda epsilons: radius(epsilons) * direction


def sign_law(batch: int) -> Law:
    direction = torch.randn(batch, 1, 3, 8, 8, dtype=torch.float64).sign()
    return lambda epsilons: radius(epsilons) * direction


def turning_law(batch: int) -> Law:
    """Straight from each source to the next one, where the direction changes; through zero, and on beyond the last."""
    signs = torch.randn(batch, 3, 3, 8, 8, dtype=torch.float64).sign() * radius(SOURCES)
    knots = [0.0, *SOURCES.tolist(), 10 * SOURCES[-1].item()]

    def law(epsilons: Tensor) -> Tensor:
        noise = torch.empty(*epsilons.shape, 3, 8, 8, dtype=torch.float64)
        for image, *pixel in itertools.product(range(batch), range(3), range(8), range(8)):
            at_sources = signs[(image, slice(None), *pixel)].tolist()
            values = [0.0, *at_sources, 10 * at_sources[-1]]
            noise[(image, slice(None), *pixel)] = torch.from_numpy(np.interp(epsilons[image].numpy(), knots, values))
        return noise

    return law


def rotation_law(batch: int, turn: float) -> Law:
    """Pairs of pixels hold the cosine and the sine of an angle that grows by ``turn`` for each unit of strength."""
    start = 2 * torch.pi * torch.rand(batch, 1, 3, 8, 4, dtype=torch.float64)

    def law(epsilons: Tensor) -> Tensor:
        angle = start + turn * radius(epsilons)
        return radius(epsilons) * torch.cat([angle.cos(), angle.sin()], -1)

    return law


def pair_lengths(noise: Tensor) -> Tensor:
    """Lengths (..., 3, 8, 4) of the pairs of `rotation_law`."""
    return torch.hypot(*noise.chunk(2, -1))


def doubles(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def between(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


def estimate_of(name: str, law: Law, sources: Tensor, targets: Tensor, batch: int = 2,
                training: bool = False) -> Tensor:
    noises = law(sources.expand(batch, -1))
    with torch.no_grad():
        return build_estimator(name).double().train(training)(noises, grey(batch), sources, targets)


# ---- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("make_law", [linear_law, sign_law, turning_law])
@pytest.mark.parametrize("training", slow_after(1, [False, True]))
def test_exact_below_on_between_and_beyond_the_sources(name: str, make_law, training: bool) -> None:
    law = make_law(2)
    estimate = estimate_of(name, law, SOURCES, TARGETS, training=training)
    torch.testing.assert_close(estimate, law(TARGETS.expand(2, -1)), **TOLERANCE)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("make_law", [linear_law, sign_law])
@pytest.mark.parametrize("count", slow_after(1, [1, 2, 6]))
def test_exact_for_any_number_of_sources_different_for_each_image(name: str, make_law, count: int) -> None:
    law = make_law(4)
    sources = 0.01 + 0.1 * torch.rand(4, count, dtype=torch.float64).sort(1).values
    targets = 0.15 * torch.rand(4, 7, dtype=torch.float64)
    estimate = estimate_of(name, law, sources, targets, batch=4)
    torch.testing.assert_close(estimate, law(targets), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_rotation_is_cut_short_by_its_chord(name: str) -> None:
    """In units of the target, an estimate is a point of the chord between the directions of its two sources."""
    low, high, turn = 0.03, 0.09, 20.0
    sources, targets = doubles(low, high), between(0.031, 0.089, 59)
    law = rotation_law(2, turn)
    noise, truth = estimate_of(name, law, sources, targets), law(targets.expand(2, -1))
    share = low * (high - targets) / ((high - low) * targets)  # of the lower direction; the rest is the upper one's
    chord = (1 - 2 * share * (1 - share) * (1 - np.cos(turn * (high - low)))).sqrt()
    torch.testing.assert_close(pair_lengths(noise), radius(targets * chord).expand(2, -1, 3, 8, 4), **TOLERANCE)
    # A line between two points of a curve f is off it by at most gap^2 / 8 max|f''|; here |f''| = turn |2i - turn eps|.
    bound = (high - low) ** 2 / 8 * turn * np.hypot(2, turn * high)
    error = pair_lengths(noise - truth)
    assert 0.5 * bound < error.max() <= bound


@pytest.mark.parametrize("name", EXACT)
def test_outside_the_sources_a_rotation_is_missed_by_the_chord_of_the_rest(name: str) -> None:
    turn, targets = 12.0, doubles(0.001, 0.01, 0.025, 0.091, 0.12, 0.2)
    law = rotation_law(2, turn)
    nearest = doubles(0.03, 0.03, 0.03, 0.09, 0.09, 0.09)
    noise = estimate_of(name, law, doubles(0.03, 0.06, 0.09), targets)
    expected = 2 * targets * (turn * (targets - nearest) / 2).sin().abs()
    error = pair_lengths(noise - law(targets.expand(2, -1)))
    torch.testing.assert_close(error, radius(expected).expand(2, -1, 3, 8, 4), rtol=1e-10, atol=1e-16)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_rotation_is_met_with_the_square_of_the_number_of_sources(name: str) -> None:
    law, targets = rotation_law(1, 12.0), between(0.04, 0.2, 33)
    errors = [pair_lengths(estimate_of(name, law, between(0.04, 0.2, 1 + gaps), targets, batch=1)
                           - law(targets.expand(1, -1))).max().item() for gaps in (4, 8, 16)]
    assert [a / b for a, b in itertools.pairwise(errors)] == pytest.approx([4, 4], rel=0.1)


def test_the_printed_rule_mirrors_the_strength_and_is_exact_only_where_that_does_not_matter() -> None:
    """Between sources a and b the noise of a + b - t, cut to t; below the first, eps_1 of it, not t/eps_1."""
    law = sign_law(2)
    first, middle, last = SOURCES.tolist()
    means = {0: first * first, 2: first * first, 4: middle, 5.5: first + middle - 5.5 / 255, 7: 7 / 255, 10: last,
             13: middle + last - 13 / 255, 17.9: middle + last - 17.9 / 255, 18: last, 24: 24 / 255}
    meant = doubles(*(min(mean, target / 255) for target, mean in means.items()))
    torch.testing.assert_close(TARGETS * 255, doubles(*means))
    estimate = estimate_of("WA-ANE-paper", law, SOURCES, TARGETS)
    torch.testing.assert_close(estimate, law(meant.expand(2, -1)), **TOLERANCE)
    direction = linear_law(2)
    images, noises = grey(2), direction(SOURCES.expand(2, -1))
    unprojected = build_estimator("WA-ANE-paper").unprojected(noises, images, SOURCES, TARGETS)
    exact = [torch.allclose(unprojected[:, i], direction(TARGETS.expand(2, -1))[:, i]) for i in range(len(TARGETS))]
    assert exact == [mean == target / 255 for target, mean in means.items()]
    assert sum(exact) == 3, "the middle of a gap, on the last source, beyond it"


# ---- learning a law ----------------------------------------------------------------------------------------


def quarter_turn(batch: int, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noise at two sources and at targets (B, T) between them; it turns by 90 degrees from one to the other."""
    sources = torch.tensor([4, 18]) / 255
    epsilons = torch.cat([sources.expand(batch, -1), targets], 1)
    first, second = torch.randn(2, batch, 1, 3, 8, 8).sign()
    angle = radius((epsilons - sources[0]) / (sources[1] - sources[0])) * torch.pi / 2
    noise = radius(epsilons) * (angle.cos() * first + angle.sin() * second) / 2**0.5
    return sources, noise[:, :2], noise[:, 2:]


@pytest.mark.slow
def test_learning_finds_how_the_adjustment_depends_on_the_strength() -> None:
    """A-ANE removes 60 % of WA-ANE's error, most of which the best adjustment alike at all strengths leaves."""
    steps, test_targets = 200, (torch.linspace(5, 17, 7) / 255).expand(64, -1)
    images, estimator = torch.full((64, 3, 8, 8), 0.5), build_estimator("A-ANE")
    sources, noises, truth = quarter_turn(64, test_targets)
    average = build_estimator("WA-ANE").unprojected(noises, images, sources, test_targets)
    constant = radius(test_targets) * (noises / radius(sources)).sum(1, keepdim=True)
    share = (constant * (truth - average)).sum() / constant.square().sum()

    def relative(estimate: Tensor) -> float:
        return ((estimate - truth).norm() / truth.norm()).item()

    optimizer = torch.optim.AdamW(estimator.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * schedule_factor(step, steps)
        targets = (4 + 14 * torch.rand(8, 2)) / 255
        _, batch_noises, wanted = quarter_turn(8, targets)
        estimate = estimator.unprojected(batch_noises, images[:8], sources, targets)
        optimizer.zero_grad()
        (estimate - wanted).square().sum((2, 3, 4)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        ended = relative(estimator.unprojected(noises, images, sources, test_targets))
    assert ended < 0.4 * relative(average) < 0.5 * relative(average + share * constant)


# ---- what a call costs -------------------------------------------------------------------------------------


def without_values(batch: int, targets: int, sources: int = 3, per_image: bool = False) -> list[Tensor]:
    """The arguments of an estimator on the meta device, 16x16."""
    shapes = [(batch, sources, 3, 16, 16), (batch, 3, 16, 16), *([batch] * per_image + [n] for n in (sources, targets))]
    return [torch.empty(shape, device="meta") for shape in shapes]


def cost(name: str, batch: int, targets: int) -> tuple[int, int, int]:
    """Operators of a call, elements that they write, multiplications of convolutions and matrices."""
    arguments = without_values(batch, targets)
    estimator = build_estimator(name).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as flops, Operators() as operators:
        estimator(*arguments)
    return operators.calls, operators.elements, flops.get_total_flops()


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("per_image", slow_after(1, [False, True]))
def test_nothing_waits_for_the_device(name: str, per_image: bool) -> None:
    """Neither an estimate nor a training step copies from or to the host."""
    arguments = without_values(2, 5, per_image=per_image)
    estimator = build_estimator(name).to("meta")
    with Operators():
        estimate = estimator(*arguments)
        if list(estimator.parameters()):
            estimator.unprojected(*arguments).square().sum().backward()
    assert estimate.is_meta and estimate.shape == (2, 5, 3, 16, 16)


@pytest.mark.parametrize("look", [
    lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x[x > 0], lambda x: bool(x.any()),
    lambda x: x[torch.arange(2)], lambda x: x + torch.tensor([1.0, 2.0]), lambda x: x.unique()])
def test_what_waits_for_the_device_is_found(look) -> None:
    """An index that is a Python list, x[[0, 1]], is missing: not every version of torch shows its copy to a mode."""
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), Operators():
        look(torch.ones(2, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_images_and_targets_are_not_looped_over(name: str) -> None:
    """The same operators whatever the number of images and targets, on arrays that grow with both."""
    by_targets = [cost(name, 8, targets) for targets in (1, 5, 25)]
    by_images = [cost(name, batch, 5) for batch in (1, 8, 64)]
    assert len({calls for calls, _, _ in by_targets + by_images}) == 1
    for part in (1, 2):  # elements, multiplications
        one, five, many = (costs[part] for costs in by_targets)
        assert many - five == 5 * (five - one), "as much for each further target"
        one, eight, many = (costs[part] for costs in by_images)
        assert many - eight == 8 * (eight - one), "as much for each further image"
    assert by_targets[0][1] < by_targets[1][1] and by_images[0][1] < by_images[1][1]
