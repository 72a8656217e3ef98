"""AN-Estimators: laws of the interpolation, the ball and the box, gradients, and that learning learns."""

import math

import pytest
import torch
from torch import Tensor

from tests.quick import slow_after
from wsrnas.estimators import ESTIMATORS, build_estimator, names, recurrence
from wsrnas.estimators.base import project
from wsrnas.estimators.interpolation import bracket, interpolation_weights, paper_weights
from wsrnas.runtime.errors import InputError

LEARNED = {"A-ANE": 60_383, "E-ANE": 127_570, "E-ANE-minus": 26_470, "A-ANE-plus": 137_670}
SOURCES = torch.tensor([4, 10, 18]) / 255
TARGETS = torch.tensor([2, 4, 7, 13, 18, 24]) / 255  # below, on, between, on the last, beyond


pytestmark = pytest.mark.usefixtures("seed")


def inputs(batch: int = 2, sources: int = 3, targets: int = 2, height: int = 12, width: int = 12) -> tuple:
    """Images, sign noises of ascending strengths, and targets from below the first to beyond the last."""
    images = torch.rand(batch, 3, height, width)
    source_epsilons = torch.linspace(4, 18, sources) / 255
    noises = torch.randn(batch, sources, 3, height, width).sign() * source_epsilons[:, None, None, None]
    return noises, images, source_epsilons, torch.linspace(2, 24, targets) / 255


def loud(name: str, image_shape: tuple[int, int, int] = (3, 32, 32)) -> torch.nn.Module:
    """An estimator whose learned adjustment is not small, in eval mode."""
    estimator = build_estimator(name, image_shape)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return estimator.eval()


# ---- interpolation -------------------------------------------------------------------------------------


def right_rule(sources: list[float], target: float) -> list[float]:
    """Linear interpolation, written as a person would."""
    weights = [0.0] * len(sources)
    below = [i for i, s in enumerate(sources) if s <= target]
    if not below:
        weights[0] = target / sources[0]
    elif len(below) == len(sources):
        weights[-1] = target / sources[-1]
    else:
        low, high = below[-1], below[-1] + 1
        weights[low] = (sources[high] - target) / (sources[high] - sources[low])
        weights[high] = (target - sources[low]) / (sources[high] - sources[low])
    return weights


def printed_rule(sources: list[float], target: float) -> list[float]:
    """Eq. 6 as printed."""
    weights = right_rule(sources, target)
    if target < sources[0]:
        weights[0] = sources[0]
    elif target < sources[-1]:
        low = max(i for i, s in enumerate(sources) if s <= target)
        weights[low], weights[low + 1] = weights[low + 1], weights[low]
    return weights


