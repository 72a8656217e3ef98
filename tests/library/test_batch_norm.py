"""BatchNorm across batches, and across two processes (gloo), where it equals ordinary BatchNorm on the whole batch.

All processes under one launch, because starting them is what takes the time. What they do and what one process does
here are the same functions, of the process' ``World``.
"""

import copy
import itertools
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import genotypes
from search.supernet import Supernet
from tests.processes import run_twice
from wsrnas.attacks import attack_mode, input_gradient
from wsrnas.network import NetworkCIFAR
from wsrnas.runtime.distributed import World, average_gradients, barrier, initialize, shutdown
from wsrnas.training.batch_norm import (
    BATCH_NORM,
    GlooBatchNorm,
    gather_buffers,
    recalibrate_batch_norm,
    running_statistics_kept,
    scatter_buffers,
    synchronize_batch_norm,
)

ROOT = Path(__file__).parents[2]
SHAPE = (3, 8, 8)
WORLD, SECOND_OF_TWO = World(), World(1, 2)
LAYERS = list(itertools.product((4, 2), (True, False), (0.3, None)))  # dimensions, affine, momentum


def batch(count: int = 8, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of which every other one is brighter: the halves of two processes have other means and variances."""
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images[1::2] = 0.5 + 0.3 * images[1::2]
    return images, torch.arange(count) // 2 % classes


def share(whole: Tensor, world: World) -> Tensor:
    return whole[world.rank::world.size].clone()


def network() -> nn.Module:
    """BatchNorm in training mode whose running statistics are not the batch's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(),
                          nn.Linear(24, 4), nn.BatchNorm1d(4, momentum=None)).double()
    for _ in range(3):
        model(2 * torch.rand(16, *SHAPE).double())
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal_states(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 0.0) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=tolerance)


# ---- what each process does ------------------------------------------------------------------------------------


def train_layer(dimensions: int, affine: bool, momentum: float | None, world: World) -> list[dict]:
    """Three steps of one layer; all that a step makes."""
    torch.manual_seed(1)
    kind, size = (nn.BatchNorm2d, (5, 4)) if dimensions == 4 else (nn.BatchNorm1d, ())
    norm = kind(3, eps=0.01, momentum=momentum, affine=affine).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    norm, steps = synchronize_batch_norm(norm, world), []
    for _ in range(3):
        whole = 3 + torch.randn(8, 3, *size).double()
        whole[1::2] *= 2
        images, target = share(whole, world).requires_grad_(), share(torch.randn(8, 3, *size).double(), world)
        output = norm(images)
        norm.zero_grad()
        (output.tanh() * target).mean().backward()
        average_gradients(norm.parameters(), world)
        steps.append({"output": output.detach(), "input gradient": images.grad, "state": state(norm),
                      "gradients": [parameter.grad.clone() for parameter in norm.parameters()]})
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter -= parameter.grad
    return steps


def train_cells(world: World) -> dict[str, Tensor]:
    """Five SGD steps of a network of cells; its state."""
    torch.manual_seed(2)
    model = synchronize_batch_norm(NetworkCIFAR(genotypes.load("WsrNet_Basic"), 2, 3, 4).double(), world)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for step in range(5):
        images, labels = (share(whole, world) for whole in batch(seed=step))
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        average_gradients(model.parameters(), world)
        optimizer.step()
    return state(model)


def recalibrate(world: World) -> dict[str, Tensor]:
    model = synchronize_batch_norm(network(), world)
    recalibrate_batch_norm(model, [(share(batch(seed=seed)[0], world), None) for seed in range(3)], world)
    return state(model)


def without_update(world: World) -> dict[str, Tensor]:
    """The batch's statistics in an attack, in a kept model, and (the only one that moves its buffers) as usual."""
    model = synchronize_batch_norm(network(), world)
    before, (images, labels) = state(model), (share(whole, world) for whole in batch())
    with attack_mode(model, batch_statistics=True):
        gradient = input_gradient(model, images, labels, lambda *a: F.cross_entropy(*a, reduction="sum"))
    with running_statistics_kept(model), torch.no_grad():
        kept = model(images)
    assert_equal_states(state(model), before)
    with torch.no_grad():
        return {"gradient": gradient, "kept": kept, "usual": model(images)}


