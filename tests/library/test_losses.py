"""Every training loss against the papers' formulas, written out here in float64; random starts; what losses cost."""

import copy
import math
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.operations import DropPath
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.losses import LOSSES, LossSettings, loss_table, losses_of
from wsrnas.training.objectives import mart_objective

SHAPE = (3, 8, 8)
STRENGTHS = (0.02, 0.05, 0.11)
CASES = [
    ("pgd", {"epsilon": 0.06, "steps": 4}),
    ("pgd", {"epsilon": 0.06, "steps": 3, "step_size": 0.01, "random_start": True}),
    ("trades", {"epsilon": 0.06, "steps": 4}),
    ("trades", {"epsilon": 0.06, "steps": 3, "step_size": 0.01, "trades_beta": 6.0}),
    ("mart", {"epsilon": 0.06, "steps": 4}),
    ("mart", {"epsilon": 0.06, "steps": 3, "step_size": 0.01, "trades_beta": 5.0}),
    ("multi", {"epsilon": 0.9, "steps": 3, "strengths": STRENGTHS}),
    ("multi", {"epsilon": 0.9, "steps": 2, "strengths": STRENGTHS, "random_start": True}),
    ("fast", {"epsilon": 0.06, "steps": 9}),
    ("fast", {"epsilon": 0.06, "steps": 9, "step_size": 0.02}),
    ("standard", {"epsilon": 0.06, "steps": 4}),
]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]


def network(classes: int = 4) -> nn.Module:
    """In training mode, with running statistics that are not the batch's, and sure of what it says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(),
                          nn.Linear(24, classes)).double()
    with torch.no_grad():
        model[5].weight.mul_(8)
    for seed in range(3):
        model(1.5 * batch(16, seed=seed)[0])
    return model


def batch(count: int = 8, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of different colours, with black and white pixels."""
    draws = torch.Generator().manual_seed(seed)
    noise, colour = (torch.rand(count, 3, *size, generator=draws, dtype=torch.float64) for size in ((8, 8), (1, 1)))
    return (0.8 * noise + 0.8 * colour - 0.3).clamp(0, 1), torch.arange(count) // 2 % classes


def settings_of(given: dict, **more) -> LossSettings:
    return LossSettings(**given, **more)


# -- the reference --------------------------------------------------------------------------------------------------

