"""Attacks against closed forms on linear classifiers, hand-written loops, and the promises of `attack_mode`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import (
    ATTACK_LOSSES,
    attack_mode,
    fgsm,
    input_gradient,
    many_attack_steps,
    margins,
    mim,
    multi_strength_pgd,
    pgd,
    random_start,
)

SHAPE = (3, 4, 4)
NORMS = ["linf", "l2"]


def linear(classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).double()


def convolutional() -> nn.Module:
    """A BatchNorm network in training mode whose running statistics are not those of the test images."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh())
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), block, nn.Dropout(0.0),
                          nn.Flatten(), nn.Linear(128, 5)).double()
    for _ in range(3):
        model(2 * torch.rand(16, *SHAPE).double())
    return model


def batch(count: int = 6, classes: int = 2, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = low + (high - low) * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)
    return images, torch.arange(count) % classes


def flat_norm(noise: Tensor) -> Tensor:
    return noise.flatten(1).norm(dim=1)


def away_from_label(model: nn.Module, labels: Tensor) -> Tensor:
    """Gradient direction of a two-class linear model's cross-entropy: the other class' weights minus the label's."""
    weight = model[1].weight.detach()
    return (weight[1 - labels] - weight[labels]).reshape(-1, *SHAPE)


def reference_pgd(function, images: Tensor, labels: Tensor, epsilon: float, steps: int, step: float, norm: str,
                  loss=None, start: Tensor | None = None) -> Tensor:
    """Projected gradient ascent image by image of a mean loss, written as in a textbook."""
    loss = loss or (lambda logits, labels: F.cross_entropy(logits, labels))
    adversarial = images.clone() if start is None else start.clone()
    for _ in range(steps):
        adversarial.requires_grad_(True)
        gradient, = torch.autograd.grad(loss(function(adversarial), labels), adversarial)
        rows = []
        for x, a, g in zip(images, adversarial.detach(), gradient, strict=True):
            if norm == "linf":
                a = a + step * torch.sign(g)
                rows.append(torch.minimum(torch.maximum(a, x - epsilon), x + epsilon).clamp(0, 1))
            else:
                noise = a + step * g / g.norm() - x
                rows.append((x + noise * min(1.0, epsilon / noise.norm().item())).clamp(0, 1))
        adversarial = torch.stack(rows)
    return adversarial