def mixed_precision(world: World) -> dict:
    torch.manual_seed(3)
    model = synchronize_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), world)
    images = share(batch(64)[0].float(), world)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert model[0].weight.dtype == torch.float32 and output.dtype == torch.bfloat16
    return {"output": output.detach(), "state": state(model[1])}


def filled(value: float) -> list[nn.Module]:
    """Two modules with nine floating-point buffer entries: value, value + 1, ..."""
    norm, other = nn.BatchNorm1d(3), nn.Module()
    norm.running_mean, norm.running_var = value + torch.arange(3.0), value + torch.arange(3.0, 6.0)
    norm.num_batches_tracked.fill_(int(value))
    other.register_buffer("table", value + torch.arange(6.0, 9.0).reshape(3, 1))
    return [norm, other]


def keep_buffers(world: World) -> dict:
    """Each process' own numbers, and what it has after loading them again."""
    stored, models = gather_buffers(filled(10.0 * world.rank), world), filled(77)
    scatter_buffers(models, stored, world)
    return {"stored": stored, "loaded": gather_buffers(models, WORLD)}


def evaluate_alone(world: World) -> Tensor | None:
    """The main process in evaluation mode, while the others wait for it."""
    model = synchronize_batch_norm(network(), world).eval()
    output = model(batch()[0]).detach() if world.is_main else None
    barrier(world)
    return output


def everything(world: World) -> dict:
    return {"layers": {str(layer): train_layer(*layer, world) for layer in LAYERS}, "cells": train_cells(world),
            "recalibrated": recalibrate(world), "without update": without_update(world),
            "mixed": mixed_precision(world), "buffers": keep_buffers(world), "alone": evaluate_alone(world)}


def main(folder: Path) -> None:
    """One of the processes: writes what it saw to ``rank<n>.pt``."""
    signal.alarm(120)  # processes that wait for one another for ever end here
    world = initialize("cpu")
    torch.save(everything(world), folder / f"rank{world.rank}.pt")
    shutdown()


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What both processes saw."""
    folder = tmp_path_factory.mktemp("launched")
    run_twice(main, folder)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def joined(first: Tensor, second: Tensor) -> Tensor:
    """The whole batch from the processes' shares."""
    return torch.stack([first, second], dim=1).flatten(0, 1)


# ---- two processes and one -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_on_two_processes_is_that_of_one_on_the_whole_batch(launched, layer):
    alone = train_layer(*layer, WORLD)
    shares = [seen["layers"][str(layer)] for seen in launched]
    assert len(alone) == len(shares[0]) == 3
    for expected, first, second in zip(alone, *shares, strict=True):
        def close(actual, wanted):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-13)
        close(joined(first["output"], second["output"]), expected["output"])
        close(joined(first["input gradient"], second["input gradient"]), 2 * expected["input gradient"])
        close(first["gradients"], expected["gradients"])
        close(first["state"], expected["state"])
        assert_equal_states(first["state"], second["state"])
    assert len(alone[0]["gradients"]) == 2 * layer[1]  # a scale and a shift, where it has them


@pytest.mark.slow
def test_a_network_of_cells_trains_on_two_processes_as_on_one(launched):
    expected = train_cells(WORLD)
    assert_equal_states(launched[0]["cells"], expected, 1e-10)
    assert_equal_states(launched[0]["cells"], launched[1]["cells"])
    assert len(expected) > 50


@pytest.mark.slow
def test_recalibration_averages_the_statistics_of_whole_batches(launched):
    for seen in launched:
        assert_equal_states(seen["recalibrated"], recalibrate(WORLD), 1e-13)