def cross_entropies(probabilities: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(B,): -log of the true class' probability; the share ``smoothing`` of the target is spread over all classes."""
    classes = probabilities.shape[1]
    target = (1 - smoothing) * torch.eye(classes).double()[labels] + smoothing / classes
    return -(target * probabilities.log()).sum(1)


def divergences(p: Tensor, q: Tensor) -> Tensor:
    """(B,): KL(p || q)."""
    return (p * (p / q).log()).sum(1)


def ascend(function: Callable[[Tensor], Tensor], start: Tensor, images: Tensor, epsilon: float | Tensor, steps: int,
           step: float | Tensor) -> Tensor:
    """Maximise ``function`` by signed steps within the ball and the box."""
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    adversarial = torch.minimum(torch.maximum(start, low), high)
    for _ in range(steps):
        leaf = adversarial.clone().requires_grad_(True)
        gradient, = torch.autograd.grad(function(leaf), leaf)
        adversarial = torch.minimum(torch.maximum(leaf.detach() + step * gradient.sign(), low), high)
    return adversarial


class Reference:
    """Each method is a paper's loss: (loss, {metric: (right, of)})."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, settings: LossSettings,
                 draws: torch.Generator) -> None:
        self.model, self.images, self.labels, self.settings, self.draws = model, images, labels, settings, draws
        self.step = settings.step_size or 2.5 * settings.epsilon / settings.steps
        attacked = copy.deepcopy(model).train(settings.batch_statistics)  # no other layer has a mode
        self.attacked = lambda x: attacked(x).softmax(1)

    def uniform(self, *shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=self.draws, dtype=torch.float64) - 1

    def near(self) -> Tensor:
        return self.images + 0.001 * torch.randn(self.images.shape, generator=self.draws, dtype=torch.float64)

    def probabilities(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Of the network in training, which sees all parts as one batch."""
        return self.model(torch.cat(parts)).softmax(1).split([len(part) for part in parts])

    def right(self, probabilities: Tensor, labels: Tensor) -> tuple[int, int]:
        return (probabilities.argmax(1) == labels).sum().item(), len(labels)

    def pgd(self):
        start, epsilon = self.images, self.settings.epsilon
        if self.settings.random_start:
            start = self.images + epsilon * self.uniform(*self.images.shape)
        return self._adversarial(start, epsilon, self.settings.steps, self.step)

    def fast(self):
        epsilon = self.settings.epsilon
        start = self.images + epsilon * self.uniform(*self.images.shape)
        return self._adversarial(start, epsilon, 1, self.settings.step_size or 1.25 * epsilon)

    def multi(self):
        count, strengths = len(self.images), len(self.settings.strengths)
        unit = self.uniform(count, strengths, *SHAPE) if self.settings.random_start else torch.zeros(count, 3, *SHAPE)
        rows = [(image, unit[i, s], label, strength)
                for i, (image, label) in enumerate(zip(self.images, self.labels, strict=True))
                for s, strength in enumerate(self.settings.strengths)]
        images, unit, labels, epsilons = zip(*rows, strict=True)
        self.images, self.labels = torch.stack(images), torch.stack(labels)
        epsilons = torch.tensor(epsilons, dtype=torch.float64).view(-1, 1, 1, 1)
        start = self.images + epsilons * torch.stack(unit)
        return self._adversarial(start, epsilons, self.settings.steps, 2.5 * epsilons / self.settings.steps)

    def _adversarial(self, start: Tensor, epsilon: float | Tensor, steps: int, step: float | Tensor):
        def attack(x: Tensor) -> Tensor:
            return cross_entropies(self.attacked(x), self.labels, self.settings.label_smoothing).sum()

        p, = self.probabilities(ascend(attack, start, self.images, epsilon, steps, step))
        loss = cross_entropies(p, self.labels, self.settings.label_smoothing).sum() / len(self.labels)
        return loss, {"adversarial_accuracy": self.right(p, self.labels)}

    def standard(self):
        p, = self.probabilities(self.images)
        loss = cross_entropies(p, self.labels, self.settings.label_smoothing).mean()
        return loss, {"clean_accuracy": self.right(p, self.labels)}

    def trades(self):
        """Zhang et al. 2019, Eq. 5 and Alg. 1, with trades_beta for 1 / lambda."""
        clean = self.attacked(self.images).detach()
        adversarial = ascend(lambda x: divergences(clean, self.attacked(x)).sum(), self.near(), self.images,
                             self.settings.epsilon, self.settings.steps, self.step)
        p, q = self.probabilities(self.images, adversarial)
        clean = cross_entropies(p, self.labels, self.settings.label_smoothing)
        loss = clean + self.settings.trades_beta * divergences(p, q)
        return loss.mean(), {"clean_accuracy": self.right(p, self.labels),
                             "adversarial_accuracy": self.right(q, self.labels)}

    def mart(self):
        """Wang et al. 2020, Eq. 8, 9 and 11, with trades_beta for lambda."""
        adversarial = ascend(lambda x: cross_entropies(self.attacked(x), self.labels).sum(), self.near(), self.images,
                             self.settings.epsilon, self.settings.steps, self.step)
        p, q = self.probabilities(self.images, adversarial)
        rows, others = torch.arange(len(q)), q.clone()
        others[rows, self.labels] = 0
        boosted = -q[rows, self.labels].log() - (1 - others.max(1).values).log()
        loss = boosted + self.settings.trades_beta * divergences(p, q) * (1 - p[rows, self.labels])
        return loss.mean(), {"clean_accuracy": self.right(p, self.labels),
                             "adversarial_accuracy": self.right(q, self.labels)}


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name, given", CASES, ids=NAMES)
def test_value_gradients_statistics_and_metrics_equal_the_reference(name, given, smoothing, batch_statistics):
    settings = settings_of(given, label_smoothing=smoothing, batch_statistics=batch_statistics)
    model, (images, labels) = network(), batch()
    twin, before = copy.deepcopy(model), images.clone()
    value, metrics = LOSSES[name](model, images, labels, settings, BatchNoise(torch.Generator().manual_seed(5)))
    reference = Reference(twin, images, labels, settings, torch.Generator().manual_seed(5))
    expected, counts = getattr(reference, name)()
    assert value.dtype == torch.float64 and value.shape == ()
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    expected.backward()
    for (key, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-10, msg=key)
        assert mine.grad.any()
    # One training forward has updated the running statistics, no more.
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))
    assert model[1].num_batches_tracked == 4
    assert {key: (right.item(), count) for key, (right, count) in metrics.items()} == counts
    assert not any(right.requires_grad for right, _ in metrics.values())
    assert torch.equal(images, before)
    assert all(module.training for module in model.modules()) and all(p.requires_grad for p in model.parameters())


