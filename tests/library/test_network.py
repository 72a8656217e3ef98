"""Operations and networks: published sizes, shapes, gradients, memory format, state-dict keys, drop-path."""

import copy

import pytest
import torch
import torch.nn.functional as F

import genotypes
from tests.quick import slow_after
from wsrnas.attacks import attack_mode
from wsrnas.genotype import Genotype
from wsrnas.network import Cell, CellNetwork, NetworkCIFAR, NetworkImageNet, Normalize
from wsrnas.operations import OPERATIONS, PRIMITIVES, DropPath, FactorizedReduce, Zero, build_operation
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import BatchNoise

ALL_NAMES = genotypes.names()


# Forward and backward

@pytest.mark.parametrize("name", slow_after(8, ALL_NAMES))
def test_every_published_cell_takes_images_of_odd_size_and_every_parameter_learns(name):
    torch.manual_seed(0)
    network = NetworkCIFAR(genotypes.load(name), 4, 5, 10)
    images = torch.rand(2, 3, 33, 33, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("height, width", [(64, 64), (65, 97)])
@pytest.mark.parametrize("name", ["WsrNet_Basic", "NASNet_A"])
def test_imagenet_networks_take_images_of_any_size_and_pass_gradients(name, height, width):
    network = NetworkImageNet(genotypes.load(name), 4, 5, 7)
    images = torch.rand(2, 3, height, width, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_any_number_of_layers(layers):
    network = NetworkCIFAR(genotypes.load("RACL"), 3, layers, 10)
    assert network(torch.rand(2, 3, 9, 11)).shape == (2, 10)


def test_reductions_halve_the_image_and_double_the_channels():
    network = NetworkCIFAR(genotypes.load("WsrNet_Basic"), 4, 6, 10)
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.rand(2, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_imagenet_divides_by_eight_before_the_first_cell():
    s0, s1 = NetworkImageNet(genotypes.load("RACL"), 4, 5, 10).stem(torch.rand(2, 3, 64, 60))
    assert s0.shape == (2, 4, 16, 15) and s1.shape == (2, 4, 8, 8)


def test_grey_images_are_taken_with_one_mean_and_one_deviation():
    genotype = genotypes.load("RACL")
    assert NetworkCIFAR(genotype, 4, 3, 10, channels=1)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    network = NetworkImageNet(genotype, 4, 3, 10, channels=1, mean=[0.5], std=[0.2])
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(InputError, match="mean and std have 3 and 3 entries; expected 1"):
        NetworkImageNet(genotype, 4, 3, 10, channels=1)


def test_imagenet_normalises_first():
    network = NetworkImageNet(genotypes.load("RACL"), 4, 3, 10)
    first = next(network.children())
    assert isinstance(first, Normalize)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = torch.rand(2, 3, 5, 5)
    expected = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(first(images), expected)
    seen = []
    network.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 32, 32)
    network(images)
    torch.testing.assert_close(seen[0], first(images))


@pytest.mark.parametrize("build, images", [
    (lambda: NetworkCIFAR(genotypes.load("LRNAS_cifar10"), 4, 5, 10), torch.rand(2, 3, 32, 32)),
    (lambda: NetworkCIFAR(genotypes.load("AmoebaNet_A"), 4, 5, 10), torch.rand(2, 3, 33, 33)),
    (lambda: NetworkImageNet(genotypes.load("WsrNet_Basic"), 4, 5, 10), torch.rand(2, 3, 96, 96)),
])
def test_channels_last_is_kept(build, images):
    network = build().to(memory_format=torch.channels_last)
    kept = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: kept.append(
            all(x.is_contiguous(memory_format=torch.channels_last) for x in (*inputs, output))))
    with torch.no_grad():
        network(images.to(memory_format=torch.channels_last))
    assert kept == [True] * 5


@pytest.mark.parametrize("network_class", [NetworkCIFAR, NetworkImageNet])
def test_state_dict_keys_survive_checkpoint_loaders(network_class):
    with torch.device("meta"):
        keys = network_class(genotypes.load("AmoebaNet_A"), 4, 3, 10).state_dict()
    assert keys and not [key for key in keys if "model." in key or "module." in key]


def test_numbers_below_one_are_refused():
    for name in ("init_channels", "layers", "num_classes", "channels"):
        numbers = {"init_channels": 4, "layers": 3, "num_classes": 10, "channels": 3} | {name: 0}
        with pytest.raises(InputError, match=f"{name} is 0"):
            NetworkCIFAR(genotypes.load("RACL"), **numbers)
    with pytest.raises(InputError, match="init_channels is 1"):
        NetworkImageNet(genotypes.load("RACL"), 1, 3, 10)


def test_a_supernet_can_reuse_the_stack():
    """make_cell sees the bookkeeping of channels; run_cell can hand a cell more than its two inputs."""
    seen = []

    class SearchCell(torch.nn.Conv2d):
        def forward(self, s0, s1, scale):
            return super().forward(s1) * scale

    def make_cell(prev_prev, prev, channels, reduction, reduction_prev):
        seen.append((prev_prev, prev, channels, reduction, reduction_prev))
        return SearchCell(prev, 4 * channels, 1)

    class Supernet(CellNetwork):
        def run_cell(self, cell, s0, s1):
            return cell(s0, s1, 0.0)

    network = Supernet(make_cell, 16, 5, 10)
    assert seen == [(48, 48, 16, False, False), (48, 64, 32, True, False), (64, 128, 32, False, True),
                    (128, 128, 64, True, False), (128, 256, 64, False, True)]
    assert torch.equal(network(torch.rand(2, 3, 8, 8)), network.classifier.bias.expand(2, 10))


# One cell

def test_a_cell_computes_its_graph():
    normal = [[("skip_connect", 0)], [("skip_connect", 2), ("skip_connect", 1), ("max_pool_3x3", 0)]]
    genotype = Genotype(normal, [3, 2, 3], normal, [2])
    cell = Cell(genotype, 5, 6, 4, reduction=False, reduction_prev=False).eval()
    s0, s1 = torch.rand(2, 5, 7, 7), torch.rand(2, 6, 7, 7)
    a, b = cell.preprocess[0](s0), cell.preprocess[1](s1)
    node = a + b + F.max_pool2d(a, 3, 1, 1)
    torch.testing.assert_close(cell(s0, s1), torch.cat([node, a, node], 1))
    assert cell.out_channels == 12


def test_reduction_cells_stride_only_from_their_inputs():
    reduce = [[("max_pool_3x3", 1)], [("max_pool_3x3", 2)]]
    cell = Cell(Genotype(reduce, [3], reduce, [3]), 4, 4, 4, reduction=True, reduction_prev=False)
    assert [operations[0].stride for operations in cell.nodes] == [2, 1]


def test_what_cannot_matter_is_not_built():
    normal = [
        [("sep_conv_3x3", 1), ("none", 0)],      # node 2, concatenated
        [("sep_conv_3x3", 0), ("none", 1)],      # node 3, read by nothing
        [("none", 3), ("none", 2)],              # node 4, zeros
    ]
    cell = Cell(Genotype(normal, [2, 4], normal, [2, 4]), 4, 4, 4, reduction=False, reduction_prev=False)
    assert [len(operations) for operations in cell.nodes][::2] == [1, 1]
    plain = [[("sep_conv_3x3", 1), ("none", 0)], [("sep_conv_3x3", 0)]]
    plain_cell = Cell(Genotype(plain, [2], plain, [2]), 4, 4, 4, reduction=False, reduction_prev=False)
    assert [len(operations) for operations in plain_cell.nodes] == [1, 0]
    assert not list(plain_cell.preprocess[0].parameters())
    output = cell(torch.rand(2, 4, 6, 6), torch.rand(2, 4, 6, 6))
    assert output.shape == (2, 8, 6, 6) and not output[:, 4:].any() and output[:, :4].any()


# Operations

def test_primitives_are_those_of_darts_in_order():
    assert list(PRIMITIVES) == ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3",
                                "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    assert set(OPERATIONS) == {*PRIMITIVES, "sep_conv_7x7", "conv_7x1_1x7"}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_operation_keeps_channels_input_and_memory_format(name, stride):
    operation = build_operation(name, 5, stride, affine=False)
    assert not [key for key, _ in operation.named_parameters() if key.endswith("bias")]
    for height, width in ((8, 8), (7, 8), (1, 9)):
        x = torch.randn(2, 5, height, width).to(memory_format=torch.channels_last)
        before = x.clone()
        output = operation(x)
        assert output.shape == (2, 5, -(-height // stride), -(-width // stride))
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, before)


@pytest.mark.parametrize("name, channels, expected", [
    ("sep_conv_3x3", 6, 2 * (9 * 6 + 36 + 12)), ("sep_conv_5x5", 6, 2 * (25 * 6 + 36 + 12)),
    ("sep_conv_7x7", 6, 2 * (49 * 6 + 36 + 12)), ("dil_conv_3x3", 6, 9 * 6 + 36 + 12),
    ("dil_conv_5x5", 6, 25 * 6 + 36 + 12), ("conv_7x1_1x7", 6, 2 * 7 * 36 + 12),
    ("skip_connect", 6, 0), ("max_pool_3x3", 6, 0), ("avg_pool_3x3", 6, 0), ("none", 6, 0),
])
def test_parameters_of_an_operation(name, channels, expected):
    assert sum(p.numel() for p in build_operation(name, channels, 1).parameters()) == expected


@pytest.mark.parametrize("name, reach", [("sep_conv_3x3", 2), ("sep_conv_5x5", 4), ("sep_conv_7x7", 6),
                                         ("dil_conv_3x3", 2), ("dil_conv_5x5", 4), ("conv_7x1_1x7", 3)])
def test_an_operation_sees_as_far_as_its_kernel_reaches(name, reach):
    x = torch.ones(1, 2, 17, 17, requires_grad=True)
    operation = build_operation(name, 2, 1).eval()
    for parameter in operation.parameters():
        torch.nn.init.ones_(parameter)
    operation(x)[0, 0, 8, 8].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (8 - reach, 8 + reach)


def test_average_pooling_ignores_the_padding():
    ones = torch.ones(1, 1, 4, 4)
    torch.testing.assert_close(build_operation("avg_pool_3x3", 1, 1)(ones), ones)


def test_pool_norm_follows_pools_only():
    for name in PRIMITIVES:
        plain, normed = (
            [type(module) for module in build_operation(name, 4, 1, False, pool_norm=flag).modules()]
            for flag in (False, True))
        expected = [torch.nn.Sequential, *plain, torch.nn.BatchNorm2d] if "pool" in name else plain
        assert normed == expected, name
    assert build_operation("max_pool_3x3", 4, 1, affine=False, pool_norm=True)[1].affine is False
    assert build_operation("avg_pool_3x3", 4, 1, affine=True, pool_norm=True)[1].affine is True


def test_unknown_operation_is_named():
    with pytest.raises(InputError, match=r"'conv_9x9'.*sep_conv_3x3"):
        build_operation("conv_9x9", 4, 1)


@pytest.mark.parametrize("height, width", [(8, 8), (6, 10)])
def test_factorized_reduce_is_the_usual_one_for_even_sizes(height, width):
    reduce = FactorizedReduce(3, 6).eval()
    x = torch.randn(2, 3, height, width)
    positive = x.clamp(min=0)
    even = torch.einsum("oi,bihw->bohw", reduce.conv_even.weight[:, :, 0, 0], positive[:, :, ::2, ::2])
    odd = torch.einsum("oi,bihw->bohw", reduce.conv_odd.weight[:, :, 0, 0], positive[:, :, 1::2, 1::2])
    torch.testing.assert_close(reduce(x), reduce.norm(torch.cat([even, odd], 1)))


def test_factorized_reduce_takes_odd_sizes_and_channels():
    reduce = FactorizedReduce(3, 7).eval()
    x = torch.randn(2, 3, 9, 5)
    output = reduce(x)
    assert output.shape == (2, 7, 5, 3)
    # where no padding is involved, the values are those of the image cut to an even size
    torch.testing.assert_close(output[:, :, :4, :2], reduce(x[:, :, :8, :4]))
    assert FactorizedReduce(3, 4)(torch.randn(2, 3, 1, 1)).shape == (2, 4, 1, 1)


@pytest.mark.parametrize("stride, size", [(1, 5), (2, 3)])
def test_zero_is_zero_even_for_infinities(stride, size):
    x = torch.tensor([float("inf"), float("-inf"), float("nan"), 1.0, 2.0]).expand(2, 3, 5, 5).double()
    output = Zero(stride)(x)
    assert output.dtype == torch.float64 and torch.equal(output, torch.zeros(2, 3, size, size).double())


# Drop-path

def dropping(rate: float, seed: int = 0, rank: int = 0, size: int = 1) -> DropPath:
    drop_path = DropPath()
    drop_path.rate, drop_path.noise = rate, BatchNoise(torch.Generator().manual_seed(seed), rank, size)
    return drop_path


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drop_path_keeps_whole_images_and_the_mean(rate):
    x = 1 + torch.rand(4000, 2, 3, 3)
    before = x.clone()
    output = dropping(rate)(x)
    kept = output.flatten(1).any(1)
    torch.testing.assert_close(output[kept], x[kept] / (1 - rate))
    assert not output[~kept].any() and torch.equal(x, before)
    assert abs(kept.double().mean() - (1 - rate)) < 0.025  # three standard deviations
    assert output.mean().item() == pytest.approx(x.mean().item(), rel=0.03 / (1 - rate))


def test_drop_path_drops_gradients_with_the_values():
    x = torch.rand(64, 2, 3, 3, requires_grad=True)
    output = dropping(0.5)(x)
    output.sum().backward()
    torch.testing.assert_close(x.grad, output.flatten(1).any(1).view(-1, 1, 1, 1).expand_as(x) * 2.0)


def test_drop_path_keeps_the_mean_of_bfloat16():
    x = torch.ones(200_000, 1, 1, 1, dtype=torch.bfloat16)
    kept = (dropping(0.001)(x) > 0).double().mean().item()
    assert kept == pytest.approx(0.999, abs=5e-4)  # seven standard deviations


def test_drop_path_is_off_at_rate_zero_in_evaluation_and_under_an_attack():
    x = torch.rand(64, 2, 3, 3)
    drop_path = dropping(0.5)
    with attack_mode(drop_path), torch.no_grad():
        assert drop_path(x) is x
    with attack_mode(drop_path, batch_statistics=True):
        assert drop_path(x) is x
    assert not torch.equal(drop_path(x), x)
    assert drop_path.eval()(x) is x
    assert DropPath()(x) is x and dropping(0.0)(x) is x


@pytest.mark.parametrize("size", [2, 3])
def test_drop_path_does_not_depend_on_the_number_of_processes(size):
    images = 1 + torch.rand(24, 2, 3, 3)
    layers = [dropping(0.5, 1, rank, size) for rank in range(size)]
    whole = dropping(0.5, 1)
    for _ in range(2):  # two edges in turn
        shares = [layer(images[rank::size]) for rank, layer in enumerate(layers)]
        assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole(images))


@pytest.mark.parametrize("network_class, side", [(NetworkCIFAR, 8), (NetworkImageNet, 32)])
def test_drop_path_follows_every_operation_but_the_identity(network_class, side):
    torch.manual_seed(0)
    network = network_class(genotypes.load("RACL"), 4, 5, 10)
    calls, seen = [], []
    network.drop_path.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    for cell in network.cells:
        assert cell.drop_path is network.drop_path
        for operation in (o for operations in cell.nodes for o in operations):
            operation.register_forward_hook(lambda module, inputs, output: seen.append((module, output)))
    network(torch.rand(2, 3, side, side))
    outputs = [output for module, output in seen if not isinstance(module, torch.nn.Identity)]
    assert len(outputs) < len(seen)  # it has identities
    assert len(calls) == len(outputs) and all(a is b for a, b in zip(calls, outputs, strict=True))


def test_a_cell_with_drop_path_computes_its_graph():
    normal = [[("skip_connect", 0), ("max_pool_3x3", 1)], [("avg_pool_3x3", 2), ("none", 0)]]
    drop_path = dropping(0.5, 4)
    cell = Cell(Genotype(normal, [2, 3], normal, [2, 3]), 5, 6, 4, False, False, drop_path)
    s0, s1 = torch.rand(16, 5, 7, 7), torch.rand(16, 6, 7, 7)
    output = cell(s0, s1)
    with torch.no_grad():
        cell.train()
        a, b = cell.preprocess[0](s0), cell.preprocess[1](s1)
    draws = torch.Generator().manual_seed(4)
    first, second = (2.0 * (torch.rand(16, 1, 1, 1, generator=draws) >= 0.5) for _ in range(2))
    node = a + first * F.max_pool2d(b, 3, 1, 1)
    last = second * F.avg_pool2d(node, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(output, torch.cat([node, last], 1))
    assert 0 < first.mean() < 2 and not torch.equal(first, second)  # every edge has a mask of its own


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_a_network_under_attack_or_in_evaluation_drops_nothing(batch_statistics):
    torch.manual_seed(0)
    network = NetworkCIFAR(genotypes.load("WsrNet_Basic"), 4, 4, 10)
    images = torch.rand(4, 3, 8, 8)
    network.drop_path.noise = BatchNoise(torch.Generator())

    def outputs(rate: float) -> list[torch.Tensor]:
        network.drop_path.rate = rate
        with torch.no_grad(), attack_mode(network, batch_statistics):
            attacked = network(images)
        training = copy.deepcopy(network)(images)
        return [attacked, network.eval()(images), training, network.train()]

    plain, dropped = outputs(0.0), outputs(0.5)
    assert torch.equal(plain[0], dropped[0]) and torch.equal(plain[1], dropped[1])
    assert not torch.equal(plain[2], dropped[2])


@pytest.mark.parametrize("network_class", [NetworkCIFAR, NetworkImageNet])
def test_drop_path_has_no_state_and_is_shared_by_deep_copies_too(network_class):
    network = network_class(genotypes.load("RACL"), 2, 3, 10)
    assert not [key for key in network.state_dict() if "drop_path" in key]
    network.drop_path.rate, network.drop_path.noise = 0.5, BatchNoise(torch.Generator().manual_seed(2))
    twin = copy.deepcopy(network)
    assert twin.drop_path is not network.drop_path
    assert all(cell.drop_path is twin.drop_path for cell in twin.cells)
    twin.drop_path.rate = 0.0
    assert network.drop_path.rate == network.cells[0].drop_path.rate == 0.5
    assert not list(network.drop_path.parameters()) and not list(network.drop_path.buffers())
