"""The auxiliary head: published sizes, what it computes, what it adds to a loss, and who never sees it."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import genotypes
from search.supernet import Supernet
from tests.networks import empty_layers
from tests.quick import slow_after
from wsrnas.attacks import attack_mode
from wsrnas.complexity import multiply_adds
from wsrnas.data.datasets import load_dataset
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.official import BATCH, official_accuracy
from wsrnas.network import AuxiliaryHead, NetworkCIFAR, NetworkImageNet
from wsrnas.runtime.distributed import World, shutdown
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.training.batch_norm import recalibrate_batch_norm
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.trainer import Refinements, Trainer

CLASSES = 10
STRENGTHS = (0.02, 0.06)
WEIGHT, SMOOTHING, BETA = 0.4, 0.2, 3.0


def network(auxiliary: bool = True, layers: int = 3, kind: type = NetworkCIFAR, name: str = "WsrNet_Basic",
            seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind(genotypes.load(name), 2, layers, CLASSES, auxiliary=auxiliary).double()


def batch(count: int = 6, side: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=draws, dtype=torch.float64), torch.arange(count) % CLASSES


def settings_of(weight: float = WEIGHT, loss: str = "pgd", **more) -> LossSettings:
    smoothing = 0.0 if loss == "mart" else SMOOTHING
    return LossSettings(0.05, 2, trades_beta=BETA, strengths=STRENGTHS, label_smoothing=smoothing,
                        auxiliary_weight=weight, **more)


# -- published sizes ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, channels", slow_after(1, [
    ("DARTS_V1", 4 * 192), ("AmoebaNet_A", 3 * 192), ("PNAS", 5 * 192)]))
def test_parameters_on_imagenet(name, channels):
    """1x1 convolution, its BatchNorm, 2x2 convolution without one, linear."""
    with empty_layers():
        plain, made = (NetworkImageNet(genotypes.load(name), 48, 14, 1000, auxiliary=flag) for flag in (False, True))
    more = 128 * channels + 2 * 128 + 4 * 128 * 768 + 768 * 1000 + 1000
    assert sum(p.numel() for p in made.parameters()) - sum(p.numel() for p in plain.parameters()) == more


# -- what it computes -----------------------------------------------------------------------------------------------

def windows(side: int, imagenet: bool) -> list[range]:
    """The pixels of each window along one side."""
    small = {1: "0 0", 2: "0 1", 3: "01 12", 4: "01 23", 5: "012 234", 6: "0123 2345", 7: "0123 3456"}
    if imagenet:
        small |= {4: "012 123", 5: "0123 1234", 7: "01234 23456"}
    if side in small:
        return [range(int(text[0]), int(text[-1]) + 1) for text in small[side].split()]
    return [range(start, start + 5) for start in range(0, side - 4, 2 if imagenet else 3)]


def pooled(x: Tensor, imagenet: bool) -> Tensor:
    rows, columns = (windows(side, imagenet) for side in x.shape[2:])
    return torch.stack([torch.stack([x[:, :, row][:, :, :, column].mean((2, 3)) for column in columns], -1)
                        for row in rows], -2)


def normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """By the batch's statistics."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def head_by_hand(head: nn.Module, x: Tensor, imagenet: bool) -> Tensor:
    """The logits of a head in training mode."""
    first, second = (module for module in head.modules() if isinstance(module, nn.Conv2d))
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 - imagenet and first.bias is second.bias is None
    x = torch.einsum("oc,bchw->bohw", first.weight[:, :, 0, 0], pooled(x.relu(), imagenet))
    x = normalised(x, norms[0]).relu()
    height, width = (side - 1 for side in x.shape[2:])
    x = sum(torch.einsum("oc,bchw->bohw", second.weight[:, :, i, j], x[:, :, i:i + height, j:j + width])
            for i in (0, 1) for j in (0, 1))
    x = (x if imagenet else normalised(x, norms[1])).relu()
    return x.mean((2, 3)) @ head.classifier.weight.T + head.classifier.bias


@pytest.mark.parametrize("imagenet", [False, True])
@pytest.mark.parametrize("height, width", [*((side, side) for side in range(1, 10)), (1, 8), (6, 17), (16, 2)])
def test_the_head_is_what_the_formulas_say_for_any_image(height, width, imagenet):
    torch.manual_seed(0)
    head = AuxiliaryHead(5, 3, imagenet).double()
    for norm in (module for module in head.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias)
    x = torch.randn(4, 5, height, width).double()
    before = x.clone()
    torch.testing.assert_close(head(x), head_by_hand(head, x, imagenet), rtol=1e-9, atol=1e-12)
    assert torch.equal(x, before), "the next cell reads it, too"


