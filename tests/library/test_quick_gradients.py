"""Operations with quicker gradients: the same numbers as torch's, first and second derivatives, dense in memory."""

import pytest
import torch
import torch.nn.functional as F

import wsrnas
import wsrnas.models
import wsrnas.network
import wsrnas.operations
from wsrnas.models import build_model
from wsrnas.quick.gradients import concatenate, dilated_depthwise
from wsrnas.quick.strided import FewChannels, convolution, right_gradients

FORMATS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def values(*shape, seed=0, layout=torch.contiguous_format):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.contiguous(memory_format=layout).requires_grad_()


def plain_depthwise(x, weight, padding, dilation):
    return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))


def plain_cat(tensors):
    return torch.cat(list(tensors), 1)


@FORMATS
def test_concatenating_is_torchs_and_its_gradients_are_dense(layout):
    parts = [values(3, channels, 5, 4, seed=channels, layout=layout) for channels in (2, 3, 4)]
    weights = values(3, 9, 5, 4, seed=9, layout=layout).detach()
    out = concatenate(parts)
    assert torch.equal(out, torch.cat(parts, 1)) and out.is_contiguous(memory_format=layout)
    found = torch.autograd.grad((out * weights).sum(), parts)
    expected = torch.autograd.grad((torch.cat(parts, 1) * weights).sum(), parts)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) and one.is_contiguous(memory_format=layout)


def test_only_what_needs_a_gradient_gets_one():
    with_gradient, without = values(2, 3, 2, 2), values(2, 3, 2, 2, seed=1).detach()
    concatenate([with_gradient, without]).sum().backward()
    assert with_gradient.grad.eq(1).all() and without.grad is None
    assert not concatenate([without, without]).requires_grad
    with torch.no_grad():
        assert not concatenate([with_gradient]).requires_grad


@FORMATS
@pytest.mark.parametrize(("kernel", "dilation", "size"),
                         [(3, 2, (6, 7)), (5, 2, (9, 9)), (3, 1, (4, 5)), (5, 3, (8, 3))])
