"""Max pooling without gradient: the numbers of torch, in every layout, and torch where there is a gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsrnas.quick.folding import folded
from wsrnas.quick.pooling import is_three_by_three, three_by_three


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 5, 1, 1), (2, 2, 1, 6), (3, 1, 7, 2), (0, 4, 8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_numbers_are_those_of_torch(shape, layout, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype).contiguous(memory_format=layout)
    before, found = x.clone(), three_by_three(x)
    assert torch.equal(found, F.max_pool2d(x, 3, 1, 1)) and torch.equal(x, before)
    assert found.is_contiguous(memory_format=layout) and found.dtype is dtype


def test_infinite_numbers_and_nan_are_those_of_torch():
    x = torch.randn(1, 1, 9, 9)
    x[0, 0, 1, 1], x[0, 0, 6, 6], x[0, 0, 2, 7] = float("nan"), float("inf"), -float("inf")
    torch.testing.assert_close(three_by_three(x), F.max_pool2d(x, 3, 1, 1), rtol=0, atol=0, equal_nan=True)


def test_gradients_are_those_of_torch():
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    one, = torch.autograd.grad((three_by_three(x) * weights).sum(), x)
    other, = torch.autograd.grad((F.max_pool2d(x, 3, 1, 1) * weights).sum(), x)
    assert torch.equal(one, other)


@pytest.mark.parametrize(("pool", "is_one"), [
    (nn.MaxPool2d(3, 1, 1), True), (nn.MaxPool2d((3, 3), (1, 1), (1, 1)), True), (nn.MaxPool2d(3, 2, 1), False),
    (nn.MaxPool2d(3, 1), False), (nn.MaxPool2d(2, 1, 1), False), (nn.MaxPool2d(3, 1, 1, dilation=2), False),
    (nn.MaxPool2d(3, 1, 1, return_indices=True), False), (nn.MaxPool2d(3, 1, 1, ceil_mode=True), False),
    (nn.MaxPool2d((3, 1), 1, (1, 0)), False), (nn.AvgPool2d(3, 1, 1), False), (nn.ReLU(), False)])
def test_which_modules_it_stands_for(pool, is_one):
    assert is_three_by_three(pool) == is_one


def test_a_folded_network_pools_quickly_and_only_inside(monkeypatch):
    calls = []
    monkeypatch.setattr("wsrnas.quick.folding.three_by_three", lambda x: calls.append(1) or three_by_three(x))
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(3, 1, 1),
                            nn.MaxPool2d(3, 2, 1))
    network.eval().requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    expected = network(x)
    with folded(network):
        found = network(x)
    assert len(calls) == 1
    torch.testing.assert_close(found, expected)
    network(x)
    assert len(calls) == 1
    hooked = network[2].register_forward_hook(lambda *arguments: None)
    with folded(network):
        network(x)
    assert len(calls) == 1
    hooked.remove()
