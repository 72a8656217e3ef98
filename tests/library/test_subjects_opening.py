"""Networks from every kind of place give the same logits and gradients; files that hold no network are refused."""

import argparse
import copy
import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import genotypes
from tests.quick import slow_after
from tests.subjects import CLASSES, batch, export, network, refused_by_check
from wsrnas.attacks import pgd
from wsrnas.genotype import Genotype
from wsrnas.models import build_model, description
from wsrnas.runtime import checkpoint, errors
from wsrnas.runtime.errors import InputError
from wsrnas.subjects import user_function
from wsrnas.subjects.checking import check_model
from wsrnas.subjects.opening import find_checkpoint, open_model
from wsrnas.subjects.program_mode import can_train, uses_batch_norm
from wsrnas.subjects.stored_program import ExportedNetwork

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning",
                                        "ignore::torch.jit.TracerWarning")
GENOTYPE = genotypes.load("WsrNet_Basic")


def refused(*arguments, **keywords) -> str:
    with pytest.raises(InputError) as caught:
        open_model(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message
    return message


def attack(model: nn.Module, count: int = 9) -> Tensor:
    return pgd(model, *batch(count), 0.1, 3)


def same_function(opened: nn.Module, model: nn.Module, counts: tuple[int, ...] = (9, 1)) -> None:
    """Equal logits; equal adversarial images, which are equal gradients; nothing left trainable."""
    assert not any(parameter.requires_grad for parameter in opened.parameters())
    for count in counts:
        images, _ = batch(count)
        torch.testing.assert_close(opened(images), model(images))
        adversarial = attack(opened, count)
        torch.testing.assert_close(adversarial, attack(model, count))
        assert ((adversarial - images).abs().amax((1, 2, 3)) > 0.05).all(), "no gradient reached the images"


# -- checkpoints of retraining --------------------------------------------------------------------------------------


def cells(seed: int = 0, genotype: Genotype = GENOTYPE, dataset: str = "cifar10") -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(genotype, CLASSES, 4, 3, dataset)
    model(torch.rand(4, 3, 32, 32))
    return model.eval()


def save(path: Path, model: nn.Module, genotype: Genotype = GENOTYPE) -> Path:
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, {"model": model.state_dict(), "step": 3,
                           "network": description(genotype, CLASSES, 4, 3, "cifar10", (3, 32, 32))})
    return path


def test_a_run_directory_gives_its_best_or_last_network(tmp_path):
    best, last = cells(0), cells(1)
    save(tmp_path / "basic" / "best.pt", best)
    save(tmp_path / "basic" / "checkpoint.pt", last)
    (tmp_path / "basic" / "config.json").write_text("{}")
    images = torch.rand(2, 3, 32, 32)
    for weights, model, file in (("best", best, "best.pt"), ("last", last, "checkpoint.pt")):
        for given in (tmp_path / "basic", tmp_path / "basic" / file):
            opened = open_model(str(given), weights)
            assert torch.equal(opened.model(images), model(images)) and not opened.model.training
            assert (opened.name, opened.folder) == ("basic", tmp_path / "basic")
            assert opened.source == str(tmp_path / "basic" / file)
            assert Genotype.from_json(opened.description["genotype"]) == GENOTYPE and opened.description["layers"] == 3
            assert not any(parameter.requires_grad for parameter in opened.model.parameters())


@pytest.mark.parametrize("file, name", [("wide.pt", "wide"), ("best.pt", "weights"), ("checkpoint.pt", "weights")])
def test_a_checkpoint_outside_a_run_directory_has_no_folder(tmp_path, file, name):
    opened = open_model(str(save(tmp_path / "weights" / file, cells())))
    assert (opened.name, opened.folder) == (name, None)


def test_a_run_directory_given_as_the_working_directory_has_a_name(tmp_path, monkeypatch):
    save(tmp_path / "basic" / "best.pt", cells())
    monkeypatch.chdir(tmp_path / "basic")
    assert open_model(".").name == "basic"


def test_what_is_no_checkpoint_is_named(tmp_path):
    assert f"no checkpoint at {tmp_path}/none.pt; expected a file" in refused(str(tmp_path / "none.pt"))
    assert "no checkpoint at" in refused(str(tmp_path))
    assert refused("WsrNet_Basic").endswith("or the name of an architecture with its weights as --state_dict")
    save(tmp_path / "run" / "checkpoint.pt", cells())
    assert "--weights last" in refused(str(tmp_path / "run"))
    assert find_checkpoint(str(tmp_path / "run"), "last") == tmp_path / "run" / "checkpoint.pt"
    (tmp_path / "run" / "genotype.json").write_text("{}")  # a search's directory
    assert f"no checkpoint at {tmp_path}/run/best.pt" in refused(str(tmp_path / "run"))


