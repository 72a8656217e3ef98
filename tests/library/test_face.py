"""The library as a user of Python sees it: its names, own images, training, evaluation, files."""

import ast
import contextlib
import copy
import dataclasses
import json
import re
import runpy
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import wsrnas
from docs.write_notebook import EXAMPLE, cells
from wsrnas import (
    InputError,
    build_model,
    differences,
    draw_curve,
    evaluate,
    load_dataset,
    open_model,
    own_data,
    result_table,
    save_model,
    train,
)
from wsrnas.data.datasets import DATASETS
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import robust_accuracy
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.caveats import BLACK_BOX, caveats
from wsrnas.evaluation.own_attack import changed_since, numbers_of, refuse_changes
from wsrnas.runtime.seeding import seeded_weights

ROOT = Path(__file__).parents[2]


# -- names ----------------------------------------------------------------------------------------------------------

def test_every_public_name_is_the_one_that_the_stub_imports():
    tree = ast.parse((ROOT / "wsrnas/__init__.pyi").read_text())
    stub = [(node.module, alias.name, alias.asname) for node in tree.body if isinstance(node, ast.ImportFrom)
            for alias in node.names]
    assert {ours for _, _, ours in stub} | {"__version__"} == set(wsrnas.__all__)
    for module, theirs, ours in stub:
        assert getattr(wsrnas, ours) is getattr(import_module(module), theirs)
    with pytest.raises(AttributeError, match="nothing"):
        wsrnas.nothing  # noqa: B018


def test_the_document_of_the_library_names_every_public_name():
    text = (ROOT / "docs/API.md").read_text()
    assert [name for name in wsrnas.__all__ if f"`{name}`" not in text] == ["__version__"]


# -- own images -----------------------------------------------------------------------------------------------------