def test_the_reference_sees_right_and_wrong_images_and_every_loss_differs():
    """Otherwise the comparison above would be easy."""
    values, model, (images, labels) = {}, network(), batch()
    for name, given in CASES:
        noise = BatchNoise(torch.Generator().manual_seed(5))
        loss, metrics = LOSSES[name](copy.deepcopy(model), images, labels, settings_of(given), noise)
        values[round(loss.item(), 6)] = name
        assert any(0 < right < count for right, count in metrics.values()), name
    assert len(values) == len(CASES)


def test_the_table_of_losses_has_six_entries():
    assert list(LOSSES) == ["pgd", "trades", "mart", "multi", "fast", "standard"]


@pytest.mark.parametrize("name, given", CASES, ids=NAMES)
def test_logits_of_less_precision_are_not_used_as_they_are(name, given):
    """Autocast's bfloat16: the objective is that of the same logits in float32."""
    model, (images, labels), settings = network(), batch(), settings_of(given)
    adversarial = LOSSES[name].attack(model, images, labels, settings, BatchNoise())
    halves = [LOSSES[name].objective(lambda x, kind=kind: model(x).bfloat16().to(kind), images, adversarial, labels,
                                     settings)[0] for kind in (torch.bfloat16, torch.float32)]
    assert halves[0].dtype == torch.float32 and torch.equal(*halves)


@pytest.mark.parametrize("name", ["pgd", "fast", "trades", "mart", "multi"])
def test_the_attack_on_logits_of_less_precision_follows_their_gradient_in_float32(name):
    class Rounded(nn.Module):
        def __init__(self, kind: torch.dtype) -> None:
            super().__init__()
            self.inner, self.kind = network(), kind

        def forward(self, x: Tensor) -> Tensor:
            return (self.inner(x) / 4).bfloat16().to(self.kind)

    (images, labels), settings = batch(), LossSettings(0.05, 2, strengths=STRENGTHS)
    attacked = [LOSSES[name].attack(Rounded(kind), images, labels, settings, BatchNoise(torch.Generator()))
                for kind in (torch.bfloat16, torch.float32)]
    assert torch.equal(*attacked)


# -- where attacks start --------------------------------------------------------------------------------------------

@contextmanager
def recorded(model: nn.Module):
    """(whether in training mode, input) of each forward inside."""
    seen: list[tuple[bool, Tensor]] = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append((module.training, inputs[0].detach().clone())))
    yield seen
    hook.remove()


def forwards(name: str, settings: LossSettings) -> tuple[nn.Module, Tensor, list[tuple[bool, Tensor]]]:
    model, (images, labels) = network(), batch()
    with recorded(model) as seen:
        LOSSES[name](model, images, labels, settings, BatchNoise(torch.Generator().manual_seed(2)))
    return model, images, seen


