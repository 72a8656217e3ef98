"""Seconds of a forward pass by a clock that the networks themselves move on, and the names of devices."""

import json
import platform
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wsrnas import complexity
from wsrnas.complexity import latencies
from wsrnas.runtime import device as device_module
from wsrnas.runtime.device import device_name


class Clock:
    """``time`` as far as latencies needs it: stands still but for what the networks take."""

    def __init__(self):
        self.now, self.calls = 100.0, []

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(complexity, "time", clock)
    return clock


class Timed(nn.Sequential):
    """A network whose passes take the given seconds, those of one image and those of a batch in turn."""

    def __init__(self, name, clock, one, batch):
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2))
        self.name, self.clock, self.takes = name, clock, {1: iter(one), 5: iter(batch)}
        nn.Sequential.forward(self.eval(), torch.zeros(1, 3, 6, 4))
        self.train()

    def forward(self, images):
        self.clock.calls.append((self.name, tuple(images.shape)))
        assert not torch.is_grad_enabled() and not any(module.training for module in self.modules())
        assert images.is_contiguous(memory_format=torch.channels_last)
        self.clock.now += next(self.takes[len(images)])
        return super().forward(images)


# The first pass of every list is far from the others: were it timed, all the medians would be others.
ONE, BATCH = [9.0, 0.25, 0.5, 0.125], [9.0, 4.0, 2.0, 3.0]


def test_medians_of_one_image_and_of_a_batch(clock):
    networks = {"a": Timed("a", clock, ONE, BATCH), "b": Timed("b", clock, [0.0, 8.0, 7.0, 6.0], [0.0, 1.5, 1.0, 1.75])}
    found = latencies(networks, (3, 6, 4), batch=5, rounds=3)
    about = {"batch": 5, "device": device_name(torch.device("cpu")), "threads": torch.get_num_threads()}
    assert found == {"a": {"seconds_one": 0.25, "seconds_batch": 3.0, **about},
                     "b": {"seconds_one": 7.0, "seconds_batch": 1.5, **about}}
    assert json.loads(json.dumps(found)) == found


def test_the_networks_take_turns_and_the_first_round_is_not_timed(clock):
    networks = {name: Timed(name, clock, [0.5] * 4, [0.5] * 4) for name in "abc"}
    latencies(networks, (3, 6, 4), batch=5, rounds=3)
    turn = [(name, (size, 3, 6, 4)) for name in "abc" for size in (1, 5)]
    assert clock.calls == turn * 4


def test_a_batch_of_one_is_one_image(clock):
    network = Timed("a", clock, ONE, [])
    assert latencies({"a": network}, (3, 6, 4), batch=1, rounds=3)["a"] | {"device": ""} == {
        "seconds_one": 0.25, "seconds_batch": 0.25, "batch": 1, "device": "", "threads": torch.get_num_threads()}


def test_the_networks_stay_as_they_were(clock):
    network = Timed("a", clock, ONE, BATCH)
    network[2].eval()
    network[0].weight.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    latencies({"a": network}, (3, 6, 4), batch=5, rounds=3)
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == trainable
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


def test_a_gpu_is_waited_for_whenever_the_clock_is_read(clock, monkeypatch):
    """Its work goes on after the calls that have ordered it: what a pass takes is of no other, nor of its images."""
    network, ordered, zeros = Timed("a", clock, [0.0] * 4, [0.0] * 4), [], torch.zeros

    def make(*shape, **about):
        ordered.append(1000.0)
        return zeros(*shape, **about)

    def wait(device):
        assert device == torch.device("cpu")
        clock.now += sum(ordered)
        ordered.clear()

    monkeypatch.setattr(torch, "zeros", make)
    monkeypatch.setattr(complexity, "_wait_for", wait)  # private: no GPU here to wait for
    network.register_forward_hook(lambda module, inputs, output: ordered.append(float(len(inputs[0]))))
    found = latencies({"a": network}, (3, 6, 4), batch=5, rounds=3)["a"]
    assert (found["seconds_one"], found["seconds_batch"]) == (1.0, 5.0)


def test_only_gpus_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in (torch.device("cpu"), torch.device("cuda", 1)):
        complexity._wait_for(device)  # private: no GPU here to wait for
    assert waited == [torch.device("cuda", 1)]


def test_a_device_has_a_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")
    assert device_name(torch.device("cuda", 2)) == "GPU number 2"
    for processor, expected in (("a processor", "a processor"), ("", "a machine")):
        monkeypatch.setattr(device_module, "platform", SimpleNamespace(
            processor=lambda text=processor: text, machine=lambda: "a machine"))
        assert device_name(torch.device("cpu")) == expected
    monkeypatch.undo()
    assert device_name(torch.device("cpu")) in (platform.processor(), platform.machine())
