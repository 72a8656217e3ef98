"""The door of an evaluation: what a network needs is found out before anything is measured."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.attacks import pgd
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.fitting import NCHW, NO_GRADIENT, PROBABILITIES, fitted
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.model_source import ModelSource, make_source

CPU = torch.device("cpu")


def images(count: int = 12) -> EvaluationImages:
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = ImageSet(pixels.contiguous(memory_format=torch.channels_last), torch.arange(count) % 5)
    return EvaluationImages("mine", BatchLoader(chosen, 5, 0, "test"), 5, (3, 8, 8), "")


class Network(nn.Module):
    """A convolution and a linear layer; what stands between them and behind them is given."""

    def __init__(self, between=lambda x: x.flatten(1), behind=lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.classifier = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 5)
        self.between, self.behind = between, behind
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.behind(self.classifier(self.between(self.features(pixels))))


def at_the_door(model: nn.Module) -> ModelSource:
    return fitted(make_source(model, "mine.py:build", "mine"), images(), CPU)


def refused(model: nn.Module) -> str:
    with pytest.raises(InputError) as caught:
        at_the_door(model)
    assert str(caught.value).startswith("mine.py:build: ") and "\n" not in str(caught.value)
    return str(caught.value)


ANIMALS = "ant", "bee", "cow", "dog", "elk"


def test_a_network_that_needs_nothing_is_left_alone():
    model = Network()
    found = at_the_door(model)
    assert found.model is model and found.notes == () and found.has_gradient


@pytest.mark.parametrize(("trained", "now", "said"), [
    (ANIMALS, ANIMALS, ""),
    (ANIMALS, ("bee", "ant", "cow", "dog", "elk"),
     "was trained with 'ant' as class 0, and in mine it is 'bee'; expected the same names in the same order"),
    (ANIMALS, ("ant", "bee", "cow", "dog", "fox"), "'elk' as class 4"),
    (ANIMALS, tuple("01234"), ""), (tuple("01234"), ANIMALS, ""),
    (ANIMALS, (), ""), ((), ANIMALS, "")])
def test_a_network_is_refused_where_its_classes_have_other_names(trained, now, said, tmp_path):
    if trained:
        (tmp_path / "inputs.json").write_text(json.dumps({"data set": {"name": "mine", "classes": trained}}))
    network = make_source(Network(), "runs/a", "a", folder=tmp_path)
    if not said:
        fitted(network, replace(images(), class_names=now), CPU)
        return
    with pytest.raises(InputError) as caught:
        fitted(network, replace(images(), class_names=now), CPU)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"data set": 3}', '{"data set": {"classes": 10}}'])
def test_inputs_that_name_no_classes_refuse_nothing(text, tmp_path):
    (tmp_path / "inputs.json").write_text(text)
    fitted(make_source(Network(), "runs/a", "a", folder=tmp_path), replace(images(), class_names=tuple("abcde")), CPU)


def test_a_network_is_never_asked_for_more_images_than_a_batch():
    asked: list[int] = []
    at_the_door(Network(behind=lambda logits: asked.append(len(logits)) or logits))  # batches of 5, 12 images
    assert set(asked) <= {1, 2, 5}


class Striding(torch.autograd.Function):
    """The identity, whose backward pass views the gradient of a channels_last tensor."""

    @staticmethod
    def forward(ctx, pixels: Tensor) -> Tensor:
        return pixels.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.view(len(gradient), -1).view(gradient.shape)


@pytest.mark.parametrize("model", [
    Network(lambda x: x.view(len(x), -1)),
    Network(lambda x: F.relu(Striding.apply(x)).flatten(1)),  # it fails in the backward pass alone
], ids=["view", "backward"])
def test_a_network_that_views_its_features_gets_them_in_one_piece(model):
    found = at_the_door(model)
    assert found.notes == (NCHW,) and found.has_gradient
    (pixels, labels), = images().loader.images_at([torch.arange(4)])
    assert not pixels.is_contiguous()
    torch.testing.assert_close(found.model(pixels), model(pixels.contiguous()))
    assert not torch.equal(pgd(found.model, pixels, labels, 0.1, 2), pixels)
    assert found.model.get_submodule("features") is model.features, "layers keep their names"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_become_float32_at_the_door(dtype):
    found = at_the_door(Network(behind=lambda x: x.to(dtype)))
    assert found.notes == (f"its logits are {str(dtype)[6:]}, and become float32",) and found.has_gradient
    assert found.model(torch.rand(2, 3, 8, 8)).dtype == torch.float32
    both = at_the_door(Network(lambda x: x.view(len(x), -1), lambda x: x.to(dtype)))
    assert len(both.notes) == 2 and both.model(images().spread()[0]).dtype == torch.float32
    assert at_the_door(Network(behind=lambda x: x.double())).notes == ()


@pytest.mark.parametrize("behind, words", [
    (lambda x: x.squeeze(), r"returns a tensor of shape (5,) for one image alone; expected (1, 5): .squeeze()"),
    (lambda x: x / x.std(0) if len(x) > 1 else x.missing, "not one image alone (AttributeError: "),
])
def test_one_image_alone_is_asked_for_at_the_start(behind, words):
    assert words in refused(Network(behind=behind))
    assert words in refused(Network(lambda x: x.view(len(x), -1), behind))


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode, None])
def test_a_network_without_a_gradient_is_known_as_such(without):
    model = Network(behind=lambda x: x.detach())
    if without:
        model = Network()
        model.forward = without()(model.forward)
    found = at_the_door(model)
    assert not found.has_gradient and found.notes == (NO_GRADIENT,) and found.model is model


def test_a_gradient_of_zero_is_one():
    assert at_the_door(Network(behind=lambda x: x.round())).has_gradient


def test_what_is_wrong_in_either_memory_format_is_refused_in_the_networks_words():
    said = refused(Network(lambda x: x.view(len(x), -1)[:, 1:]))  # torch 2.15 says "addmm: mat1 and mat2"
    assert "cannot take images of shape (5, 3, 8, 8) (RuntimeError: " in said and "mat1 and mat2" in said
    assert "training mode" in refused(Network().train())


def test_probabilities_in_the_place_of_logits_are_noted():
    assert at_the_door(Network(behind=lambda x: x.softmax(1))).notes == (PROBABILITIES,)
    assert at_the_door(Network(behind=lambda x: x.log_softmax(1))).notes == ()
    assert at_the_door(Network(behind=lambda x: x.sigmoid())).notes == ()