# -- functions of a user's file -------------------------------------------------------------------------------------

NETWORK_FILE = """
from __future__ import annotations  # dataclasses then look their module up
from dataclasses import dataclass
import torch
from torch import nn
from parts import WIDTH, features

@dataclass
class Sizes:
    width: int = WIDTH

def build():
    torch.manual_seed(0)
    return nn.Sequential(*features(Sizes().width), nn.Linear(36 * WIDTH, 5)).eval()

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(*build())
        self.eval()
"""
PARTS_FILE = """
from torch import nn
WIDTH = {width}
def features(width):
    return [nn.Conv2d(3, width, 3), nn.Tanh(), nn.Flatten()]
"""


def user_folder(folder: Path, width: int = 2, **files: str) -> Path:
    """A folder with ``net.py``, which builds a network out of ``parts.py``, and other files."""
    folder.mkdir(exist_ok=True)
    for name, text in {"net": NETWORK_FILE, "parts": PARTS_FILE.format(width=width), **files}.items():
        (folder / f"{name}.py").write_text(text)
    return folder / "net.py"


@pytest.mark.parametrize("function", ["build", "Net"])
def test_a_function_or_a_class_of_a_file(tmp_path, function):
    paths = list(sys.path)
    opened = open_model(f"{user_folder(tmp_path)}:{function}")
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 5)).eval()
    same_function(opened.model, expected)
    assert (opened.name, opened.description, opened.folder) == (f"net.{function}", None, None)
    assert opened.source == f"{tmp_path}/net.py:{function}"
    assert sys.path == paths and "net" not in sys.modules


@pytest.mark.slow
def test_files_of_one_name_in_two_folders_do_not_mix(tmp_path):
    files = [user_folder(tmp_path / str(width), width) for width in (2, 3, 5)]
    for file, width in zip(files, (2, 3, 5), strict=True):
        assert open_model(f"{file}:build").model[0].out_channels == width
    assert open_model(f"{files[0]}:build").model[0].out_channels == 2


@pytest.mark.slow
def test_a_folders_own_modules_are_loaded_once(tmp_path):
    counting = ("from pathlib import Path\nwith Path(__file__).with_name('log').open('a') as log:\n"
                "    log.write('x')\n")
    file = user_folder(tmp_path, net=NETWORK_FILE + "import loaded_once\n", loaded_once=counting)
    for function in ("build", "Net"):
        open_model(f"{file}:{function}")
    assert (tmp_path / "log").read_text() == "x"


@pytest.mark.parametrize("layout", ["genotypes.py", "genotypes/__init__.py"])
def test_a_users_file_hides_a_loaded_module_of_its_name_for_as_long_as_it_runs(tmp_path, layout):
    file = user_folder(tmp_path, net="import genotypes, parts, torch, json, wsrnas.models\n"
                                     "def build(): return parts.features(genotypes.WIDTH)[0].eval()\n")
    (tmp_path / layout).parent.mkdir(exist_ok=True)
    (tmp_path / layout).write_text("WIDTH = 7\n")
    (tmp_path / "torch").mkdir()  # of pictures, say: not what `import torch` means
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    before = {name: module for name, module in sys.modules.items() if name.startswith(("wsrnas", "torch.nn"))}
    assert open_model(f"{file}:build").model.out_channels == 7
    assert sys.modules["genotypes"] is genotypes and sys.modules["torch"] is torch
    assert {name: sys.modules[name] for name in before} == before


@pytest.mark.slow
def test_folders_without_an_init_file_do_not_mix_either(tmp_path):
    for width in (2, 3):
        file = user_folder(tmp_path / str(width), net="from layers.first import build\n")
        (file.parent / "layers").mkdir()
        (file.parent / "layers" / "first.py").write_text(
            f"from torch import nn\ndef build(): return nn.Conv2d(3, {width}, 3).eval()\n")
        assert open_model(f"{file}:build").model.out_channels == width