def test_the_dilated_convolution_has_torchs_value_and_gradients(kernel, dilation, size, layout):
    x, weight = values(2, 3, *size, layout=layout), values(3, 1, kernel, kernel, seed=1)
    for padding in (0, dilation * (kernel - 1) // 2, dilation * (kernel - 1)):
        if min(size) + 2 * padding <= dilation * (kernel - 1):
            continue  # no pixel of the output
        out, expected = (function(x, weight, padding, dilation) for function in (dilated_depthwise, plain_depthwise))
        assert torch.equal(out, expected)
        slopes = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        for found, wanted in zip(torch.autograd.grad((out * slopes).sum(), (x, weight)),
                                 torch.autograd.grad((expected * slopes).sum(), (x, weight)), strict=True):
            torch.testing.assert_close(found, wanted)


@FORMATS
@pytest.mark.parametrize(("kernel", "dilation", "size"),
                         [(3, 2, (6, 7)), (5, 2, (9, 9)), (3, 3, (8, 5)), (3, 2, (1, 4))])
def test_a_strided_convolution_that_skips_every_other_pixel_is_torchs(kernel, dilation, size, layout):
    padding = dilation * (kernel - 1) // 2
    settings = {"stride": dilation, "padding": padding, "dilation": dilation, "groups": 3, "bias": False}
    own = wsrnas.operations.DilatedDepthwise(3, 3, kernel, **settings).double()
    plain = torch.nn.Conv2d(3, 3, kernel, **settings).double()
    plain.load_state_dict(own.state_dict())
    x = values(2, 3, *size, layout=layout)
    out, expected = own(x), plain(x)
    torch.testing.assert_close(out, expected)
    slopes = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for found, wanted in zip(torch.autograd.grad((out * slopes).sum(), (x, own.weight)),
                             torch.autograd.grad((expected * slopes).sum(), (x, plain.weight)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_second_derivatives_are_right():
    x, weight = values(1, 2, 5, 5), values(2, 1, 3, 3, seed=1)
    assert torch.autograd.gradgradcheck(lambda x, weight: dilated_depthwise(x, weight, 2, 2), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: concatenate([a * b, b.square()]), (x, values(1, 2, 5, 5, seed=3)))


def test_a_frozen_weight_gets_no_gradient():
    x, weight = values(1, 2, 5, 5), values(2, 1, 3, 3, seed=1).detach()
    dilated_depthwise(x, weight, 2, 2).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_a_network_has_the_gradients_of_torchs_operations(monkeypatch):
    torch.manual_seed(0)
    network = build_model("WsrNet_Basic", init_channels=2, layers=3).double()
    images = values(2, 3, 8, 8)

    def gradients():
        network.zero_grad()
        found = torch.autograd.grad(network(images).square().sum(), [images, *network.parameters()])
        return [gradient.clone() for gradient in found]

    found = gradients()
    used = []
    for module, name, plain in ((wsrnas.network, "concatenate", plain_cat),
                                (wsrnas.operations, "concatenate", plain_cat),
                                (wsrnas.operations, "dilated_depthwise", plain_depthwise)):
        def noted(*arguments, plain=plain, key=(module.__name__, name)):
            used.append(key)
            return plain(*arguments)
        monkeypatch.setattr(module, name, noted)
    for one, other in zip(found, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert len(set(used)) == 3


@pytest.mark.slow
def test_an_exported_program_has_torchs_operations():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = wsrnas.operations.DilatedDepthwise(2, 2, 3, 1, 2, 2, groups=2, bias=False)

        def forward(self, x):
            return concatenate([self.conv(x), x])

    program = torch.export.export(Both(), (torch.rand(1, 2, 5, 5),))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert names == {"aten.conv2d.default", "aten.cat.default"}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@FORMATS
@pytest.mark.parametrize(("channels", "stride", "size"), [(1, 2, 8), (3, 2, 16), (7, 3, 9), (8, 2, 8)])
def test_a_strided_convolution_of_few_channels_has_torchs_gradients(channels, stride, size, layout):
    x = values(10, channels, size, size, layout=layout).float()
    layer = convolution(channels, 9, 1, stride).to(memory_format=layout)
    out = layer(x)
    assert channels == 1 or out.is_contiguous(memory_format=layout)
    slopes = torch.randn_like(out)
    with torch.backends.mkldnn.flags(enabled=False):
        expected = F.conv2d(x, layer.weight, None, stride)
        torch.testing.assert_close(out, expected)
        wanted = torch.autograd.grad((expected * slopes).sum(), (x, layer.weight))
    for _ in range(30):  # oneDNN writes past its memory, which is not always noticed at once
        for found, other in zip(torch.autograd.grad((layer(x) * slopes).sum(), (x, layer.weight)), wanted, strict=True):
            torch.testing.assert_close(found, other)


@pytest.mark.parametrize("name", wsrnas.models.names())
def test_no_network_has_torchs_strided_convolution_of_few_channels(name):
    layers = build_model(name, init_channels=4).modules()
    assert not [layer for layer in layers if type(layer) is torch.nn.Conv2d and max(layer.stride) > 1
                and layer.kernel_size == (1, 1) and layer.groups == 1 and layer.in_channels < 8]


def test_networks_of_others_learn_right_and_are_themselves_again():
    few, many, padded = (torch.nn.Conv2d(channels, 8, 1, 2, padding) for channels, padding in ((4, 0), (8, 0), (4, 1)))
    network = torch.nn.Sequential(few, many, padded)
    with pytest.raises(ZeroDivisionError), right_gradients(network):
        assert [type(layer) for layer in network] == [FewChannels, torch.nn.Conv2d, torch.nn.Conv2d]
        raise ZeroDivisionError
    assert {type(layer) for layer in network} == {torch.nn.Conv2d}


def test_a_network_of_the_user_is_trained_with_right_gradients():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 8, 1, 2), torch.nn.Flatten(),
                                  torch.nn.Linear(1800, 10))
    seen = set()
    network[1].register_forward_hook(lambda layer, inputs, output: seen.add((type(layer), layer.training)))
    wsrnas.train(network, wsrnas.load_dataset("digits", max_train=20), 1, "standard", log=lambda line: None)
    assert {kind for kind, training in seen if training} == {FewChannels} and type(network[1]) is torch.nn.Conv2d


def test_transforms_of_torch_func_take_torchs_operations():
    """The Jacobian of a network of cells, image by image, is that of its backward pass."""
    torch.manual_seed(0)
    model = build_model("WsrNet_Basic", 3, 4, 3, "cifar10").double().eval()
    images = values(2, 3, 8, 8)
    expected = torch.autograd.grad(model(images)[:, 1].sum(), images)[0]
    one = torch.func.grad(lambda image: model(image[None])[0, 1])
    assert torch.allclose(torch.func.vmap(one)(images.detach()), expected, atol=1e-12)
    whole = torch.func.jacrev(model)(images.detach())
    assert whole.shape == (2, 3, 2, 3, 8, 8) and torch.allclose(whole[0, 1, 0], expected[0], atol=1e-12)