COLOURS = torch.randint(0, 256, (12, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 3


class Pictures(Dataset):
    """Pictures of Pillow, as torchvision's data sets give them without a transform."""

    def __len__(self):
        return len(COLOURS)

    def __getitem__(self, index):
        return Image.fromarray(COLOURS[index].permute(1, 2, 0).numpy()), int(CLASSES[index])


class Damaged(Pictures):
    """The same, but one of the pictures cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("given", [
    (COLOURS, CLASSES), (COLOURS.permute(0, 2, 3, 1).numpy(), CLASSES.numpy()), (COLOURS.float() / 255, CLASSES.int()),
    (COLOURS.numpy() / 255, CLASSES.tolist()), TensorDataset(COLOURS.float() / 255, CLASSES), Pictures()],
    ids=["bytes", "channels last", "floats", "doubles", "torch", "pillow"])
def test_images_of_every_form_are_the_same_data_set(given):
    data = own_data(given, given, name="mine")
    assert torch.equal(data.train.images, COLOURS) and torch.equal(data.test.labels, CLASSES)
    assert (data.name, data.num_classes, data.image_shape) == ("mine", 3, (3, 8, 10))


@pytest.mark.parametrize("mode", ["P", "RGBA", "1", "CMYK", "YCbCr"])
def test_pictures_of_pillow_are_their_colours_in_every_mode(mode):
    plain = Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((4, 4))).astype(np.uint8)).convert("RGB")
    pairs = [(plain.convert(mode), label % 2) for label in range(4)]
    expected = own_data([(plain, label % 2) for label in range(4)], pairs)
    assert torch.equal(expected.train.images, expected.test.images)
    listed = own_data(([picture for picture, _ in pairs], [label for _, label in pairs]), pairs)
    assert torch.equal(listed.train.images, expected.train.images)


def test_labels_of_one_number_in_an_array_are_classes():
    pairs = [(picture.numpy(), np.array([label])) for picture, label in zip(COLOURS, CLASSES.tolist(), strict=True)]
    assert torch.equal(own_data(pairs, pairs).train.labels, CLASSES)


def test_without_test_images_a_fifth_of_each_class_is_kept_for_the_test():
    grey, labels = torch.zeros(30, 8, 8, dtype=torch.uint8), torch.arange(30) % 3
    data = own_data((grey, labels))
    assert data.image_shape == (1, 8, 8)
    assert data.test.labels.bincount().tolist() == [2, 2, 2] and data.train.labels.bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize(("train_part", "test_part", "said"), [
    ((COLOURS.float(), CLASSES), None, r"values from 0 to 25\d; expected uint8 pixels, or floats in \[0, 1\]"),
    ((COLOURS / 255 - 0.5, CLASSES), None, "values from -0.5"),
    ((COLOURS / 0 * 0, CLASSES), None, "values that are NaN or infinite; expected uint8"),
    ((COLOURS.int(), CLASSES), None, "training images are int32"),
    ((COLOURS, CLASSES[:5]), None, "expected 12 integers"),
    ((COLOURS, CLASSES - 1), None, "a training label is -1"),
    ((COLOURS, CLASSES.float()), None, "labels are float32"),
    ((COLOURS[:, :2], CLASSES), None, "with 1 or 3 channels"),
    ((COLOURS[..., :4], CLASSES), None, "8x4 pixels; expected at least 8x8"),
    ((COLOURS, CLASSES), (COLOURS[..., :9], CLASSES), "expected one shape"),
    ((COLOURS, CLASSES + 1), None, "a label is 3, but no training image is of class 0; expected the classes 0, 1, 2"),
    ((COLOURS, CLASSES + 1), (COLOURS, CLASSES), "no training image is of class 0"),
    ((COLOURS, CLASSES * 10**12), None, "a label is 2000000000000, but no training image is of class 1"),
    ((COLOURS, CLASSES), (COLOURS, CLASSES * 10), "a label is 20, but no training image is of class 3"),
    ((COLOURS, CLASSES * 0), (COLOURS, CLASSES * 0), "all training images are of class 0; expected at least 2 classes"),
    ([(COLOURS[0], 0.6), (COLOURS[1], 1.6)] * 3, None, "gives no pairs of an image and a class"),
    ([(COLOURS[0], torch.zeros(2))] * 3, None, "gives no pairs of an image and a class"),
    ([COLOURS], None, "gives no pairs"),
    (TensorDataset(COLOURS), None, "a TensorDataset that gives no pairs"),
    ({"image": COLOURS, "label": CLASSES}, None, r"a dict that gives no pairs .*expected \(images, labels\)"),
    (Damaged(RuntimeError("damaged jpeg")), None, r"image 3 .* cannot be read \(RuntimeError: damaged jpeg\)"),
    (Damaged(InputError("3.png is a pipe")), None, r"image 3 .* cannot be read \(3.png is a pipe\)"),
    (Damaged(AssertionError()), None, r"image 3 of the training images cannot be read \(AssertionError\)"),
    (Damaged(OSError("bad file")), None, r"image 3 of the training images cannot be read \(OSError: bad file\)"),
    (Pictures(), Damaged(KeyError("name")), r"image 3 of the test images cannot be read \(KeyError: 'name'\)"),
])
def test_unusable_images_are_named(train_part, test_part, said):
    with pytest.raises(InputError, match=said):
        own_data(train_part, test_part)


@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None]], ids=["flat", "as Keras has them"])
def test_arrays_in_a_file_are_a_data_set_of_the_programs(labels, tmp_path):
    file, images = tmp_path / "own.npz", COLOURS.permute(0, 2, 3, 1).numpy()
    np.savez(file, x_train=images, y_train=labels.numpy(), x_test=images[:6], y_test=labels[:6].numpy())
    data = load_dataset("npz", file)
    assert torch.equal(data.train.images, COLOURS) and torch.equal(data.test.labels, CLASSES[:6])
    np.savez(file, x_train=images.repeat(5, 0), y_train=labels.numpy().repeat(5, 0))
    splits = [load_dataset("npz", tmp_path, seed=seed) for seed in (0, 1)]
    assert [len(part) for part in (splits[0].train, splits[0].test)] == [48, 12]
    assert torch.equal(splits[0].test.images, splits[1].test.images)  # no seed mixes training and test images


def test_a_file_of_test_images_alone_is_enough_where_nothing_is_trained(tmp_path):
    file = tmp_path / "own.npz"
    np.savez(file, x_test=COLOURS, y_test=CLASSES)
    data = load_dataset("npz", file, test_alone=True)
    assert torch.equal(data.test.images, COLOURS) and len(data.train) == 0
    with pytest.raises(InputError, match="holds x_test, y_test; expected x_train"):
        load_dataset("npz", file)


def test_a_file_of_test_images_alone_is_named_as_such(tmp_path):
    file = tmp_path / "own.npz"
    np.savez(file, x_test=COLOURS.float(), y_test=CLASSES)
    with pytest.raises(InputError, match=r"own\.npz: test images have values from 0"):
        load_dataset("npz", file, test_alone=True)
    np.savez(file, x_test=COLOURS, y_test=CLASSES * 10**12)
    with pytest.raises(InputError, match="a label is 2000000000000; expected the numbers of the classes, from 0"):
        load_dataset("npz", file, test_alone=True)
    np.savez(file, x_test=COLOURS[:2], y_test=CLASSES[:2] * 0 + 2)  # one class of three is enough to evaluate on
    assert load_dataset("npz", file, test_alone=True).num_classes == 3


def test_an_npz_file_may_name_its_classes(tmp_path):
    file, names = tmp_path / "own.npz", np.array(["ant", "bee", "cat", "dog"])
    np.savez(file, x_train=COLOURS, y_train=CLASSES, x_test=COLOURS, y_test=CLASSES, class_names=names)
    assert load_dataset("npz", file).class_names == ("ant", "bee", "cat", "dog")  # there is no dog
    np.savez(file, x_test=COLOURS, y_test=CLASSES, class_names=names)
    assert load_dataset("npz", file, test_alone=True).class_names == ("ant", "bee", "cat", "dog")
    for wrong, words in ((names[:2], "the number of class names"), (np.arange(4), "of shape (4,) of int64; expected"),
                         (names[:, None], "of shape (4, 1)"), (np.array(["a", "a", "b"]), "has a name twice"),
                         (np.array(["a", "b\n", "c"]), "line breaks"), (np.array(["a", "", "c"]), "is empty or"),
                         (names.astype(object), "class_names holds objects of Python; expected a list")):
        np.savez(file, x_test=COLOURS, y_test=CLASSES, class_names=wrong)
        with pytest.raises(InputError, match=re.escape(words)):
            load_dataset("npz", file, test_alone=True)
    np.save(tmp_path / "one.npy", COLOURS)
    with pytest.raises(InputError, match=r"cannot read the arrays of .*one.npy: it is a single array, as in .npy"):
        load_dataset("npz", tmp_path / "one.npy")


@pytest.mark.parametrize("damage", ["compression", "encryption", "header", "shape"])
def test_every_damage_of_a_file_of_arrays_is_one_sentence(damage, tmp_path):
    file = tmp_path / "own.npz"
    header = {"header": b"((((", "shape": b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}"}
    text = header.get(damage, b"{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}").ljust(117) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00v\x00" + text + b"abc")
    content = bytearray(file.read_bytes())
    directory = content.index(b"PK\x01\x02")
    if damage == "compression":  # Deflate64, which Windows writes
        content[8] = content[directory + 10] = 9
    if damage == "encryption":
        content[6] = content[directory + 8] = 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the arrays of .*own\.npz: .*; expected an \.npz file"):
        load_dataset("npz", file)


def test_a_file_without_usable_arrays_is_named(tmp_path):
    file = tmp_path / "own.npz"
    with pytest.raises(InputError, match=r"own.npz does not exist"):
        load_dataset("npz", file)
    with pytest.raises(InputError, match=r"holds 0 \.npz files"):
        load_dataset("npz", tmp_path)
    for arrays, said in (({"x_train": CLASSES}, "holds x_train; expected x_train, y_train, x_test, y_test"),
                         ({"x_train": np.array([{}]), "y_train": CLASSES}, "cannot read the arrays of .*own.npz"),
                         ({"x_train": COLOURS, "y_train": CLASSES - 1}, "own.npz: a training label is -1")):
        np.savez(file, **arrays)
        with pytest.raises(InputError, match=said):
            load_dataset("npz", file)
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(InputError, match="cannot read the arrays"):
        load_dataset("npz", file)


def test_a_data_set_with_named_classes_keeps_the_names():
    named = Pictures()
    named.classes = ["bird", "cat", "dog"]
    assert own_data(named, named).class_names == ("bird", "cat", "dog")
    assert own_data(Subset(named, range(12)), named).class_names == ("bird", "cat", "dog")
    assert own_data(named, named, class_names=list("abc")).class_names == ("a", "b", "c")
    named.classes = ["too", "few"]
    assert own_data(named, named).class_names == ("0", "1", "2")


def test_a_data_set_is_shown_without_its_pixels():
    shown = str(own_data((COLOURS, CLASSES), (COLOURS, CLASSES)))
    assert "ImageSet(12 images (3, 8, 10), 3 classes)" in shown and len(shown) < 300


# -- training and evaluation ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bright_and_dark():
    """Images whose class is their brightness, and a foreign network that has learned it."""
    labels = torch.arange(80) % 2
    noise = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    data = own_data((0.3 * noise + 0.6 * labels.view(-1, 1, 1, 1), labels))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    said = []
    rows = train(model, data, epochs=3, epsilon=0.1, steps=2, batch_size=16, learning_rate=0.2, log=said.append)
    return data, model, rows, said


def test_a_foreign_network_learns(bright_and_dark):
    _, model, rows, said = bright_and_dark
    assert rows[-1]["adversarial_accuracy"] == 1 > rows[0]["adversarial_accuracy"]
    assert len(rows) == len(said) == 3 and said[-1].startswith("epoch 3/3: loss ")
    assert not model.training


def test_an_evaluation_in_python_has_the_accuracies_of_the_short_way_with_intervals(bright_and_dark):
    data, model, *_ = bright_and_dark
    strengths = (0.1, 0.3, 0.35, 0.45)
    result = evaluate(model, data, strengths=strengths[::-1], check_images=10)
    expected = robust_accuracy(model, BatchLoader(data.test, 5, 0, "test"), strengths)
    assert [row["accuracy"] for row in result["attacks"]] == [row["accuracy"] for row in expected["strengths"]]
    assert 1 == result["clean"]["accuracy"] > result["attacks"][-1]["accuracy"]
    assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in result["attacks"])
    assert result["failed_checks"] == [] and result["check_level"] == "quick" and result["complete"]


def test_two_networks_are_compared_image_by_image_in_a_table_and_a_curve(bright_and_dark, tmp_path):
    data, model, *_ = bright_and_dark
    images = (data.test.images, data.test.labels)
    torch.manual_seed(5)
    results = [evaluate(network, images, (0.1,), checks="none", name=name)
               for name, network in (("trained", model), ("random", nn.Sequential(nn.Flatten(), nn.Linear(64, 2))))]
    rows = differences({result["name"]: result for result in results})
    assert rows[0]["attack"] == "clean" and rows[0]["difference"] == pytest.approx(
        results[1]["clean"]["accuracy"] - results[0]["clean"]["accuracy"])
    assert "trained" in result_table(*results) and "no honesty check ran" in result_table(*results)
    with pytest.raises(InputError, match="different names"):
        result_table(results[0], results[0])
    with pytest.raises(InputError, match="there is no result to show"):
        result_table()
    for nothing in ({}, [results[0]], "trained"):
        with pytest.raises(InputError, match=r"result 2 is an? .*; expected what evaluate returns"):
            result_table(results[0], nothing)
    figure = draw_curve(*results, path=tmp_path / "new" / "curve.png")
    assert len(figure.axes[0].lines) >= 2
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"curve.png", "curve.svg"}
    with pytest.raises(InputError, match=r"path is .*new, a folder; expected the path of a figure in it"):
        draw_curve(*results, path=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(InputError, match="no attack of the norm l2"):
        draw_curve(*results, norm="l2")
    assert draw_curve(evaluate(model, images, protocol="curve", l2_strengths=(0.1, 0.2), checks="none")).axes
    namesakes = draw_curve(*(result | {"name": "network"} for result in results))
    names = [text.get_text() for text in namesakes.axes[0].get_legend().get_texts()]
    assert len({name.partition(" (at chance)")[0] for name in names[:2]}) == 2


@pytest.mark.parametrize(("given", "said"), [
    ((), "there is no result to draw"), (({},), "result 1 has the format None"), ((["list"],), "result 1 is a list"),
    (("eval.json",), "result 1 is a str; expected what evaluate returns")])
def test_a_curve_of_no_result_is_refused_in_words(given, said):
    with pytest.raises(InputError, match=said):
        draw_curve(*given)


def test_drawings_and_reports_take_paths_as_text(tmp_path):
    with pytest.raises(InputError, match="the cell is None; expected a name or a path"):
        wsrnas.load_cell(None)
    assert wsrnas.draw_cell(wsrnas.load_cell("WsrNet_Basic"), str(tmp_path / "cell.png")).is_file()
    with pytest.raises(InputError, match=r"/no/run is not a run directory"):
        wsrnas.write_report("/no/run")
    with pytest.raises(InputError, match="no run to report on; expected a run directory"):
        wsrnas.write_report([])


@pytest.mark.parametrize(("settings", "said"), [
    ({"loss": "adv"}, "unknown loss 'adv'"), ({"epochs": 0}, "epochs is 0"), ({"epsilon": 8}, "epsilon is 8"),
    ({"steps": 0}, "steps is 0"), ({"schedule": "none"}, "unknown schedule 'none'"),
    ({"schedule": "multi-step"}, "unknown schedule 'multi-step'; expected one of constant, cosine, cyclic, one-cycle"),
    ({"loss": "multi", "step_size": 0.1}, "step_size is 0.1, but the loss multi does not read it"),
    ({"step_size": 0.0}, "step_size is 0; expected pixels"), ({"step_size": -1.0}, "step_size is -1; expected pixels"),
    ({"step_size": 2}, "step_size is 2; .*was 2/255 meant"), ({"step_size": (0.1, 0.2)}, "expected one strength"),
    ({"epsilon": (0.1, 0.2)}, "expected one strength"), ({"epsilon": ()}, "expected one strength"),
    ({"loss": "trades", "beta": -1}, "beta is -1; expected a number above 0"), ({"beta": float("nan")}, "beta is nan"),
    ({"weight_decay": -1}, "weight_decay is -1; expected a number of 0 or more"), ({"weight_decay": "no"}, "is 'no'"),
    ({"learning_rate": "0.1"}, "learning_rate is '0.1'"), ({"learning_rate": 0}, "learning_rate is 0; .*above 0"),
    ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ({"strengths": (), "loss": "multi"}, "strengths is empty"),
    ({"epochs": 1.5}, "epochs is 1.5; expected a whole number of at least 1"), ({"steps": 1.5}, "steps is 1.5"),
    ({"batch_size": 0}, "batch_size is 0"), ({"seed": -1}, "seed is -1"), ({"loss": ["pgd"]}, "unknown loss")])
def test_a_training_refuses_unusable_settings(bright_and_dark, settings, said):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    before = model[1].weight.clone()
    with pytest.raises(InputError, match=said):
        train(model, bright_and_dark[0], **settings)
    assert torch.equal(model[1].weight, before)


class Deaf(nn.Linear):
    """A network that no gradient leads through."""

    def forward(self, images):
        return super().forward(images.detach().flatten(1))


@pytest.mark.parametrize(("model", "said"), [
    (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), r"returns \(2, 1\) for 2 images; expected logits \(2, 2\)"),
    (nn.Sequential(nn.Conv2d(1, 2, 3)), r"returns \(2, 2, 6, 6\) for 2 images"),
    (nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), r"cannot take images of shape \(2, 1, 8, 8\) \(RuntimeError: mat1"),
    (Deaf(64, 2), "no gradient for its images, so that no attack moves them")])
def test_a_training_refuses_networks_that_do_not_fit(bright_and_dark, model, said):
    with pytest.raises(InputError, match=said):
        train(model, bright_and_dark[0], epochs=1)
    with pytest.raises(InputError, match="data is a list; expected a data set"):
        train(model, [1, 2])


def test_a_training_leaves_the_network_in_evaluation_mode_whatever_happens(bright_and_dark):
    data = bright_and_dark[0]
    alone = nn.Sequential(nn.Conv2d(1, 2, 8), nn.BatchNorm2d(2), nn.Flatten())
    with pytest.raises(InputError, match="batch_size is 1, and a BatchNorm layer of the network sees one number"):
        train(alone, data, epochs=1, batch_size=1)
    assert not alone.training
    train(Deaf(64, 2), data, epochs=1, loss="standard", log=lambda line: None)  # no attack needs its gradient
    with torch.inference_mode(), pytest.raises(InputError, match=r"torch\.inference_mode"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), data, epochs=1)


def test_a_training_learns_also_where_gradients_are_switched_off(bright_and_dark):
    rows = []
    for context in (contextlib.nullcontext(), torch.no_grad()):
        torch.manual_seed(0)
        with context:
            rows.append(train(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), bright_and_dark[0], epochs=1, epsilon=0.1,
                              step_size="2/255", log=lambda line: None)[0]["loss"])
    assert rows[0] == rows[1]


def test_frozen_weights_are_not_trained(bright_and_dark):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        train(model, bright_and_dark[0])


@pytest.mark.parametrize(("settings", "said"), [
    ({"checks": "some"}, "checks is 'some'"), ({"strengths": (-0.1,)}, "strengths contains -0.1; "),
    ({"strengths": 8}, "was 8/255 meant"), ({"strengths": "eight"}, "strengths is 'eight'; expected a number such as"),
    ({"l2_strengths": 0, "attacks": "pgd-l2"}, "l2_strengths is 0; expected a number above 0"),
    ({"attacks": ("pgd-l2",)}, "no strength for pgd-l2"), ({"attacks": ("autoattack",)}, "the network has 2"),
    ({"attacks": ("pgd-20", "pgd-l2-20")}, "no strength for pgd-l2-20; expected l2_strengths"),
    ({"l2_strengths": 0.5}, "l2_strengths are given, but none of the attacks pgd-20 has that norm"),
    ({"strengths": 0.1, "attacks": "pgd-l2", "l2_strengths": 0.5}, "strengths are given, but none of the attacks"),
    ({"protocol": "curves"}, "protocol is 'curves'"), ({"protocol": "official"}, "protocol is 'official'"),
    ({"protocol": "curve", "attacks": ["pgd"]}, "protocol or attacks"),
    ({"protocol": "curve", "strengths": [0.031372, "8/255"]}, "two strengths are both shown as curve"),
    ({"protocol": "curve", "strengths": (0.1,), "l2_strengths": (0.5,)}, "one norm"),
    ({"protocol": "paper", "strengths": (0.1,)}, "has its own strengths")])
def test_an_evaluation_refuses_unusable_settings(bright_and_dark, settings, said):
    data, model, *_ = bright_and_dark
    with pytest.raises(InputError, match=said):
        evaluate(model, data, **settings)


def test_an_evaluation_computes_without_tf32(bright_and_dark):
    data, model, *_ = bright_and_dark
    seen = set()
    handle = model.register_forward_pre_hook(lambda *_: seen.add(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        evaluate(model, data, 0.1, checks="none")
        assert seen == {False} and torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
        handle.remove()


def test_a_protocol_has_a_name_in_python_too(bright_and_dark):
    data, model, *_ = bright_and_dark
    result = evaluate(model, data, (0.4, 0.2), protocol="curve", checks="none")
    assert [row["epsilon"] for row in result["attacks"]] == [0.2, 0.4] == result["curve"]["strengths"]
    assert "median smallest noise" in result_table(result) and draw_curve(result).axes
    assert evaluate(model, data, protocol="curve", l2_strengths=(2,), checks="none")["curve"]["norm"] == "l2"
    assert len(evaluate(model, data, protocol="paper", checks="none")["attacks"]) == 8


@pytest.mark.parametrize("strengths", ["51/255", 0.2, ["51/255"], np.array([0.2]), torch.tensor(0.2)], ids=repr)
def test_strengths_and_attacks_may_be_one_or_several_and_of_any_kind(bright_and_dark, strengths):
    data, model, *_ = bright_and_dark
    result = evaluate(model, data, strengths, "fgsm", checks="none")
    assert [(row["method"], round(row["epsilon"], 6)) for row in result["attacks"]] == [("fgsm", 0.2)]


@pytest.mark.parametrize(("attacks", "said"), [
    ([], "attacks is empty; expected at least one, or no attacks for PGD-20"), (iter(()), "attacks is empty"),
    (3, "attacks is 3; expected a name, a function")])
def test_no_attacks_are_not_replaced_by_others(bright_and_dark, attacks, said):
    with pytest.raises(InputError, match=said):
        evaluate(bright_and_dark[1], bright_and_dark[0], 0.2, attacks, checks="none")


def test_what_is_no_network_is_named(bright_and_dark):
    with pytest.raises(InputError, match=r"the network is a str; expected a torch\.nn\.Module"):
        evaluate("WsrNet_Basic", bright_and_dark[0])


def darker(model, images, labels, epsilon):
    """Darken every pixel after a look at the gradient."""
    images = images.clone().requires_grad_()
    nn.functional.cross_entropy(model(images), labels).backward()
    return (images - epsilon).detach().clamp(0, 1)


@pytest.fixture
def without_own_attacks():
    before = dict(ATTACKS)
    yield
    ATTACKS.clear()
    ATTACKS.update(before)


@pytest.mark.usefixtures("without_own_attacks")
def test_an_attack_that_works_in_place_is_measured_from_the_image_as_it_was(bright_and_dark):
    def too_far(model, images, labels, epsilon):
        return images.zero_()
    data, model, *_ = bright_and_dark
    with pytest.raises(InputError, match="too_far"):
        evaluate(model, data, "2/255", too_far, checks="none")


def universal(model, images, labels, epsilon):
    return (images + epsilon * torch.ones(1, *images.shape[1:])).clamp(0, 1) if images.shape[1:] == (1, 8, 8) else 1 / 0


def by_class(model, images, labels, epsilon):
    one = nn.functional.one_hot(labels, 2)[:, :1, None, None]
    return (images - epsilon * one).clamp(0, 1) + 0 * model(images)[0, 1]


@pytest.mark.usefixtures("without_own_attacks")
@pytest.mark.parametrize("attack", [universal, by_class])
def test_the_checks_ask_nothing_of_an_attack_of_one_s_own_that_it_was_not_written_for(bright_and_dark, attack):
    """The planted network has other images, labels and classes: PGD stands in."""
    data, model, *_ = bright_and_dark
    result = evaluate(model, data, "2/255", attack, check_images=40)
    planted, = (row for row in result["checks"] if row["check"] == "planted examples are found")
    assert planted["says"].startswith("PGD-20") or planted["passed"] is None


@pytest.mark.usefixtures("without_own_attacks")
def test_two_functions_of_one_name_are_two_attacks_and_refused(bright_and_dark):
    def make(factor):
        def shifted(model, images, labels, epsilon):
            return (images - factor * epsilon).clamp(0, 1)
        return shifted

    data, model, *_ = bright_and_dark
    one, other = make(0.1), make(1.0)
    with pytest.raises(InputError, match="two attacks of your own are called 'shifted'"):
        evaluate(model, data, "16/255", [one, other], checks="none")
    evaluate(model, data, "16/255", [one, one], checks="none")


def statistics(model, images, labels, epsilon):
    model.train()
    return images + 0 * model(images)[:, :1, None, None]


def weights(model, images, labels, epsilon):
    for weight in model.parameters():
        weight.data.zero_()
    return images


@pytest.mark.usefixtures("without_own_attacks")
@pytest.mark.parametrize("attack", [statistics, weights])
def test_an_attack_that_changes_the_network_is_refused_and_undone(attack, bright_and_dark):
    data, *_ = bright_and_dark
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=f"the attack {attack.__name__} changes the network"):
        evaluate(network, data, "2/255", attack, checks="none")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def few(model, images):
    return images


def failing(model, images, labels, epsilon):
    weights(model, images, labels, epsilon)
    raise KeyError("step")


def too_large(model, images, labels, epsilon):
    raise MemoryError


@pytest.mark.usefixtures("without_own_attacks")
@pytest.mark.parametrize(("attack", "words"), [(few, "takes 2 positional arguments but 4 were given"),
                                               (failing, "KeyError: 'step'")])
def test_an_attack_that_raises_is_named(attack, words, bright_and_dark):
    data, model, *_ = bright_and_dark
    with pytest.raises(InputError, match=f"the attack {attack.__name__} raised .*{words}.*; expected a fun") as got:
        evaluate(model, data, "2/255", attack, checks="none")
    assert isinstance(got.value.__cause__, TypeError | KeyError)
    assert all(value.abs().sum() > 0 for value in model.parameters())  # what it changed is undone


@pytest.mark.usefixtures("without_own_attacks")
def test_memory_that_an_attack_lacks_is_not_its_fault(bright_and_dark):
    data, model, *_ = bright_and_dark
    with pytest.raises(MemoryError):
        evaluate(model, data, "2/255", too_large, checks="none")


class Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("ones", torch.ones(1).expand(3))  # nothing can be copied into it

    def forward(self, images):
        self.calls += 1
        self.last = images.detach().clone()
        return self.network(images)


@pytest.mark.usefixtures("without_own_attacks")
def test_a_network_that_counts_its_calls_is_not_the_attack_s_doing(bright_and_dark):
    network = Counting(copy.deepcopy(bright_and_dark[1])).eval()
    assert evaluate(network, bright_and_dark[0], "2/255", darker, checks="none")["attacks"]
    images = torch.rand(4, 1, 8, 8)
    network.calls.zero_()
    before = numbers_of(network)
    network(images)
    refuse_changes("attack", network, before, images)
    assert network.calls == 2 and network.last.equal(1 - images)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(InputError, match=r"changes the network \(network"):
        refuse_changes("attack", network, before, images)
    assert changed_since(network, before) == ["calls", "last"]


@pytest.mark.usefixtures("without_own_attacks")
def test_a_function_is_an_attack(bright_and_dark):
    data, model, *_ = bright_and_dark
    result = evaluate(model, data, (0.1, 0.45), [darker, "pgd-2"], check_images=10)
    own = result["attacks"][1]
    assert "darker  eps 0.4500" in result_table(result)
    right = model((data.test.images / 255 - 0.45).clamp(0, 1)).argmax(1) == data.test.labels
    assert own["accuracy"] == right.double().mean() < 1 and own["passes"] == [1, 1]
    with pytest.raises(InputError, match="<lambda>"):
        evaluate(model, data, attacks=[lambda *given: given[1]])
    darker.__name__ = "pgd"
    with pytest.raises(InputError, match="no other attack"):
        evaluate(model, data, attacks=[darker])
    darker.__name__ = "darker_x2"
    with pytest.raises(InputError, match="end in x and digits"):
        evaluate(model, data, attacks=[darker])


@pytest.mark.usefixtures("without_own_attacks")
@pytest.mark.parametrize(("returned", "said"), [
    (lambda images, epsilon: images[:1], r"returned torch.float32 \(1, 1, 8, 8\); expected torch.float32 \(16, "),
    (lambda images, epsilon: images.double(), "returned torch.float64"),
    (lambda images, epsilon: images * float("nan"), "pixels from nan to nan"),
    (lambda images, epsilon: images + 0.5, r"expected \[0, 1\]"),
    (lambda images, epsilon: (images + 1.01 * epsilon).clamp(0, 1), "outside its ball: its noise is 0.0"),
    (lambda images, epsilon: None, "returned None")],
    ids=["fewer", "doubles", "nan", "too bright", "too far", "nothing"])
def test_what_is_no_image_in_the_ball_is_no_result(bright_and_dark, returned, said):
    def mine(model, images, labels, epsilon):
        return returned(images, epsilon)

    with pytest.raises(InputError, match=said):
        evaluate(bright_and_dark[1], bright_and_dark[0], (0.05,), [mine], checks="none")


class Odd(nn.Module):
    """A linear network with something behind it."""

    def __init__(self, behind) -> None:
        super().__init__()
        self.linear, self.behind = nn.Linear(64, 2), behind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.behind(self.linear(images.flatten(1)))


@pytest.mark.parametrize(("behind", "said"), [
    (lambda z: z.squeeze(), r"\.squeeze\(\)"), (lambda z: z.detach(), "network has no gradient"),
    (lambda z: (z, z), "returns a tuple"), (lambda z: z / 0, "NaN or infinite"), (lambda z: z[:, 0], "shape")])
def test_an_evaluation_in_python_passes_the_door_of_all_evaluations(bright_and_dark, behind, said):
    with pytest.raises(InputError, match=said):
        evaluate(Odd(behind), bright_and_dark[0])


def test_a_network_in_python_is_adapted_and_left_as_it_was(bright_and_dark):
    data, said = bright_and_dark[0], []
    model = Odd(lambda z: z.half())
    result = evaluate(model, data, (0.1,), ("pgd-2",), checks="none", log=said.append)
    assert said[0] == f"network: {result['notes'][0]}" and "become float32" in said[0]
    assert model.training and all(p.requires_grad for p in model.parameters())
    blind = evaluate(Odd(lambda z: z.detach()), data, (0.1,), ("noise-2",), checks="none")
    assert "no gradient" in blind["notes"][0]


# -- files ----------------------------------------------------------------------------------------------------------

def test_a_saved_network_is_opened_with_the_same_logits(tmp_path):
    data = own_data((COLOURS, CLASSES), (COLOURS, CLASSES))
    model = build_model("WsrNet_Basic", 3, init_channels=2, layers=3).eval()
    file = save_model(model, tmp_path / "new" / "own.pt", "WsrNet_Basic", data, 2, 3, epochs=5, loss="pgd")
    opened = open_model(str(file))
    images = COLOURS.float() / 255
    assert torch.equal(opened.model(images), model(images))
    assert opened.record["config"] == {"epochs": 5, "loss": "pgd"}
    with pytest.raises(InputError, match="is not WsrNet_Basic with 2 channels, 4 layers and 3 classes"):
        save_model(model, file, "WsrNet_Basic", data, 2, 4)


# -- the example ----------------------------------------------------------------------------------------------------

def test_the_notebook_has_the_cells_of_its_script_and_their_output():
    stored = json.loads(EXAMPLE.with_suffix(".ipynb").read_text())["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in stored] == cells(EXAMPLE.read_text()), (
        "python -m docs.write_notebook writes it")
    printed = "".join(line for cell in stored for output in cell.get("outputs", ()) for line in output.get("text", ()))
    assert "epoch 3/3" in printed and "same logits: True" in printed
    assert [output["output_type"] for cell in stored for output in cell.get("outputs", ())
            if "image/png" in output.get("data", {})] == ["execute_result"]


@pytest.fixture
def few_digits(quick_programs, monkeypatch):
    """Every twentieth small digit to train, every third to test."""
    def load(request):
        parts = source.load(request)
        return parts._replace(train=parts.train.subset(torch.arange(0, 1438, 20)),
                              test=parts.test.subset(torch.arange(0, 359, 3)))
    source = DATASETS["digits"]
    monkeypatch.setitem(DATASETS, "digits", dataclasses.replace(source, load=load))


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_the_example_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("retrain.publishing.writing.check_in_fresh_process", lambda *given: None)
    runpy.run_path(str(EXAMPLE))
    folder, = tmp_path.glob("first_steps_*")
    assert "same logits: True" in capsys.readouterr().out
    assert (folder / "curve.svg").is_file() and (folder / "package" / "my_digits.py").is_file()


def test_short_ways_name_what_they_cannot_take():
    pairs = [(torch.zeros(2, 3, 8, 8), torch.zeros(2))]
    with pytest.raises(InputError, match=r"the loader is a list; expected one of wsrnas\.BatchLoader"):
        robust_accuracy(torch.nn.Linear(1, 1), pairs, [0.1])
    for wrong in ({}, [{}], {"clean": 1.0, "attacks": []}):
        with pytest.raises(InputError, match="expected a dictionary from names to them"):
            differences(wrong)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: build_model("WsrNet_Basic", layers="8"), "layers is '8'; expected a whole number"),
    (lambda: build_model("WsrNet_Basic", num_classes=2.5), r"num_classes is 2\.5; expected a whole number"),
    (lambda: wsrnas.open_model(None), "the network is None; expected the path"),
    (lambda: wsrnas.run("export", "--model", "zzz"), "no checkpoint at zzz; expected a run directory of a retraining")])
def test_what_has_the_wrong_type_is_refused_in_words(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_an_evaluation_without_gradients_says_what_it_is_worth(bright_and_dark):
    data, model, *_ = bright_and_dark
    weak = evaluate(model, data, 0.1, ["noise", "square-2"], checks="none")
    assert any("no attack of this evaluation follows gradients" in sentence for sentence in caveats(weak))
    strong = evaluate(model, data, 0.1, ["noise", "fgsm"], checks="none")
    assert not any("follows gradients" in sentence for sentence in caveats(strong))
    assert set(BLACK_BOX) == {name for name, entry in ATTACKS.items() if not entry.white_box}


def test_a_data_set_keeps_its_pixels_when_the_array_is_filled_again():
    pixels, labels = np.arange(8 * 8 * 8 * 3).astype(np.uint8).reshape(8, 8, 8, 3), np.arange(8) % 2
    data = own_data((pixels, labels), (pixels, labels))
    before = data.train.fingerprint(), data.test.fingerprint()
    pixels[:], labels[:] = 0, 0
    assert (data.train.fingerprint(), data.test.fingerprint()) == before


@pytest.mark.parametrize("names, words", [
    (["a", "a"], "class_names has a name twice"), ("ab", "class_names is 'ab'"), (3, "class_names is 3"),
    (None, "class_names is None"), ({"a", "b"}, "class_names is {"),
    (["a", ""], "a name that is empty"), (["a", "b\n"], "line breaks"), ([1, 1], "a name twice")])
def test_class_names_that_an_npz_may_not_have_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        own_data((COLOURS, CLASSES), (COLOURS, CLASSES), class_names=names)


def test_class_names_may_be_the_classes_of_numpy():
    data = own_data((COLOURS, CLASSES), (COLOURS, CLASSES), class_names=list(np.arange(int(CLASSES.max()) + 1)))
    assert json.loads(json.dumps(data.fingerprint()))["classes"][:2] == ["0", "1"]


def test_initial_weights_leave_the_random_numbers_of_a_gpu_alone(monkeypatch):
    """``torch.manual_seed`` seeds those, too, and nothing would restore them."""
    def seeds_all(seed):
        raise AssertionError("every device is seeded")
    monkeypatch.setattr(torch, "manual_seed", seeds_all)
    before = torch.get_rng_state()
    with seeded_weights(1):
        first = torch.rand(3)
    with seeded_weights(1, "others"):
        others = torch.rand(3)
    with seeded_weights(1):
        assert torch.equal(torch.rand(3), first) and not torch.equal(others, first)
    assert torch.equal(torch.get_rng_state(), before)