@pytest.mark.parametrize("text, name, named", slow_after(5, [
    ("def build(): pass", "built", "names no function of the file; expected FILE.py:FUNCTION; it has build"),
    ("def build(): pass", "", "names no function of the file"),
    ("build = 3", "build", "is an int; expected a function"),
    ("from torch import nn\nbuild = nn.Linear(2, 2)", "build", "is a Linear; expected a function"),
    ("def build(width, depth=3): pass", "build", "needs arguments (missing a required argument: 'width')"),
    ("def build(): return 1, 2", "build", "returned a tuple; expected a torch.nn.Module"),
    ("def build(): pass", "build", "returned None"),
    ("\n\ndef build():\n    raise KeyError('width')", "build", "raised KeyError: 'width' (line 4 of net.py)"),
    ("import parts\ndef build():\n    parts.features()", "build", "raised TypeError: features() missing 1 required "
     "positional argument: 'width' (line 3 of net.py)"),
    ("import helper\n", "build", "raised ValueError: first (line 2 of helper.py)"),
    ("def build():\n    import torch\n    torch.ones(2) @ torch.ones(3)", "build", "(line 3 of net.py)"),
    ("import json\ndef build():\n    json.loads('{')", "build", "(line 3 of net.py)"),
    ("import sys, os\nsys.path.append(os.path.dirname(__file__) + '/site-packages')\nimport library", "build",
     "raised OSError: no (line 3 of net.py)"),
    ("import nowhere_to_be_found", "build", "raised ModuleNotFoundError: No module named 'nowhere_to_be_found' (line "
     "1 of net.py)"),
    ("\ndef build() return", "build", "(line 2 of net.py)"),
    ("\0", "build", "raised SyntaxError"),
    ("import sys\ndef build():\n    sys.exit('usage')", "build", "raised SystemExit: usage (line 3 of net.py)"),
    ("from torch import nn\ndef build(): return nn.LazyLinear(3).eval()", "build", "belongs to a lazy layer"),
    ("import torch\ndef build(): return torch.nn.Linear(3, 3, device='meta').eval()", "build", "cannot be read"),
]))
def test_what_goes_wrong_in_a_users_file_is_one_sentence(tmp_path, monkeypatch, text, name, named):
    monkeypatch.setattr(sys, "path", list(sys.path))
    paths, ours = list(sys.path), sys.modules["genotypes"]
    file = user_folder(tmp_path, net=text, helper="\nraise ValueError('first\\nsecond')", genotypes="")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "library.py").write_text("\nraise OSError('no')")
    message = refused(f"{file}:{name}")
    assert named in message and "net.py" in message
    added = f"{tmp_path}/site-packages"  # by a user's file
    assert [path for path in sys.path if path != added] == paths and sys.modules["genotypes"] is ours


def test_a_file_beside_the_users_code_is_found_for_them(tmp_path):
    (tmp_path / "weights.pt").touch()
    file = user_folder(tmp_path, net="def build(): open('weights.pt')")
    assert f"looked for in {Path.cwd()}, and is in {tmp_path}: expected Path(__file__)" in refused(f"{file}:build")


def test_a_missing_file_and_a_file_without_a_function(tmp_path):
    assert f"no Python file at {tmp_path}/none.py" in refused(f"{tmp_path}/none.py:build")
    assert "it has Sizes, build, Net" in refused(str(user_folder(tmp_path)))


# -- TorchScript and torch.export -----------------------------------------------------------------------------------


def frozen(model: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(model))


@pytest.mark.parametrize("make", slow_after(1, [torch.jit.script, lambda m: torch.jit.trace(m, batch(4)[0]), frozen]))
def test_torchscript_by_its_contents_and_not_its_name(tmp_path, make):
    model = network()
    for name in ("wide.pt", "wide.pt2", "wide"):
        make(model).save(str(tmp_path / name))
        opened = open_model(str(tmp_path / name))
        assert (opened.name, opened.source, opened.description) == ("wide", str(tmp_path / name), None)
    same_function(opened.model, model)
    check_model(opened.model, *batch(), CLASSES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    """One network exported for batches of several kinds: their least and greatest numbers of images."""
    folder, rows = tmp_path_factory.mktemp("exported"), torch.export.Dim
    return {"any": export(folder / "any.pt", network(), rows=rows("rows")),
            "4": export(folder / "4.pt2", network()), "1": export(folder / "1.pt2", network(), 1),
            "at most 6": export(folder / "most.pt2", network(), rows=rows("rows", max=6)),
            "at least 3": export(folder / "least.pt2", network(), rows=rows("rows", min=3)),
            "hint": export(folder / "hint.pt2", network(), rows=rows.AUTO)}


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["any", "4", "1", "at most 6", "at least 3", "hint"])
def test_an_exported_program_takes_any_number_of_images(exported, rows):
    opened = open_model(str(exported[rows]))
    same_function(opened.model, network(), (9, 4, 1, 3, 8))
    assert opened.model(batch(0)[0]).shape == (0, CLASSES)
    check_model(opened.model, *batch(), CLASSES)


