"""Recorded steps: the same numbers as without, and where there is any doubt the step itself, with a reason."""

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from search.supernet import Supernet
from tests.graph_tape import Tape
from tests.quick import slow_after
from wsrnas.attacks import LONGEST_RECORDED, mim, multi_strength_pgd, pgd
from wsrnas.operations import BATCH_NORM
from wsrnas.quick.graphs import CALLS_BEFORE, FEWEST_CALLS, Graphs, repeated
from wsrnas.quick.recorder import CudaRecorder
from wsrnas.runtime.distributed import World
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

CALLS = CALLS_BEFORE + 3  # as it is, then once more beside its recording, then twice by the recording alone
SETTINGS = LossSettings(0.1, 2, batch_statistics=True)


@pytest.fixture
def said():
    return []


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def graphs(tape, said):
    return Graphs(log=said.append, recorder=tape)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4),
                         nn.Flatten(), nn.Linear(4, 5)).to(memory_format=torch.channels_last)


def supernet(path: int = 0) -> Supernet:
    torch.manual_seed(0)
    network = Supernet(2, 1, 5)
    network.sample(torch.Generator().manual_seed(path))
    return network


def batches(count: int = CALLS, size: int = 4):
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.rand(size, 3, 8, 8, generator=draw).contiguous(memory_format=torch.channels_last)
        yield images, torch.randint(5, (size,), generator=draw)