@pytest.mark.parametrize(
    ("rule", "oracle"), [(interpolation_weights, right_rule), (paper_weights, printed_rule)]
)
@pytest.mark.parametrize("source_batch", [False, True])
@pytest.mark.parametrize("target_batch", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_weights_match_a_loop(rule, oracle, source_batch: bool, target_batch: bool, count: int) -> None:
    batch, total = 4, 30
    sources = torch.rand(*([batch] * source_batch), count, dtype=torch.float64).sort(-1).values * 0.1 + 0.01
    targets = torch.rand(*([batch] * target_batch), total, dtype=torch.float64) * 0.14
    targets[..., :count] = sources[0] if source_batch else sources  # some targets meet a source
    weights = rule(sources, targets)
    batched = source_batch or target_batch
    assert weights.shape == ((batch,) if batched else ()) + (total, count)
    for b, t in torch.cartesian_prod(torch.arange(batch), torch.arange(total)).tolist():
        expected = oracle(sources.expand(batch, -1)[b].tolist(), targets.expand(batch, -1)[b, t].item())
        torch.testing.assert_close(weights.expand(batch, -1, -1)[b, t], sources.new_tensor(expected))


def test_bracket_counts_the_sources_not_above() -> None:
    assert bracket(SOURCES, TARGETS).tolist() == [0, 1, 1, 2, 3, 3]


def test_printed_rule_prefers_the_farther_neighbour() -> None:
    near_first = torch.tensor([0.011])
    sources = torch.tensor([0.01, 0.02])
    assert interpolation_weights(sources, near_first)[0, 0] > 0.89
    assert paper_weights(sources, near_first)[0, 1] > 0.89


def test_interpolation_is_exact_on_a_source() -> None:
    noises, images, sources, _ = inputs(sources=5)
    unprojected = build_estimator("WA-ANE").unprojected(noises, images, sources, sources)
    assert torch.equal(unprojected, noises)


def test_interpolation_is_exact_on_linear_noise() -> None:
    direction, images = torch.rand(3, 1, 3, 8, 8) * 2 - 1, torch.full((3, 3, 8, 8), 0.5)
    noises = direction * SOURCES[:, None, None, None]
    estimate = build_estimator("WA-ANE")(noises, images, SOURCES, TARGETS)
    torch.testing.assert_close(estimate, direction * TARGETS[:, None, None, None])


def test_sign_noise_keeps_its_full_strength() -> None:
    sign, images = torch.randn(2, 1, 3, 8, 8).sign(), torch.full((2, 3, 8, 8), 0.5)
    estimate = build_estimator("WA-ANE")(sign * SOURCES[:, None, None, None], images, SOURCES, TARGETS)
    torch.testing.assert_close(estimate.abs(), TARGETS[:, None, None, None].expand_as(estimate))


def test_extrapolation_scales_the_nearest_source() -> None:
    noises, images, sources, _ = inputs()
    outside = torch.tensor([1, 30]) / 255
    estimate = build_estimator("WA-ANE").unprojected(noises, images, sources, outside)
    torch.testing.assert_close(estimate[:, 0], noises[:, 0] * outside[0] / sources[0])
    torch.testing.assert_close(estimate[:, 1], noises[:, -1] * outside[1] / sources[-1])


# ---- every estimator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e4])
def test_output_is_inside_ball_and_box(name: str, factor: float) -> None:
    noises, images, sources, targets = inputs(targets=3)
    images[0].round_()  # corners of the box
    with torch.no_grad():
        estimate = loud(name)(noises * factor, images, sources, targets)
    assert (estimate.abs() <= targets[:, None, None, None]).all()
    adversarial = images[:, None] + estimate
    assert adversarial.min() >= 0 and adversarial.max() <= 1


def test_projection_is_the_nearest_point_and_idempotent() -> None:
    images, epsilons = torch.rand(2, 3, 8, 8), torch.tensor([[0.02, 0.1], [0.3, 0.0]])
    noise = torch.randn(2, 2, 3, 8, 8)
    projected = project(noise, images, epsilons)
    radius = epsilons[:, :, None, None, None]
    alternating = noise
    for _ in range(3):  # alternating projections meet in the intersection of two boxes
        alternating = (images[:, None] + alternating.clamp(-radius, radius)).clamp(0, 1) - images[:, None]
    torch.testing.assert_close(projected, alternating)
    assert torch.equal(project(projected, images, epsilons), projected)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    ("batch", "sources", "targets", "height", "width"),
    slow_after(2, [(1, 1, 1, 8, 8), (2, 2, 5, 17, 17), (1, 6, 1, 28, 28), (2, 3, 5, 32, 32), (1, 1, 5, 64, 48)]),
)
def test_any_number_of_strengths_and_any_size(
    name: str, batch: int, sources: int, targets: int, height: int, width: int
) -> None:
    noises, images, source_epsilons, target_epsilons = inputs(batch, sources, targets, height, width)
    estimator = loud(name)
    with torch.no_grad():
        estimate = estimator(noises, images, source_epsilons, target_epsilons)
        per_image = estimator(
            noises, images, source_epsilons.expand(batch, -1), target_epsilons.expand(batch, -1)
        )
    assert estimate.shape == (batch, targets, 3, height, width)
    assert estimate.isfinite().all()
    torch.testing.assert_close(per_image, estimate)


@pytest.mark.parametrize("name", names())
def test_other_channels_and_double_precision(name: str) -> None:
    noises, images, sources, targets = inputs()
    arguments = noises[:, :, :1], images[:, :1], sources, targets
    estimator = loud(name, image_shape=(1, 28, 28))
    single = estimator(*arguments)
    double = estimator.double()(*(argument.double() for argument in arguments))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", names())