@pytest.mark.slow
def test_an_exported_program_is_asked_for_no_more_images_than_needed(exported):
    for rows, calls in (("any", [9]), ("4", [4, 4, 4]), ("at most 6", [6, 3]), ("at least 3", [9])):
        model, seen = open_model(str(exported[rows])).model, []
        program = model.program
        model.program = None
        model.__dict__["program"] = lambda x, program=program, seen=seen: seen.append(len(x)) or program(x)
        del model._modules["program"]  # private: torch lets no function take the place of a child
        model(batch(9)[0])
        assert seen == calls, rows


@pytest.mark.slow
def test_an_exported_program_has_one_mode(exported):
    model = open_model(str(exported["4"])).model
    assert isinstance(model, ExportedNetwork) and model.train() is model and model.eval() is model
    same_function(model, network())


@pytest.mark.slow
def test_an_exported_program_can_be_moved(exported):
    model = open_model(str(exported["4"])).model.to("cpu", memory_format=torch.channels_last)
    images = batch(6)[0].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), network()(images))


class Wrapped(nn.Module):
    """A network of Python around a stored program."""

    def __init__(self, program: nn.Module, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList([program, *layers])

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = layer(images)
        return images


def without_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, CLASSES)).eval()


def stored(path: Path, model: nn.Module, kind: str) -> nn.Module:
    """The network as it is opened again, or ``model`` itself."""
    if kind == "plain":
        return model
    if kind.startswith("exported"):
        program = torch.export.export(model, (batch(4)[0],))
        torch.export.save(program.run_decompositions() if kind == "exported, decomposed" else program, path)
    else:
        script = {"scripted": torch.jit.script, "frozen": frozen,
                  "traced": lambda m: torch.jit.trace(m, batch(4)[0])}[kind]
        script(model).save(str(path))
    return open_model(str(path)).model


@pytest.mark.slow
@pytest.mark.parametrize("kind, trains", [("plain", True), ("scripted", True), ("traced", False), ("frozen", False),
                                          ("exported", False), ("exported, decomposed", False)])
def test_batch_norm_and_the_training_mode_of_stored_programs(tmp_path, kind, trains):
    bare = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, CLASSES)).eval()  # none to fold it into
    opened = stored(tmp_path / "a.pt", bare, kind)
    without = stored(tmp_path / "without.pt", without_batch_norm(), kind)
    for wrap in (lambda m: m, Wrapped):
        model, other = wrap(opened).eval(), wrap(without).eval()
        assert uses_batch_norm(model) and can_train(model) == trains
        before = model(batch()[0])
        with torch.no_grad():
            assert torch.equal(model.train()(batch()[0]), before) != trains, "train() itself says otherwise"
        assert not uses_batch_norm(other) and can_train(other) == (not kind.startswith("exported"))


def test_batch_norm_beside_or_folded_into_a_program(tmp_path):
    script = stored(tmp_path / "a.pt", nn.Conv2d(3, 3, 1).eval(), "scripted")
    assert uses_batch_norm(Wrapped(script, nn.BatchNorm2d(3))) and can_train(Wrapped(script, nn.BatchNorm2d(3)))
    assert not uses_batch_norm(stored(tmp_path / "b.pt", network(), "frozen"))
    layers = torch.jit.script(Wrapped(nn.Identity(), nn.BatchNorm2d(3)).eval())  # a list of layers has no graph
    assert uses_batch_norm(layers) and can_train(layers)
    assert not uses_batch_norm(torch.jit.script(Wrapped(nn.Identity(), nn.InstanceNorm2d(3)).eval()))


class Two(nn.Module):
    """A network of two inputs, or with two outputs."""

    def __init__(self, inputs: bool):
        super().__init__()
        self.body, self.inputs = network(), inputs

    def forward(self, images: Tensor, other: Tensor | None = None):
        return self.body(images) + other if self.inputs else (self.body(images), images)


@pytest.mark.slow
def test_exported_programs_of_other_inputs_and_outputs(tmp_path):
    program = torch.export.export(Two(True).eval(), (batch(4)[0], torch.ones(1)))
    torch.export.save(program, tmp_path / "two.pt2")
    assert "takes 2 inputs; expected images alone" in refused(str(tmp_path / "two.pt2"))
    model = open_model(str(export(tmp_path / "pair.pt2", Two(False).eval()))).model
    assert "returns a tuple of 2" in refused_by_check(model)


