"""Training losses and the epoch around them against float64 references written here."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.supernet import Supernet
from wsrnas.distributed import World
from wsrnas.errors import InputError
from wsrnas.losses import LOSSES, AttackSettings, pgd_loss, trades_loss
from wsrnas.training import recalibrate_batch_norm, train_epoch

SHAPE = (3, 8, 8)
WORLD = World()


def network(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(),
                          nn.Linear(24, classes)).double()
    for _ in range(3):
        model(2 * torch.rand(16, *SHAPE).double())  # running statistics that are not the batch's
    return model


def batch(count: int = 8, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return images, torch.arange(count) % classes


def ascend(function, start: Tensor, images: Tensor, epsilon: float, steps: int, step: float) -> Tensor:
    """Maximise ``function`` by signed steps within the ball and the box."""
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    adversarial = torch.minimum(torch.maximum(start, low), high)
    for _ in range(steps):
        leaf = adversarial.clone().requires_grad_(True)
        gradient, = torch.autograd.grad(function(leaf), leaf)
        adversarial = torch.minimum(torch.maximum(leaf.detach() + step * gradient.sign(), low), high)
    return adversarial


def attacked_copy(model: nn.Module, batch_statistics: bool) -> nn.Module:
    return copy.deepcopy(model).train(batch_statistics)


def reference_pgd_loss(model: nn.Module, images: Tensor, labels: Tensor, settings: AttackSettings,
                       generator: torch.Generator) -> tuple[Tensor, Tensor]:
    attacked = attacked_copy(model, settings.batch_statistics)
    start = images
    if settings.random_start:
        start = images + settings.epsilon * (2 * torch.rand(images.shape, generator=generator).double() - 1)
    step = settings.step_size or 2.5 * settings.epsilon / settings.steps
    adversarial = ascend(lambda x: F.nll_loss(attacked(x).log_softmax(1), labels), start, images, settings.epsilon,
                         settings.steps, step)
    logits = model(adversarial)
    loss = -logits.log_softmax(1)[torch.arange(len(labels)), labels].sum() / len(labels)
    return loss, logits


def reference_trades_loss(model: nn.Module, images: Tensor, labels: Tensor, settings: AttackSettings,
                          generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def divergence(p: Tensor, q: Tensor) -> Tensor:
        return (p * (p.log() - q.log())).sum() / len(p)

    attacked = attacked_copy(model, settings.batch_statistics)
    clean = attacked(images).softmax(1).detach()
    start = images + 0.001 * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = settings.step_size or 2.5 * settings.epsilon / settings.steps
    adversarial = ascend(lambda x: divergence(clean, attacked(x).softmax(1)), start, images, settings.epsilon,
                         settings.steps, step)
    logits = model(torch.cat([images, adversarial]))
    probabilities = logits.softmax(1)
    natural, robust = probabilities[:len(images)], probabilities[len(images):]
    loss = -natural[torch.arange(len(labels)), labels].log().mean() + settings.beta * divergence(natural, robust)
    return loss, logits


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("settings", [
    {"epsilon": 0.06, "steps": 4}, {"epsilon": 0.06, "steps": 3, "step_size": 0.01, "beta": 6.0},
])
@pytest.mark.parametrize("loss, reference", [(pgd_loss, reference_pgd_loss), (trades_loss, reference_trades_loss)])
def test_loss_gradient_and_counts_equal_the_reference(loss, reference, settings, batch_statistics):
    settings = AttackSettings(**settings, batch_statistics=batch_statistics)
    model, (images, labels) = network(), batch()
    twin = copy.deepcopy(model)
    value, metrics = loss(model, images, labels, settings, torch.Generator().manual_seed(5))
    expected, logits = reference(twin, images, labels, settings, torch.Generator().manual_seed(5))
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    for mine, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)  # one training forward has updated the running statistics, no more
    right = [(part.argmax(1) == labels).sum().item() for part in logits.split(len(labels))]
    names = ["clean_correct", "adversarial_correct"][-len(right):]
    assert {name: count.item() for name, count in metrics.items()} == dict(zip(names, right, strict=True))


def test_pgd_loss_starts_at_random_when_asked():
    model, (images, labels) = network(), batch()
    settings = AttackSettings(0.1, 0, random_start=True)
    seen = recorded(model, lambda: pgd_loss(model, images, labels, settings, torch.Generator().manual_seed(2)))
    noise = seen[-1][1] - images
    assert 0.05 < noise.abs().max() <= 0.1 + 1e-12
    assert not torch.equal(noise, torch.zeros_like(noise))


def recorded(model: nn.Module, call) -> list[tuple[bool, Tensor]]:
    """(whether in training mode, input) of each forward that ``call`` makes."""
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs[0].detach())))
    call()
    hook.remove()
    return seen


def test_trades_trains_on_one_forward_of_clean_and_adversarial_images_together():
    model, (images, labels) = network(), batch()
    settings = AttackSettings(0.05, 3)
    seen = recorded(model, lambda: trades_loss(model, images, labels, settings, torch.Generator().manual_seed(0)))
    training = [inputs for mode, inputs in seen if mode]
    assert len(training) == 1 and len(training[0]) == 16
    clean, adversarial = training[0].chunk(2)
    assert torch.equal(clean, images)
    assert (adversarial - images).abs().max() <= 0.05 + 1e-12


def test_trades_attack_starts_where_its_gradient_is_not_zero():
    model, (images, labels) = network(), batch()
    settings = AttackSettings(0.05, 1)
    seen = recorded(model, lambda: trades_loss(model, images, labels, settings, torch.Generator().manual_seed(0)))
    (_, first), (_, start), (_, last) = seen
    assert torch.equal(first, images)  # the prediction that the attack moves away from
    inside = (images > 0.01) & (images < 0.99)
    assert (start - images)[inside].std() == pytest.approx(0.001, rel=0.1)
    model.eval()
    clean, near, far = (model(x).log_softmax(1) for x in (images, start, last[8:]))
    near, far = (F.kl_div(q, clean, reduction="batchmean", log_target=True).item() for q in (near, far))
    assert 0 < near < far / 100


def test_losses_by_name():
    assert {"pgd": pgd_loss, "trades": trades_loss} == LOSSES


# ---- one epoch -----------------------------------------------------------------------------------------------


def on_path(name: str, operations: tuple[tuple[int, ...], ...], supernet: Supernet) -> bool:
    """Whether a parameter takes part when these operations are chosen: all but the other operations of the edges."""
    parts = name.split(".")
    if "edges" not in parts:
        return True
    cell, edge, operation = int(parts[1]), int(parts[3]), int(parts[4])
    return operations[supernet.cells[cell].kind][edge] == operation


def one_hot_gates(operations: list[list[int]]) -> Tensor:
    return F.one_hot(torch.tensor(operations), 8).float()


@pytest.mark.parametrize("loss", list(LOSSES))
def test_unsampled_operations_stay_bit_for_bit_despite_momentum_and_weight_decay(loss):
    torch.manual_seed(0)
    supernet = Supernet(4, 3, 4)
    optimizer = torch.optim.SGD(supernet.weight_parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    images, labels = batch()
    data = [(images.float(), labels)] * 2
    draw = torch.Generator().manual_seed(0)
    for epoch in range(2):  # in the second one, operations of the first path have momentum
        operations = torch.randint(1, 8, (2, 14), generator=draw).tolist()
        path = supernet.use(one_hot_gates(operations))
        before = {name: value.detach().clone() for name, value in supernet.named_parameters()}
        train_epoch(supernet, data, 2, LOSSES[loss], AttackSettings(0.05, 1, batch_statistics=True), optimizer, WORLD,
                    grad_clip=5.0)
        changed = {name for name, value in supernet.named_parameters() if not torch.equal(value, before[name])}
        trained = {name for name, _ in supernet.named_parameters() if on_path(name, path.operations, supernet)}
        assert changed <= trained - {"alphas_normal", "alphas_reduce"}
        missed = trained - changed - {"alphas_normal", "alphas_reduce"}
        assert not missed, f"epoch {epoch}: on the path and never trained: {missed}"


def fixed_losses(values: list[float], correct: list[int], parameter: nn.Parameter):
    """A loss function that returns these values one after the other."""
    script = iter(zip(values, correct, strict=True))

    def loss(model, images, labels, settings, generator):
        value, right = next(script)
        return 0 * parameter.sum() + value, {"adversarial_correct": torch.tensor(right),
                                             "clean_correct": torch.tensor(right + 1)}
    return loss


def test_the_epoch_reports_means_over_images_not_over_batches():
    model = nn.Linear(1, 1)
    batches = [(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(1, 1), torch.zeros(1))]
    result = train_epoch(model, batches, 2, fixed_losses([1.0, 3.0], [2, 0], model.weight), AttackSettings(0.1, 1),
                         torch.optim.SGD(model.parameters(), 0.1), WORLD)
    assert result["loss"] == pytest.approx((3 * 1 + 1 * 3) / 4)
    assert result["adversarial_accuracy"] == pytest.approx(2 / 4)
    assert result["clean_accuracy"] == pytest.approx((3 + 1) / 4)
    assert result["images"] == 4
    assert result["images_per_second"] == pytest.approx(4 / result["seconds"])
    assert set(result) == {"loss", "adversarial_accuracy", "clean_accuracy", "images", "seconds", "images_per_second"}


def test_the_epoch_takes_the_step_of_its_optimizer_in_training_mode():
    model, (images, labels) = network().eval(), batch()
    twin = copy.deepcopy(model).train()
    settings = AttackSettings(0.05, 2)
    train_epoch(model, [(images, labels)], 1, pgd_loss, settings, torch.optim.SGD(model.parameters(), 0.1), WORLD)
    reference_pgd_loss(twin, images, labels, settings, torch.Generator())[0].backward()
    assert all(m.training for m in model.modules())
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), (theirs - 0.1 * theirs.grad).detach())


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped_to_their_norm_over_all_parameters(clip):
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    train_epoch(model, [batch()], 1, pgd_loss, AttackSettings(0.05, 1), torch.optim.SGD(model.parameters(), 1.0), WORLD,
                grad_clip=clip)
    moved = torch.stack([(p - b).norm() for p, b in zip(model.parameters(), before, strict=True)]).norm().item()
    assert moved == pytest.approx(1e-3, rel=1e-3) if clip else moved > 0.01


@pytest.mark.parametrize("report_freq, named", [(1, 1), (50, 2)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_refused_and_its_step_named(report_freq, named, value):
    model = nn.Linear(1, 1)
    with pytest.raises(InputError, match=f"warm-up 3: the training loss is {value} at step {named}"):
        train_epoch(model, [(torch.zeros(3, 1), torch.zeros(3))] * 3, 3,
                    fixed_losses([1.0, value, 1.0], [0, 0, 0], model.weight), AttackSettings(0.1, 1),
                    torch.optim.SGD(model.parameters(), 0.1), WORLD, label="warm-up 3", report_freq=report_freq)


def test_a_network_that_explodes_is_refused():
    model = network()
    with pytest.raises(InputError, match=r"the training loss is (nan|inf)"):
        train_epoch(model, [batch()] * 2, 2, pgd_loss, AttackSettings(0.05, 1),
                    torch.optim.SGD(model.parameters(), 1e308, momentum=0.9), WORLD)


def test_an_epoch_of_no_batches_is_refused():
    model = network()
    with pytest.raises(InputError, match="no batches"):
        train_epoch(model, [], 0, pgd_loss, AttackSettings(0.05, 1), torch.optim.SGD(model.parameters(), 0.1), WORLD)


# ---- recalibration -------------------------------------------------------------------------------------------


def test_recalibration_is_the_plain_average_over_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(),
                          nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, momentum=0.7))).double()
    with torch.no_grad():
        model(100 * torch.rand(4, *SHAPE).double())  # statistics to be forgotten
    batches = [batch(count, seed=count) for count in (4, 2, 7)]

    conv, norm, relu, (last, last_norm) = model[0], model[1], model[2], model[3]
    features, second = [], []
    with torch.no_grad():
        for images, _ in batches:
            x = conv(images)
            features.append(x)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            second.append(last(relu((x - mean) / (var + 1e-5).sqrt() * norm.weight.view(-1, 1, 1))))
    recalibrate_batch_norm(model, batches, WORLD)
    for layer, outputs in ((norm, features), (last_norm, second)):
        torch.testing.assert_close(layer.running_mean, torch.stack([x.mean((0, 2, 3)) for x in outputs]).mean(0))
        torch.testing.assert_close(layer.running_var, torch.stack([x.var((0, 2, 3)) for x in outputs]).mean(0))
    assert (norm.momentum, last_norm.momentum) == (0.3, 0.7)


@pytest.mark.parametrize("fails", [False, True])
def test_recalibration_restores_modes_and_momenta(fails):
    model = network().train()
    model[1].eval()
    model[1].momentum = 0.25
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    if fails:
        with pytest.raises(RuntimeError):
            recalibrate_batch_norm(model, [(torch.zeros(2, 1, 1, 1).double(), None)], WORLD)
    else:
        recalibrate_batch_norm(model, [batch()], WORLD)
    assert [m.training for m in model.modules()] == modes
    assert model[1].momentum == 0.25
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_evaluation_after_recalibration_normalises_by_the_sampled_path():
    """What recalibration is for: without it, evaluation mode uses statistics of other paths."""
    torch.manual_seed(0)
    supernet = Supernet(4, 3, 4)
    images = batch(64)[0].float()
    with torch.no_grad():
        supernet.train().use(one_hot_gates([[4] * 14] * 2))
        for _ in range(5):
            supernet(images)
        supernet.use(one_hot_gates([[1] * 14] * 2))
        wanted = supernet(images)
        stale = supernet.eval()(images)
        recalibrate_batch_norm(supernet, [(images, None)], WORLD)
        fresh = supernet(images)
    assert not supernet.training
    # Running variances are unbiased, a batch's are not: 1/4096 at 8x8, 1/256 at 2x2 pixels.
    assert (fresh - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert (stale - wanted).abs().max() > 0.2 * wanted.abs().max()