def test_images_and_targets_do_not_see_one_another(name: str) -> None:
    noises, images, sources, targets = inputs(batch=3, targets=4)
    estimator = loud(name)
    together = estimator(noises, images, sources, targets)
    torch.testing.assert_close(estimator(noises[1:2], images[1:2], sources, targets), together[1:2])
    torch.testing.assert_close(estimator(noises, images, sources, targets.flip(0)), together.flip(1))


@pytest.mark.parametrize("name", LEARNED)
def test_parts_that_fit_into_the_cache_give_the_same(name: str, monkeypatch) -> None:
    monkeypatch.setattr(recurrence, "PIXELS_AT_ONCE", 2 * 12 * 12)
    estimator, given = loud(name).double(), [value.double() for value in inputs(batch=3, targets=3)]
    whole = estimator(*given)  # asked for a gradient, it takes all maps at once
    with torch.no_grad():
        torch.testing.assert_close(estimator(*given), whole.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", names())
def test_strengths_belong_to_their_image(name: str) -> None:
    noises, images, sources, targets = inputs()
    sources, targets = torch.stack([sources, 1.5 * sources]), torch.stack([targets, targets.flip(0)])
    noises[1] *= 1.5
    estimator = loud(name)
    together = estimator(noises, images, sources, targets)
    for row in range(2):
        alone = estimator(noises[row : row + 1], images[row : row + 1], sources[row], targets[row])
        torch.testing.assert_close(alone, together[row : row + 1])


@pytest.mark.parametrize(
    ("index", "wrong", "word"),
    [
        (0, torch.zeros(2, 3, 3, 12, 11), "source_noises"),
        (0, torch.zeros(2, 0, 3, 12, 12), "source_noises"),
        (1, torch.zeros(2, 3, 7, 12), "images"),
        (2, torch.ones(2), "source_epsilons"),
        (2, torch.ones(1, 3), "source_epsilons"),
        (3, torch.ones(3, 2), "target_epsilons"),
        (3, torch.tensor(0.1), "target_epsilons"),
    ],
)
def test_shapes_that_do_not_fit_are_named(index: int, wrong: Tensor, word: str) -> None:
    arguments = list(inputs())
    arguments[index] = wrong
    with pytest.raises(InputError, match=word):
        build_estimator("WA-ANE")(*arguments)


def test_unknown_names_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"'B-ANE'.*WA-ANE-paper.*A-ANE-plus"):
        build_estimator("B-ANE")
    with pytest.raises(InputError, match="image_shape"):
        build_estimator("A-ANE", image_shape=(3, 4, 4))


# ---- the learned ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_entry_says_whether_its_estimator_has_weights(name):
    assert ESTIMATORS[name].learned == bool(list(build_estimator(name).parameters())) == (name in LEARNED)
    assert ESTIMATORS[name].help and ESTIMATORS[name].gradients(15) == (4 if name == "C-ANE" else 0)


@pytest.mark.parametrize("name", LEARNED)
def test_an_estimator_has_as_many_parameters_as_its_docstring_says(name: str) -> None:
    estimator = build_estimator(name)
    assert sum(parameter.numel() for parameter in estimator.parameters()) == LEARNED[name]
    assert f"{LEARNED[name]:,} parameters" in type(estimator).__doc__


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("count", [1, 3])
def test_gradient_reaches_every_parameter(name: str, count: int) -> None:
    """After one step, which takes the last layer away from zero; in double precision, where rounding is no gradient."""
    noises, images, sources, _ = (argument.double() for argument in inputs(2, count, height=9, width=9))
    estimator = build_estimator(name).double().train()
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=5e-4)
    for _ in range(2):
        optimizer.step()  # at first there are no gradients, and it does nothing
        optimizer.zero_grad()
        estimator.unprojected(noises, images, sources, TARGETS.double()).square().sum().backward()
    dead = [key for key, p in estimator.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12]
    assert not dead