@pytest.mark.parametrize("name, random_start, largest", [
    ("pgd", False, 0.0), ("pgd", True, 0.1), ("fast", False, 0.1), ("fast", True, 0.1)])
def test_the_start_is_uniform_in_the_ball_where_it_should_be(name, random_start, largest):
    _, images, seen = forwards(name, LossSettings(0.1, 1, random_start=random_start))
    inside = (images > 0.1) & (images < 0.9)
    noise = (seen[0][1] - images)[inside]
    assert noise.abs().max() <= largest + 1e-12
    if largest:
        deciles = torch.histc(noise, 10, -largest, largest) / len(noise)
        assert (deciles - 0.1).abs().max() < 0.03


def test_the_starts_of_multi_strength_training_are_uniform_in_their_own_balls():
    settings = LossSettings(0.9, 1, strengths=STRENGTHS, random_start=True)
    _, images, seen = forwards("multi", settings)
    inside = (images > 0.15) & (images < 0.85)
    noise = (seen[0][1].view(8, 3, *SHAPE) - images.unsqueeze(1)).transpose(0, 1)[:, inside]
    for own, strength in zip(noise, STRENGTHS, strict=True):
        assert 0.98 * strength < own.abs().max() <= strength + 1e-12
        assert own.std() == pytest.approx(strength / math.sqrt(3), rel=0.1)
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.15  # each strength has noise of its own


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_trades_and_mart_train_on_one_forward_of_clean_and_adversarial_images_together(name):
    _, images, seen = forwards(name, LossSettings(0.05, 3))
    training = [inputs for mode, inputs in seen if mode]
    assert len(training) == 1 and len(training[0]) == 16
    clean, adversarial = training[0].chunk(2)
    assert torch.equal(clean, images)
    assert 0.04 < (adversarial - images).abs().max() <= 0.05 + 1e-12


def test_the_attack_of_trades_starts_where_its_gradient_is_not_zero():
    model, images, seen = forwards("trades", LossSettings(0.05, 1))
    (_, first), (_, start), (_, last) = seen
    assert torch.equal(first, images)  # the prediction that the attack moves away from
    inside = (images > 0.01) & (images < 0.99)
    assert (start - images)[inside].std() == pytest.approx(0.001, rel=0.1)
    model = network().eval()
    clean = model(images).softmax(1).detach()
    near, far = (divergences(clean, model(x).softmax(1)).mean() for x in (start, last[8:]))
    assert 0 < near < far / 100
    at_start, at_images = (x.clone().requires_grad_(True) for x in (start, images))
    for x in (at_start, at_images):
        divergences(clean, model(x).softmax(1)).sum().backward()
    assert at_images.grad.abs().max() < 1e-12  # rounding: the sign of nothing
    assert (at_start.grad.abs() > 1e-7).double().mean() > 0.95


def test_the_attack_of_mart_starts_at_small_noise():
    _, images, seen = forwards("mart", LossSettings(0.05, 1))
    (_, start), (_, last) = seen
    noise = (start - images)[(images > 0.01) & (images < 0.99)]
    assert noise.std() == pytest.approx(0.001, rel=0.1) and noise.abs().max() > 0.002
    assert len(last) == 16


