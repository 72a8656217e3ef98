"""Winograd's convolution: the numbers and gradients of a plain one, wherever it takes over, and only there."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import wsrnas.quick.winograd as winograd_module
from wsrnas.attacks import pgd
from wsrnas.models import build_model
from wsrnas.quick.folding import folded
from wsrnas.quick.winograd import FEWEST_CHANNELS, Kernels, suits, transforms, winograd


def fixed(inputs: int, outputs: int, dtype=torch.float64, **other) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, padding=other.pop("padding", 1), **other).to(dtype).requires_grad_(False)


def batch(*shape: int, dtype=torch.float64) -> torch.Tensor:
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return images.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def convolved(monkeypatch):
    """The shapes of the batches that Winograd's convolution took."""
    shapes = []
    plain = winograd_module.convolve
    monkeypatch.setattr(winograd_module, "convolve", lambda x, *rest: shapes.append(tuple(x.shape)) or plain(x, *rest))
    return shapes


def test_one_dimension_is_the_definition():
    """Toom and Cook: output (kernel g * tile d) is the correlation of 6 numbers with 3, along one side."""
    parts = transforms()
    g, d = torch.randn(3, 3).double(), torch.randn(6, 6).double()
    tile = (parts.output @ ((parts.kernel @ g.flatten()) * (parts.tile @ d.flatten()))).view(4, 4)
    assert torch.allclose(tile, F.conv2d(d[None, None], g[None, None])[0, 0], rtol=0, atol=1e-12)
    turned = (parts.turned_output @ ((parts.kernel @ g.flatten()) * (parts.turned_tile @ d.flatten()))).view(4, 4)
    assert torch.allclose(turned, F.conv2d(d[None, None], g.flip(0, 1)[None, None])[0, 0], rtol=0, atol=1e-12)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 13), st.integers(3, 21), st.integers(3, 21))
@settings(max_examples=30, deadline=None)
def test_is_the_plain_convolution(count, inputs, outputs, height, width):
    x, weight = batch(count, inputs, height, width), torch.randn(outputs, inputs, 3, 3).double()
    parts, values = transforms(), Kernels(weight).values.transpose(1, 2)
    found = winograd_module.convolve(x, values, parts.tile, parts.output)
    assert torch.allclose(found, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", [(2, 64, 8, 8), (3, 70, 7, 16), (40, 64, 3, 4), (1, 64, 9, 14)], ids=str)
def test_gradients_of_both_orders(shape, convolved):
    layer, x = fixed(shape[1], 66), batch(*shape)
    gradients = []
    for forward in (layer, winograd(layer, layer.weight, layer.bias)):
        images = x.clone().requires_grad_()
        output = forward(images)
        first, = torch.autograd.grad(output.square().sum() / 2, images, create_graph=True)
        second, = torch.autograd.grad(first.sin().sum(), images)
        gradients.append((output, first, second))
        assert output.is_contiguous(memory_format=torch.channels_last)
    assert len(convolved) >= 4
    for plain, found in zip(*gradients, strict=True):
        assert torch.allclose(found, plain, rtol=0, atol=1e-10)


def test_rounds_like_a_convolution():
    layer, x = fixed(128, 128, torch.float32), batch(4, 128, 16, 16, dtype=torch.float32).relu()
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    found = winograd(layer, layer.weight, layer.bias)(x)
    assert (found - exact).square().mean().sqrt() < 2e-6 * exact.square().mean().sqrt()


def test_output_may_be_changed_in_place(convolved):
    layer, images = fixed(64, 64), batch(2, 64, 8, 8).requires_grad_()
    gradient, = torch.autograd.grad(torch.relu_(winograd(layer, layer.weight, None)(images)).sum(), images)
    expected, = torch.autograd.grad(F.conv2d(images, layer.weight, None, 1, 1).relu().sum(), images)
    assert convolved
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("x", [batch(7, 64, 4, 4), batch(64, 64, 2, 2), batch(8, 64, 5, 5),
                               batch(4, 64, 8, 8).contiguous()], ids=["few tiles", "edges", "wide edges", "order"])
def test_leaves_other_batches_alone(x, convolved):
    layer = fixed(64, 64)
    assert torch.equal(winograd(layer, layer.weight, layer.bias)(x), layer(x))
    assert not convolved


@pytest.mark.parametrize(("layer", "expected"), [
    (fixed(64, 64), True), (fixed(64, 64, padding="same"), True), (fixed(64, 64, bias=False), True),
    (fixed(64, FEWEST_CHANNELS - 1), False), (fixed(FEWEST_CHANNELS - 1, 64), False), (fixed(64, 64, stride=2), False),
    (fixed(64, 64, dilation=2, padding=2), False), (fixed(64, 64, padding=0), False), (fixed(64, 64, groups=2), False),
    (fixed(64, 64, padding_mode="circular"), False), (nn.Conv2d(64, 64, 1), False),
    (nn.Conv2d(64, 64, 3, padding=1, device="meta"), False)])
def test_which_layers_suit(layer, expected):
    assert suits(layer) is expected


def test_an_attack_uses_it_in_every_place(convolved):
    """Convolutions behind a BatchNorm, before one, and alone; the images are those of the plain network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64),
                          nn.ReLU(), nn.BatchNorm2d(64), nn.Tanh(), nn.Conv2d(64, 65, 3, padding=1, bias=False),
                          nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(65, 5))
    model = model.double().eval().to(memory_format=torch.channels_last)
    images = batch(3, 3, 9, 9).sigmoid()
    found = pgd(model, images, torch.arange(3), 0.03, 3)
    assert len(convolved) == 3 * 2 * 2  # steps; there and back; layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsrnas.attacks.folded", nullcontext)
        assert torch.allclose(found, pgd(model, images, torch.arange(3), 0.03, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_resnet_in_another_precision_keeps_its_own_layers(dtype):
    model = build_model("resnet18", 5, init_channels=64).eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model, images = model.to(dtype), images.to(dtype)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(images)
    with torch.no_grad(), folded(model), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images), expected)


def test_one_image_without_a_batch_and_transforms_take_the_plain_convolution(convolved):
    conv = fixed(FEWEST_CHANNELS, FEWEST_CHANNELS)
    run, images = winograd(conv, conv.weight, conv.bias), batch(40, FEWEST_CHANNELS, 8, 8)
    assert torch.allclose(run(images[0]), conv(images[0])) and not convolved
    assert torch.allclose(torch.func.vmap(run)(images[:, None])[:, 0], conv(images)) and not convolved
    run(images)
    assert convolved
