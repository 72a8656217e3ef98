"""A training step and all that may refine it against steps made by hand; epochs, whole, interrupted and diverged."""

import copy
import io
import itertools
import re
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import genotypes
import wsrnas.training.epoch
import wsrnas.training.trainer
from search.supernet import EdgeOperations, Supernet
from tests.run_files import assert_equal
from wsrnas.data.image_set import Augmentation, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.network import NetworkCIFAR
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.epoch import Epoch, live_metrics, train_epoch
from wsrnas.training.losses import LOSSES, LossSettings, TrainingLoss
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer
from wsrnas.training.weight_perturbation import perturbed_weights

SHAPE = (3, 8, 8)
WORLD = World()
SETTINGS = LossSettings(0.05, 2, trades_beta=2.0, strengths=(0.02, 0.06))
RATES = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def network(norm: bool = True, seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Tanh(),
                         nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, classes)).double()


def cells(seed: int = 0) -> nn.Module:
    """A network that has all that the programs' networks have."""
    torch.manual_seed(seed)
    return NetworkCIFAR(genotypes.load("WsrNet_Basic"), 2, 2, 4)


def batch(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return images, torch.arange(count) % 4


def float_batch(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = batch(count, seed)
    return images.float(), labels


def trainer_of(model: nn.Module, loss: str = "pgd", settings: LossSettings = SETTINGS, seed: int = 0,
               schedule: Schedule | None = None, rates: dict = RATES, **refinements) -> Trainer:
    return Trainer(model, LOSSES[loss], settings, torch.optim.SGD(model.parameters(), **rates), WORLD, seed, schedule,
                   Refinements(**refinements))


def noise_of(step: int, seed: int = 0) -> BatchNoise:
    """What a step with this number draws from."""
    return BatchNoise(generator(seed, "attack", step))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


class HandMade:
    """The same training in elementary operations: attack, perturbation, gradient, clipping, SGD with momentum."""

    def __init__(self, model: nn.Module, loss: str = "pgd", settings: LossSettings = SETTINGS, gamma: float = 0.0,
                 awp_from: int = 0, clip: float = 0.0, bfloat16: bool = False) -> None:
        self.model, self.loss, self.settings = copy.deepcopy(model).train(), LOSSES[loss], settings
        self.gamma, self.awp_from, self.clip, self.bfloat16 = gamma, awp_from, clip, bfloat16
        self.momenta = [torch.zeros_like(p) for p in self.model.parameters()]
        self.steps = 0

    def autocast(self):
        """Autocast that keeps no bfloat16 copies of the weights."""
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if self.bfloat16 else nullcontext()

    def gradients(self, model: nn.Module, *arguments: Tensor) -> list[Tensor]:
        with self.autocast():
            loss, _ = self.loss.objective(model, *arguments, self.settings)
        return torch.autograd.grad(loss, list(model.parameters()))

    def step(self, images: Tensor, labels: Tensor) -> None:
        with self.autocast():
            adversarial = self.loss.attack(self.model, images, labels, self.settings, noise_of(self.steps))
        parameters, kept = list(self.model.parameters()), weights(self.model)
        with torch.no_grad():
            if self.gamma and self.steps >= self.awp_from:
                gradients = self.gradients_of_a_copy(images, adversarial, labels)
                for weight, g in zip(parameters, gradients, strict=True):
                    if weight.ndim > 1:
                        weight += self.gamma * weight.norm() / g.norm() * g
        gradients = self.gradients(self.model, images, adversarial, labels)
        scale = 1.0
        if self.clip:
            norm = torch.cat([g.flatten() for g in gradients]).norm().item()
            scale = min(1.0, self.clip / norm)
        with torch.no_grad():
            for number, (weight, before, g) in enumerate(zip(parameters, kept, gradients, strict=True)):
                g = scale * g + RATES["weight_decay"] * before
                self.momenta[number] = g if self.steps == 0 else RATES["momentum"] * self.momenta[number] + g
                weight.copy_(before - RATES["lr"] * self.momenta[number])
        self.steps += 1

    @torch.enable_grad()
    def gradients_of_a_copy(self, *arguments: Tensor) -> list[Tensor]:
        """Of a copy, whose running statistics may move."""
        return self.gradients(copy.deepcopy(self.model), *arguments)


def assert_equal_training(trainer: Trainer, hand: HandMade, batches: list[tuple[Tensor, Tensor]], **tolerance) -> None:
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-12}
    before = weights(trainer.network)
    for images, labels in batches:
        trainer.step(images, labels)
        hand.step(images, labels)
        torch.testing.assert_close(trainer.network.state_dict(), hand.model.state_dict(), **tolerance)
    assert all((p - b).abs().max() > 1e-4 for p, b in zip(trainer.network.parameters(), before, strict=True))


# -- plain steps ----------------------------------------------------------------------------------------------------

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


# -- refinements ----------------------------------------------------------------------------------------------------

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


# -- bfloat16 -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("loss", LOSSES)
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


# -- adversarial weight perturbation --------------------------------------------------------------------------------

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


# -- state ----------------------------------------------------------------------------------------------------------

def refined(model: nn.Module, bfloat16: bool = False) -> Trainer:
    """With everything that a state could forget."""
    settings = LossSettings(0.05, 2, random_start=True)
    return trainer_of(model, "pgd", settings, 3, Schedule("cosine", 0.1, 6, 3), grad_clip=0.5, accumulation=2,
                      bfloat16=bfloat16, awp_gamma=0.01, awp_from=2, ema_decay=0.9, drop_path=0.4, clean_accuracy=True)


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_interrupted_steps_equal_uninterrupted_ones_bit_for_bit(bfloat16):
    whole = refined(cells(), bfloat16)
    expected = [whole.step(*float_batch(seed=step)) for step in range(6)]
    trainer, metrics = refined(cells(), bfloat16), []
    for step in range(3):
        metrics.append(trainer.step(*float_batch(seed=step)))
    state = through_a_file(trainer.state_dict())
    trainer = refined(cells(seed=7), bfloat16)  # all that it starts with is another's
    trainer.step(*float_batch(seed=9))
    trainer.load_state_dict(state)
    assert trainer.steps == 3
    torch.manual_seed(99)
    for step in range(3, 6):
        metrics.append(trainer.step(*float_batch(seed=step)))
    assert_equal(metrics, expected)
    assert_equal(trainer.state_dict(), whole.state_dict())
    assert_equal(dict(trainer.evaluated.state_dict()), dict(whole.evaluated.state_dict()))
    assert not torch.equal(trainer.evaluated.classifier.weight, trainer.network.classifier.weight)


def test_a_state_holds_the_buffers_of_the_average_too():
    trainer = refined(cells())
    for step in range(2):
        trainer.step(*float_batch(seed=step))
    state = trainer.state_dict()
    floating = [b for model in (trainer.network, trainer.evaluated) for b in model.buffers() if b.is_floating_point()]
    assert state["steps"] == 2 and state["buffers"].shape == (1, sum(b.numel() for b in floating))
    assert torch.equal(state["buffers"][0], torch.cat([b.flatten() for b in floating]))


@pytest.mark.parametrize("mine, other", [(0.0, 0.9), (0.9, 0.0)])
def test_a_state_with_another_moving_average_is_refused(mine, other):
    state = trainer_of(network(), ema_decay=other).state_dict()
    model = network(seed=1)
    before = weights(model)
    with pytest.raises(ValueError, match="ema_decay"):
        trainer_of(model, ema_decay=mine).load_state_dict(state)
    assert_equal(weights(model), before)


def test_the_state_of_another_training_is_refused():
    trainer = trainer_of(network())
    with pytest.raises(RuntimeError, match="size mismatch"):
        trainer.load_state_dict(trainer_of(network(classes=5)).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        trainer.load_state_dict(trainer_of(network().append(nn.Linear(4, 4).double())).state_dict())
    state, shorter = trainer.state_dict(), network()
    groups = torch.optim.SGD(shorter[0].parameters(), 0.1)
    with pytest.raises(ValueError, match="group"):
        Trainer(shorter, LOSSES["pgd"], SETTINGS, groups, WORLD).load_state_dict(state)
    with pytest.raises(RuntimeError):
        trainer.load_state_dict(state | {"buffers": state["buffers"][:, 1:]})
    for key in state:
        with pytest.raises(KeyError, match=key):
            trainer.load_state_dict({name: value for name, value in state.items() if name != key})


# -- some parameters off the path -----------------------------------------------------------------------------------

def on_path(name: str, operations: tuple[EdgeOperations, ...], supernet: Supernet) -> bool:
    """Whether a parameter takes part when these operations are chosen: all but the other operations of the edges."""
    parts = name.split(".")
    if "edges" not in parts:
        return True
    cell, edge, operation = int(parts[1]), int(parts[3]), int(parts[4])
    return operation in operations[supernet.cells[cell].kind][edge]


@pytest.mark.parametrize("loss", ["pgd", "trades"])
def test_unsampled_operations_stay_bit_for_bit_despite_momentum_and_weight_decay(loss):
    torch.manual_seed(0)
    supernet = Supernet(4, 3, 4)
    optimizer = torch.optim.SGD(supernet.weight_parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    trainer = Trainer(supernet, LOSSES[loss], LossSettings(0.05, 1, batch_statistics=True), optimizer, WORLD,
                      refinements=Refinements(grad_clip=5.0), single_path=True)
    draw = torch.Generator().manual_seed(0)
    for epoch in range(2):  # in the second one, operations of the first path have momentum
        operations = torch.randint(1, 8, (2, 14), generator=draw)
        path = supernet.use(F.one_hot(operations, 8).float())
        before = {name: value.detach().clone() for name, value in supernet.named_parameters()}
        train_epoch(trainer, Batches([float_batch()] * 2), epoch)
        changed = {name for name, value in supernet.named_parameters() if not torch.equal(value, before[name])}
        trained = {name for name, _ in supernet.named_parameters() if on_path(name, path.operations, supernet)}
        assert changed <= trained - {"alphas_normal", "alphas_reduce"}
        missed = trained - changed - {"alphas_normal", "alphas_reduce"}
        assert not missed, f"epoch {epoch}: on the path and never trained: {missed}"


@pytest.mark.parametrize("single_path", [False, True])
def test_gradients_of_a_path_are_exchanged_once_a_step_before_clipping(single_path, monkeypatch):
    seen = []

    def exchange(parameters, world):
        seen.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item())

    monkeypatch.setattr(wsrnas.training.trainer, "average_gradients", exchange)
    model = network()
    trainer = Trainer(model, LOSSES["pgd"], SETTINGS, torch.optim.SGD(model.parameters(), 0.1), WORLD,
                      refinements=Refinements(grad_clip=1e-3, accumulation=2), single_path=single_path)
    trainer.step(*batch())
    assert len(seen) == single_path and all(norm > 0.01 for norm in seen)


def test_a_path_needs_no_distributed_wrapper():
    trainer = Trainer(model := network(), LOSSES["pgd"], SETTINGS, torch.optim.SGD(model.parameters(), 0.1),
                      World(0, 2), single_path=True)
    assert trainer.forward is model and trainer.parallel is None


# -- epochs ---------------------------------------------------------------------------------------------------------

class Batches:
    """These batches in every epoch; remembers what was asked for."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.list, self.asked = batches, []

    def __len__(self) -> int:
        return len(self.list)

    def batches(self, epoch: int = 0, start: int = 0):
        self.asked.append((epoch, start))
        yield from self.list[start:]


def scripted(losses: list[float], right: list[int] | None = None) -> Trainer:
    """A trainer whose loss returns these values one after the other."""
    model = nn.Linear(1, 1)
    script = iter(zip(losses, right or [0] * len(losses), strict=True))

    def objective(network, images, adversarial, labels, settings):
        value, count = next(script)
        counts = {"adversarial_accuracy": (torch.tensor(count), len(labels)),
                  "clean_accuracy": (torch.tensor(count + 1), 2 * len(labels))}
        return 0 * network.weight.sum() + value, counts

    return Trainer(model, TrainingLoss(LOSSES["standard"].attack, objective), SETTINGS,
                   torch.optim.SGD(model.parameters(), 0.1), WORLD)


def empty(*sizes: int) -> Batches:
    return Batches([(torch.zeros(size, 1), torch.zeros(size)) for size in sizes])


def digits(count: int = 26) -> BatchLoader:
    """Six augmented, shuffled batches of four."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *SHAPE), generator=draws, dtype=torch.uint8)
    return BatchLoader(ImageSet(images, torch.arange(count) % 4), 4, 0, "training", shuffle=True,
                       augment=Augmentation(2, True), drop_last=True)


def without_time(summary: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if name not in ("seconds", "images_per_second")}


def test_the_epoch_reports_means_over_images_not_over_batches():
    result = train_epoch(scripted([1.0, 3.0], [2, 0]), empty(3, 1), 0)
    assert result["loss"] == pytest.approx((3 * 1 + 1 * 3) / 4)
    assert result["adversarial_accuracy"] == pytest.approx((2 + 0) / 4)
    assert result["clean_accuracy"] == pytest.approx((3 + 1) / 8)  # each metric by its own number of samples
    assert result["images"] == 4
    assert result["seconds"] > 0 and result["images_per_second"] == pytest.approx(4 / result["seconds"])
    assert set(result) == {"loss", "adversarial_accuracy", "clean_accuracy", "images", "seconds", "images_per_second"}


def test_sums_are_in_double_precision():
    """Of float32 losses: 1 disappears beside 2**24."""
    result = train_epoch(scripted([2.0**24, *[1.0] * 8]), empty(*[1] * 9), 0)
    assert result["loss"] * 9 == 2**24 + 8


def test_the_epoch_trains_on_the_batches_of_its_number():
    model, loader = network(), digits()
    twin = copy.deepcopy(model).float()
    trainer = trainer_of(model.float())
    result = train_epoch(trainer, loader, 3)
    reference = trainer_of(twin)
    for images, labels in loader.batches(3):
        reference.step(images, labels)
    assert_equal(dict(model.state_dict()), dict(twin.state_dict()))
    assert trainer.steps == 6 and result["images"] == 24
    asked = Batches([float_batch()] * 3)
    train_epoch(trainer, asked, 5, epoch=Epoch(batches=2))
    assert asked.asked == [(5, 2)] and trainer.steps == 7


class Stopped(Exception):
    pass


@pytest.mark.parametrize("loss", ["pgd", "trades"])
@pytest.mark.parametrize("stops", [(1,), (2, 5), (6,), (1, 2, 3, 4, 5, 6)])
def test_an_interrupted_epoch_goes_on_as_if_nothing_had_been(loss, stops):
    loader, torch_seeds = digits(), itertools.count()
    whole = trainer_of(network().float(), loss, clean_accuracy=True)
    expected = train_epoch(whole, loader, 1)
    assert 0 < expected["adversarial_accuracy"] < 1

    def start(epoch: Epoch | None, state: dict | None, stop: int | None) -> tuple[dict, dict] | dict[str, float]:
        torch.manual_seed(next(torch_seeds))
        trainer = trainer_of(network(seed=0 if state is None else 5).float(), loss, clean_accuracy=True)
        if state is not None:
            trainer.load_state_dict(state)
        saved = []

        def after_step(epoch: Epoch) -> None:
            if epoch.batches == stop:
                saved.append(through_a_file({"trainer": trainer.state_dict(), "epoch": epoch.state_dict(WORLD)}))
                raise Stopped

        if stop is None:
            return train_epoch(trainer, loader, 1, epoch=epoch, after_step=after_step), trainer.state_dict()
        with pytest.raises(Stopped):
            train_epoch(trainer, loader, 1, epoch=epoch, after_step=after_step)
        return saved[0]["epoch"], saved[0]["trainer"]

    epoch, state, seconds = None, None, 0.0
    for stop in stops:
        record, state = start(epoch, state, stop)
        assert record["batches"] == stop and record["seconds"] > seconds
        seconds = record["seconds"]
        epoch = Epoch.load(record, WORLD)
    result, state = start(epoch, state, None)
    assert without_time(result) == without_time(expected)
    assert result["seconds"] > seconds
    assert_equal(state, whole.state_dict())


def test_the_state_of_an_epoch_is_plain_numbers():
    epoch = Epoch(seconds=2.5)
    assert epoch.state_dict(WORLD) == {"batches": 0, "seconds": 2.5, "sums": {}}
    epoch.add({"loss": (torch.tensor(6.0), 3), "clean_accuracy": (torch.tensor(2), 4)})
    epoch.add({"loss": (torch.tensor(1.0), 1), "clean_accuracy": (torch.tensor(1), 1)})
    state = epoch.state_dict(WORLD)
    assert_equal(state, {"batches": 2, "seconds": 2.5, "sums": {"clean_accuracy": [3.0, 5], "loss": [7.0, 4]}})
    assert_equal(Epoch.load(state, WORLD).state_dict(WORLD), state)


def test_the_main_process_takes_what_all_have_summed_up():
    state = {"batches": 2, "seconds": 2.5, "sums": {"loss": [7.0, 4]}}
    sums = [Epoch.load(state, World(rank, 2)).sums for rank in range(2)]
    assert sums[0]["loss"] == (7, 4) and sums[1].get("loss", (0, 0)) == (0, 0)


def test_an_epoch_that_was_stopped_after_its_last_step_can_be_summed_up_by_every_process(monkeypatch):
    calls = []
    monkeypatch.setattr(wsrnas.training.epoch, "all_sum", lambda values, world: calls.append(values.shape) or values)
    state = {"batches": 2, "seconds": 2.5, "sums": {"loss": [7.0, 4]}}
    for rank in range(2):
        Epoch.load(state, World(rank, 2)).state_dict(World(rank, 2))
    assert len(calls) == 2 and calls[0] == calls[1]


@pytest.mark.parametrize("report_freq", [1, 2, 50])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_divergence_is_refused_and_its_first_step_named(report_freq, value):
    losses = [1.0, value, 1.0, float("nan"), 1.0]
    with pytest.raises(InputError, match=f"^warm-up 3: the training loss is {value} at step 2$"):
        train_epoch(scripted(losses), empty(*[3] * 5), 0, label="warm-up 3", report_freq=report_freq)


def test_divergence_is_noticed_before_it_is_saved():
    """A program asks before it saves; the state of the epoch does not hide it."""
    saved, epoch = [], Epoch()

    def save(epoch: Epoch) -> None:
        epoch.refuse_divergence("epoch 1", WORLD)
        saved.append(epoch.batches)

    with pytest.raises(InputError, match="epoch 1: the training loss is nan at step 3"):
        train_epoch(scripted([1.0, 1.0, float("nan"), 1.0]), empty(*[3] * 4), 0, epoch=epoch, after_step=save)
    assert saved == [1, 2]
    Epoch().refuse_divergence("epoch 1", WORLD)  # nothing done, nothing wrong


def test_the_step_of_a_divergence_counts_from_the_beginning_of_the_epoch():
    with pytest.raises(InputError, match="the training loss is inf at step 4"):
        train_epoch(scripted([1.0, float("inf")]), empty(*[3] * 4), 0, epoch=Epoch(batches=2))


def test_a_network_that_explodes_is_refused():
    with pytest.raises(InputError, match=r"the training loss is (nan|inf)"):
        train_epoch(trainer_of(network(), rates={"lr": 1e308, "momentum": 0.9}), Batches([batch()] * 2), 0)


def test_an_epoch_of_no_batches_is_refused():
    with pytest.raises(InputError, match="search 2: train: no batches"):
        train_epoch(trainer_of(network()), Batches([]), 0, label="search 2: train")


def test_something_is_called_after_every_step():
    seen = []
    trainer = scripted([1.0, 2.0, 4.0])

    def after_step(epoch: Epoch) -> None:
        seen.append((epoch.batches, trainer.steps, epoch.sums["loss"][0].item()))

    train_epoch(trainer, empty(1, 1, 1), 0, after_step=after_step)
    assert seen == [(1, 1, 1.0), (2, 2, 3.0), (3, 3, 7.0)]


def test_a_long_epoch_writes_lines_into_the_log(monkeypatch):
    def lines(seconds: float, report_freq: int) -> list[str]:
        monkeypatch.setattr(wsrnas.training.epoch, "LOG_SECONDS", seconds)
        said: list[str] = []
        train_epoch(scripted([1.0, 2.0, 3.0, 4.0, 5.0], [2, 2, 2, 2, 2]), empty(*[4] * 5), 0, label="epoch 1/9",
                    report_freq=report_freq, log=said.append)
        return said

    said = lines(0, 2)
    assert [re.sub(r"img/s [1-9]\d*", "img/s N", line) for line in said] == [
        "epoch 1/9 step 2/5 loss 1.500 clean 37.5% robust 50.0% img/s N, 0 min left of the epoch",
        "epoch 1/9 step 4/5 loss 2.500 clean 37.5% robust 50.0% img/s N, 0 min left of the epoch"]
    assert lines(1e9, 1) == []


def test_live_metrics_are_words_and_means():
    epoch = Epoch()
    epoch.add({"loss": (torch.tensor(6.0), 3), "adversarial_accuracy": (torch.tensor(1), 3)})
    assert live_metrics(epoch) == {"loss": "2.000", "robust": "33.3%"}
    epoch.add({"loss": (torch.tensor(1.0), 1), "adversarial_accuracy": (torch.tensor(1), 1),
               "clean_accuracy": (torch.tensor(7), 8)})
    assert live_metrics(epoch) == {"loss": "1.750", "clean": "87.5%", "robust": "50.0%"}
    epoch = Epoch()
    epoch.add({"loss": (torch.tensor(6.0), 3), "clean_accuracy": (torch.tensor(3), 3)})
    assert live_metrics(epoch) == {"loss": "2.000", "clean": "100.0%"}