# -- MART far out ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_mart_is_finite_where_the_network_is_certain_and_wrong(dtype, tolerance):
    """-log p_y - log(1 - p_k) + KL * (1 - p_y), each with logits whose softmax rounds to 0 and 1."""
    high, low = 200.0, -200.0
    clean = [[high, low, low], [low, high, low], [low, high, low], [high, low, low]]
    adversarial = [[low, high, low], [low, high, low], [low, low, high], [high, low, low]]
    expected = [  # the label is always 0
        400 + (400 - math.log(2)) + 0,  # right and certain, attacked to wrong: KL 400, weighted by 1 - 1
        400 + (400 - math.log(2)) + 0,  # wrong twice in the same way: KL 0
        400 + (400 - math.log(2)) + 5 * 400,  # wrong in another way: KL 400, weighted by 1
        0.0,  # right twice
    ]
    for row in range(4):
        logits = torch.tensor([clean[row], adversarial[row]], dtype=dtype, requires_grad=True)
        images = torch.zeros(1, 1, 1, 1, dtype=dtype)
        loss, _ = mart_objective(lambda x, logits=logits: logits, images, images, torch.tensor([0]),
                                 LossSettings(0.1, 1, trades_beta=5.0))
        assert loss.item() == pytest.approx(expected[row], rel=tolerance, abs=1e-30)
        loss.backward()
        assert logits.grad.isfinite().all()
        assert (logits.grad[1].abs().max() > 0.1) == (expected[row] > 0)  # what is wrong has a gradient


def test_mart_learns_through_its_weight_too():
    """The gradient of 1 - p_y of the clean image is part of MART's: d/dz of KL * (1 - p_y) by differences."""
    torch.manual_seed(3)
    logits, labels, images = torch.randn(8, 5).double(), torch.tensor([0, 1, 4, 2]), torch.zeros(4, 1, 1, 1)

    def loss(z: Tensor) -> Tensor:
        return mart_objective(lambda x: z, images, images, labels, LossSettings(0.1, 1, trades_beta=5.0))[0]

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


