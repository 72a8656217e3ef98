"""Accuracy over strengths against a closed form; costs by hand; figures; networks from checkpoints."""

import copy
import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import genotypes
from search.spaces import SPACES
from tests.quick import slow_after
from wsrnas import complexity
from wsrnas.complexity import activation_bytes, count_parameters, multiply_adds, readable
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import robust_accuracy
from wsrnas.genotype import Genotype
from wsrnas.models import build_model, description
from wsrnas.network import NetworkCIFAR, NetworkImageNet
from wsrnas.report.figures.cells import draw_genotype, genotype_text
from wsrnas.runtime import checkpoint
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checkpoints import load_model

# ---- accuracy ------------------------------------------------------------------------------------------------

IMAGES = 60


def image_set() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(100, 156, (IMAGES, 3, 4, 4), generator=draw, dtype=torch.uint8)  # 0.39 to 0.61: off the box
    return ImageSet(pixels, torch.randint(2, (IMAGES,), generator=draw))


def loader(batch_size: int) -> BatchLoader:
    return BatchLoader(image_set(), batch_size, 0, "test")


def linear() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():  # the mean image lies on the boundary
        logits = model(image_set().images / 255)
        model[1].bias -= logits.mean(0)
    return model


def critical_strengths(model: nn.Module) -> Tensor:
    """The L-inf radius at which each image is lost: its margin over the L1 norm of the weights' difference."""
    data, (weight, bias) = image_set(), (p.detach().double() for p in model[1].parameters())
    logits = (data.images.double() / 255).flatten(1) @ weight.T + bias
    rows = torch.arange(IMAGES)
    margin = logits[rows, data.labels] - logits[rows, 1 - data.labels]
    return margin / (weight[0] - weight[1]).abs().sum()


def strengths_between_images(model: nn.Module, count: int = 4) -> list[float]:
    """Strengths half-way between the radii of two images, so that no rounding decides."""
    radii = critical_strengths(model).sort().values
    middles = ((radii[1:] + radii[:-1]) / 2)[radii[:-1] > 0]
    assert len(middles) > 2 * count
    return middles[:: len(middles) // count][:count].tolist()


class Contrary(nn.Sequential):
    """In training mode it says the opposite."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * (-1 if self.training else 1)


def test_an_image_whose_logits_are_no_numbers_is_not_right():
    model = linear()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("nan"))
    result = robust_accuracy(model, loader(16), (0.01,), 1)
    assert result["clean_accuracy"] == 0 and result["average_robust_accuracy"] == 0


@pytest.mark.parametrize("steps, ratio, random_start, reach", [
    (20, None, False, 1.0), (1, 1.0, False, 1.0), (7, 0.5, True, 1.0), (2, 0.25, False, 0.5),
])
def test_accuracy_of_a_linear_classifier_is_the_closed_form(steps, ratio, random_start, reach):
    """``reach`` is the share of the strength that so many steps of that length can go."""
    model = linear()
    radii, strengths = critical_strengths(model), [e / reach for e in strengths_between_images(model)]
    assert max(strengths) < 0.38, "an attack would meet the box"
    result = robust_accuracy(Contrary(*model), loader(16), strengths, steps, ratio, random_start)
    expected = [(radii > e * reach).double().mean().item() for e in strengths]
    assert len(set(expected)) == 4 and 0 < expected[-1] < expected[0] < 1
    assert result["images"] == IMAGES
    assert result["clean_accuracy"] == pytest.approx((radii > 0).double().mean().item())
    assert [row["accuracy"] for row in result["strengths"]] == pytest.approx(expected)
    assert result["average_robust_accuracy"] == pytest.approx(sum(expected) / 4)
    for row, epsilon in zip(result["strengths"], strengths, strict=True):
        assert row["epsilon"] == epsilon and row["step_size"] == pytest.approx((ratio or 2.5 / steps) * epsilon)
        assert (row["attack"], row["norm"], row["restarts"]) == (f"PGD-{steps}", "linf", 1)
        assert (row["steps"], row["random_start"]) == (steps, random_start)


def batch_norm_network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                          nn.Linear(16, 2))
    model(torch.rand(8, 3, 4, 4))
    return model


@pytest.mark.slow
def test_batches_do_not_matter_and_the_model_is_as_before():
    model = batch_norm_network().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    results = [robust_accuracy(model, loader(size), [0.02, 0.1], 5) for size in (1, 7, 60)]
    assert results[0] == results[1] == results[2]
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strengths", [[], [0.0], [0.1, 1.0], [-0.1], [8.0], [float("nan")]])
def test_strengths_outside_the_range_are_refused(strengths):
    with pytest.raises(InputError, match=r"inside \(0, 1\)"):
        robust_accuracy(linear(), loader(16), strengths)


def test_an_attack_of_no_steps_is_refused():
    with pytest.raises(InputError, match="steps"):
        robust_accuracy(linear(), loader(16), [0.1], 0)


# ---- costs ---------------------------------------------------------------------------------------------------


def test_multiply_adds_by_hand():
    assert multiply_adds(nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9)) == 8 * 5 * 5 * 3 * 3 * 3
    assert multiply_adds(nn.Conv2d(6, 6, 3, groups=6), (6, 5, 7)) == 6 * 3 * 5 * 9
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)).train()
    assert multiply_adds(model, (3, 4, 4)) == 4 * 16 * 3 + 64 * 10
    assert model.training and model[1].num_batches_tracked == 0


class Sums(nn.Module):
    """Sums of equal and of different shapes, with numbers and of integers, before a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 3)

    def forward(self, images):
        x = self.first(images)
        x = x + x.mean((2, 3), keepdim=True)
        x = x.mean((2, 3), keepdim=True) + x + 1
        x = self.norm(x) + torch.ones(x.shape, dtype=torch.int64, device=x.device) + x.double()
        return self.last(torch.relu(x.float() + x.float()))


