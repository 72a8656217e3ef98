"""Hand-designed networks: the published ones at their published width, and through every program at any width."""

import copy
import json
import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import genotypes
import retrain.evaluate
import retrain.train_cifar
from retrain.recipes import RECIPES, RetrainConfig, parse_recipe
from tests.networks import empty_layers, seeded
from tests.quick import slow_after
from wsrnas.architectures import hand_designed
from wsrnas.architectures.blocks import Dropout, scaled
from wsrnas.architectures.designs import HandDesignedNetwork
from wsrnas.architectures.hand_designed import names
from wsrnas.attacks import attack_mode, pgd
from wsrnas.complexity import count_parameters
from wsrnas.models import build_model, description, load_architecture
from wsrnas.network import Normalize
from wsrnas.runtime import checkpoint
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.seeding import BatchNoise, generator
from wsrnas.subjects.checkpoints import load_model, load_weights
from wsrnas.subjects.model_source import make_source
from wsrnas.subjects.opening import open_model
from wsrnas.training.losses import LOSSES, LossSettings
from wsrnas.training.trainer import Trainer

PUBLISHED = {  # width, parameters for ten classes
    "resnet18": (64, 11_173_962), "resnet50": (64, 23_520_842), "wrn_28_10": (160, 36_479_194),
    "wrn_34_10": (160, 46_160_474), "vgg16": (64, 14_728_266), "vgg16_4096": (64, 33_646_666),
    "densenet121": (32, 6_956_298), "mobilenet_v2": (32, 2_296_922), "shufflenet_v2": (116, 1_263_854),
    "squeezenet": (96, 734_986)}
ROBNETS = ("robnet_small", "robnet_large_v1", "robnet_large_v2", "robnet_free")
SMALL = {"resnet18": 4, "resnet50": 4, "wrn_28_10": 6, "wrn_34_10": 6, "vgg16": 4, "vgg16_4096": 4, "densenet121": 2,
         "mobilenet_v2": 4, "shufflenet_v2": 10, "squeezenet": 12} | dict.fromkeys(ROBNETS, 2)
MEAN, STD = (torch.tensor(values).view(-1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def on_meta(name: str, *sizes, **more) -> nn.Module:
    with empty_layers():
        return hand_designed.build(name, *sizes, **more)


def photographs(count: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


# -- the published networks -----------------------------------------------------------------------------------------

def test_every_network_is_in_the_table():
    assert set(names()) == {*PUBLISHED, *ROBNETS}


@pytest.mark.parametrize("name", slow_after(5, PUBLISHED))
def test_the_published_number_of_parameters(name):
    width, parameters = PUBLISHED[name]
    assert hand_designed.published_width(name) == width
    assert count_parameters(on_meta(name)) == count_parameters(on_meta(name, width=width)) == parameters


@pytest.mark.parametrize("name, parameters", [("squeezenet", 781_156), ("vgg16_4096", 34_015_396)])
def test_the_published_number_of_parameters_for_a_hundred_classes(name, parameters):
    assert count_parameters(on_meta(name, 100)) == parameters


@pytest.mark.parametrize("name, parameters", [("resnet18", 11_689_512), ("resnet50", 25_557_032),
                                              ("densenet121", 7_978_856), ("shufflenet_v2", 2_278_604)])
def test_the_published_number_of_parameters_on_imagenet(name, parameters):
    with empty_layers():
        library = torchvisions(name, 1000, imagenet=True)
    assert count_parameters(on_meta(name, 1000, imagenet=True)) == count_parameters(library) == parameters


def torchvisions(name: str, num_classes: int, imagenet: bool) -> nn.Module:
    """The library's network: that for large images, or with the stem of small ones."""
    constructor = {"shufflenet_v2": "shufflenet_v2_x1_0", "vgg16": "vgg16_bn", "vgg16_4096": "vgg16_bn",
                   "squeezenet": "squeezenet1_0"}.get(name, name)
    model = getattr(torchvision.models, constructor)(num_classes=num_classes)
    if name == "squeezenet":
        with_norms_and_bypass(model.features)
        model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    if name == "vgg16":
        model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, num_classes)
    if name == "vgg16_4096":
        model.avgpool, model.classifier[0] = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 4096)
    if imagenet:
        return model
    if name.startswith("resnet"):
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    if name == "densenet121":
        model.features.conv0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.features.norm0 = model.features.relu0 = model.features.pool0 = nn.Identity()
    if name == "shufflenet_v2":
        model.conv1[0].stride, model.maxpool = (1, 1), nn.Identity()
    return model


def with_norms_and_bypass(features: nn.Sequential) -> None:
    """Give torchvision's SqueezeNet what ours has more: BatchNorm, and a way around fire modules 3, 5 and 7."""
    features[0] = nn.Sequential(features[0], nn.BatchNorm2d(features[0].out_channels))
    fires = [layer for layer in features if hasattr(layer, "squeeze")]
    for number, fire in enumerate(fires, start=2):
        for name in ("squeeze", "expand1x1", "expand3x3"):
            conv = getattr(fire, name)
            setattr(fire, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
        if number in (3, 5, 7):
            fire.register_forward_hook(lambda _, inputs, output: output + inputs[0])


@pytest.mark.slow
@pytest.mark.parametrize("name, imagenet", [
    *((name, imagenet) for imagenet in (False, True)
      for name in ("resnet18", "resnet50", "vgg16", "vgg16_4096", "densenet121", "shufflenet_v2")),
    ("squeezenet", True)])
def test_the_networks_of_torchvision_give_the_same_logits(name, imagenet):
    model = seeded(on_meta(name, imagenet=imagenet))
    with empty_layers():
        other = torchvisions(name, 10, imagenet).eval()
    ours = {key: value for key, value in model.state_dict().items() if not key.startswith("normalize")}
    theirs = other.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)), assign=True)
    images = photographs(1, 64 if imagenet else 32 if name.startswith("vgg") else 16).double()
    with torch.no_grad():
        expected = other((images - MEAN) / STD if imagenet else images)
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