# ---- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_takes_one_step_along_the_gradient_of_the_cross_entropy(norm):
    model, (images, labels) = linear(5), batch(classes=5)
    with torch.no_grad():
        wrong = model(images).softmax(1) - F.one_hot(labels, 5)
        gradient = (wrong @ model[1].weight).reshape(images.shape)
    direction = gradient.sign() if norm == "linf" else gradient / flat_norm(gradient).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(fgsm(model, images, labels, 0.1, norm=norm), (images + 0.1 * direction).clamp(0, 1))


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("count", [1, 6])
def test_pgd_linf_reaches_the_corner_of_ball_and_box(steps, count):
    model, (images, labels) = linear(), batch(count)
    expected = (images + 0.1 * away_from_label(model, labels).sign()).clamp(0, 1)
    result = pgd(model, images, labels, 0.1, steps)
    torch.testing.assert_close(result, expected)
    assert (expected == 0).any() and (expected == 1).any(), "the box must matter in this test"


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("count", [1, 6])
def test_pgd_l2_reaches_the_sphere_along_the_normalised_gradient(steps, count):
    model, (images, labels) = linear(), batch(count, low=0.4, high=0.6)
    direction = away_from_label(model, labels)
    result = pgd(model, images, labels, 0.3, steps, norm="l2")
    torch.testing.assert_close(result, images + 0.3 * direction / flat_norm(direction).reshape(-1, 1, 1, 1))
    torch.testing.assert_close(flat_norm(result - images), torch.full((count,), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("step", [0.01, 0.07])
def test_pgd_equals_a_textbook_loop(norm, step):
    model, (images, labels) = convolutional().eval(), batch(classes=5)
    epsilon = 0.05 if norm == "linf" else 0.4
    expected = reference_pgd(model, images, labels, epsilon, 6, step, norm)
    torch.testing.assert_close(pgd(model, images, labels, epsilon, 6, step, norm=norm), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_the_default_step_is_two_and_a_half_radii_over_the_steps(norm):
    model, (images, labels) = convolutional().eval(), batch(classes=5)
    torch.testing.assert_close(pgd(model, images, labels, 0.2, 5, norm=norm),
                               reference_pgd(model, images, labels, 0.2, 5, 0.1, norm))


def test_l2_of_a_vanishing_gradient_still_has_full_length():
    model, (images, labels) = linear().float(), batch(low=0.4, high=0.6)
    images, direction = images.float(), away_from_label(model, labels)
    tiny = pgd(model, images, labels, 0.3, 1, norm="l2", loss=lambda logits, y: 1e-25 * F.cross_entropy(logits, y))
    torch.testing.assert_close(tiny, images + 0.3 * direction / flat_norm(direction).reshape(-1, 1, 1, 1))


# ---- momentum ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("momentum", [0.3, 1.0])
def test_momentum_equals_the_papers_algorithm(norm, momentum):
    model, (images, labels) = convolutional().eval(), batch(classes=5)
    epsilon, step = (0.05, 0.02) if norm == "linf" else (0.4, 0.2)
    rows = []
    for x, y in zip(images, labels, strict=True):
        a, accumulated = x.clone(), torch.zeros_like(x)
        for _ in range(6):
            leaf = a.detach().requires_grad_(True)
            g, = torch.autograd.grad(F.cross_entropy(model(leaf[None]), y[None]), leaf)
            accumulated = momentum * accumulated + g / g.abs().sum()  # the L1 norm, as in the paper
            noise = a + step * (accumulated.sign() if norm == "linf" else accumulated / accumulated.norm()) - x
            inside = noise.clamp(-epsilon, epsilon) if norm == "linf" else noise * min(1, epsilon / noise.norm().item())
            a = (x + inside).clamp(0, 1)
        rows.append(a)
    result = mim(model, images, labels, epsilon, 6, step, momentum, norm=norm)
    torch.testing.assert_close(result, torch.stack(rows))
    assert not torch.allclose(result, pgd(model, images, labels, epsilon, 6, step, norm=norm)), "momentum must matter"


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_classifier_momentum_changes_no_direction(norm):
    model, (images, labels) = linear(), batch(low=0.3, high=0.7)
    epsilons = torch.linspace(0.01, 0.2, 6, dtype=torch.float64)
    expected = pgd(model, images, labels, epsilons, 7, epsilons / 7, norm=norm)
    torch.testing.assert_close(mim(model, images, labels, epsilons, 7, norm=norm), expected)
    reached = (expected - images).abs().amax((1, 2, 3)) if norm == "linf" else flat_norm(expected - images)
    torch.testing.assert_close(reached, epsilons)  # the default step is a share 1 / steps of the radius


@pytest.mark.parametrize("epsilon", [0.3, torch.linspace(0.1, 0.6, 6)])
def test_the_published_momentum_is_one_and_the_step_the_radius_over_the_steps(epsilon):
    model, (images, labels) = convolutional().eval(), batch(classes=5)
    expected = pgd(model, images, labels, epsilon, 20, epsilon / 20, momentum=1.0)
    assert torch.equal(mim(model, images, labels, epsilon), expected)
    for other in (mim(model, images, labels, epsilon, momentum=0.9), mim(model, images, labels, epsilon, 10)):
        assert not torch.allclose(other, expected), "the settings must matter in this test"


@pytest.mark.parametrize("norm", NORMS)
def test_no_momentum_is_plain_pgd_bit_for_bit(norm):
    model, (images, labels) = convolutional().eval().float(), batch(classes=5)
    images = images.float()
    expected = images
    for _ in range(4):
        with many_attack_steps(model):
            gradient = input_gradient(model, expected, labels, ATTACK_LOSSES["ce"])
        if norm == "linf":
            lowest, highest = (images - 0.05).clamp_min(0), (images + 0.05).clamp_max(1)
            expected = (expected + 0.02 * gradient.sign()).clamp(lowest, highest)
        else:
            scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True)
            unit = scaled / torch.linalg.vector_norm(scaled, dim=(1, 2, 3), keepdim=True)
            noise = expected + 0.02 * unit - images
            shrink = (torch.tensor(0.05) / torch.linalg.vector_norm(noise, dim=(1, 2, 3), keepdim=True)).clamp_max(1)
            expected = (images + noise * shrink).clamp(0, 1)
    assert torch.equal(pgd(model, images, labels, 0.05, 4, 0.02, norm=norm), expected)
    assert torch.equal(pgd(model, images, labels, 0.05, 4, 0.02, norm=norm, momentum=0.0), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_momentum_does_not_depend_on_the_scale_of_the_loss(norm, scale):
    model, (images, labels) = convolutional().eval().float(), batch(classes=5)
    images, epsilon = images.float(), 0.3 if norm == "linf" else 4.0  # so far that gradients differ in length
    expected = mim(model, images, labels, epsilon, 6, norm=norm)

    def scaled(logits: Tensor, labels: Tensor) -> Tensor:
        return scale * ATTACK_LOSSES["ce"](logits, labels)

    result = mim(model, images, labels, epsilon, 6, norm=norm, loss=scaled)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_an_image_is_attacked_with_momentum_alike_in_every_batch():
    model, (images, labels) = convolutional().train(), batch(8, classes=5)
    strengths = torch.linspace(0.01, 0.2, 8, dtype=torch.float64)
    whole = mim(model, images, labels, strengths, 5)
    for i in range(8):
        alone = mim(model, images[i:i + 1], labels[i:i + 1], strengths[i].item(), 5)
        torch.testing.assert_close(whole[i:i + 1], alone)
    assert whole.min() >= 0 and whole.max() <= 1
    assert ((whole - images).abs().amax((1, 2, 3)) <= strengths + 1e-12).all()


# ---- strengths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_one_strength_an_image_equals_each_strength_alone(norm):
    model, (images, labels) = convolutional().eval(), batch(classes=5)
    strengths = torch.tensor([0.0, 0.01, 0.03, 0.1, 0.2, 0.3])
    together = pgd(model, images, labels, strengths, 4, norm=norm)
    for i, strength in enumerate(strengths.tolist()):
        alone = pgd(model, images[i:i + 1], labels[i:i + 1], strength, 4, norm=norm)
        torch.testing.assert_close(together[i:i + 1], alone, atol=1e-7, rtol=0)
    radius = (together - images).abs().amax((1, 2, 3)) if norm == "linf" else flat_norm(together - images)
    assert (radius <= strengths + 1e-7).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_size_an_image(norm):
    model, (images, labels) = linear(), batch(low=0.4, high=0.6)
    lengths = torch.linspace(0.01, 0.06, 6, dtype=torch.float64)
    noise = pgd(model, images, labels, 1.0, 1, lengths, norm=norm) - images
    reached = noise.abs().amax((1, 2, 3)) if norm == "linf" else flat_norm(noise)
    torch.testing.assert_close(reached, lengths)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("random_start", [False, True])
def test_zero_strength_returns_the_images(norm, random_start):
    model, (images, labels) = linear(), batch()
    assert torch.equal(pgd(model, images, labels, 0.0, random_start=random_start, norm=norm), images)
    assert torch.equal(pgd(model, images, labels, torch.zeros(6), random_start=random_start, norm=norm), images)


@pytest.mark.parametrize("per_image", [False, True])
def test_multi_strength_pgd_equals_separate_calls(per_image):
    model, (images, labels) = convolutional().eval(), batch(4, classes=5)
    strengths = torch.tensor([0.02, 0.05, 0.11]).double()
    if per_image:
        strengths = strengths * torch.arange(1, 5).reshape(-1, 1)
    result = multi_strength_pgd(model, images, labels, strengths, steps=3)
    assert result.shape == (4, 3, *SHAPE)
    for column in range(3):
        torch.testing.assert_close(result[:, column], pgd(model, images, labels, strengths[..., column], 3))


@pytest.mark.parametrize("arguments, seen", [
    ({}, 4 + 2 * 12), ({"rows": 3}, 4 + 2 * 12), ({"momentum": 1.0}, 4 + 2 * 12), ({"loss": "margin"}, 4 + 2 * 12),
    ({"batch_statistics": True}, 3 * 12), ({"random_start": True}, 3 * 12)])
def test_strengths_that_begin_at_the_same_images_share_the_first_gradient(arguments, seen):
    model, (images, labels) = convolutional().eval(), batch(4, classes=5)
    rows = []
    model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    arguments = {"steps": 3, "generator": torch.Generator().manual_seed(0)} | arguments
    strengths = torch.tensor([0.02, 0.05, 0.11]).double()
    result = multi_strength_pgd(model, images, labels, strengths, **arguments)
    assert sum(rows) == seen and max(rows) <= arguments.get("rows", 12)
    arguments["generator"] = torch.Generator().manual_seed(0)
    alone = pgd(model, images.repeat_interleave(3, 0), labels.repeat_interleave(3), strengths.repeat(4), **arguments)
    torch.testing.assert_close(result.flatten(0, 1), alone)


# ---- starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [0, 3])
def test_random_start_stays_in_ball_and_box_and_follows_its_generator_alone(norm, steps):
    model, (images, labels) = linear(), batch()
    state = torch.get_rng_state()

    def attack(seed: int) -> Tensor:
        return pgd(model, images, labels, 0.2, steps, 0.01, True, norm, generator=torch.Generator().manual_seed(seed))

    first, other = attack(3), attack(4)
    assert torch.equal(first, attack(3)) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert first.min() >= 0 and first.max() <= 1
    radius = (first - images).abs().amax((1, 2, 3)) if norm == "linf" else flat_norm(first - images)
    assert (radius <= 0.2 + 1e-12).all() and (radius > 0.05).all()


def test_random_start_is_uniform_in_the_ball():
    model, images, labels = nn.Flatten(), torch.full((4000, 1, 1, 2), 0.5).double(), torch.zeros(4000).long()
    generator = torch.Generator().manual_seed(0)
    linf = pgd(model, images, labels, 0.1, 0, random_start=True, generator=generator) - images
    l2 = pgd(model, images, labels, 0.1, 0, random_start=True, norm="l2", generator=generator) - images
    # In two dimensions the share of the area within a radius is uniform in [0, 1]: mean 1/2, variance 1/12.
    area = (flat_norm(l2) / 0.1) ** 2
    assert area.mean() == pytest.approx(0.5, abs=5 * (1 / 12 / 4000) ** 0.5)
    assert area.var() == pytest.approx(1 / 12, rel=0.1)
    assert linf.mean().abs() < 5 * 0.1 / (3 * 8000) ** 0.5 and linf.var() == pytest.approx(0.1**2 / 3, rel=0.1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.3, torch.linspace(0, 0.5, 6)])
def test_the_random_start_alone_is_the_one_of_pgd(norm, epsilon):
    model, (images, labels) = linear(), batch()
    images.requires_grad_(True)
    state = torch.get_rng_state()
    start = random_start(images, epsilon, norm, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state) and not start.requires_grad
    assert torch.equal(start, pgd(model, images, labels, epsilon, 0, random_start=True, norm=norm,
                                  generator=torch.Generator().manual_seed(3)))
    noise = (start - images).detach()
    radius = noise.abs().amax((1, 2, 3)) if norm == "linf" else flat_norm(noise)
    assert (radius <= epsilon + 1e-7).all() and (radius[1:] > 0.05).all()
    assert start.min() >= 0 and start.max() <= 1
    if norm == "linf":
        assert start.min() == 0 and start.max() == 1, "the box must matter in this test"


def test_a_random_start_around_a_given_start_is_projected_around_the_images():
    model, (images, labels) = linear(), batch(low=0.4, high=0.6)
    start = pgd(model, images, labels, 0.1, 0, random_start=True, start=images + 0.1,
                generator=torch.Generator().manual_seed(3))
    drawn = random_start(images, 0.1, generator=torch.Generator().manual_seed(3)) - images
    torch.testing.assert_close(start, images + (0.1 + drawn).clamp_max(0.1))


@pytest.mark.parametrize("norm", NORMS)
def test_no_steps_return_the_projected_start(norm):
    model, (images, labels) = linear(), batch(low=0.3, high=0.7)
    assert torch.equal(pgd(model, images, labels, 0.1, 0, norm=norm), images)
    result = pgd(model, images, labels, 0.1, 0, norm=norm, start=images + 0.5)
    length = 0.1 if norm == "linf" else 0.1 / 48**0.5  # all pixels move alike
    torch.testing.assert_close(result, images + length)
    assert torch.equal(pgd(model, images, labels, 1.0, 0, start=images + 0.8), (images + 0.8).clamp(0, 1))


def test_the_images_argument_is_left_alone():
    model, (images, labels) = linear(), batch()
    images.requires_grad_(True)
    before = images.detach().clone()
    result = pgd(model, images, labels, 0.1, 2)
    assert torch.equal(images, before) and images.grad is None
    assert not result.requires_grad


# ---- losses --------------------------------------------------------------------------------------------------


def test_kl_loss_is_the_divergence_from_the_clean_prediction():
    model, (images, _) = convolutional().eval(), batch(classes=5)
    clean = model(images).softmax(1).detach()
    start = images + 0.001 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).double()

    def divergence(logits: Tensor, clean: Tensor) -> Tensor:
        return (clean * (clean.log() - logits.softmax(1).log())).sum()

    expected = reference_pgd(model, images, clean, 0.05, 4, 0.02, "linf", divergence, start)
    torch.testing.assert_close(pgd(model, images, clean.log(), 0.05, 4, 0.02, loss="kl", start=start), expected)
    assert divergence(model(expected), clean) > 10 * divergence(model(start), clean)


def test_a_margin_is_the_largest_other_logit_minus_the_labels():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [-5.0, -3.0, -9.0], [-5.0, -3.0, -9.0], [7.0, 7.0, 0.0]])
    labels = torch.tensor([1, 2, 0, 1, 0])
    torch.testing.assert_close(margins(logits, labels), torch.tensor([-2.0, 2.0, 2.0, -2.0, 0.0]))
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(True)
    labels = torch.arange(40) % 6
    expected = [max(value for k, value in enumerate(row) if k != y) - row[y]
                for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert margins(logits, labels).tolist() == expected
    ATTACK_LOSSES["margin"](logits, labels).backward()  # a sum: plus one for the other class, minus one for the label
    assert (logits.grad.sum(1) == 0).all() and (logits.grad.abs().sum(1) == 2).all()
    assert (logits.grad.gather(1, labels[:, None]) == -1).all()
    torch.testing.assert_close((logits.grad * logits).sum(1), margins(logits, labels))
    assert ATTACK_LOSSES["margin"](logits, labels).item() == pytest.approx(sum(expected))


@pytest.mark.parametrize("norm", NORMS)
def test_the_margin_attacks_where_the_cross_entropy_is_saturated(norm):
    model, (images, labels) = linear().float(), batch(low=0.4, high=0.6)
    images = images.float()
    with torch.no_grad():
        model[1].weight *= 1e5
        model[1].bias.zero_()
    labels = model(images).argmax(1)  # so that every image is right, by thousands
    direction = away_from_label(model, labels)
    assert torch.equal(pgd(model, images, labels, 0.001, norm=norm), images), "the cross-entropy must be saturated"
    step = direction.sign() if norm == "linf" else direction / flat_norm(direction).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(pgd(model, images, labels, 0.001, norm=norm, loss="margin"), images + 0.001 * step)


def test_the_margin_is_computed_in_full_precision():
    logits = torch.tensor([[256.0, 1.0], [256.0, 1.0]], dtype=torch.bfloat16)
    result = margins(logits, torch.tensor([0, 1]))
    assert result.dtype == torch.float32 and result.tolist() == [-255, 255]  # 255 is no bfloat16 beside 256


def test_a_callable_is_a_loss():
    model, (images, labels) = linear(), batch(low=0.4, high=0.6)
    towards = pgd(model, images, labels, 0.1, loss=lambda logits, y: -F.cross_entropy(logits, y, reduction="sum"))
    torch.testing.assert_close(towards, images - 0.1 * away_from_label(model, labels).sign())


def test_more_steps_give_no_lower_loss():
    model, (images, labels) = convolutional().eval(), batch(32, classes=5)
    losses = [F.cross_entropy(model(pgd(model, images, labels, 0.1, steps)), labels).item() for steps in (0, 1, 5, 20)]
    assert losses == sorted(losses) and losses[0] < losses[1] < losses[3]


# ---- what an attack leaves behind ----------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict:
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [m.training for m in model.modules()],
        "tracking": [getattr(m, "track_running_stats", None) for m in model.modules()],
        "frozen": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
    }