GRAPH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


@pytest.mark.parametrize("build", [Sums, lambda: build_model("WsrNet_Basic", 10, 2, 3)], ids=["sums", "cells"])
def test_a_network_without_numbers_has_as_many_multiply_adds(build):
    network = build()
    count = multiply_adds(network, (3, 32, 24))
    assert multiply_adds(network.to("meta"), (3, 32, 24)) == count > 0


def assert_shapes_tell_the_cost(monkeypatch, network, image_shape):
    with monkeypatch.context() as context:
        context.setattr(torch, "zeros", None)  # there is no real image
        found = multiply_adds(network, image_shape), activation_bytes(network, image_shape)
    with monkeypatch.context() as context:
        context.setattr(complexity, "pass_of_shapes", lambda *arguments: None)
        assert found == (multiply_adds(network, image_shape), activation_bytes(network, image_shape))


@pytest.mark.parametrize(("name", "more"), [
    ("WsrNet_Plus", {"layers": 3}), (GRAPH, {"layers": 3}), ("robnet_free", {}), ("resnet18", {"dataset": "imagenet"}),
    ("densenet121", {}), ("mobilenet_v2", {}), ("shufflenet_v2", {}), ("squeezenet", {}), ("vgg16", {})])
def test_the_cost_of_a_network_follows_from_shapes_alone(monkeypatch, name, more):
    assert_shapes_tell_the_cost(monkeypatch, build_model(name, 10, 4, **more), (3, 33, 36))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_cost_of_a_supernet_follows_from_shapes_alone(monkeypatch, space):
    supernet = space.supernet(2, 3, 10, 1.0, 1.0, None)
    supernet.sample(torch.Generator().manual_seed(1))
    assert_shapes_tell_the_cost(monkeypatch, supernet, (3, 7, 10))
    supernet.mix(supernet.alphas().softmax(-1))
    assert_shapes_tell_the_cost(monkeypatch, supernet, (3, 7, 10))


def test_shapes_of_pooling_are_those_of_torch(monkeypatch):
    for kernel, stride, padding, ceil_mode in itertools.product((2, 3), (1, 2, (3, 2)), (0, 1), (False, True)):
        pools = [kind(kernel, stride, padding, ceil_mode=ceil_mode) for kind in (nn.MaxPool2d, nn.AvgPool2d)]
        assert_shapes_tell_the_cost(monkeypatch, nn.Sequential(nn.Conv2d(3, 1, 1), *pools), (3, 23, 26))


