"""C-ANE: which strengths it visits, how often it asks the network, and that it follows the attack's noise."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.operators import Operators
from wsrnas.attacks import multi_strength_pgd
from wsrnas.estimators import build_estimator
from wsrnas.estimators.continuation import CANE, anchor_strengths

SPECTRUM = torch.tensor([0.01, 0.02, 0.03, 0.045, 0.06, 0.075, 0.09, 0.105, 0.12, 0.15, 0.17, 0.2, 0.23, 0.25],
                        dtype=torch.float64)
SOURCE = torch.tensor([0.06], dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("seed")


def smooth_network() -> nn.Module:
    """Nonlinear, with BatchNorm, left in training mode with one part in evaluation mode and one parameter frozen."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(216, 4)).double()
    with torch.no_grad():
        network[1].running_mean.normal_()
        for parameter in network.parameters():
            parameter.mul_(3)
    network.train()
    network[2].eval()
    network[0].bias.requires_grad_(False)
    return network


def task(model: nn.Module, batch: int = 3, sources: Tensor = SOURCE) -> tuple[Tensor, Tensor, Tensor]:
    """Images that touch the box, labels, and the noise of PGD-7 at the sources."""
    images = (1.4 * torch.rand(batch, 3, 8, 8, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels = torch.arange(batch) % 2
    return images, labels, multi_strength_pgd(model, images, labels, sources) - images.unsqueeze(1)


def follow(model: nn.Module, images: Tensor, labels: Tensor, noises: Tensor, sources: Tensor,
           targets: Tensor) -> Tensor:
    """C-ANE's estimate with the network's help."""
    estimator = build_estimator("C-ANE")
    noises, sources = estimator.more_sources(model, images, labels, noises, sources, targets)
    return estimator(noises, images, sources, targets)


# ---- anchors ---------------------------------------------------------------------------------------------------


def expected_anchors(sources: list[float], targets: list[float], count: int) -> list[float]:
    """Cut the sorted targets, each an interval of length 1, into equal groups; take what lies at the middle of each."""
    ordered, length = sorted(targets), Fraction(len(targets), max(count, 1))
    middles = [ordered[int((group + Fraction(1, 2)) * length)] for group in range(count)]
    return sorted(middles, key=lambda anchor: min(max(anchor / s, s / anchor) for s in sources))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("total", range(1, 31))
def test_anchors_are_the_middles_of_equal_groups_nearest_ratio_first(total: int, count: int) -> None:
    sources = 0.01 + 0.1 * torch.rand(5, count, dtype=torch.float64).sort(1).values
    targets = 0.001 + 0.25 * torch.rand(5, total, dtype=torch.float64)  # in any order
    for wanted in {CANE().gradients(total), 1, total}:
        anchors = anchor_strengths(sources, targets, wanted)
        expected = [expected_anchors(*row, wanted) for row in zip(sources.tolist(), targets.tolist(), strict=True)]
        assert anchors.tolist() == expected


def test_four_gradients_for_fifteen_targets() -> None:
    assert [CANE().gradients(targets) for targets in range(21)] == [
        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5]
    assert all(build_estimator(name).gradients(20) == 0 for name in ("WA-ANE", "A-ANE", "E-ANE-minus"))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("targets", range(1, 21))
def test_the_network_is_asked_as_often_as_is_said(targets: int, count: int) -> None:
    """One forward and one backward pass over the images for each anchor, whatever the number of sources."""
    passes = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(context, images):
            passes.append(("forward", len(images)))
            return images.clone()

        @staticmethod
        def backward(context, gradient):
            passes.append(("backward", len(gradient)))
            return gradient

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    sources = torch.linspace(0.03, 0.09, count, dtype=torch.float64)
    images, labels, noises = task(network, 3, sources)
    estimator, strengths = CANE(), torch.linspace(0.01, 0.25, targets, dtype=torch.float64)
    noises, sources = estimator.more_sources(lambda_module(network, Counted.apply), images, labels, noises, sources,
                                             strengths)
    asked = estimator.gradients(targets)
    assert passes == [("forward", 3), ("backward", 3)] * asked
    assert noises.shape == (3, count + asked, 3, 8, 8) and sources.shape == (3, count + asked)
    estimator(noises, images, sources, strengths)
    assert len(passes) == 2 * asked, "estimating asks nothing more"


def lambda_module(network: nn.Module, before) -> nn.Module:
    """``network`` after a function of the images."""
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            return self.network(before(images))

    return Wrapped()


# ---- the path ----------------------------------------------------------------------------------------------------


def test_it_is_pgd_on_a_linear_classifier() -> None:
    """There PGD's noise is the sign of w_other - w_label times the strength, cut at the box; that is known exactly.

    Pixels are 0, 1, or so grey that no strength meets the box.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    images = 0.3 + 0.4 * torch.rand(3, 3, 8, 8, dtype=torch.float64)
    corner = torch.rand_like(images)
    images = torch.where(corner < 0.2, 0.0, torch.where(corner > 0.8, 1.0, images))
    labels = torch.tensor([0, 1, 0])
    weight = network[1].weight.detach()
    direction = (weight[1 - labels] - weight[labels]).sign().view(3, 1, 3, 8, 8)
    truth = (images.unsqueeze(1) + direction * SPECTRUM.view(-1, 1, 1, 1)).clamp(0, 1) - images.unsqueeze(1)
    attacked = multi_strength_pgd(network, images, labels, SPECTRUM) - images.unsqueeze(1)
    torch.testing.assert_close(attacked, truth, rtol=0, atol=1e-15)
    noises = attacked[:, 4:5]
    estimate = follow(network, images, labels, noises, SOURCE, SPECTRUM)
    torch.testing.assert_close(estimate, truth, rtol=0, atol=1e-15)


@pytest.mark.parametrize("make_direction", [lambda x: 2 * torch.rand_like(x) - 1, lambda x: torch.randn_like(x).sign()])
def test_exact_on_noise_linear_in_strength_whatever_the_network_says(make_direction) -> None:
    """Where a network gives no gradient, each anchor is the estimate that it starts from, and nothing is lost."""
    images = 0.3 + 0.4 * torch.rand(2, 3, 8, 8, dtype=torch.float64)
    direction = make_direction(images).unsqueeze(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    nn.init.zeros_(network[1].weight)
    estimate = follow(network, images, torch.tensor([0, 1]), 0.06 * direction, SOURCE, SPECTRUM)
    torch.testing.assert_close(estimate, direction * SPECTRUM.view(-1, 1, 1, 1), rtol=1e-12, atol=1e-15)


def walked_by_hand(model: nn.Module, image: Tensor, label: Tensor, known: dict[float, Tensor], targets: list[float],
                   ) -> list[Tensor]:
    """C-ANE for one image, as a person would write it: ``known`` maps strengths to noises (C, H, W)."""
    known, model = dict(known), copy.deepcopy(model).eval()

    def interpolate(epsilon: float) -> Tensor:
        strengths = [0.0, *sorted(known), 100 * max(known)]
        values = np.stack([np.zeros(image.shape), *(known[s].numpy() for s in sorted(known)),
                           100 * known[max(known)].numpy()])
        flat = [np.interp(epsilon, strengths, column) for column in values.reshape(len(strengths), -1).T]
        noise = torch.tensor(flat, dtype=torch.float64).view_as(image)
        return (image + noise.clamp(-epsilon, epsilon)).clamp(0, 1) - image

    anchors = expected_anchors(list(known), targets, CANE().gradients(len(targets)))
    for epsilon in anchors:
        start = (image + interpolate(epsilon)).unsqueeze(0).requires_grad_(True)
        gradient, = torch.autograd.grad(F.cross_entropy(model(start), label.unsqueeze(0)), start)
        noise = start.detach()[0] + 0.5 * epsilon * gradient[0].sign() - image
        known[epsilon] = (image + noise.clamp(-epsilon, epsilon)).clamp(0, 1) - image
    return [interpolate(epsilon) for epsilon in targets]


@pytest.mark.parametrize("count", [1, 2])
def test_it_walks_as_described(count: int) -> None:
    """Strengths of sources and targets are those of each image, targets in any order."""
    model, batch = smooth_network(), 3
    sources = torch.tensor([[0.06, 0.1], [0.03, 0.05], [0.02, 0.2]], dtype=torch.float64)[:, :count]
    targets = torch.stack([SPECTRUM[torch.randperm(14)] * (1 + 0.01 * image) for image in range(batch)])
    images, labels, noises = task(model, batch, sources)
    estimate = follow(model, images, labels, noises, sources, targets)
    for row in range(batch):
        known = dict(zip(sources[row].tolist(), noises[row], strict=True))
        expected = walked_by_hand(model, images[row], labels[row], known, targets[row].tolist())
        torch.testing.assert_close(estimate[row], torch.stack(expected), rtol=0, atol=1e-13)


def test_following_a_turning_noise_beats_scaling_it() -> None:
    """Two classes; the loss has a peak at some distance in every pixel, where PGD stops; scaled noise runs past."""
    images = 0.4 + 0.2 * torch.rand(2, 3, 8, 8, dtype=torch.float64)
    peaks = images[:1] + 0.25 * (2 * torch.rand(1, 3, 8, 8, dtype=torch.float64) - 1)

    class Hill(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            height = -20 * (pixels - peaks).square().flatten(1).sum(1)
            return torch.stack([-height, height], 1) / 100

    labels = torch.zeros(2, dtype=torch.long)
    truth = multi_strength_pgd(Hill(), images, labels, SPECTRUM, steps=50) - images.unsqueeze(1)
    noises = truth[:, 4:5]
    scaled = build_estimator("WA-ANE")(noises, images, SOURCE, SPECTRUM)
    followed = follow(Hill(), images, labels, noises, SOURCE, SPECTRUM)
    errors = [(estimate - truth).square().mean((0, 2, 3, 4)) for estimate in (followed, scaled)]
    assert (errors[0][:4] < 0.5 * errors[1][:4]).all(), "below the source"
    assert errors[0].mean() < 0.6 * errors[1].mean(), "over the spectrum"


# ---- promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [SPECTRUM, SPECTRUM[:3], torch.cat([SPECTRUM.new_zeros(3), SPECTRUM])])
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e4])
def test_inside_ball_and_box(targets: Tensor, factor: float) -> None:
    """Also with targets of strength zero, with one that is a source, and with sources outside of their own balls."""
    model = smooth_network()
    images, labels, noises = task(model)
    estimate = follow(model, images, labels, factor * noises, SOURCE, targets)
    assert (estimate.abs() <= targets.view(-1, 1, 1, 1)).all()
    adversarial = images.unsqueeze(1) + estimate
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    more, _ = CANE().more_sources(model, images, labels, noises, SOURCE, targets)
    assert (images.unsqueeze(1) + more).min() >= 0 and (images.unsqueeze(1) + more).max() <= 1


def test_sources_stay_and_ascend() -> None:
    model, sources = smooth_network(), torch.tensor([0.04, 0.11], dtype=torch.float64)
    images, labels, noises = task(model, 3, sources)
    more, strengths = CANE().more_sources(model, images, labels, noises, sources, SPECTRUM)
    assert (strengths.diff(dim=1) >= 0).all()
    for index, source in enumerate(sources):
        place = (strengths[0] == source).nonzero().item()
        assert torch.equal(more[:, place], noises[:, index])
    anchors = set(strengths[0].tolist()) - set(sources.tolist())
    assert anchors == set(expected_anchors(sources.tolist(), SPECTRUM.tolist(), 3))


def test_an_image_does_not_see_its_batch_nor_a_target_its_place() -> None:
    model = smooth_network()
    images, labels, noises = task(model, 4)
    together = follow(model, images, labels, noises, SOURCE, SPECTRUM)
    alone = follow(model, images[2:3], labels[2:3], noises[2:3], SOURCE, SPECTRUM)
    torch.testing.assert_close(alone[0], together[2], rtol=0, atol=1e-14)
    order = torch.randperm(14)
    torch.testing.assert_close(follow(model, images, labels, noises, SOURCE, SPECTRUM[order]), together[:, order],
                               rtol=0, atol=1e-14)


def test_nothing_is_left_behind_in_the_network() -> None:
    model = smooth_network()
    images, labels, noises = task(model)
    arguments = images, labels, noises, SOURCE, SPECTRUM
    copies = [argument.clone() for argument in arguments]
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    more, strengths = CANE().more_sources(model, *arguments)
    assert not more.requires_grad and not strengths.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable == [True, False] + 4 * [True]
    assert [module.training for module in model.modules()] == modes == [True, True, True, False, True, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(argument, before) for argument, before in zip(arguments, copies, strict=True))


# ---- what it costs ------------------------------------------------------------------------------------------------


def operators(batch: int, targets: int, sources: int = 1, per_image: bool = False) -> int:
    """Operators of ``more_sources`` and the estimate, on the meta device, where nothing has a value."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    network.to("meta")
    strengths = [torch.empty([batch] * per_image + [count], device="meta") for count in (sources, targets)]
    arguments = [torch.empty(batch, 3, 8, 8, device="meta"), torch.empty(batch, dtype=torch.long, device="meta"),
                 torch.empty(batch, sources, 3, 8, 8, device="meta")]
    with Operators() as counted:
        estimate = follow(network, *arguments, *strengths)
    assert estimate.shape == (batch, targets, 3, 8, 8)
    return counted.calls


@pytest.mark.slow
@pytest.mark.parametrize("per_image", [False, True])
def test_nothing_waits_for_the_device_and_images_are_not_looped_over(per_image: bool) -> None:
    """The attack included. What grows with the targets is the number of anchors, one gradient step each."""
    counts = {targets: {operators(batch, targets, sources, per_image) for batch, sources in ((2, 2), (64, 2), (2, 3))}
              for targets in (3, 4, 7, 8, 12)}
    assert all(len(found) == 1 for found in counts.values()), "the same for any number of images and of sources"
    none, one, still_one, two, three = (found.pop() for found in counts.values())
    assert one == still_one
    steps = [one - none, two - one, three - two]
    assert 0 < max(steps) <= min(steps) + 2, "the same for each anchor, give or take a copy to another memory layout"