class Layers:
    """A network's layers one after the other, as its weights lie in the state_dict, written down as functions."""

    def __init__(self, model: nn.Module):
        self.values = iter([value for key, value in model.state_dict().items()
                            if not key.endswith("num_batches_tracked") and not key.startswith("normalize")])

    def conv(self, features: Tensor, stride: int = 1, depthwise: bool = False, bias: bool = False) -> Tensor:
        weight = next(self.values)
        return F.conv2d(features, weight, next(self.values) if bias else None, stride, weight.shape[-1] // 2,
                        groups=features.shape[1] if depthwise else 1)

    def norm(self, features: Tensor, relu: bool = False) -> Tensor:
        weight, bias, mean, variance = (next(self.values).view(-1, 1, 1) for _ in range(4))
        features = (features - mean) / (variance + 1e-5).sqrt() * weight + bias
        return features.clamp(min=0) if relu else features

    def classify(self, features: Tensor) -> Tensor:
        logits = features.flatten(2).mean(2) @ next(self.values).T + next(self.values)
        assert next(self.values, None) is None, "weights are left over"
        return logits


def wide_resnet(layers: Layers, images: Tensor, blocks: int, imagenet: bool) -> Tensor:
    """Zagoruyko and Komodakis, Fig. 1a and Table 1; for large images after a convolution and pooling of stride 2."""
    features = F.max_pool2d(layers.conv(images, 2), 3, 2, 1) if imagenet else layers.conv(images)
    for group in range(3):
        for block in range(blocks):
            stride = 2 if group and not block else 1
            activated = layers.norm(features, relu=True)
            body = layers.conv(layers.norm(layers.conv(activated, stride), relu=True))
            features = body + (features if block else layers.conv(activated, stride))
    return layers.classify(layers.norm(features, relu=True))


def mobilenet(layers: Layers, images: Tensor, imagenet: bool) -> Tensor:
    """Sandler et al., Table 2, for small images with the first two strides 1; shortcuts in all blocks of stride 1."""
    early = 2 if imagenet else 1
    features = layers.norm(layers.conv(images, early), relu=True)
    for blocks, first_stride in ((1, 1), (2, early), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)):
        for block in range(blocks):
            stride = 1 if block else first_stride
            body = layers.norm(layers.conv(features), relu=True)
            body = layers.norm(layers.conv(body, stride, depthwise=True), relu=True)
            body = layers.norm(layers.conv(body))
            if stride == 1:
                body = body + (features if block else layers.norm(layers.conv(features)))
            features = body
    return layers.classify(layers.norm(layers.conv(features), relu=True))