def test_images_that_do_not_fit_are_refused_in_the_words_of_torch():
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        multiply_adds(nn.Conv2d(3, 8, 3), (4, 9, 9))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        multiply_adds(nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), (3, 9, 9))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        activation_bytes(nn.Conv2d(3, 8, 3), (3, 2, 9))


def test_other_layers_of_torch_are_counted_too():
    assert multiply_adds(nn.Sequential(nn.Conv2d(3, 5, 1), nn.ConvTranspose2d(5, 4, 2)), (3, 9, 8)) == 72 * (15 + 80)
    assert multiply_adds(nn.Sequential(nn.Flatten(2), nn.GRU(72, 5)), (3, 9, 8)) == 3 * 3 * 5 * (72 + 5)


def test_parameters_are_counted_as_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 5, bias=False), nn.BatchNorm2d(4), nn.Linear(7, 2))
    assert count_parameters(model) == 4 * 3 * 25 + 2 * 4 + 7 * 2 + 2
    assert count_parameters(model[2].parameters()) == 16
    assert count_parameters(iter([])) == 0


def test_bytes_of_activations_are_counted_as_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Sequential(nn.ReLU(), nn.Flatten()),
                          nn.Linear(200, 5)).train()
    assert activation_bytes(model, (3, 9, 9)) == 4 * (200 + 200 + 200 + 5)
    assert activation_bytes(model.double(), (3, 9, 9)) == 8 * 605
    assert model.training and not any(m._forward_hooks for m in model.modules())  # private: torch's


def test_counts_are_printed_with_four_digits_and_a_unit():
    assert [readable(n) for n in (0, 999, 4_544_830, 1_930_618, 2.5e9, 3e13)] == [
        "0", "999", "4.545M", "1.931M", "2.5G", "30T"]


# ---- figures -------------------------------------------------------------------------------------------------


def written(png: Path) -> str:
    """The text of the SVG beside a PNG; both must be whole files."""
    assert png.suffix == ".png" and png.read_bytes().startswith(b"\x89PNG\r\n") and png.stat().st_size > 5000
    svg = png.with_suffix(".svg")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    return svg.read_text()


def edges_of(genotype: Genotype) -> list[tuple[str, int, str, int]]:
    return [(kind, node, name, source) for kind in ("normal", "reduce")
            for node, edges in enumerate(genotype.nodes(kind), start=2) for name, source in edges]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["WsrNet_Basic", "NASNet_A"])
def test_a_cell_is_drawn_with_all_its_operations(name, tmp_path):
    genotype = genotypes.load(name)
    if name == "NASNet_A":
        assert len(genotype.nodes("normal")) == 5
    svg = written(draw_genotype(genotype, tmp_path / "new" / "cell.svg", name))
    edges = edges_of(genotype)
    for operation in {edge[2] for edge in edges}:
        assert svg.count(f">{operation}</text>") == sum(edge[2] == operation for edge in edges), operation
    assert f"{name}: normal cell" in svg and f"{name}: reduce cell" in svg


@pytest.mark.parametrize("name", ["WsrNet_Plus", "NASNet_A", "PNAS", "AmoebaNet_A"])
def test_the_text_of_a_cell_lists_exactly_its_edges(name):
    genotype = genotypes.load(name)
    found, concats, kind = [], {}, ""
    places = {"c[k-2]": 0, "c[k-1]": 1} | {f"node {n}": n for n in range(2, 9)}
    for line in genotype_text(genotype).splitlines():
        if line.endswith(" cell"):
            kind = line.removesuffix(" cell")
        elif match := re.match(r"  node (\d) = (.*)", line):
            for term in match[2].split(" + "):
                operation, source = re.fullmatch(r"(\w+)\((.*)\)", term).groups()
                found.append((kind, int(match[1]), operation, places[source]))
        else:
            concats[kind] = tuple(map(int, re.findall(r"node (\d)", line)))
    assert found == edges_of(genotype)
    assert concats == {"normal": genotype.normal_concat, "reduce": genotype.reduce_concat}