@pytest.mark.slow
@pytest.mark.parametrize("operation, named", [(nn.BatchNorm2d(3), "batch_norm"), (nn.Dropout(0.5), "dropout")])
@pytest.mark.parametrize("decomposed", [False, True])
def test_a_program_exported_in_training_mode_is_refused(tmp_path, operation, named, decomposed):
    program = torch.export.export(nn.Sequential(operation, nn.Flatten(), nn.Linear(192, CLASSES)).train(),
                                  (batch(4)[0],))
    torch.export.save(program.run_decompositions() if decomposed else program, tmp_path / "a.pt2")
    message = refused_by_check(open_model(str(tmp_path / "a.pt2")).model)
    assert "exported in training mode" in message and named in message


def test_batch_statistics_without_running_ones_are_a_mode_of_their_own(tmp_path):
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(192, CLASSES)).eval()
    check_model(model, *batch(), CLASSES)
    check_model(open_model(str(export(tmp_path / "a.pt2", model, 9))).model, *batch(), CLASSES)


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "?")
    return path


@pytest.mark.parametrize("names, named", [
    (["a/data.pkl", "a/constants.pkl"], r"the TorchScript file .*a\.pt cannot be loaded \("),
    (["a/models/model.json"], r"the torch\.export file .*a\.pt cannot be loaded \("),
    (["serialized_exported_program.json"], r"the torch\.export file .*a\.pt cannot be loaded \("),
    (["a/data/aotinductor/model/a.so"], "compiled package of AOTInductor"),
    (["word/document.xml"], r"a\.pt cannot be read"),
])
def test_archives_that_are_broken_or_something_else(tmp_path, names, named):
    assert re.search(named, refused(str(archive(tmp_path / "a.pt", *names))))


# -- weights with the name of their architecture --------------------------------------------------------------------


def wrapped(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {"".join(prefixes) + key: value for key, value in state.items()}


@pytest.mark.parametrize("form", slow_after(2, [
    lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "optimizer": {"state": {}}},
    lambda s: wrapped(s, "module."), lambda s: {"state_dict": wrapped(s, "_orig_mod.")},
    lambda s: wrapped(s, "module.", "_orig_mod."), lambda s: wrapped(s, "_orig_mod.", "module."),
    lambda s: {k: v.double() for k, v in s.items()}, lambda s: {"net": s, "acc": 94.1, "epoch": 3},
    lambda s: {"model_state_dict": s}, lambda s: {"state_dict": s, "best_acc": np.float64(94), "n": np.int64(3)},
    lambda s: {k: v for k, v in s.items() if "num_batches_tracked" not in k},
    lambda s: {"n_averaged": torch.tensor(7), **wrapped(s, "module.")}, lambda s: {"state_dict_ema": s},
    lambda s: {"state_dict": wrapped(s, "module.", "model.")}, lambda s: wrapped(s, "net."),
]))
def test_weights_of_a_named_architecture(tmp_path, form):
    model = cells()
    torch.save(form(model.state_dict()), tmp_path / "w.pth")
    opened = open_model("WsrNet_Basic", genotype=GENOTYPE, state_dict=str(tmp_path / "w.pth"), num_classes=CLASSES)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(opened.model(images), model(images)) and not opened.model.training
    assert opened.description == description(GENOTYPE, CLASSES, 4, 3, "cifar10", (3, 32, 32))
    assert (opened.name, opened.folder) == ("WsrNet_Basic", None)
    assert opened.source == f"WsrNet_Basic with {tmp_path}/w.pth"


def test_weights_of_a_network_for_large_images(tmp_path):
    model = cells(dataset="imagenet")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    opened = open_model("runs/x/genotype.json", genotype=GENOTYPE, state_dict=str(tmp_path / "w.pth"),
                        num_classes=CLASSES, dataset="imagenet", image_shape=(3, 64, 64))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(opened.model(images), model(images))
    assert (opened.description["init_channels"], opened.description["layers"], opened.name) == (4, 3, "x")


