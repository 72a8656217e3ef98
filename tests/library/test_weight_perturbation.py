"""Adversarial weight perturbation: the step, its reversal, and when it starts."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.library.training_cases import (
    WORLD,
    HandMade,
    assert_equal_training,
    batch,
    float_batch,
    network,
    trainer_of,
)
from tests.run_files import assert_equal
from wsrnas.training.losses import LOSSES
from wsrnas.training.weight_perturbation import perturbed_weights


def plain_loss(model: nn.Module):
    images, labels = batch()
    return lambda: F.cross_entropy(model(images), labels)


@pytest.mark.parametrize("gamma", [0.005, 0.3])
def test_weights_are_perturbed_layer_by_layer_along_their_gradients(gamma):
    model = network()
    model.scale = nn.Parameter(torch.ones(3).double())  # of no layer
    model[0].bias.requires_grad_(False)
    twin = copy.deepcopy(model)
    plain_loss(twin)().backward()
    expected = {name: p if p.ndim == 1 else p + gamma * p.square().sum().sqrt() * p.grad / p.grad.square().sum().sqrt()
                for name, p in twin.named_parameters()}
    with perturbed_weights(model, plain_loss(model), gamma, WORLD):
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name].detach(), rtol=1e-12, atol=1e-15)
            assert torch.equal(p, dict(twin.named_parameters())[name]) == (p.ndim == 1)
            assert p.grad is None and p.requires_grad == (name != "0.bias")
            if p.ndim > 1:
                distance = (p - dict(twin.named_parameters())[name]).norm() / dict(twin.named_parameters())[name].norm()
                assert distance.item() == pytest.approx(gamma, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-20, 1e-25, 1e-30, 1e-36])
def test_a_small_gradient_does_not_throw_the_weights_away(scale):
    """The squares of such gradients are 0 in float32: a confident network has them."""
    model = network().float()
    before = [weight.detach().clone() for weight in model.parameters() if weight.ndim > 1]
    images, labels = float_batch()

    def loss():
        return F.cross_entropy(model(images), labels) * scale

    with perturbed_weights(model, loss, 0.01, WORLD):
        for weight, kept in zip([w for w in model.parameters() if w.ndim > 1], before, strict=True):
            assert ((weight - kept).norm() / kept.norm()).item() == pytest.approx(0.01, rel=2e-3)


def test_without_a_gradient_nothing_is_perturbed():
    model = network().float()
    before = [weight.detach().clone() for weight in model.parameters()]
    with perturbed_weights(model, lambda: 0 * F.cross_entropy(model(float_batch()[0]), float_batch()[1]), 0.01, WORLD):
        assert all(map(torch.equal, model.parameters(), before))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_rises_along_the_perturbation_by_what_the_gradient_says(seed):
    model, gamma = network(seed=seed), 1e-4
    loss = plain_loss(model)
    before = loss()
    gradients = torch.autograd.grad(before, [model[0].weight, model[5].weight])
    rise = sum(gamma * w.norm() * g.norm() for w, g in zip((model[0].weight, model[5].weight), gradients, strict=True))
    with perturbed_weights(model, loss, gamma, WORLD):
        assert (loss() - before).item() == pytest.approx(rise.item(), rel=1e-2) and rise > 1e-6


@pytest.mark.parametrize("fails", ["nowhere", "inside", "before"])
def test_weights_and_statistics_are_what_they_were(fails):
    model = network()
    model(2 * batch()[0])
    state = copy.deepcopy(model.state_dict())

    def broken() -> Tensor:
        model(batch()[0])
        raise KeyError

    context = nullcontext() if fails == "nowhere" else pytest.raises(KeyError)
    with context, perturbed_weights(model, broken if fails == "before" else plain_loss(model), 0.1, WORLD):
        assert fails != "before"
        assert_equal(dict(model.named_buffers()), {name: state[name] for name, _ in model.named_buffers()})
        assert not torch.equal(model[0].weight, state["0.weight"])
        if fails == "inside":
            raise KeyError
    assert_equal(dict(model.state_dict()), dict(state))
    assert model[1].track_running_stats and model[1].training
    model(batch()[0])  # and the next forward counts again
    assert model[1].num_batches_tracked == state["1.num_batches_tracked"] + 1


def test_weights_without_a_gradient_stay():
    model = network()
    model[2].unused = nn.Linear(3, 4).double()  # reached by no path
    before = copy.deepcopy(model.state_dict())
    with perturbed_weights(model, plain_loss(model), 0.1, WORLD):
        assert torch.equal(model[2].unused.weight, before["2.unused.weight"])
        assert model[0].weight.isfinite().all()
    with perturbed_weights(model, lambda: 0 * plain_loss(model)(), 0.1, WORLD):
        assert_equal(dict(model.state_dict()), dict(before))


def test_large_weights_without_a_gradient_stay():
    model = network().float()
    model[2].unused = nn.Linear(100, 100)
    nn.init.constant_(model[2].unused.weight, 10.0)  # |w| = 1000
    images, labels = float_batch()
    with perturbed_weights(model, lambda: F.cross_entropy(model(images), labels), 0.005, WORLD):
        assert (model[2].unused.weight == 10).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_with_perturbed_weights_equal_those_made_by_hand(loss):
    model = network()
    hand, trainer = HandMade(model, loss, gamma=0.05), trainer_of(model, loss, awp_gamma=0.05)
    assert_equal_training(trainer, hand, [batch(seed=seed) for seed in range(3)])
    assert model[1].num_batches_tracked == 3


def test_gradients_of_perturbed_parts_are_added_up():
    """Each part is perturbed alone; its gradient is that of its own perturbed weights."""
    model, (images, labels) = network(norm=False), batch()
    twins = [copy.deepcopy(model) for _ in range(2)]
    trainer_of(model, "standard", awp_gamma=0.05, accumulation=2).step(images, labels)
    for twin, part, truth in zip(twins, images.chunk(2), labels.chunk(2), strict=True):
        trainer_of(twin, "standard", awp_gamma=0.05).step(part, truth)
    for whole, first, second in zip(model.parameters(), *(twin.parameters() for twin in twins), strict=True):
        torch.testing.assert_close(whole.grad, (first.grad + second.grad) / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_copies_of_unperturbed_weights_are_not_kept(loss):
    """Autocast caches what it casts: the training forward must not see the weights of the perturbation's forward."""
    model = network().float()
    hand = HandMade(model, loss, gamma=0.2, bfloat16=True)
    plain = HandMade(model, loss, bfloat16=True)
    trainer = trainer_of(model, loss, awp_gamma=0.2, bfloat16=True)
    batches = [float_batch(seed=seed) for seed in range(3)]
    assert_equal_training(trainer, hand, batches, rtol=1e-5, atol=1e-6)
    for images, labels in batches:
        plain.step(images, labels)
    for mine, unperturbed in zip(model.parameters(), plain.model.parameters(), strict=True):
        assert mine.ndim == 1 or (mine - unperturbed).abs().max() > 5e-4  # far more than the tolerance above


def test_perturbation_begins_at_its_step():
    model = network()
    late, never = copy.deepcopy(model), copy.deepcopy(model)
    trainers = [trainer_of(late, awp_gamma=0.1, awp_from=2), trainer_of(never)]
    assert_equal_training(trainer_of(model, awp_gamma=0.1, awp_from=2), HandMade(model, gamma=0.1, awp_from=2),
                          [batch(seed=seed) for seed in range(4)])
    for step in range(4):
        for trainer in trainers:
            trainer.step(*batch(seed=step))
        assert torch.equal(late[0].weight, never[0].weight) == (step < 2)