def assert_unchanged(model: nn.Module, before: dict) -> None:
    after = snapshot(model)
    for name, value in before.pop("state").items():
        assert torch.equal(after["state"][name], value), name
    del after["state"]
    assert after == before


def mixed_modes() -> nn.Module:
    """Training, but for one frozen BatchNorm in evaluation mode; one without running statistics; one fixed weight."""
    model = convolutional().train()
    model[1].eval()
    model[3].append(nn.BatchNorm2d(8, track_running_stats=False).double())
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("build", [mixed_modes, lambda: convolutional().eval(), convolutional])
def test_an_attack_changes_nothing_in_the_model(build, batch_statistics):
    model, (images, labels) = build(), batch(classes=5)
    before = snapshot(model)
    assert not torch.equal(pgd(model, images, labels, 0.1, 2, batch_statistics=batch_statistics), images)
    assert_unchanged(model, before)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_everything_is_restored_when_the_attack_raises(batch_statistics):
    model, (images, labels) = mixed_modes(), batch(classes=5)
    before = snapshot(model)

    def fail(logits: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pgd(model, images, labels, 0.1, loss=fail, batch_statistics=batch_statistics)
    assert_unchanged(model, before)


def test_inside_attack_mode_the_network_predicts_and_nothing_is_trainable():
    model = mixed_modes()
    with attack_mode(model) as attacked:
        assert attacked is model
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())