@pytest.mark.parametrize("change, arguments, named", slow_after(3, [
    (lambda s: {k: v for k, v in s.items() if "stem" not in k}, {"init_channels": 4},
     "4 channels, 3 layers and 5 classes: the file lacks stem.conv.weight (and 5 more)"),
    (lambda s: {**s, "extra.weight": torch.ones(1)}, {}, "the network has no extra.weight"),
    (lambda s: s, {"num_classes": 100}, "classifier.weight has shape (5, 64), expected (100, 64) (and 1 more)"),
    (lambda s: s, {"init_channels": 8}, "stem.conv.weight has shape (12, 3, 3, 3), expected (24, 3, 3, 3)"),
    (lambda s: s, {"layers": 4}, "4 channels, 4 layers and 5 classes: the file lacks cells."),
    (lambda s: s, {"image_shape": (1, 32, 32)}, "stem.conv.weight has shape (12, 3, 3, 3), expected (12, 1, 3, 3)"),
    (lambda s: s, {"dataset": "imagenet"}, "the file lacks normalize.mean"),
    (lambda s: network().state_dict(), {}, "36 channels, 20 layers and 5 classes: the file lacks stem.conv.weight"),
    (lambda s: {"epoch": 3, "log": []}, {}, "holds no weights but {'epoch': int, 'log': list}"),
    (lambda s: {"state_dict": s, "state_dict_ema": s}, {}, "several sets of weights ('state_dict', 'state_dict_ema')"),
    (lambda s: {}, {}, "holds no weights"),
    (lambda s: [1], {}, "expected a dictionary"),
]))
def test_weights_that_do_not_fit_are_named(tmp_path, change, arguments, named):
    torch.save(change(cells().state_dict()), tmp_path / "w.pth")
    message = refused("WsrNet_Basic", genotype=GENOTYPE, state_dict=str(tmp_path / "w.pth"),
                      **{"num_classes": CLASSES, **arguments})
    assert named in message and "w.pth" in message


def pooled() -> tuple[Genotype, Genotype]:
    """Two genotypes that differ only in an operation without weights."""
    return tuple(Genotype([(name, 0), ("sep_conv_3x3", 1)], [2], [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)], [2])
                 for name in ("skip_connect", "avg_pool_3x3"))


def test_weights_of_another_genotype_are_refused_even_where_they_fit(tmp_path):
    one, other = pooled()
    path = str(save(tmp_path / "best.pt", cells(genotype=one), one))
    assert open_model("one", genotype=one, state_dict=path, num_classes=CLASSES).description["init_channels"] == 4
    assert "another genotype" in refused("other", genotype=other, state_dict=path, num_classes=CLASSES)


def test_an_architecture_and_its_weights_need_one_another(tmp_path):
    assert "architecture without weights" in refused("RACL", genotype=genotypes.load("RACL"))
    path = str(save(tmp_path / "best.pt", cells()))
    assert "needs the name of its architecture" in refused(path, state_dict=path)


