"""Training steps: what they do to weights, learning rate and averages, in every precision."""

import copy

import pytest
import torch
from torch import Tensor

from tests.library.training_cases import (
    SETTINGS,
    WORLD,
    HandMade,
    assert_equal_training,
    batch,
    cells,
    float_batch,
    network,
    noise_of,
    trainer_of,
    weights,
)
from tests.quick import slow_after
from tests.run_files import assert_equal
from wsrnas.runtime.seeding import generator
from wsrnas.training.losses import LOSSES, LossSettings, TrainingLoss
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

# -- plain steps -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("loss", LOSSES)
def test_steps_equal_those_made_by_hand(loss):
    """Three steps, of which each draws other noise; in training mode, whatever mode the network was in."""
    model = network().eval()
    hand, trainer = HandMade(model, loss), trainer_of(model, loss)
    assert_equal_training(trainer, hand, [batch(seed=seed) for seed in range(3)])
    assert all(module.training for module in model.modules()) and trainer.steps == 3
    assert trainer.evaluated is model


def test_the_metrics_of_a_step_are_those_of_its_loss():
    model, (images, labels) = network(), batch()
    loss, metrics = LOSSES["trades"](copy.deepcopy(model), images, labels, SETTINGS, noise_of(0))
    result = trainer_of(model, "trades").step(images, labels)
    total, count = result.pop("loss")
    assert total.item() == pytest.approx(8 * loss.item()) and count == 8 and not total.requires_grad
    assert {name: (value.item(), of) for name, (value, of) in result.items()} == {
        name: (value.item(), of) for name, (value, of) in metrics.items()}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_batch_stays_as_it_is(loss):
    images, labels = batch()
    kept = images.clone(), labels.clone()
    trainer_of(network(), loss, awp_gamma=0.01, accumulation=2, clean_accuracy=True).step(images, labels)
    assert torch.equal(images, kept[0]) and torch.equal(labels, kept[1])
    assert not images.requires_grad and images.grad is None


def test_every_step_and_every_seed_has_noise_of_its_own():
    def start(seed: int, step: int) -> Tensor:
        seen, model = [], network()
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
        trainer = trainer_of(model, "fast", seed=seed)
        trainer.steps = step
        trainer.step(*batch())
        return seen[0]

    torch.manual_seed(1)
    first = start(0, 5)
    torch.manual_seed(2)
    assert torch.equal(start(0, 5), first)
    assert not torch.equal(start(0, 6), first) and not torch.equal(start(1, 5), first)


# -- refinements -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e3])
def test_gradients_are_clipped_to_their_norm_over_all_parameters(clip):
    model = network()
    hand, trainer = HandMade(model, clip=clip), trainer_of(model, grad_clip=clip)
    tolerance = {"rtol": 1e-5, "atol": 1e-9}  # torch adds 1e-6 to the norm
    for seed in range(2):
        images, labels = batch(seed=seed)
        trainer.step(images, labels)
        hand.step(images, labels)
    torch.testing.assert_close(model.state_dict(), hand.model.state_dict(), **tolerance)
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3) if clip == 1e-3 else norm > 0.01


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_in_parts_makes_the_step_of_the_whole(loss, parts, clip):
    """Without BatchNorm; random starts are drawn part by part from the same stream."""
    settings = LossSettings(0.05, 2, random_start=True, strengths=(0.02, 0.06))
    results = []
    for accumulation in (1, parts):
        model, largest = network(norm=False), []
        model.register_forward_pre_hook(lambda module, inputs, largest=largest: largest.append(len(inputs[0])))
        trainer = trainer_of(model, loss, settings, accumulation=accumulation, grad_clip=clip)
        metrics = [trainer.step(*batch(seed=seed)) for seed in range(2)]
        assert trainer.steps == 2
        results.append((model.state_dict(), metrics, max(largest)))
    (whole, whole_metrics, whole_size), (shared, shared_metrics, shared_size) = results
    torch.testing.assert_close(shared, whole, rtol=1e-9, atol=1e-12)
    assert shared_size == whole_size // parts
    for mine, expected in zip(shared_metrics, whole_metrics, strict=True):
        for name, (value, count) in expected.items():
            torch.testing.assert_close(mine[name], (value, count), rtol=1e-9, atol=1e-12)


def test_parts_are_normalised_each_alone():
    model, (images, labels) = network(), batch()
    twin = copy.deepcopy(model)
    trainer_of(model, "standard", accumulation=2).step(images, labels)
    for part in images.chunk(2):
        twin(part)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


@pytest.mark.parametrize("decay", [0.999, 0.2])
def test_the_moving_average_is_a_recursion_of_weights_and_statistics(decay):
    model = network()
    trainer = trainer_of(model, "pgd", ema_decay=decay)
    assert trainer.evaluated is not model
    expected = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    for step in range(5):
        trainer.step(*batch(seed=step))
        current = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
        share = min(decay, (1 + step) / (10 + step))
        expected = {name: share * expected[name] + (1 - share) * value for name, value in current.items()}
        averaged = trainer.evaluated.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(averaged[name], value, rtol=1e-12, atol=1e-14)
            assert (averaged[name] != current[name]).any()
        assert averaged["1.num_batches_tracked"] == step + 1  # a count is no average
    assert "1.running_mean" in expected and all(type(module) in map(type, model.modules())
                                                for module in trainer.evaluated.modules())


def test_the_moving_average_does_not_change_the_training():
    models = [network(), network()]
    for model, decay in zip(models, (0.0, 0.9), strict=True):
        trainer = trainer_of(model, ema_decay=decay)
        for seed in range(2):
            trainer.step(*batch(seed=seed))
    assert_equal(models[0].state_dict(), models[1].state_dict())