# -- what a loss costs ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("name, given", CASES, ids=NAMES)
def test_step_passes_are_those_really_made(name, given, batch_statistics):
    model, (images, labels) = network(), batch()
    settings, passes = settings_of(given, batch_statistics=batch_statistics), Counter()

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        passes["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda gradient: passes.update(backward=len(gradient)))

    model.register_forward_hook(count)
    LOSSES[name](model, images, labels, settings, BatchNoise())[0].backward()
    both, forward = LOSSES[name].passes(settings)
    assert passes["backward"] == both * len(images)
    assert passes["forward"] == (both + forward) * len(images)


# -- the table ------------------------------------------------------------------------------------------------------

OTHER = {"epsilon": 0.11, "steps": 5, "step_size": 0.005, "random_start": True, "batch_statistics": True,
         "trades_beta": 3.0, "label_smoothing": 0.2, "strengths": (0.03, 0.2), "auxiliary_weight": 0.7}


class TwoHeads(nn.Module):
    """The network with an auxiliary head in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.network(images)
        return (logits, logits.roll(1, 1)) if self.training else logits


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_the_settings_that_its_entry_names_and_no_other(name):
    def loss(settings: LossSettings) -> float:
        noise = BatchNoise(torch.Generator().manual_seed(5))
        return LOSSES[name](TwoHeads().train(), *batch(), settings, noise)[0].item()

    settings = LossSettings(0.05, 3, 0.02, strengths=STRENGTHS)  # three steps reach the border
    changed = {field for field, value in OTHER.items()
               if loss(replace(settings, **{field: value})) != loss(settings)}
    assert changed == set(LOSSES[name].reads)
    assert set(OTHER) == {field.name for field in fields(LossSettings)}


def test_programs_offer_the_losses_of_their_own():
    assert list(losses_of("retrain")) == list(LOSSES)
    assert list(losses_of("search")) == list(losses_of("rnas")) == ["pgd", "trades", "fast"]


def test_the_table_has_a_row_for_each_loss():
    rows = loss_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(LOSSES)
    assert all(loss.help and row.count(" | ") == 3 for row, loss in zip(rows, LOSSES.values(), strict=True))


# -- random numbers -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_noise_of_a_batch_does_not_depend_on_the_number_of_processes(kind, size):
    def drawn(like: Tensor, rank: int, size: int) -> list[Tensor]:
        noise = BatchNoise(torch.Generator().manual_seed(4), rank, size)
        return [getattr(noise, kind)(like) for _ in range(2)]  # two draws: all processes advance alike

    whole = drawn(torch.zeros(12, 3, 2, dtype=torch.float64), 0, 1)
    shares = [drawn(torch.zeros(12 // size, 3, 2, dtype=torch.float64), rank, size) for rank in range(size)]
    for number in range(2):
        interleaved = torch.stack([share[number] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(interleaved, whole[number])
    assert not torch.equal(*whole)


def test_noise_has_its_range_type_and_generator():
    like = torch.zeros(4000, 2, dtype=torch.float64)
    uniform, normal = (getattr(BatchNoise(torch.Generator()), kind)(like) for kind in ("uniform", "normal"))
    draws = torch.Generator()
    assert torch.equal(uniform, 2 * torch.rand(like.shape, generator=draws, dtype=torch.float64) - 1)
    draws = torch.Generator()
    assert torch.equal(normal, torch.randn(like.shape, generator=draws, dtype=torch.float64))
    assert -1 <= uniform.min() < -0.99 and 0.99 < uniform.max() < 1
    assert abs(uniform.mean()) < 0.03 and abs(normal.mean()) < 0.05 and normal.std() == pytest.approx(1, rel=0.05)
    assert BatchNoise().uniform(torch.zeros(2, 3)).dtype == torch.float32


@pytest.mark.parametrize("name", ["pgd", "trades", "mart", "multi", "fast"])
def test_random_starts_come_from_the_noise_alone(name):
    model, (images, labels) = network().eval(), batch()  # running statistics stay as they are
    settings = LossSettings(0.05, 2, 0.01, random_start=True, strengths=STRENGTHS)

    def attacked(noise: BatchNoise | None) -> Tensor:
        with recorded(model) as seen:
            LOSSES[name](model, images, labels, settings, noise)
        return seen[-1][1]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = attacked(BatchNoise(torch.Generator().manual_seed(3)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(attacked(BatchNoise(torch.Generator().manual_seed(3))), first)
    assert not torch.equal(attacked(BatchNoise(torch.Generator().manual_seed(4))), first)
    torch.manual_seed(3)  # torch's own generator where no noise is given
    assert torch.equal(attacked(None), first)


@pytest.mark.parametrize("name", ["pgd", "trades", "mart", "multi", "fast"])
def test_adversarial_images_do_not_depend_on_the_number_of_processes(name):
    model, (images, labels) = network().eval(), batch()
    settings = LossSettings(0.05, 2, random_start=True, strengths=STRENGTHS)

    def attacked(rank: int, size: int) -> Tensor:
        noise = BatchNoise(torch.Generator().manual_seed(3), rank, size)
        return LOSSES[name].attack(model, images[rank::size], labels[rank::size], settings, noise).flatten(1)

    shares, whole = torch.cat([attacked(rank, 2) for rank in range(2)]), attacked(0, 1)
    distances, partners = torch.cdist(shares, whole, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert distances.max() < 1e-12 and sorted(partners.tolist()) == list(range(len(whole)))


@pytest.mark.parametrize("name", LOSSES)
def test_drop_path_in_a_loss_does_not_depend_on_the_number_of_processes(name):
    (images, labels), settings = batch(), LossSettings(0.05, 2, strengths=STRENGTHS)

    def loss(rank: int, size: int) -> Tensor:
        model, drop = network().eval(), DropPath()  # BatchNorm's statistics are the batch's in training
        model[2] = nn.Sequential(nn.Tanh(), drop)
        noise = BatchNoise(torch.Generator().manual_seed(3), rank, size)
        drop.rate, drop.noise, drop.training = 0.5, noise, True
        return LOSSES[name](model, images[rank::size], labels[rank::size], settings, noise)[0]

    assert sum(loss(rank, 2) for rank in range(2)).item() / 2 == pytest.approx(loss(0, 1).item(), rel=1e-9)


def test_label_smoothing_of_the_reference_is_torchs():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5).double(), torch.arange(6) % 5
    torch.testing.assert_close(cross_entropies(logits.softmax(1), labels, 0.3).mean(),
                               F.cross_entropy(logits, labels, label_smoothing=0.3))