@pytest.mark.parametrize("imagenet, side", [(False, 8), (True, 7)])
def test_on_the_papers_images_it_is_plain_pooling_to_one_position(imagenet, side):
    head, x, seen = AuxiliaryHead(5, 3, imagenet), torch.rand(2, 5, side, side), []
    torch.testing.assert_close(head.pool(x), F.avg_pool2d(x, 5, 2 if imagenet else 3))
    head.features.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    head(x)
    assert seen == [(2, 768, 1, 1)]


@pytest.mark.parametrize("imagenet", [False, True])
@pytest.mark.parametrize("side", range(1, 8))
def test_small_images_are_read_whole_and_the_same_from_both_ends(side, imagenet):
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    pool = AuxiliaryHead(1, 2, imagenet).pool
    torch.testing.assert_close(pool(x.flip(2, 3)), pool(x).flip(2, 3))
    pool(x).sum().backward()
    assert pool(x).shape == (1, 1, 2, 2) and (x.grad > 0).all()


@pytest.mark.parametrize("kind, side", [(NetworkCIFAR, 8), (NetworkCIFAR, 32), (NetworkImageNet, 64)])
@pytest.mark.parametrize("layers", slow_after(1, [1, 2, 3, 6]))
def test_in_training_mode_its_logits_are_those_of_the_second_reduction(kind, side, layers):
    model, plain, (images, _) = network(True, layers, kind), network(False, layers, kind), batch(3, side)
    outputs, expected = [], []
    logits, auxiliary = model(images, outputs)
    assert torch.equal(logits, plain(images, expected)) and len(outputs) == layers
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    by_hand = head_by_hand(model.auxiliary, outputs[2 * layers // 3], kind is NetworkImageNet)
    torch.testing.assert_close(auxiliary, by_hand, rtol=1e-9, atol=1e-12)
    assert auxiliary.shape == (3, CLASSES)
    pair = model(images)
    assert isinstance(pair, tuple) and torch.equal(pair[1], auxiliary)


@pytest.mark.parametrize("kind, side", slow_after(1, [(NetworkCIFAR, 8), (NetworkImageNet, 64)]))
@pytest.mark.parametrize("name", slow_after(1, ["DARTS_V1", "AmoebaNet_A"]))
def test_in_evaluation_mode_the_network_is_the_one_without(kind, side, name):
    """The same seed gives the same weights to all but the head."""
    model, plain, (images, _) = network(True, 3, kind, name), network(False, 3, kind, name), batch(2, side)
    for made in (model, plain):
        made(images)  # statistics move
    assert torch.equal(model.eval()(images), plain.eval()(images))
    state, expected = model.state_dict(), plain.state_dict()
    extra = [key for key in state if key not in expected]
    assert list(expected) == [key for key in state if key in expected]
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert extra and all(key.startswith("auxiliary.") and isinstance(state[key], Tensor) for key in extra)
    assert "auxiliary" not in dict(plain.named_children()) and plain.auxiliary is None
    assert multiply_adds(model, (3, side, side)) == multiply_adds(plain, (3, side, side))


# -- what it adds to a loss -----------------------------------------------------------------------------------------

def cross_entropies(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    target = (1 - smoothing) * torch.eye(CLASSES).double()[labels] + smoothing / CLASSES
    return -(target * logits.softmax(1).log()).sum(1)


def loss_by_hand(name: str, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
                 weight: float = WEIGHT) -> Tensor:
    """Each paper's loss of the logits, and the mean over all auxiliary logits."""
    smoothing = settings_of(loss=name).label_smoothing
    if name in ("trades", "mart"):
        logits, auxiliary = model(torch.cat([images, adversarial]))
        truth = torch.cat([labels, labels])
        clean, robust = logits.split(len(images))
        p, q = clean.softmax(1), robust.softmax(1)
        divergence = (p * (p / q).log()).sum(1)
        if name == "trades":
            main = (cross_entropies(clean, labels, smoothing) + BETA * divergence).mean()
        else:
            own = torch.eye(CLASSES).bool()[labels]
            others = torch.where(own, torch.zeros_like(q), q).amax(1)
            main = (-q[own].log() - (1 - others).log() + BETA * divergence * (1 - p[own])).mean()
    else:
        logits, auxiliary = model(images if name == "standard" else adversarial)
        truth = torch.cat([labels] * (2 if name == "multi" else 1))
        main = cross_entropies(logits, truth, smoothing).mean()
    assert len(auxiliary) == len(truth)
    return main + weight * cross_entropies(auxiliary, truth, smoothing).sum() / len(truth)


@pytest.mark.parametrize("name", slow_after(2, LOSSES))
def test_a_loss_and_its_gradients_are_the_weighted_sum(name):
    model, (images, labels), settings = network(), batch(), settings_of(loss=name)
    twin = copy.deepcopy(model)
    adversarial = LOSSES[name].attack(twin, images, labels, settings, BatchNoise(generator(1, "attack")))
    expected = loss_by_hand(name, twin, images, adversarial, labels)
    loss, metrics = LOSSES[name](model, images, labels, settings, BatchNoise(generator(1, "attack")))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    loss.backward(), expected.backward()
    for (key, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-10, msg=key)
        assert mine.grad.abs().sum() > 0, key
    plain = LOSSES[name](network(False), images, labels, settings_of(0.0, name), BatchNoise(generator(1, "attack")))[1]
    assert metrics == plain, "accuracies are those of the logits alone"


@pytest.mark.parametrize("name", slow_after(2, LOSSES))
def test_without_a_weight_the_head_changes_nothing(name):
    (images, labels), settings = batch(), settings_of(0.0, name)
    model, plain = network(), network(False)
    losses = [LOSSES[name](made, images, labels, settings, BatchNoise(generator(1, "attack")))[0]
              for made in (model, plain)]
    torch.testing.assert_close(*losses)
    losses[0].backward(), losses[1].backward()
    assert all(parameter.grad is None for parameter in model.auxiliary.parameters())
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[key].grad, parameter.grad, msg=key)


def test_the_head_teaches_the_cells_that_it_reads_and_no_later_one():
    gradients, layers = {}, 6
    for weight in (0.0, WEIGHT):
        model, (images, labels) = network(layers=layers), batch()
        LOSSES["standard"](model, images, labels, settings_of(weight))[0].backward()
        gradients[weight] = [torch.cat([p.grad.flatten() for p in cell.parameters()]) for cell in model.cells]
    for layer, (without, with_head) in enumerate(zip(gradients[0.0], gradients[WEIGHT], strict=True)):
        assert torch.allclose(without, with_head, rtol=1e-5, atol=1e-8) == (layer > 2 * layers // 3)


@pytest.mark.parametrize("make", [lambda: network(False), lambda: network().eval()])
@pytest.mark.parametrize("name", slow_after(2, LOSSES))
def test_a_weight_needs_auxiliary_logits(name, make):
    with pytest.raises(InputError, match=r"auxiliary_weight is 0\.4, but the network gives no auxiliary logits; "
                                         r"expected one with an auxiliary head, in training mode"):
        LOSSES[name](make(), *batch(), settings_of(loss=name))


def test_half_precision_logits_are_widened():
    """1e-4 more or less in a loss near 1 is lost in bfloat16."""
    logits, (images, labels) = torch.randn(6, CLASSES), batch()
    narrow, wide = (LOSSES["standard"].objective(lambda x, a=auxiliary: (torch.zeros(6, CLASSES), a), images, images,
                                                 labels, settings_of())[0]
                    for auxiliary in (logits.bfloat16(), logits.bfloat16().float()))
    assert narrow.dtype == torch.float32 and torch.equal(narrow, wide)


# -- who never sees it ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("name", slow_after(1, [name for name in LOSSES if name != "standard"]))
def test_attacks_do_not_see_it(name, batch_statistics):
    model, plain, (images, labels) = network(), network(False), batch()
    model.auxiliary.register_forward_hook(lambda *arguments: pytest.fail("an attack ran the auxiliary head"))
    settings, state = settings_of(loss=name, batch_statistics=batch_statistics), copy.deepcopy(model.state_dict())
    found = [LOSSES[name].attack(made, images, labels, settings, BatchNoise(generator(1, "attack")))
             for made in (model, plain)]
    assert torch.equal(*found) and (found[0] - images.repeat(len(found[0]) // 6, 1, 1, 1)).abs().max() > 0.01
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with attack_mode(model, batch_statistics):
        assert isinstance(model(images), Tensor)
    assert all(module.training for module in model.modules())


@pytest.mark.slow
def test_the_published_way_of_measuring_does_not_see_it():
    """Its last batch is one image, of which the head's last BatchNorm could make no statistics."""
    model, plain = network().float(), network(False).float()
    loader = BatchLoader(load_dataset("digits", max_test=BATCH + 1).test, 10, 0, "test")
    found = [official_accuracy(made, loader, [0.05], World(), steps=2) for made in (model, plain)]
    assert torch.equal(*found) and isinstance(model.auxiliary, AuxiliaryHead)


def test_recalibration_reaches_the_auxiliary_head():
    model, batches = network().eval(), [batch(seed=seed) for seed in range(3)]
    recalibrate_batch_norm(model, batches, World())
    means, norm = [], model.auxiliary.features[1]
    model.auxiliary.features[0].register_forward_hook(
        lambda module, inputs, output: means.append(output.mean((0, 2, 3))))
    for images, _ in batches:
        copy.deepcopy(model).train()(images)
    torch.testing.assert_close(norm.running_mean, sum(means) / 3)
    assert not any(module.training for module in model.modules())


def test_a_supernet_has_none():
    assert Supernet(4, 2, CLASSES).auxiliary is None


# -- training -------------------------------------------------------------------------------------------------------

def trainer_of(model: nn.Module, loss: str, settings: LossSettings, **refinements) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, LOSSES[loss], settings, optimizer, World(), refinements=Refinements(**refinements))


@pytest.mark.parametrize("name", slow_after(1, ["pgd", "trades", "multi"]))
@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_a_step_is_the_one_made_by_hand(name, gamma):
    """In two parts; with adversarial weights, which rise along the gradient of the whole sum."""
    model, (images, labels), settings = network(), batch(8), settings_of(loss=name)
    twin, noise, total = copy.deepcopy(model), BatchNoise(generator(0, "attack", 0)), None
    for part, truth in zip(images.chunk(2), labels.chunk(2), strict=True):
        adversarial = LOSSES[name].attack(twin, part, truth, settings, noise)
        moved = copy.deepcopy(twin)
        arguments = (part, adversarial, truth)
        if gamma:
            other = copy.deepcopy(twin)
            gradients = torch.autograd.grad(loss_by_hand(name, other, *arguments), list(other.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(moved.parameters(), gradients, strict=True):
                    if weight.ndim > 1:
                        weight += gamma * weight.norm() / gradient.norm() * gradient
        gradients = torch.autograd.grad(loss_by_hand(name, moved, *arguments), list(moved.parameters()))
        for buffer, new in zip(twin.buffers(), moved.buffers(), strict=True):
            buffer.copy_(new)
        total = gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
    trainer_of(model, name, settings, awp_gamma=gamma, accumulation=2).step(images, labels)
    for (key, mine), before, gradient in zip(model.named_parameters(), twin.parameters(), total, strict=True):
        torch.testing.assert_close(mine, before - 0.1 * gradient / 2, rtol=1e-8, atol=1e-10, msg=key)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_all_refinements_together(weight):
    model, (images, labels) = network().float(), batch(8)
    trainer = trainer_of(model, "pgd", settings_of(weight), awp_gamma=0.01, ema_decay=0.5, bfloat16=True, grad_clip=1.0,
                         accumulation=2, clean_accuracy=True)
    before = copy.deepcopy(model.auxiliary.state_dict())
    metrics = trainer.step(images.float(), labels)
    assert set(metrics) == {"loss", "clean_accuracy", "adversarial_accuracy"} and metrics["loss"][0].isfinite()
    moved = [not torch.equal(value, before[key]) for key, value in trainer.evaluated.auxiliary.named_parameters()]
    assert all(moved) if weight else not any(moved)
    assert isinstance(trainer.evaluated.eval()(images.float()), Tensor)
    other = trainer_of(network(seed=1).float(), "pgd", settings_of(weight), ema_decay=0.5)
    other.load_state_dict(trainer.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.network.state_dict().items())


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    shutdown()


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_the_pair_passes_through_the_wrapper_of_several_processes(group_of_one, weight):
    model, (images, labels) = network(), batch()
    twin, settings = copy.deepcopy(model), settings_of(weight, "trades")
    adversarial = (images + 0.01).clamp(0, 1)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    losses = [LOSSES["trades"].objective(made, images, adversarial, labels, settings)[0] for made in (wrapped, twin)]
    torch.testing.assert_close(*losses)
    losses[0].backward(), losses[1].backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)