def test_every_step_has_the_learning_rate_of_the_schedule():
    model = network()
    schedule = Schedule("cyclic", 0.3, 5, 5)
    groups = [{"params": model[0].parameters()}, {"params": model[5].parameters(), "lr": 7.0}]
    optimizer = torch.optim.SGD(groups, lr=9.0)
    trainer = Trainer(model, LOSSES["standard"], SETTINGS, optimizer, WORLD, schedule=schedule)
    used = []
    optimizer.register_step_pre_hook(lambda optimizer, *rest: used.append([g["lr"] for g in optimizer.param_groups]))
    for step in range(5):
        before = weights(model)
        trainer.step(*batch())
        moved = (weights(model)[0] - before[0]) / model[0].weight.grad
        torch.testing.assert_close(moved, torch.full_like(moved, -schedule(step)), rtol=1e-6, atol=0)
        assert trainer.learning_rate == schedule(step)
    assert used == [[schedule(step)] * 2 for step in range(5)] and len({rate for rate, _ in used}) > 2
    with pytest.raises(ValueError, match="step 5 of 5"):
        trainer.step(*batch())


def test_without_a_schedule_the_optimiser_keeps_its_rates():
    trainer = trainer_of(network(), rates={"lr": 0.125})
    trainer.step(*batch())
    assert trainer.learning_rate == 0.125


@pytest.mark.parametrize("loss", ["pgd", "multi", "fast"])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_clean_accuracy_is_that_of_every_eighth_image_in_evaluation_mode(loss, parts):
    (images, labels), model = batch(60), network()
    with torch.no_grad():
        model[5].weight.mul_(20)
    twin, noise, right, seen = copy.deepcopy(model), noise_of(0), 0, 0
    labels[::20] = copy.deepcopy(model).eval()(images[::20]).argmax(1)  # it is right about some
    step = trainer_of(model, loss, rates={"lr": 0.0}, accumulation=parts, clean_accuracy=True).step
    metrics = step(images, labels)
    for part, truth in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        twin.train()(LOSSES[loss].attack(twin, part, truth, SETTINGS, noise))  # statistics move in training alone
        right += (twin.eval()(part[::8]).argmax(1) == truth[::8]).sum().item()
        seen += len(part[::8])
    value, count = metrics.pop("clean_accuracy")
    assert (value.item(), count) == (right, seen) and 0 < right < seen == (8 if parts == 1 else 9)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))
    assert all(p.requires_grad for p in model.parameters()) and all(module.training for module in model.modules())
    assert "clean_accuracy" not in trainer_of(network(), loss).step(images, labels)  # off by default


@pytest.mark.parametrize("loss", ["trades", "mart", "standard"])
def test_losses_that_see_clean_logits_count_all_of_them(loss):
    plain, asked = (trainer_of(network(), loss, clean_accuracy=flag).step(*batch()) for flag in (False, True))
    assert asked == plain and plain["clean_accuracy"][1] == 8


def test_drop_path_rises_linearly_and_draws_from_the_steps_stream():
    model, rates = cells(), []
    model.drop_path.register_forward_pre_hook(
        lambda module, inputs: rates.append((trainer.steps, module.training, module.rate, module.noise)))
    schedule = Schedule("constant", 0.1, 4, 4)
    trainer = trainer_of(model, "trades", schedule=schedule, drop_path=0.3)
    for _ in range(4):
        trainer.step(*float_batch())
    assert {(step, rate) for step, _, rate, _ in rates} == {(step, 0.3 * step / 4) for step in range(4)}
    assert {training for _, training, _, _ in rates} == {True, False}  # and the attack sees none of it
    for step in range(4):
        streams = {noise.generator.initial_seed() for number, _, _, noise in rates if number == step}
        assert streams == {generator(0, "attack", step).initial_seed()}
    assert cells().drop_path.rate == 0


def test_drop_path_makes_another_training():
    models = [cells(), cells()]
    for model, rate in zip(models, (0.0, 0.5), strict=True):
        trainer = trainer_of(model, "standard", schedule=Schedule("constant", 0.1, 4, 4), drop_path=rate)
        for _ in range(2):
            trainer.step(*float_batch())
    assert not torch.equal(models[0].classifier.weight, models[1].classifier.weight)


# -- bfloat16 --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("loss", slow_after(3, LOSSES))
@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_bfloat16_is_for_activations_alone(loss, gamma):
    model, kinds, losses = cells(), set(), []

    def objective(network, *arguments):
        loss_value, metrics = LOSSES[loss].objective(network, *arguments)
        losses.append(loss_value)
        return loss_value, metrics

    model.stem.conv.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    trainer = Trainer(model, TrainingLoss(LOSSES[loss].attack, objective), SETTINGS, optimizer, WORLD,
                      refinements=Refinements(bfloat16=True, awp_gamma=gamma, clean_accuracy=True))
    metrics = trainer.step(*float_batch())
    assert kinds == {torch.bfloat16}  # attack, perturbation, training and clean accuracy
    assert {value.dtype for value in losses} == {torch.float32} and len(losses) == 1 + (gamma > 0)
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
    assert metrics["loss"][0].isfinite() and not torch.is_autocast_enabled("cpu")


def test_full_precision_is_the_default():
    model, kinds = cells(), set()
    model.stem.conv.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    trainer_of(model).step(*float_batch())
    assert kinds == {torch.float32}


@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_training_is_that_without_a_cache(loss):
    model = network().float()
    hand = HandMade(model, loss, bfloat16=True)
    trainer = trainer_of(model, loss, bfloat16=True)
    assert_equal_training(trainer, hand, [float_batch(seed=seed) for seed in range(3)], rtol=1e-5, atol=1e-6)