@pytest.mark.slow
def test_batch_statistics_without_update_are_those_of_the_whole_batch(launched):
    expected, (first, second) = without_update(WORLD), (seen["without update"] for seen in launched)
    for name, value in expected.items():  # an attack's loss is a sum: no factor
        torch.testing.assert_close(joined(first[name], second[name]), value, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_statistics_are_float32_under_mixed_precision(launched):
    expected, (first, second) = mixed_precision(WORLD), (seen["mixed"] for seen in launched)
    torch.testing.assert_close(joined(first["output"], second["output"]), expected["output"])
    torch.testing.assert_close(first["state"], expected["state"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_evaluation_mode_asks_no_other_process(launched):
    model, images = network().eval(), batch()[0]
    assert launched[1]["alone"] is None
    torch.testing.assert_close(launched[0]["alone"], model(images))
    torch.testing.assert_close(synchronize_batch_norm(network().eval(), SECOND_OF_TWO)(images), model(images))


@pytest.mark.slow
def test_each_process_gets_its_own_buffers_back(launched):
    numbers = torch.arange(9.0)
    for rank, seen in enumerate(launched):
        assert torch.equal(seen["buffers"]["stored"], torch.stack([numbers, numbers + 10]))
        assert torch.equal(seen["buffers"]["loaded"], (numbers + 10 * rank)[None])


# ---- conversion ------------------------------------------------------------------------------------------------


def test_one_process_keeps_its_network(world):
    model = network()
    layers = list(model.modules())
    assert synchronize_batch_norm(model, world) is model
    assert all(a is b for a, b in zip(model.modules(), layers, strict=True))


def test_a_synchronised_layer_is_the_layer_it_replaces():
    without_bias = nn.BatchNorm2d(4)
    without_bias.register_parameter("bias", None)  # torch 2.11 has no argument for it
    norms = [nn.BatchNorm2d(4, eps=0.1, momentum=0.7), nn.BatchNorm1d(4, momentum=None, affine=False).eval(),
             nn.BatchNorm3d(4, track_running_stats=False), without_bias]
    for norm in norms:
        before, settings = dict(norm.state_dict(keep_vars=True)), vars(norm)
        model = synchronize_batch_norm(nn.Sequential(nn.Linear(4, 4), norm, nn.InstanceNorm2d(4)), SECOND_OF_TWO)
        synchronised = model[1]
        assert isinstance(synchronised, GlooBatchNorm) and isinstance(synchronised, BATCH_NORM)
        after = synchronised.state_dict(keep_vars=True)
        assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
            assert getattr(synchronised, name) == settings[name], name
        assert type(model[0]) is nn.Linear and type(model[2]) is nn.InstanceNorm2d


def test_every_batch_norm_is_found_once():
    alone = nn.BatchNorm1d(2)
    assert isinstance(synchronize_batch_norm(alone, SECOND_OF_TWO), GlooBatchNorm)
    shared = nn.BatchNorm1d(2)
    model = synchronize_batch_norm(nn.Sequential(shared, nn.Sequential(nn.Tanh(), shared), shared), SECOND_OF_TWO)
    assert isinstance(model[0], GlooBatchNorm) and model[0] is model[2] is model[1][1]
    supernet = Supernet(2, 3)
    count = sum(isinstance(module, BATCH_NORM) for module in supernet.modules())
    synchronize_batch_norm(supernet, SECOND_OF_TWO)
    assert sum(isinstance(module, GlooBatchNorm) for module in supernet.modules()) == count > 100


def test_states_load_into_one_another():
    plain, synchronised = network(), synchronize_batch_norm(network(), SECOND_OF_TWO)
    with torch.no_grad():
        for value in synchronised.state_dict().values():
            value.mul_(3)
    for source, target in ((synchronised, plain), (network(), synchronised)):
        assert target.load_state_dict(copy.deepcopy(source.state_dict())) == ([], [])
        assert_equal_states(source.state_dict(), target.state_dict())


def test_cuda_gets_torchs_own_layer():
    model = synchronize_batch_norm(network(), World(0, 2, torch.device("cuda")))
    assert type(model[1]) is type(model[-1]) is nn.SyncBatchNorm
    assert model.state_dict().keys() == network().state_dict().keys()


def test_an_input_without_channels_is_refused():
    with pytest.raises(ValueError, match="got a 1-dimensional input"):
        GlooBatchNorm(nn.BatchNorm1d(2), SECOND_OF_TWO)(torch.zeros(2))


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    shutdown()


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_are_those_of_finite_differences(group_of_one, affine):
    norm = GlooBatchNorm(nn.BatchNorm1d(2, affine=affine).double(), WORLD)
    images = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda images, *parameters: norm(images), (images, *norm.parameters()))


# ---- kept statistics -------------------------------------------------------------------------------------------


def test_running_statistics_are_kept_while_the_batch_normalises():
    model, images = network(), batch()[0]
    expected, before = network()(images), state(model)
    with running_statistics_kept(model):
        assert torch.equal(model(images), expected)
    assert_equal_states(state(model), before)
    model(images)
    assert model[1].num_batches_tracked == model[-1].num_batches_tracked == 4


def test_tracking_is_restored_also_after_an_error():
    model = network()
    model[1].track_running_stats = False  # whatever it was
    with running_statistics_kept(model):
        assert not model[-1].track_running_stats
    assert model[-1].track_running_stats and not model[1].track_running_stats
    with pytest.raises(RuntimeError), running_statistics_kept(model):
        model(torch.zeros(1))
    assert model[-1].track_running_stats and not model[1].track_running_stats


def test_layers_in_evaluation_mode_are_left_to_their_running_statistics():
    model, images = network(), batch()[0]
    model[1].eval()
    expected = copy.deepcopy(model)(images)
    with running_statistics_kept(model) as kept:
        assert kept is model and torch.equal(model(images), expected)
        assert model[1].track_running_stats and not model[-1].track_running_stats


# ---- buffers of one process ------------------------------------------------------------------------------------


def test_one_process_stores_one_row(world):
    models, numbers = filled(5), torch.arange(5.0, 14.0)
    stored = gather_buffers(models, world)
    assert torch.equal(stored, numbers[None])
    models[0].running_mean += 1
    assert torch.equal(stored, numbers[None])  # a copy
    scatter_buffers(models, stored, world)
    assert torch.equal(gather_buffers(models, world), stored) and models[0].num_batches_tracked == 5
    assert gather_buffers([models[0].double()], world).dtype == torch.float64  # no precision is lost


@pytest.mark.parametrize("world", [World(), World(1, 2)])
def test_another_number_of_processes_gets_the_mean(world):
    models = filled(7)
    buffers = [buffer for model in models for buffer in model.buffers()]
    scatter_buffers(models, torch.stack([torch.arange(9.0) + n for n in (0, 1, 5)]), world)
    assert torch.equal(gather_buffers(models, World()), torch.arange(2.0, 11.0)[None])
    assert all(a is b for a, b in zip(buffers, (b for model in models for b in model.buffers()), strict=True))


def test_buffers_of_another_network_are_refused(world):
    with pytest.raises(RuntimeError, match="split"):
        scatter_buffers(filled(0), torch.zeros(1, 8), world)


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


@pytest.mark.slow
def test_evaluation_after_recalibration_normalises_by_the_sampled_path():
    """What recalibration is for: without it, evaluation mode uses statistics of other paths."""
    torch.manual_seed(0)
    supernet = Supernet(4, 3, 4)
    images = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        supernet.train().use(paths_of(4))
        for _ in range(5):
            supernet(images)
        supernet.use(paths_of(1))
        wanted = supernet(images)
        stale = supernet.eval()(images)
        recalibrate_batch_norm(supernet, [(images, None)], WORLD)
        fresh = supernet(images)
    assert not supernet.training
    # Running variances are unbiased, a batch's are not: 1/4096 at 8x8, 1/256 at 2x2 pixels.
    assert (fresh - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert (stale - wanted).abs().max() > 0.2 * wanted.abs().max()


def paths_of(operation: int) -> Tensor:
    """Gates (2, E, O) that choose one operation on every edge."""
    return F.one_hot(torch.full((2, 14), operation), 8).float()