# ---- networks ------------------------------------------------------------------------------------------------


def test_a_network_is_built_from_its_genotype_at_any_size():
    genotype = genotypes.load("RACL")
    with torch.device("meta"):
        assert count_parameters(build_model(genotype)) == 3_571_174  # 36 channels, 20 layers
        assert isinstance(build_model(genotype, 100, 8, 5), NetworkCIFAR)
        large = build_model(genotype, 1000, 8, 5, dataset="imagenet")
    assert isinstance(large, NetworkImageNet) and large.classifier.out_features == 1000
    assert build_model(genotype, 3, 4, 3, channels=1)(torch.rand(1, 1, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("sizes", [{"init_channels": 0}, {"layers": 0}])
def test_a_size_of_zero_is_refused(sizes):
    with pytest.raises(InputError, match=f"{next(iter(sizes))} is 0"):
        build_model(genotypes.load("RACL"), **sizes)


def saved(path: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    genotype = genotypes.load("WsrNet_Basic")
    model = build_model(genotype, 7, 4, 3)
    model(torch.rand(4, 3, 8, 8))  # running statistics worth keeping
    checkpoint.save(path, {"model": model.state_dict(), "step": 3,
                           "network": description(genotype, 7, 4, 3, "cifar10", (3, 8, 8))})
    return path, model


@pytest.mark.slow
def test_a_checkpoint_gives_the_same_network(tmp_path):
    path, model = saved(tmp_path / "best.pt")
    loaded, network = load_model(path)
    images = torch.rand(2, 3, 8, 8)
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))
    assert (network["num_classes"], network["init_channels"], network["layers"]) == (7, 4, 3)
    assert (network["dataset"], network["image_shape"]) == ("cifar10", [3, 8, 8])
    assert Genotype.from_json(network["genotype"]) == genotypes.load("WsrNet_Basic")


def without(payload: dict, *keys: str) -> dict:
    """The payload without the entry that the keys lead to."""
    first, *rest = keys
    return {k: without(v, *rest) if k == first else v for k, v in payload.items() if rest or k != first}


@pytest.mark.parametrize("damage, named", slow_after(3, [
    (lambda p: {"step": 1, "searcher": {}}, "not a checkpoint of retraining"),
    (lambda p: without(p, "model"), "not a checkpoint of retraining"),
    (lambda p: without(p, "model", "stem.conv.weight"), "do not fit"),
    (lambda p: {**p, "network": {**p["network"], "init_channels": 6}}, "do not fit"),
    (lambda p: {**p, "network": {**p["network"], "genotype": "{}"}}, "genotype"),
    (lambda p: without(p, "network", "layers"), "layers"),
    (lambda p: {**p, "network": "RACL"}, "not a checkpoint of retraining"),
    (lambda p: [1, 2], "expected a dictionary"),
]))
def test_a_wrong_checkpoint_is_refused(damage, named, tmp_path):
    path, _ = saved(tmp_path / "best.pt")
    torch.save(damage(checkpoint.read(path)), path)
    with pytest.raises(InputError, match=named) as caught:
        load_model(path)
    assert "best.pt" in str(caught.value)


def test_a_missing_or_truncated_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*none\.pt"):
        load_model(tmp_path / "none.pt")
    path, _ = saved(tmp_path / "best.pt")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated"):
        load_model(path)


def test_strengths_are_given_in_any_way():
    expected = robust_accuracy(linear(), loader(16), [8 / 255, 0.1], 1)
    for strengths in (("8/255", 0.1), np.array([8 / 255, 0.1]), torch.tensor([8 / 255, 0.1], dtype=torch.float64)):
        assert robust_accuracy(linear(), loader(16), strengths, 1) == expected
    assert len(robust_accuracy(linear(), loader(16), "8/255", 1)["strengths"]) == 1
    for arguments, said in ((([],), "no strength"), (("eight",), "expected a number"), (((0.1,), 2.5), "whole number")):
        with pytest.raises(InputError, match=said):
            robust_accuracy(linear(), loader(16), *arguments)
