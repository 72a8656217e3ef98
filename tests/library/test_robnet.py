"""RobNets: the published parameter counts and codes, their wiring against a restatement, and through every program."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import genotypes
import retrain.train_cifar
from tests.networks import empty_layers, seeded
from tests.quick import slow_after
from wsrnas.architectures import hand_designed
from wsrnas.architectures.robnet import FREE, LARGE, SMALL, RobNet, cell_of, means_of_parts
from wsrnas.complexity import count_parameters
from wsrnas.models import build_model, description, load_architecture, names
from wsrnas.network import CifarStem, ImageNetStem
from wsrnas.runtime import checkpoint
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checkpoints import load_model, load_weights

pytestmark = pytest.mark.usefixtures("quick_programs")

# The 28 bits of every cell as a number, layer by layer.
SMALL_BITS, LARGE_BITS = 0xF6E462E, 0xFFDDB57
FREE_BITS = (
    0xEFB5BCD, 0xC64A1EC, 0xFD748A3, 0xB969B06, 0xF4A9927, 0xEFDB277, 0xFE9E6A6, 0x7F7F778, 0xFFD7927, 0xB4FB7FC,
    0xEC0C61B, 0x77EBB78, 0xFA4BDA1, 0x7F5D7DA, 0x7FD1AEB, 0xF3D18DF, 0xF7EEAAF, 0xB7DCF21, 0xEFFECDF, 0xF5F4217)
BITS = {"robnet_small": (SMALL_BITS,) * 20, "robnet_large_v1": (LARGE_BITS,) * 20,
        "robnet_large_v2": (LARGE_BITS,) * 33, "robnet_free": FREE_BITS}
WIDTHS = {"robnet_small": 36, "robnet_large_v1": 36, "robnet_large_v2": 64, "robnet_free": 36}
COUNTS = {  # parameters for ten classes; the same with a scale and a shift in every BatchNorm
    "robnet_small": (4_359_574, 4_417_030), "robnet_large_v1": (6_842_710, 6_942_070),
    "robnet_large_v2": (33_357_386, 33_637_962), "robnet_free": (5_439_790, 5_513_806)}


def photographs(count: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


# -- the published networks -----------------------------------------------------------------------------------------

def counts(*arguments, **more) -> tuple[int, int]:
    """Parameters; the same were every BatchNorm affine."""
    with empty_layers():
        model = build_model(*arguments, **more)
    plain = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and not module.affine]
    return count_parameters(model), count_parameters(model) + sum(2 * module.num_features for module in plain)


@pytest.mark.parametrize("name", slow_after(1, COUNTS))
def test_the_published_number_of_parameters(name):
    assert hand_designed.published_width(name) == WIDTHS[name]
    assert counts(name) == COUNTS[name]


@pytest.mark.slow
def test_the_published_number_of_parameters_on_imagenet():
    assert counts("RobNet_large_v1", 1000, dataset="imagenet") == (12_756_448, 12_888_928)


def test_the_codes_are_the_published_ones():
    def bits(codes: str) -> int:
        return int(re.sub("[ ,]", "", codes), 2)

    assert (bits(SMALL), bits(LARGE), tuple(map(bits, FREE))) == (SMALL_BITS, LARGE_BITS, FREE_BITS)
    codes = [code for cell in FREE for code in re.findall("[01]{2}", cell)]
    assert [codes.count(code) for code in ("11", "10", "01", "00")] == [115, 66, 63, 36]


# -- their wiring, restated -----------------------------------------------------------------------------------------

class Layers:
    """A network's layers one after the other, as its weights lie in the state_dict, written down as functions."""

    def __init__(self, model: nn.Module):
        self.values = iter([value for key, value in model.state_dict().items()
                            if not key.endswith("num_batches_tracked")])

    def conv(self, features: Tensor, stride: int = 1) -> Tensor:
        weight = next(self.values)
        groups = features.shape[1] // weight.shape[1]
        return F.conv2d(features, weight, None, stride, weight.shape[-1] // 2, groups=groups)

    def norm(self, features: Tensor, affine: bool = False) -> Tensor:
        scale, shift = [next(self.values).view(-1, 1, 1) for _ in range(2)] if affine else (1, 0)
        mean, variance = (next(self.values).view(-1, 1, 1) for _ in range(2))
        return (features - mean) / (variance + 1e-5).sqrt() * scale + shift

    def preprocessed(self, features: Tensor) -> Tensor:
        return self.norm(self.conv(features.clamp(min=0)))

    def halved(self, features: Tensor) -> Tensor:
        features = features.clamp(min=0)
        shifted = F.pad(features, (0, 1, 0, 1))[:, :, 1:, 1:]
        even = self.conv(features, 2)
        odd = self.conv(shifted, 2)[:, :, :even.shape[2], :even.shape[3]]
        return self.norm(torch.cat([even, odd], 1))

    def separable(self, features: Tensor, stride: int) -> Tensor:
        for step in (stride, 1):
            features = self.norm(self.conv(self.conv(features.clamp(min=0), step)))
        return features

    def cell(self, s0: Tensor, s1: Tensor, bits: int, reduction: bool) -> Tensor:
        """Two bits an edge, the first edge's the highest; of a pair, the low bit convolves and the high bit skips."""
        states = [self.halved(s0) if s0.shape[2] != s1.shape[2] else self.preprocessed(s0), self.preprocessed(s1)]
        place = 28
        for node in range(2, 6):
            parts = []
            for source in range(node):
                place -= 2
                stride = 2 if reduction and source < 2 else 1
                if bits >> place & 1:
                    parts.append(self.separable(states[source], stride))
                if bits >> place & 2:
                    parts.append(self.halved(states[source]) if stride == 2 else states[source])
            states.append(sum(parts))
        return torch.cat(states[2:], 1)


def restated(layers: Layers, images: Tensor, bits: tuple[int, ...], rows: int, imagenet: bool) -> Tensor:
    """Guo et al.'s network with the stem and the reductions of DARTS; ``rows`` x ``rows`` means are classified."""
    if imagenet:
        mean, std = next(layers.values), next(layers.values)
        first = layers.norm(layers.conv((images - mean) / std, 2), affine=True).clamp(min=0)
        s0 = layers.norm(layers.conv(first, 2), affine=True)
        s1 = layers.norm(layers.conv(s0.clamp(min=0), 2), affine=True)
    else:
        s0 = s1 = layers.norm(layers.conv(images), affine=True)
    for layer, code in enumerate(bits):
        s0, s1 = s1, layers.cell(s0, s1, code, layer in (len(bits) // 3, 2 * len(bits) // 3))
    logits = F.adaptive_avg_pool2d(s1, rows).flatten(1) @ next(layers.values).T + next(layers.values)
    assert next(layers.values, None) is None, "weights are left over"
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset", [
    ("robnet_small", "cifar10"), ("robnet_large_v2", "cifar10"), ("robnet_free", "cifar10"),
    ("robnet_large_v2", "imagenet"), ("robnet_free", "imagenet")])
def test_the_networks_are_what_their_paper_says(name, dataset):
    imagenet = dataset == "imagenet"
    with empty_layers():
        model = build_model(name, 7, 2, dataset=dataset)
    model = seeded(model)
    images = photographs(2, 34 if imagenet else 18).double()  # halved to an odd size, and again
    rows = 2 if name == "robnet_large_v2" and not imagenet else 1
    with torch.no_grad():
        expected = restated(Layers(model), images, BITS[name], rows, imagenet)
        assert expected.std(0).min() > 1e-3, "the images make no difference"
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


def test_the_outputs_of_the_cells_are_collected(seed):
    model, images, outputs, seen = RobNet([SMALL, LARGE], 2, 3, parts=2).eval(), photographs(1, 8), [], []
    for cell in model.cells:
        cell.register_forward_hook(lambda _, inputs, output: seen.append(output))
    assert torch.equal(model(images, outputs), model(images))
    assert len(outputs) == 2 and all(output is hooked for output, hooked in zip(outputs, seen, strict=False))


@pytest.mark.parametrize("height, width", [(8, 8), (5, 9), (1, 2), (3, 1)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_means_of_parts_are_torchs_adaptive_pooling(parts, height, width):
    features = torch.rand(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, torchs = means_of_parts(features, parts), F.adaptive_avg_pool2d(features, parts).flatten(1)
    torch.testing.assert_close(ours, torchs)
    weights = torch.rand_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad((value * weights).sum(), features) for value in (ours, torchs)))


# -- the format -----------------------------------------------------------------------------------------------------

def test_the_cell_of_a_code():
    cell = cell_of("01 10, 11 00 01, 00 00 00 10, 10 10 10 10 11")
    nodes = cell.nodes("normal")
    assert nodes == cell.nodes("reduce") and cell.normal_concat == cell.reduce_concat == (2, 3, 4, 5)
    assert nodes[0] == (("sep_conv_3x3", 0), ("skip_connect", 1))
    assert nodes[1] == (("sep_conv_3x3", 0), ("skip_connect", 0), ("none", 1), ("sep_conv_3x3", 2))
    assert nodes[2] == (("none", 0), ("none", 1), ("none", 2), ("skip_connect", 3))
    assert nodes[3][-2:] == (("sep_conv_3x3", 4), ("skip_connect", 4))


def test_a_node_without_operations_is_zero(seed):
    outputs = []
    RobNet(["01 01, 00 00 00, 10 10 10 10, 10 10 10 10 10"], 2, 3)(photographs(), outputs)
    first, second, *_ = outputs[0].chunk(4, dim=1)
    assert not second.any() and first.any()


@pytest.mark.parametrize("codes, named", [
    ("11 11, 11 11 11, 01 11 01 10", "has 3 nodes; expected 4, separated by commas"),
    (SMALL + ", 11 11 11 11 11 11", "has 5 nodes; expected 4"),
    (SMALL.replace("11 11,", "11 11 11,"), "node 2 of the RobNet cell '11 11 11, .* has 3 codes; expected 2"),
    (SMALL[:-3], "node 5 of .* has 4 codes; expected 5"),
    (SMALL.replace("10 11, 10", "10 12, 10"), "unknown code '12' at node 3 of .*known codes: 00, 01, 10, 11"),
    (SMALL.replace("10 11, 10", "10 1, 10"), "unknown code '1' at node 3"), ("", "has 1 nodes; expected 4")])
def test_a_malformed_code_is_refused(codes, named):
    for refused in (lambda: cell_of(codes), lambda: RobNet([SMALL, codes], 2, 3)):
        with pytest.raises(InputError, match=named):
            refused()


@pytest.mark.parametrize("sizes, named", [
    ({"cells": []}, "layers is 0"), ({"init_channels": 0}, "init_channels is 0"),
    ({"num_classes": 0}, "num_classes is 0"), ({"channels": 0}, "channels is 0"), ({"parts": 0}, "parts is 0")])
def test_numbers_below_one_are_refused(sizes, named):
    with pytest.raises(InputError, match=f"{named}; expected at least 1"):
        RobNet(**{"cells": [SMALL], "init_channels": 2, "num_classes": 3} | sizes)


# -- the door -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", BITS)
def test_names_are_found_however_they_are_spelled(name):
    assert set(BITS) == {name for name in names() if name.startswith("robnet")}
    published = name.replace("robnet", "RobNet")
    for spelled in (published, name, published.replace("_", "-"), name.upper()):
        assert hand_designed.find(spelled) == name == load_architecture(spelled)
    with pytest.raises(InputError, match=r"robnet_\w+ has no cell, because it is a network with a design of its own"):
        genotypes.load(published)


@pytest.mark.slow
@pytest.mark.parametrize("name, size, channels, dataset", [
    ("RobNet_small", 28, 1, "digits"), ("RobNet_small", 64, 3, "imagenet"), ("RobNet_free", 64, 3, "cifar10")])
def test_robnets_work_on_every_kind_of_image_and_use_every_layer(name, size, channels, dataset, seed):
    model, seen = build_model(name, 5, 2, dataset=dataset, channels=channels), []
    assert type(model) is RobNet and isinstance(model.stem, ImageNetStem if dataset == "imagenet" else CifarStem)
    images = photographs(2, size, channels).requires_grad_()
    for module in model.modules():
        module.register_forward_hook(lambda _, inputs, output: seen.extend(
            (value, value.clone()) for value in (*inputs, output) if isinstance(value, Tensor)))
    logits = model(images)
    F.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert logits.shape == (2, 5) and all(torch.equal(value, then) for value, then in seen), "a layer works in place"
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters()), "a layer is not used"
    assert images.grad.isfinite().all() and images.grad.any()


@pytest.mark.parametrize("arch, more, named", [
    ("RobNet_free", {"layers": 20}, "layers is 20, but robnet_free has a depth of its own"),
    ("resnet18", {"layers": 20}, "layers is 20, but resnet18 has a depth of its own"),
    ("RobNet_free", {"init_channels": 0}, "init_channels is 0; expected at least 1"),
    ("RobNet_free", {"init_channels": 1, "dataset": "imagenet"}, "init_channels is 1; the ImageNet stem needs"),
    ("RobNet_free", {"dataset": "imagenet", "channels": 1}, "channels is 1; expected 3 for imagenet"),
    ("RobNet_medium", {}, "RobNet_medium cannot be built: RobNet's authors released"),
    ("RobNet_smal", {}, "unknown architecture 'RobNet_smal'; did you mean robnet_small")])
def test_what_is_no_network_is_refused(arch, more, named):
    with pytest.raises(InputError, match=named):
        build_model(arch, **more)


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset, shape", [("robnet_free", "digits", (1, 32, 32)),
                                                  ("robnet_small", "imagenet", (3, 64, 64))])