def squeezenet(layers: Layers, images: Tensor) -> Tensor:
    """Iandola et al., Table 1 and Fig. 2 (middle), for small images."""
    def layer(features: Tensor) -> Tensor:
        return layers.norm(layers.conv(features, bias=True), relu=True)

    features = F.max_pool2d(layer(images), 2)
    for number in range(2, 10):
        squeezed = layer(features)
        fire = torch.cat([layer(squeezed), layer(squeezed)], 1)
        features = fire + features if number in (3, 5, 7) else fire
        if number in (4, 8):
            features = F.max_pool2d(features, 2)
    return layers.classify(features)


@pytest.mark.parametrize("name, imagenet, reference", slow_after(2, [
    *((name, imagenet, reference) for imagenet in (False, True) for name, reference in (
        ("wrn_28_10", lambda layers, images, imagenet: wide_resnet(layers, images, 4, imagenet)),
        ("wrn_34_10", lambda layers, images, imagenet: wide_resnet(layers, images, 5, imagenet)),
        ("mobilenet_v2", mobilenet))),
    ("squeezenet", False, lambda layers, images, _: squeezenet(layers, images))]))
def test_the_other_networks_are_what_their_papers_say(name, imagenet, reference):
    model = seeded(on_meta(name, 7, SMALL[name], imagenet=imagenet))
    images = photographs(2, 64 if imagenet else 32).double()
    with torch.no_grad():
        expected = reference(Layers(model), (images - MEAN) / STD if imagenet else images, imagenet)
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


# -- at any width ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("factor, imagenet", slow_after(1, [(0.5, False), (2, False), (0.5, True)]))
@pytest.mark.parametrize("name", PUBLISHED)
def test_all_channels_scale_with_the_width(name, factor, imagenet):
    width = PUBLISHED[name][0]
    published, other = (dict(on_meta(name, 10, w, imagenet=imagenet).named_parameters())
                        for w in (width, int(factor * width)))
    assert list(published) == list(other)
    first, *_, last = published
    for key, value in published.items():
        expected = [int(factor * size) for size in value.shape[:2]] + [*value.shape[2:]]
        if key == first:
            expected[1] = 3
        elif value.ndim == 4 and value.shape[1] == 1:
            expected[1] = 1  # depthwise
        elif key.rpartition(".")[0] == last.rpartition(".")[0]:
            expected[0] = 10
        assert list(other[key].shape) == expected, key