def disturb(network: nn.Module, seed: int) -> None:
    """Change weights and statistics where they are, as a step of training does."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in network.parameters():
            values += 0.1 * torch.randn(values.shape, generator=draw)
        for module in network.modules():
            if isinstance(module, BATCH_NORM):
                module.running_mean.uniform_(-0.5, 0.5, generator=draw)
                module.running_var.uniform_(0.5, 2, generator=draw)


ATTACKS = {
    "evaluation": lambda model, images, labels: pgd(model, images, labels, 0.1, 2),
    "batch": lambda model, images, labels: pgd(model, images, labels, 0.1, 2, batch_statistics=True),
    "strengths": lambda model, images, labels: multi_strength_pgd(model, images, labels, torch.tensor([0.1, 0.2]),
                                                                  steps=2, loss="margin", norm="l2"),
    "momentum": lambda model, images, labels: mim(model, images, labels, 0.1, 2, rows=3),
}


@pytest.mark.parametrize("name, network", [
    ("evaluation", small), ("strengths", small), ("momentum", small), ("batch", supernet),
    pytest.param("evaluation", supernet, marks=pytest.mark.slow)])
def test_a_recorded_attack_sees_the_weights_and_images_of_its_call(name, network, graphs, tape, said):
    def attacked():
        model = network().train()
        for number, batch in enumerate(batches()):
            disturb(model, number)
            yield ATTACKS[name](model, *batch)

    expected = list(attacked())
    with graphs.used(FEWEST_CALLS):
        found = list(attacked())
    assert all(map(torch.equal, found, expected)) and not torch.equal(found[-1], found[-2])
    recordings = 2 if name == "strengths" else 1  # the gradient at the images, which the strengths share
    assert (tape.recorded, tape.repeated, tape.alive) == (recordings, recordings * (CALLS - CALLS_BEFORE), 0)
    assert said == ["CUDA graphs are used for attacks"]


@pytest.mark.parametrize("loss", slow_after(1, ["pgd", "trades"]))
def test_recorded_training_leaves_the_same_weights_statistics_and_metrics(loss, graphs, tape):
    def trained():
        network = supernet().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.weight_parameters(), 0.05, 0.9, weight_decay=1e-3)
        trainer = Trainer(network, LOSSES[loss], SETTINGS, optimizer, World(), refinements=Refinements(grad_clip=0.1),
                          single_path=True)
        metrics = [trainer.step(*batch) for batch in batches()]
        return trainer.state_dict(), metrics

    expected = trained()
    with graphs.used(FEWEST_CALLS):
        found = trained()
        assert tape.alive == 2  # attack and gradient
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (tape.recorded, tape.repeated) == (2, 2 * (CALLS - CALLS_BEFORE))


def attack(model: nn.Module, count: int = CALLS, size: int = 4):
    return [pgd(model, *batch, 0.1, 2) for batch in batches(count, size)]


def test_a_smaller_last_batch_runs_as_it_is(graphs, tape):
    model = small()
    expected = attack(model, 1, 3)
    with graphs.used(FEWEST_CALLS):
        attack(model)
        repeated_before = tape.repeated
        assert torch.equal(attack(model, 1, 3)[0], expected[0])
    assert (tape.recorded, tape.repeated) == (1, repeated_before)


def test_another_path_is_recorded_anew_after_the_old_recording_is_freed(graphs, tape):
    model = supernet()
    paths = [model.path, model.sample(torch.Generator().manual_seed(1))]
    halves = tuple(tuple(tuple(scale and scale / 2 for scale in edge) for edge in kind) for kind in paths[1].scales)
    same = replace(paths[1], scales=halves)  # the same operations by other gates
    expected = [(setattr(model, "path", path), attack(model))[1] for path in (*paths, same)]
    assert not torch.equal(expected[1][0], expected[2][0])
    with graphs.used(FEWEST_CALLS):
        for number, path in enumerate((*paths, same)):
            model.path = path
            assert all(map(torch.equal, attack(model), expected[number]))
            assert (tape.recorded, tape.freed, tape.alive) == (number + 1, number, 1)
    assert tape.alive == 0


class Wrong(Tape):
    """A recording that leaves what it has written at first."""

    def record(self, call):
        return lambda: None, super().record(call)[1]


class Failing(Tape):
    """No recording."""

    def record(self, call):
        call()
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")


class FailsToRepeat(Tape):
    """A recording that raises."""

    def record(self, call):
        return super().record, super().record(call)[1]


class Full(Tape):
    """No memory for a recording."""

    def record(self, call):
        raise MemoryError("there is no room")


REASONS = {Wrong: "attacks came out differently", Failing: "recording attacks failed (operation not permitted)",
           FailsToRepeat: "repeating attacks failed"}


def trainer_of(network: nn.Module, **refinements) -> Trainer:
    return Trainer(network, LOSSES["pgd"], SETTINGS, torch.optim.SGD(network.parameters(), 0.05), World(),
                   schedule=Schedule("constant", 0.05, 99, 99), refinements=Refinements(**refinements))


@pytest.mark.parametrize("recorder", [None, Wrong, Failing, FailsToRepeat, Full])
def test_where_recording_goes_wrong_training_goes_on_as_without(recorder, said):
    def trained():
        torch.manual_seed(0)
        trainer = trainer_of(small())
        return [trainer.step(*batch) for batch in batches()], trainer.state_dict(), torch.rand(1)

    expected = trained()
    graphs = Graphs(torch.device("cpu"), said.append, recorder and recorder())
    with graphs.used(FEWEST_CALLS):
        found = trained()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if recorder is Full:
        assert said == [f"CUDA graphs are not used for {what}: there is no room"
                        for what in ("attacks", "gradients of training steps")]
    else:
        assert len(said) == bool(recorder) and (not said or said[0].startswith(
            f"CUDA graphs are not used: {REASONS[recorder]}"))
    assert graphs.recorder is None or recorder is Full


class Noisy(nn.Module):
    """A step that draws random numbers."""

    what = "passes"

    def forward(self, images):
        return images + torch.rand(1)


def test_what_draws_random_numbers_is_not_recorded_and_draws_as_without(graphs, said):
    def drawn():
        model = Noisy()
        torch.manual_seed(0)
        return [repeated(model, (images,), model) for images, _ in batches()]

    expected = drawn()
    with graphs.used(FEWEST_CALLS):
        assert all(map(torch.equal, drawn(), expected))
    assert said == ["CUDA graphs are not used: recording passes failed (it draws random numbers)"]


@pytest.mark.parametrize("refinements, reason", [
    ({"bfloat16": True}, "passes run under autocast"), ({"accumulation": 2}, "a batch is handled in several parts"),
    ({"drop_path": 0.1}, "each one draws the paths or neurons that it drops"),
    ({"awp_gamma": 0.01}, "each one perturbs the weights")])
def test_what_cannot_be_recorded_says_so_once(refinements, reason, graphs, said):
    network = small()
    network.drop_path = nn.Identity()
    trainer = trainer_of(network, **refinements)
    with graphs.used(FEWEST_CALLS):
        for batch in batches(2):
            trainer.step(*batch)
    assert f"CUDA graphs are not used for gradients of training steps: {reason}" in said
    assert len(said) == len(set(said))


def hooked():
    model = small()
    model[0].register_forward_hook(lambda *arguments: None)
    return model


OBSTACLES = {
    "the network is compiled, traced or distributed, or has hooks": (hooked, {}),
    "BatchNorm waits for other processes": (lambda: small().append(nn.SyncBatchNorm(5)).eval(), {}),
    f"one has more than {LONGEST_RECORDED} steps": (small, {"steps": LONGEST_RECORDED + 1}),
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_networks_and_attacks_that_cannot_be_recorded_say_so_once(reason, graphs, tape, said):
    make, arguments = OBSTACLES[reason]
    model = make()
    with graphs.used(FEWEST_CALLS):
        for batch in batches():
            pgd(model, *batch, 0.1, **({"steps": 1} | arguments))
    assert said == [f"CUDA graphs are not used for attacks: {reason}"] and tape.recorded == 0


@pytest.mark.parametrize("calls, recorded", [(FEWEST_CALLS - 1, 0), (FEWEST_CALLS, 1)])
def test_few_calls_do_not_repay_a_recording(calls, recorded, graphs, tape, said):
    with graphs.used(calls):
        attack(small(), CALLS_BEFORE)
    attack(small())
    assert tape.recorded == recorded and tape.alive == 0 and len(said) == 1 - recorded


@pytest.fixture
def calls(monkeypatch):
    """What a recording on a GPU calls, on a machine without one."""
    calls = []

    @contextmanager
    def stream(chosen):
        calls.append("stream begins")
        try:
            yield
        finally:
            calls.append("stream ends")

    known = inspect.signature(torch.cuda.CUDAGraph.capture_begin).parameters

    class Graph:
        def capture_begin(self, pool, **arguments):
            assert {"pool", *arguments} <= set(known)
            calls.append("recording begins")

        def capture_end(self):
            calls.append("recording ends")

        def replay(self):
            calls.append("replay")

    for name, value in {
            "mem_get_info": lambda device: (10, 20), "memory_reserved": lambda device: 10, "stream": stream,
            "Stream": lambda device: object(), "synchronize": lambda device: None, "empty_cache": lambda: None,
            "get_rng_state": lambda device: torch.zeros(1), "graph_pool_handle": lambda: (0, 1),
            "get_sync_debug_mode": lambda: 1, "set_sync_debug_mode": lambda mode: calls.append(f"mode {mode}")}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch, "Generator", lambda device: SimpleNamespace(set_state=lambda state: None))
    own = SimpleNamespace(graphsafe_set_state=lambda fresh: calls.append("generator renewed"))
    monkeypatch.setattr(torch.cuda, "default_generators", (own,))
    # private: torch has no public name for it
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: calls.append(f"pool {pool} ends"),
                        raising=False)
    return calls


@pytest.mark.parametrize("fails_at", [0, 2, 3])
def test_a_recording_on_a_gpu_ends_in_order_whatever_fails_in_it(fails_at, calls):
    def call():
        calls.append("call")
        if calls.count("call") == fails_at:
            raise RuntimeError("the call's own")

    ends = nullcontext() if not fails_at else pytest.raises(RuntimeError, match="the call's own")
    with ends:
        repeat, _ = CudaRecorder(torch.device("cuda", 0)).record(call)
        repeat()
    dry = ["stream begins", "call", "mode error", "call", "mode 1"]
    recorded = ["recording begins", "call", "recording ends"]
    assert calls == {0: [*dry, *recorded, "stream ends", "replay"], 2: [*dry, "stream ends"],
                     3: [*dry, *recorded, "pool (0, 1) ends", "generator renewed", "stream ends"]}[fails_at]


def test_a_gpu_with_little_memory_records_nothing(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 11)
    with pytest.raises(MemoryError, match="too little free memory"):
        CudaRecorder(torch.device("cuda", 0)).record(lambda: None)
    assert calls == []


def test_a_cpu_records_nothing():
    assert Graphs(torch.device("cpu")).recorder is None and Graphs(torch.device("cuda", 0)).recorder is not None