# -- files that are no network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload, named", [
    (lambda: network(), "a pickled torch.nn.modules.container.Sequential, and reading it could run any code"),
    (lambda: {"state_dict": network().state_dict(), "args": argparse.Namespace()}, "a pickled argparse.Namespace"),
    (lambda: network().state_dict(), "weights without their architecture"),
    (lambda: {"state_dict": network().state_dict()}, "weights without their architecture"),
    (lambda: {"step": 1, "searcher": {"step": 2}}, "not a checkpoint of retraining"),
])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_weights_or_objects_alone_is_refused(tmp_path, payload, named, zipped):
    torch.save(payload(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)  # private: torch's old format
    message = refused(str(tmp_path / "a.pt"))
    assert named in message and f"{tmp_path}/a.pt" in message


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", None])
def test_a_damaged_file_is_refused(tmp_path, data):
    if data is None:
        torch.jit.script(network()).save(str(tmp_path / "whole.pt"))
        data = (tmp_path / "whole.pt").read_bytes()[:-500]
    (tmp_path / "a.pt").write_bytes(data)
    assert "a.pt cannot be read" in refused(str(tmp_path / "a.pt"))


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are read as a whole, as often as they are."""
    names = []

    def counted(function):
        def call(first, *rest, **named):
            if isinstance(first, str | Path):
                names.append(Path(first).name)
            return function(first, *rest, **named)
        return call

    for owner, name in ((torch, "load"), (torch.jit, "load"), (torch.export, "load"), (Path, "read_bytes")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return names


@pytest.mark.slow
def test_every_door_reads_its_file_once(tmp_path, exported, read):
    save(tmp_path / "run" / "best.pt", cells())
    torch.save(cells().state_dict(), tmp_path / "weights.pt")
    torch.jit.script(network()).save(str(tmp_path / "script.pt"))
    for given, more, name in ((tmp_path / "run", {}, "best.pt"), (tmp_path / "run" / "best.pt", {}, "best.pt"),
                              ("RACL", {"genotype": GENOTYPE, "state_dict": str(tmp_path / "weights.pt"),
                                        "num_classes": CLASSES}, "weights.pt"),
                              (tmp_path / "script.pt", {}, "script.pt"), (exported["4"], {}, "4.pt2")):
        read.clear()
        open_model(str(given), **more)
        assert read == [name]


@pytest.mark.parametrize("payload", [{"a": argparse.Namespace()}, {"a.weight": torch.ones(1)}, {"step": 1}])
def test_a_file_that_is_refused_is_read_once(tmp_path, read, payload):
    torch.save(payload, tmp_path / "a.pt")
    refused(str(tmp_path / "a.pt"))
    assert read == ["a.pt"]


def test_a_checkpoint_keeps_what_it_says_beside_weights_and_states(tmp_path):
    checkpoint.save(tmp_path / "a.pt", {
        "model": cells().state_dict(), "trainer": {"optimizer": {}}, "step": 3, "best": {}, "network": description(
            GENOTYPE, CLASSES, 4, 3, "cifar10", (3, 32, 32))})
    assert open_model(str(tmp_path / "a.pt")).record == {"step": 3, "best": {}}


# -- fingerprints ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fingerprint_is_that_of_weights_and_genotype_wherever_they_are(tmp_path):
    model, (one, other) = cells(), pooled()

    def fingerprint(change=lambda m: None) -> str:
        changed = copy.deepcopy(model)
        change(changed)
        return open_model(str(save(tmp_path / "best.pt", changed))).fingerprint

    first = fingerprint()
    torch.save(wrapped(model.state_dict(), "module."), tmp_path / "w.pt")
    named = open_model("x", genotype=GENOTYPE, state_dict=str(tmp_path / "w.pt"), num_classes=CLASSES)
    assert first == fingerprint() == named.fingerprint and re.fullmatch("[0-9a-f]{16}", first)
    assert first == fingerprint(lambda m: m.to(memory_format=torch.channels_last))
    assert first != fingerprint(lambda m: m.classifier.bias.data.add_(1e-6))
    assert first != fingerprint(lambda m: m.stem.norm.running_mean.mul_(1.001))
    swapped = fingerprint(lambda m: m.classifier.bias.data.copy_(m.classifier.bias.flip(0)))
    assert swapped != first
    weights = cells(genotype=one)
    assert open_model(str(save(tmp_path / "best.pt", weights, one))).fingerprint != open_model(
        str(save(tmp_path / "best.pt", weights, other))).fingerprint


@pytest.mark.slow
def test_a_fingerprint_tells_code_apart(tmp_path, exported):
    file = user_folder(tmp_path)
    first = open_model(f"{file}:build").fingerprint
    assert first == open_model(f"{file}:build").fingerprint != open_model(f"{file}:Net").fingerprint
    file.write_text(NETWORK_FILE + "# another\n")
    assert open_model(f"{file}:build").fingerprint != first
    shape = "import torch, parts\ndef build(): return torch.nn.ParameterList([torch.ones(parts.SHAPE)]).eval()\n"
    shaped = [user_folder(tmp_path / f"{side}", net=shape, parts=f"SHAPE = ({side}, {6 // side})") for side in (2, 3)]
    assert open_model(f"{shaped[0]}:build").fingerprint != open_model(f"{shaped[1]}:build").fingerprint
    prints = [open_model(str(exported[rows])).fingerprint for rows in ("any", "any", "4")]
    assert prints[0] == prints[1] != prints[2]


IMPORTING = """
import importlib, json, torch
import parts
from blocks import first
from loose.second import SIZE
import library
last = importlib.import_module("blocks." + "la" + "st")
def build():
    import lazy
    return torch.nn.Identity().eval()
def other():
    return build()
"""
IMPORTED = ("parts.py", "blocks/__init__.py", "blocks/first.py", "blocks/last.py", "loose/second.py", "lazy.py")


def forget(folder: Path) -> None:
    """As in another process, none of the folder's modules is loaded."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def importing_folder(folder: Path) -> Path:
    """A folder with ``net.py``, which imports files of the folder in many ways, and others that it does not."""
    file = user_folder(folder, net=IMPORTING, lazy="", unrelated="", beside="")
    for name in (*IMPORTED[1:-1], "blocks/unrelated.py", "site-packages/library.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("SIZE = 3\n")
    return file


@pytest.mark.slow
def test_a_fingerprint_covers_what_a_file_imports_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    file = importing_folder(tmp_path)

    def fingerprint() -> str:
        forget(tmp_path)
        return open_model(f"{file}:build").fingerprint

    first = fingerprint()
    assert first == fingerprint() == open_model(f"{file}:build").fingerprint, "loaded or not, they count"
    assert first != open_model(f"{file}:other").fingerprint
    for name in IMPORTED:
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "# changed\n")
        assert fingerprint() != first, name
        (tmp_path / name).write_text(text)
    for name in ("unrelated.py", "blocks/unrelated.py", "site-packages/library.py", "beside.py", "notes.txt"):
        (tmp_path / name).write_text("SIZE = 4\n")
        assert fingerprint() == first, name
    (tmp_path / "beside.py").write_text("from torch.nn import Identity as build\n")
    open_model(f"{tmp_path}/beside.py:build")
    assert open_model(f"{file}:build").fingerprint == first, "another network's file is not imported"
    forget(tmp_path)
    around = f"{tmp_path}/blocks/../net.py:build"
    assert open_model(around).fingerprint == first == open_model(f"{file}:build").fingerprint
    (tmp_path / "lazy.py").rename(tmp_path / "far.txt")
    (tmp_path / "lazy.py").symlink_to(tmp_path / "far.txt")
    assert fingerprint() == first, "a link counts as the file that it leads to"
    copied = importing_folder(tmp_path / "copy")
    assert open_model(f"{copied}:build").fingerprint == first, "where the folder is does not count"


@pytest.mark.slow
def test_a_module_of_the_folder_that_the_program_has_loaded_counts(tmp_path, monkeypatch):
    file = user_folder(tmp_path, net="import at_home\nimport torch\ndef build(): return torch.nn.Identity().eval()\n",
                       at_home="")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("at_home")
    first = open_model(f"{file}:build").fingerprint
    (tmp_path / "at_home.py").write_text("# changed\n")
    assert open_model(f"{file}:build").fingerprint != first
    forget(tmp_path)


@pytest.mark.slow
def test_this_package_and_the_running_program_do_not_count(tmp_path, monkeypatch):
    """In a copy of this repository with a network in it, how networks are evaluated is not what they are."""
    for package in ("wsrnas", "wsrnas/runtime", "wsrnas/subjects", "program"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for module in user_function, errors:
        file = Path(module.__file__)
        (tmp_path / file.relative_to(Path(genotypes.__file__).parent)).write_text(file.read_text())
    (tmp_path / "wsrnas" / "operations.py").write_text("")
    (tmp_path / "program" / "evaluate.py").write_text(
        "import sys\nfrom pathlib import Path\nimport program.settings, genotypes_at_home, wsrnas.operations\n"
        "from wsrnas.subjects.user_function import call_function\n"
        "print(call_function(Path('net.py'), 'build')[1].hex())\n")
    (tmp_path / "program" / "settings.py").write_text("")
    (tmp_path / "genotypes_at_home.py").write_text("")
    # torch itself takes seconds to import.
    (tmp_path / "torch.py").write_text("class nn:\n    class Module:\n        pass\n"
                                       "get_default_dtype = get_default_device = lambda: None\n"
                                       "set_default_dtype = lambda dtype: None\n")
    (tmp_path / "wsrnas" / "runtime" / "arithmetic.py").write_text("def precision():\n    return lambda: None\n")
    (tmp_path / "net.py").write_text("from torch import nn\nimport genotypes_at_home\nbuild = lambda: nn.Module()\n")

    def code(changed: str = "", *command: str) -> str:
        if changed:
            (tmp_path / changed).write_text((tmp_path / changed).read_text() + "# changed\n")
        return subprocess.run([sys.executable, *(command or ("-m", "program.evaluate"))], cwd=tmp_path, check=True,
                              capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}).stdout

    first = code()
    assert re.fullmatch("[0-9a-f]{128}\n", first) and code("program/settings.py") == first
    assert code("wsrnas/operations.py") == first and code("wsrnas/subjects/user_function.py") == first
    (tmp_path / "script.py").write_text("import program.evaluate\n")
    script = code("", "script.py")  # a program that is no package, in the network's folder
    assert code("script.py", "script.py") == script
    second = code("genotypes_at_home.py")
    assert second != first and code("", "script.py") != script
    assert code("net.py") not in (first, second)