@pytest.mark.parametrize("name", slow_after(2, PUBLISHED))
def test_every_width_is_a_network_and_a_wider_one_is_larger(name):
    step = 2 if name == "shufflenet_v2" else 1
    counts = [count_parameters(on_meta(name, 10, width)) for width in range(step, 12 * step, step)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("channels, width, published, expected", [
    (58, 116, 116, 58), (58, 118, 116, 59), (58, 117, 116, 59), (16, 165, 160, 17), (16, 164, 160, 16),
    (16, 1, 160, 1)])
def test_scaled_channels_are_rounded(channels, width, published, expected):
    assert scaled(channels, width, published) == expected


@pytest.mark.parametrize("size, channels", slow_after(1, [(32, 3), (64, 3), (28, 1)]))
@pytest.mark.parametrize("name", PUBLISHED)
def test_forward_backward_and_attack(name, size, channels, seed):
    model = hand_designed.build(name, 7, SMALL[name], channels)
    images, labels = photographs(4, size, channels), torch.tensor([0, 3, 6, 1])
    before, leaf = images.clone(), images.requires_grad_()
    logits = model(leaf)
    F.cross_entropy(logits, labels).backward()
    assert logits.shape == (4, 7) and torch.equal(images, before)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if size == 32:
        model.eval()
        images = images.detach()
        adversarial = pgd(model, images, labels, 0.03, 1)
        assert ((adversarial - images).abs().amax((1, 2, 3)) > 0.02).all(), "no gradient reached the images"
        with torch.no_grad():
            alone = torch.cat([model(image[None]) for image in images])
            torch.testing.assert_close(alone, model(images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("imagenet", slow_after(1, [False, True]))
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_hook_sees_stays_as_it_was(name, imagenet, seed):
    model, seen = hand_designed.build(name, 3, SMALL[name], imagenet=imagenet), []
    for module in model.modules():
        module.register_forward_hook(lambda _, inputs, output: seen.extend((v, v.clone()) for v in (*inputs, output)))
    model(photographs(2, 64))
    assert len(seen) > 40 and all(torch.equal(value, then) for value, then in seen)


@pytest.mark.parametrize("sizes", [{"width": 0}, {"num_classes": 0}, {"channels": 0}])
def test_numbers_below_one_are_refused(sizes):
    field = next(iter(sizes)).replace("width", "init_channels")
    with pytest.raises(InputError, match=f"{field} is 0; expected at least 1"):
        hand_designed.build("resnet18", **sizes)


# -- large images ---------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_forward_and_backward_on_large_images(name, seed):
    model = hand_designed.build(name, 7, SMALL[name], imagenet=True)
    images = photographs(2, 224).requires_grad_()
    before, sizes = images.detach().clone(), []
    if name in PUBLISHED:
        model.stages.register_forward_hook(lambda _, inputs, output: sizes.append(tuple(output.shape[2:])))
    logits = model(images)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert logits.shape == (2, 7) and torch.equal(images, before)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert images.grad.isfinite().all() and (images.grad.abs().amax((1, 2, 3)) > 0).all()
    assert torch.equal(model.normalize.mean, MEAN) and torch.equal(model.normalize.std, STD)
    side = 14 if name.startswith("wrn") else 13 if name == "squeezenet" else 7
    assert sizes == [(side, side)] * (name in PUBLISHED)


@pytest.mark.parametrize("name", slow_after(3, [*PUBLISHED, "robnet_small"]))
def test_large_images_are_normalised_first(name):
    model, images = seeded(on_meta(name, 5, SMALL[name], imagenet=True)), photographs(1, 33).double()
    first, normalize = next(model.named_children())
    assert first == "normalize" and type(normalize) is Normalize
    with torch.no_grad():
        logits, model.normalize = model(images), nn.Identity()
        torch.testing.assert_close(model((images - MEAN) / STD), logits)
    assert type(next(on_meta(name, 5, SMALL[name]).children())) is nn.Identity


@pytest.mark.parametrize("name", slow_after(4, PUBLISHED))
def test_large_images_may_have_any_size(name, seed):
    model = hand_designed.build(name, 5, SMALL[name], imagenet=True).eval()
    smallest = 21 if name == "squeezenet" else 1
    with torch.no_grad():
        for size in (smallest, 33, 46):
            assert model(torch.rand(1, 3, size, size + 5)).shape == (1, 5)
        if name == "squeezenet":
            with pytest.raises(RuntimeError, match="too small"):
                model(torch.rand(1, 3, 20, 25))


def test_large_images_have_three_channels():
    for name in ("resnet18", "robnet_free"):
        with pytest.raises(InputError, match="channels is 1; expected 3 for imagenet"):
            hand_designed.build(name, 5, 4, channels=1, imagenet=True)


# -- dropout --------------------------------------------------------------------------------------------------------

def drawn(*parts: int | str, rank: int = 0, size: int = 1) -> BatchNoise:
    return BatchNoise(generator(*parts), rank, size)


def test_dropout_drops_its_share_and_keeps_the_mean():
    dropout, values = Dropout(0.2), torch.full((50, 400), 3.0)
    dropout.noise = drawn(1)
    state = torch.get_rng_state()
    output = dropout(values)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(values, torch.full((50, 400), 3.0))
    kept = output != 0
    torch.testing.assert_close(output, 3 / 0.8 * kept)
    assert abs(kept.float().mean() - 0.8) < 0.01
    for along in (0, 1):  # each value is drawn for itself
        assert kept.float().mean(along).std() > 0 and kept.float().mean(along).sub(0.8).abs().max() < 0.3
    dropout.noise = drawn(1)
    assert torch.equal(dropout(values), output)
    assert not torch.equal(dropout(values), output)


def test_dropout_passes_gradients_where_it_passes_values():
    dropout, values = Dropout(0.5), torch.rand(8, 16).add(1).requires_grad_()
    output = dropout(values)
    output.sum().backward()
    assert torch.equal(values.grad, 2.0 * (output != 0)) and 0 < (output != 0).sum() < 128


def test_without_training_or_rate_nothing_is_dropped():
    values = torch.rand(8, 16)
    for dropout in (Dropout(0.5).eval(), Dropout(0.0)):
        dropout.noise = drawn(1)
        state = dropout.noise.generator.get_state()
        assert dropout(values) is values and torch.equal(dropout.noise.generator.get_state(), state)


def test_dropout_of_half_precision():
    dropout, values = Dropout(0.1), torch.ones(100, 1000, dtype=torch.bfloat16)
    dropout.noise = drawn(1)
    output = dropout(values)
    assert output.dtype == torch.bfloat16
    expected = Dropout(0.1)
    expected.noise = drawn(1)
    assert torch.equal(output != 0, expected(values.float()) != 0)


def test_processes_share_the_dropout_of_a_batch():
    values, parts = torch.ones(6, 40), []
    for rank in (0, 1):
        dropout = Dropout(0.5)
        dropout.noise = drawn(3, rank=rank, size=2)
        parts.append(dropout(values[rank::2]))
    whole = Dropout(0.5)
    whole.noise = drawn(3)
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole(values))


def test_both_hidden_layers_of_the_large_head_are_dropped():
    model = seeded(on_meta("vgg16_4096", 5, 1))
    images = photographs(4)
    with torch.no_grad():
        for layer in (model.classifier[0], model.classifier[3]):  # of both signs, so that no ReLU goes unnoticed
            layer.weight.normal_(generator=torch.Generator().manual_seed(2))
        features = model.stages(images.double()).mean((2, 3))
        plain = model(images.double())
        model.classifier.train()  # BatchNorm keeps its running statistics
        model.dropout.noise, twin = drawn(2), drawn(2)
        logits = model(images.double())
        hidden = features
        for layer in (model.classifier[0], model.classifier[3]):
            hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
            hidden = torch.where(twin.uniform(hidden) >= 0, 2 * hidden, 0.0)
        last = model.classifier[6]
        torch.testing.assert_close(logits, hidden @ last.weight.T + last.bias)
    assert hidden.shape == (4, 64) and not torch.allclose(logits, plain)


def test_a_network_has_one_dropout_and_so_has_its_copy():
    model = hand_designed.build("vgg16_4096", 5, 1)
    for network in (model, copy.deepcopy(model)):
        assert [module for module in network.modules() if isinstance(module, Dropout)] == [network.dropout]
    assert network.dropout is not model.dropout and model.dropout.rate == 0.5
    assert not [key for key in model.state_dict() if "dropout" in key]


def test_attacks_see_no_dropout(seed):
    model, images = hand_designed.build("vgg16_4096", 5, 2).train(), photographs(4)
    with attack_mode(model, batch_statistics=True), torch.no_grad():
        assert torch.equal(model(images), model(images))
    assert not torch.equal(model(images), model(images))


# -- the door -------------------------------------------------------------------------------------------------------

def test_no_name_is_that_of_a_cell():
    for name in names():
        assert hand_designed.find(name) == name
        with pytest.raises(InputError, match=f"{name} has no cell, because it is a network with a design of its own"):
            genotypes.load(name)
    for cell in [*genotypes.names(), *genotypes.ALIASES]:
        assert hand_designed.find(cell) is None and load_architecture(cell) == genotypes.load(cell)


@pytest.mark.parametrize("spelled, name", [("ResNet18", "resnet18"), ("WRN-34-10", "wrn_34_10"), ("VGG-16", "vgg16"),
                                           ("MobileNetV2", "mobilenet_v2"), ("densenet_121", "densenet121")])
def test_names_are_found_however_they_are_spelled(spelled, name):
    assert hand_designed.find(spelled) == name == load_architecture(spelled)
    assert type(build_model(spelled, 2, 2)) is HandDesignedNetwork
    assert description(spelled, 2, 2, None, "digits", (3, 32, 32))["arch"] == name


def test_the_widths_of_the_door():
    with torch.device("meta"):
        assert count_parameters(build_model("vgg16")) == PUBLISHED["vgg16"][1]
        narrow = build_model("vgg16", 100, init_channels=16)
    assert narrow.classifier.weight.shape == (100, 128) and narrow.stages[0][0].weight.shape == (16, 3, 3, 3)


def test_the_door_builds_the_network_for_large_images(seed):
    model, images = build_model("resnet18", 5, 4, dataset="imagenet"), photographs(2, 64)
    same = hand_designed.build("resnet18", 5, 4, imagenet=True)
    same.load_state_dict(model.state_dict())
    assert torch.equal(same(images), model(images))
    with pytest.raises(InputError, match="channels is 1; expected 3"):
        build_model("resnet18", 5, 4, dataset="imagenet", channels=1)


@pytest.mark.parametrize("arch, more, named", [
    ("resnet18", {"layers": 20}, "layers is 20, but resnet18 has a depth of its own"),
    ("resnet18", {"init_channels": 0}, "init_channels is 0; expected at least 1"),
    ("resnt18", {}, "unknown architecture 'resnt18'; did you mean resnet18"), (None, {}, "None")])
def test_what_is_no_network_is_refused(arch, more, named):
    with pytest.raises(InputError, match=named):
        build_model(arch, **more)


def saved(path, arch="resnet18"):
    model = build_model(arch, 5, 4, channels=1)
    model(photographs(channels=1))  # running statistics worth keeping
    checkpoint.save(path, {"model": model.state_dict(),
                           "network": description(arch, 5, 4, None, "digits", (1, 32, 32))})
    return model.eval()


@pytest.mark.slow
def test_a_checkpoint_gives_the_same_network(tmp_path, seed):
    model, images = saved(tmp_path / "best.pt"), photographs(channels=1)
    loaded, network = load_model(tmp_path / "best.pt")
    assert torch.equal(loaded(images), model(images)) and not loaded.training
    assert network == {"arch": "resnet18", "num_classes": 5, "init_channels": 4, "layers": None, "dataset": "digits",
                       "image_shape": [1, 32, 32]}


def test_checkpoints_from_before_still_load(tmp_path, seed):
    cell = genotypes.load("RACL")
    model = build_model(cell, 5, 2, 3)
    checkpoint.save(tmp_path / "best.pt", {"model": model.state_dict(), "network": {
        "genotype": cell.to_json(), "num_classes": 5, "init_channels": 2, "layers": 3, "dataset": "digits",
        "image_shape": [3, 32, 32]}})
    loaded, network = load_model(tmp_path / "best.pt")
    assert torch.equal(loaded(photographs()), model.eval()(photographs()))
    assert network == description(cell, 5, 2, 3, "digits", (3, 32, 32))


@pytest.mark.parametrize("change, named", [
    (("arch", "resnet19"), "unknown architecture 'resnet19'; did you mean resnet18"),
    (("arch", 3), "unknown architecture"), (("arch", "vgg16"), "the weights do not fit"),
    (("init_channels", 5), "the weights do not fit"), (("layers", 2), "layers is 2")])
def test_a_wrong_checkpoint_is_refused(change, named, tmp_path):
    saved(tmp_path / "best.pt")
    state = checkpoint.read(tmp_path / "best.pt")
    checkpoint.save(tmp_path / "best.pt", state | {"network": state["network"] | dict([change])})
    with pytest.raises(InputError, match=re.escape(f"best.pt: {named}")):
        load_model(tmp_path / "best.pt")


@pytest.mark.slow
def test_weights_of_a_named_network(tmp_path, seed):
    model, images, file = saved(tmp_path / "best.pt"), photographs(channels=1), tmp_path / "weights.pt"
    torch.save(model.state_dict(), file)
    for path in (file, tmp_path / "best.pt"):
        loaded, network = load_weights(path, "ResNet-18", 5, 4, image_shape=(1, 32, 32), dataset="digits")
        assert torch.equal(loaded(images), model(images))
        assert network == description("resnet18", 5, 4, None, "digits", (1, 32, 32))
    with pytest.raises(InputError, match="is a checkpoint of another network than the one named"):
        load_weights(tmp_path / "best.pt", "vgg16", 5, 4)
    with pytest.raises(InputError, match="is a checkpoint of another genotype than the one named"):
        load_weights(tmp_path / "best.pt", genotypes.load("RACL"), 5)
    with pytest.raises(InputError, match=r"the network of 64 channels and 5 classes: stages\.0\.0\.weight has"):
        load_weights(file, "resnet18", 5, image_shape=(1, 32, 32))


def test_the_fingerprint_knows_the_architecture(tmp_path):
    saved(tmp_path / "best.pt")
    opened = open_model(str(tmp_path / "best.pt"))
    assert (opened.name, opened.description["arch"]) == (tmp_path.name, "resnet18")
    fingerprints = {make_source(opened.model, "", "", opened.description | {"arch": arch}).fingerprint
                    for arch in names()}
    assert len(fingerprints) == len(names()) and opened.fingerprint in fingerprints


# -- the programs ---------------------------------------------------------------------------------------------------

def parsed(*argv):
    return parse_recipe(RetrainConfig, RECIPES, argv, "retrain.train_cifar")[0]


@pytest.mark.parametrize("argv, width", [
    (("--arch", "resnet18"), 64), (("--arch", "resnet18", "--init_channels", "16"), 16),
    (("--arch", "resnet18", "--init_channels", "45"), 45), (("--recipe", "rnas", "--arch", "WRN-28-10"), 160),
    (("--recipe", "tiny", "--arch", "densenet121"), 32), (("--layers", "0", "--arch", "vgg16"), 64)])
def test_the_sizes_of_a_recipe_are_its_cells(argv, width):
    config = parsed(*argv)
    assert (config.arch, config.init_channels, config.layers) == (hand_designed.find(config.arch), width, 0)
    assert config.batch_size == RECIPES[config.preset].batch_size


def test_cells_keep_the_sizes_of_their_recipes():
    assert (parsed().init_channels, parsed().layers) == (45, 20)
    rnas = parsed("--recipe", "rnas", "--arch", "RACL")
    assert (rnas.arch, rnas.init_channels, rnas.layers) == ("RACL", 36, 20)


def test_a_stored_configuration_is_complete(tmp_path):
    config = parsed("--arch", "ResNet18", "--init_channels", "8", "--epochs", "3")
    (tmp_path / "config.json").write_text(json.dumps(vars(config)))
    assert parsed("--config", str(tmp_path / "config.json")) == config
    assert config.name == "resnet18-wsrnet-basic-pgd-cifar10-seed0"


ARGV = ["--recipe", "tiny", "--device", "cpu", "--init_channels", "4", "--max_train", "61", "--held_out", "21",
        "--batch_size", "8", "--epochs", "2", "--milestones", "1", "--select_every", "1", "--select_steps", "1",
        "--num_steps", "1", "--ema_decay", "0.9", "--awp_gamma", "0.01", "--save", "run"]


def train(folder, *argv):
    retrain.train_cifar.main([*ARGV, "--arch", "resnet18", *argv, "--runs", str(folder)])
    return folder / "retrain" / "run"


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_pages):
    """The run directory of a retraining that was not interrupted."""
    return train(tmp_path_factory.mktemp("whole"))


def tensors(value, place=""):
    """Every leaf of nested containers with its place; tensors as bytes."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in tensors(item, f"{place}/{key}").items()}
    return {place: value.numpy().tobytes() if isinstance(value, Tensor) else value}


@pytest.mark.slow
def test_a_training_killed_after_an_epoch_resumes(run, tmp_path):
    def log(self, message, original=RunDirectory.log):
        if message.startswith("[1/2]"):
            raise Killed
        original(self, message)

    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        context.setattr(RunDirectory, "log", log)
        train(tmp_path)
    resumed = train(tmp_path, "--arch", "ResNet-18")
    for name in ("checkpoint.pt", "best.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (run, resumed))
        assert tensors(one["model"]) == tensors(other["model"]), name
    assert one["network"] == other["network"] == description("resnet18", 10, 4, None, "digits", (3, 8, 8))
    model, _ = load_model(resumed / "best.pt")
    assert count_parameters(model) == count_parameters(on_meta("resnet18", 10, 4))


@pytest.mark.slow
def test_another_network_or_width_is_refused_on_resume(run):
    for argv, named in ((("--arch", "vgg16"), r"was made from other inputs \(network\)"),
                        (("--init_channels", "5"), "init_channels: 4 -> 5"),
                        (("--arch", "RACL", "--layers", "3"), "layers: 0 -> 3")):
        with pytest.raises(InputError, match=named):
            train(run.parent.parent, *argv)


@pytest.mark.slow
def test_it_is_evaluated_like_any_run(run, capsys):
    common = ["--device", "cpu", "--max_test", "40", "--check_images", "30", "--attacks", "fgsm"]
    retrain.evaluate.main(["--model", str(run), *common])
    result = json.loads(next((run / "eval").glob("*.json")).read_text())
    assert result["complete"] and result["dataset"] == "digits"
    assert result["model"]["genotype"] is None
    assert result["model"]["parameters"] == count_parameters(on_meta("resnet18", 10, 4))
    weights = run.parent.parent / "weights.pt"
    torch.save(torch.load(run / "best.pt", weights_only=True)["model"], weights)
    retrain.evaluate.main(["--model", "resnet18", "--state_dict", str(weights), "--init_channels", "4", "--dataset",
                           "digits", "--runs", str(run.parent.parent), *common])
    named = json.loads(next(run.parent.parent.glob("evaluate/resnet18*/eval/*.json")).read_text())
    assert named["attacks"][0]["robust"] == result["attacks"][0]["robust"]
    page = (run / "report.html").read_text()
    assert "Accuracy under attack" in page and "The cell" not in page and "cannot be" not in page


def test_dropout_of_a_training_step_is_drawn_from_the_steps_own_generator():
    states = []
    for number, seed in ((1, 3), (2, 3), (3, 4)):
        torch.manual_seed(0)
        model = hand_designed.build("vgg16_4096", 5, 4)
        trainer = Trainer(model, LOSSES["standard"], LossSettings(0.1, 1), torch.optim.SGD(model.parameters(), 0.1),
                          World(), seed)
        torch.manual_seed(number)  # of which nothing may depend
        trainer.step(photographs(8), torch.arange(8) % 5)
        states.append(model.state_dict())
    first, second, other = states
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("argv, named", [
    (("--layers", "20"), "layers is 20, but resnet18 has a depth of its own"),
    (("--layers", "-1"), "layers is -1; expected at least 0"),
    (("--init_channels", "0"), "init_channels is 0; expected at least 1"),
    (("--drop_path", "0.1"), "drop_path is 0.1, but resnet18 has none; expected 0"),
    (("--auxiliary_weight", "0.4"), "auxiliary_weight is 0.4, but resnet18 has no auxiliary head; expected 0"),
    (("--arch", "vgg16_4096", "--compile"), "compile and vgg16_4096 cannot be combined"),
    (("--arch", "resnet34"), "unknown architecture 'resnet34'; did you mean .*resnet18"),
    (("--arch", "RACL", "--layers", "0"), "layers is 0; expected at least 1")])
def test_bad_input_is_refused(argv, named, tmp_path):
    with pytest.raises(InputError, match=named):
        train(tmp_path, *argv)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_the_published_network_costs(tmp_path, capsys):
    retrain.train_cifar.main(["--recipe", "tiny", "--arch", "shufflenet_v2", "--device", "cpu", "--dry_run", "--runs",
                              str(tmp_path)])
    said = capsys.readouterr().out
    assert "network: 1.264M parameters" in said
    assert re.search(r"\n +init_channels +116\n", said) and re.search(r"\n +layers +0\n", said)