def test_modules_that_are_shared_or_missing_or_come_later_are_in_attack_mode_too():
    model, shared = convolutional().train(), nn.Linear(2, 2)
    model.one, model.other = nn.Sequential(shared), nn.ModuleList([shared, shared])
    model.register_module("none", None)
    for later in ("first", "second"):
        model.add_module(later, nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
        with attack_mode(model):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_attacked_function_is_the_evaluation_mode_one():
    model, (images, labels) = convolutional().train(), batch(classes=5)
    with attack_mode(model):
        gradient = input_gradient(model, images, labels, F.cross_entropy)
    images.requires_grad_(True)
    expected, = torch.autograd.grad(F.cross_entropy(copy.deepcopy(model).eval()(images), labels), images)
    torch.testing.assert_close(gradient, expected)


def test_batch_statistics_attack_the_training_mode_function():
    model, (images, labels) = convolutional().train(), batch(classes=5)
    with attack_mode(model, batch_statistics=True):
        gradient = input_gradient(model, images, labels, F.cross_entropy)
    leaf = images.clone().requires_grad_(True)
    expected, = torch.autograd.grad(F.cross_entropy(copy.deepcopy(model).train()(leaf), labels), leaf)
    torch.testing.assert_close(gradient, expected)
    adversarial = pgd(model, images, labels, 0.05, 3, 0.03, batch_statistics=True)
    clone = copy.deepcopy(model).train()
    torch.testing.assert_close(adversarial, reference_pgd(clone, images, labels, 0.05, 3, 0.03, "linf"))
    assert not torch.equal(adversarial, pgd(model, images, labels, 0.05, 3, 0.03)), "the two modes must differ here"


def test_dropout_is_off_under_batch_statistics():
    model, (images, labels) = convolutional().train(), batch(classes=5)
    model[4].p = 0.5
    first, second = (pgd(model, images, labels, 0.1, 2, batch_statistics=True) for _ in range(2))
    assert torch.equal(first, second)


def test_no_graph_is_needed_from_the_caller():
    model, (images, labels) = linear(), batch()
    with torch.no_grad():
        inside = pgd(model, images, labels, 0.1)
    assert torch.equal(inside, pgd(model, images, labels, 0.1))


@pytest.mark.slow
def test_an_image_is_attacked_alike_in_every_batch():
    model, (images, labels) = convolutional().train(), batch(8, classes=5)
    whole = pgd(model, images, labels, 0.1, 5)
    order = torch.tensor([5, 0, 7, 2])
    torch.testing.assert_close(pgd(model, images[order], labels[order], 0.1, 5), whole[order])
    torch.testing.assert_close(pgd(model, images[3:4], labels[3:4], 0.1, 5), whole[3:4])


class Ignoring(nn.Module):
    """Logits that do not depend on the images, in four ways."""

    def __init__(self, way: str):
        super().__init__()
        self.way, self.bias = way, nn.Parameter(torch.tensor([1.0, -1.0]).double())

    def forward(self, images: Tensor) -> Tensor:
        if self.way == "constant":
            return self.bias.expand(len(images), 2)
        if self.way == "detached":
            return images.detach().flatten(1)[:, :2] + self.bias
        if self.way == "unused":  # in the graph of something that needs a gradient, yet not of the images
            return self.bias.detach().clone().requires_grad_(True).expand(len(images), 2)
        return 0 * images.flatten(1)[:, :2] + self.bias


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("momentum", [0.0, 1.0])
@pytest.mark.parametrize("way", ["constant", "detached", "unused", "times zero"])
def test_a_model_that_ignores_its_input_is_survived(way, norm, momentum):
    images, labels = batch()
    assert torch.equal(pgd(Ignoring(way), images, labels, 0.1, norm=norm, momentum=momentum), images)


def test_nothing_is_read_back_to_the_host():
    with torch.device("meta"):  # it has no numbers: reading one raises
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
        images, labels = torch.rand(6, *SHAPE), torch.zeros(6).long()
    for norm in NORMS:
        assert random_start(images, 0.1, norm).shape == images.shape
        for loss in ("ce", "margin"):
            result = mim(model, images, labels, torch.full((6,), 0.1, device="meta"), 3, norm=norm, loss=loss)
            assert result.shape == images.shape and result.device.type == "meta"