def test_a_checkpoint_gives_the_same_network(name, dataset, shape, tmp_path, seed):
    model = build_model(name, 5, 2, dataset=dataset, channels=shape[0])
    images, network = photographs(2, shape[1], shape[0]), description(name, 5, 2, None, dataset, shape)
    model(images)  # running statistics worth keeping
    checkpoint.save(tmp_path / "best.pt", {"model": model.state_dict(), "network": network})
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded, stored = load_model(tmp_path / "best.pt")
    assert stored == network and network["arch"] == name
    assert torch.equal(loaded(images), model.eval()(images)) and not loaded.training
    read, told = load_weights(tmp_path / "weights.pt", name.upper(), 5, dataset=dataset, image_shape=shape)
    assert told == network  # its width is read off the weights
    assert torch.equal(read(images), model(images))
    with pytest.raises(InputError, match="is a checkpoint of another network than the one named"):
        load_weights(tmp_path / "best.pt", "RobNet_large_v1", 5, dataset=dataset, image_shape=shape)
    with pytest.raises(InputError, match=f"layers is 20, but {name} has a depth of its own"):
        load_weights(tmp_path / "weights.pt", name, 5, layers=20, dataset=dataset, image_shape=shape)


@pytest.mark.slow
def test_retraining_takes_it_by_name(tmp_path):
    retrain.train_cifar.main(["--recipe", "tiny", "--arch", "RobNet_small", "--init_channels", "4", "--device",
                              "cpu", "--max_train", "26", "--held_out", "10", "--batch_size", "8", "--epochs", "1",
                              "--milestones", "1", "--select_every", "1", "--select_steps", "1", "--num_steps", "1",
                              "--save", "run", "--runs", str(tmp_path)])
    model, network = load_model(tmp_path / "retrain" / "run" / "best.pt")
    assert network == description("robnet_small", 10, 4, None, "digits", (3, 8, 8))
    assert model(photographs()).shape == (2, 10)
    assert all(value.any() for key, value in model.state_dict().items() if key.endswith("running_mean"))