@pytest.mark.parametrize("name", ["A-ANE", "E-ANE", "A-ANE-plus"])
@pytest.mark.parametrize("training", [False, True])
def test_training_starts_at_the_weighted_average(name: str, training: bool) -> None:
    arguments = inputs(targets=4)
    average = build_estimator("WA-ANE").unprojected(*arguments)
    assert torch.equal(build_estimator(name).train(training).unprojected(*arguments), average)
    assert not torch.equal(loud(name).unprojected(*arguments), average)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("changed", [0, 2])
def test_recurrence_runs_both_ways(name: str, changed: int) -> None:
    """A source is seen by forward states from itself upwards and by backward states from itself downwards."""
    noises, images, sources, _ = inputs()
    targets = torch.tensor([2, 24]) / 255  # below the first source, beyond the last
    estimator, other = loud(name), noises.clone()
    other[:, changed] *= -1
    with torch.no_grad():
        before, hidden_before = estimator.read(noises / SOURCES[:, None, None, None], images, sources, targets)
        after, hidden_after = estimator.read(other / SOURCES[:, None, None, None], images, sources, targets)
    differs = (hidden_before != hidden_after).unflatten(2, (2, -1)).flatten(3).any(3).any(0)  # (S, direction)
    assert differs[:, 0].tolist() == [source >= changed for source in range(3)]
    assert differs[:, 1].tolist() == [source <= changed for source in range(3)]
    forward, backward = ((a != b).flatten(2).any(2).any(0).tolist() for a, b in zip(before, after, strict=True))
    assert forward == [False, True]  # what the forward recurrence knows: the image; all sources
    assert backward == [True, False]


def rotating_law(batch: int, epsilons: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images, and noise (B, N, 3, size, size) whose direction turns from one sign pattern to another.

    The first pattern can be read off the image, the second one only off the source noises.
    """
    images = torch.rand(batch, 3, size, size)
    first, second = (images - 0.5).sign().unsqueeze(1), torch.randn(batch, 1, 3, size, size).sign()
    epsilons = epsilons.expand(batch, -1)
    radius = epsilons[:, :, None, None, None]
    angle = radius / (24 / 255) * 1.2
    noise = radius * (1.3 * (angle.cos() * first + angle.sin() * second)).clamp(-1, 1)
    return images, project(noise, images, epsilons)


def law_error(estimator: torch.nn.Module, size: int) -> float:
    """Relative error of projected estimates under the law, at strengths below, between and beyond."""
    torch.manual_seed(7)
    targets = torch.tensor([2, 7, 14, 24]) / 255
    images, noises = rotating_law(16, torch.cat([SOURCES, targets]), size)
    with torch.no_grad():
        estimate = estimator.eval()(noises[:, :3], images, SOURCES, targets)
    return math.sqrt((estimate - noises[:, 3:]).square().sum() / noises[:, 3:].square().sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "size"),
    [("A-ANE", 20, 8), ("E-ANE", 40, 8), ("E-ANE-minus", 25, 8), ("A-ANE-plus", 50, 8)],
)
def test_training_learns_a_law(name: str, steps: int, size: int) -> None:
    estimator = build_estimator(name)
    begun = law_error(estimator, size)
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=2e-3)
    estimator.train()
    for _ in range(steps):
        targets = (1 + 28 * torch.rand(8, 1)) / 255
        images, noises = rotating_law(8, torch.cat([SOURCES.expand(8, -1), targets], 1), size)
        estimate = estimator.unprojected(noises[:, :3], images, SOURCES, targets)
        loss = (estimate - noises[:, 3:]).square().sum((2, 3, 4)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ended = law_error(estimator, size)
    assert ended < 0.9 * begun
    if name != "E-ANE-minus":
        assert ended <= law_error(build_estimator("WA-ANE"), size)


def test_zero_noise_stays_zero_whatever_norm_it_should_have():
    lengths, noises = torch.full((1, 1, 3, 32, 32), 0.1), torch.zeros(1, 1, 3, 32, 32)
    assert torch.equal(recurrence.with_norm_of(lengths, noises), noises)
    noises = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norms = recurrence.with_norm_of(2 * noises.flip(0), noises).flatten(2).norm(dim=2)
    torch.testing.assert_close(norms, 2 * noises.flip(0).flatten(2).norm(dim=2))
