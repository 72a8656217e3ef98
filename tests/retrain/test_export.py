"""An exported network: its Python file, its weights, and the check that both give the same logits."""

import ast
import json
import runpy
import subprocess
import sys
from collections import OrderedDict
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import genotypes
import retrain.publishing.writing
from retrain import export
from retrain.publishing import robustbench, standalone
from retrain.publishing.package import Package
from retrain.publishing.python_file import python_source
from retrain.publishing.training_record import Training
from retrain.publishing.writing import sha256, write_weights
from tests.processes import PATIENCE
from tests.retrain.export_cases import EVERY, NONE, images, network
from wsrnas.architectures import hand_designed
from wsrnas.genotype import Genotype
from wsrnas.network import Normalize
from wsrnas.runtime.errors import InputError

# Networks with a design of their own; the other three take seconds and have the same definitions.
DESIGNS = [name for name in hand_designed.names() if name not in ("robnet_large_v1", "robnet_large_v2", "robnet_free")]
BY_NODE = Genotype(  # one, two and all edges a node
    normal=[[("skip_connect", 0)], [("sep_conv_3x3", 1), ("avg_pool_3x3", 2)],
            [("dil_conv_3x3", k) for k in range(4)]], normal_concat=(4,),
    reduce=[[("avg_pool_3x3", 1), ("skip_connect", 0), ("dil_conv_5x5", 0)]], reduce_concat=(2,))
CASES = {  # name -> genotype, data set, image shape, classes
    "every": (EVERY, "cifar10", (3, 9, 9), 10), "none": (NONE, "cifar10", (3, 8, 8), 10),
    "by_node": (BY_NODE, "digits", (1, 8, 8), 7), "basic": (genotypes.load("WsrNet_Basic"), "cifar100", (3, 8, 8), 100),
    "nasnet": (genotypes.load("NASNet_A"), "svhn", (3, 8, 10), 10),
    "every_large": (EVERY, "imagenet", (3, 32, 32), 11), "none_large": (NONE, "imagenet", (3, 33, 40), 12),
    "by_node_large": (BY_NODE, "imagenet", (3, 32, 32), 10),
    **{name: (name, "cifar10", (3, 8, 8), 10) for name in DESIGNS},
    **{f"{name}_large": (name, "imagenet", (3, 32, 32), 10) for name in ("robnet_small", "resnet18", "squeezenet")}}
NO_TRAINING = Training({}, "", "", ())


def package(name: str, genotype: Genotype | str, dataset: str, shape: tuple, classes: int) -> Package:
    model, info = network(genotype, dataset, shape, classes)
    crop = "Res256Crop224" if dataset == "imagenet" else None
    return Package(name, model, info, "a cell", crop, NO_TRAINING, robustbench.Publication(), [],
                   robustbench.numbers([], dataset))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of all cases' Python files and weights, and the cases."""
    folder = tmp_path_factory.mktemp("packages")
    cases = {name: package(name, *case) for name, case in CASES.items()}
    for name, case in cases.items():
        write_weights(folder / f"{name}.pt", case)
        (folder / f"{name}.py").write_text(python_source(case, "8/255", sha256(folder / f"{name}.pt")))
        torch.save(images(case.image_shape), folder / f"{name}.images")
    return folder, cases


# -- the Python file -------------------------------------------------------------------------------------------------

STRANGER = """
import pathlib, runpy, sys
class Forbidden:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("wsrnas", "genotypes", "retrain", "search"):
            raise ImportError(name)
sys.meta_path.insert(0, Forbidden())
import torch
torch.set_num_threads(1)
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    made = runpy.run_path(str(file))
    with torch.no_grad():
        torch.save(made["load"]()(torch.load(file.with_suffix(".images"))), file.with_suffix(".logits"))
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as end:
        print(file.stem, bool(end.code))
"""


@pytest.fixture(scope="module")
def stranger(files):
    """What a Python process without this project prints; it leaves each case's logits beside its file."""
    folder, _ = files
    with open(folder / "none.pt", "ab") as file:  # not the published file any more, but the same weights
        file.write(b"x")
    done = subprocess.run([sys.executable, "-I", "-B", "-c", STRANGER, str(folder)], cwd="/", capture_output=True,
                          text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_stranger_gets_the_same_logits(name, files, stranger):
    folder, cases = files
    with torch.no_grad():
        expected = cases[name].model(images(cases[name].image_shape))
    assert expected.std() > 1e-3  # they tell images and classes apart
    assert (torch.load(folder / f"{name}.logits") - expected).abs().max() <= 1e-6


@pytest.mark.slow
def test_the_program_of_the_file_counts_parameters_and_knows_its_weights(files, stranger):
    _, cases = files
    lines = stranger.splitlines()
    for name, case in cases.items():
        end = lines.index(f"{name} {name == 'none'}")
        count = sum(p.numel() for p in case.model.parameters())
        assert lines[end - 2] == f"{count} parameters"
        assert ("as published" in lines[end - 1]) is (name != "none") and f"{name}.pt" in lines[end - 1]


@pytest.mark.slow
def test_the_file_needs_torch_alone_and_has_nothing_to_spare(files):
    folder, cases = files
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                   for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
        assert modules <= {"hashlib", "collections.abc", "contextlib", "dataclasses", "functools", "pathlib", "typing",
                           "torch", "torch.nn.functional"}
        case = cases[path.stem]
        large = case.description["dataset"] == "imagenet"
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        if not isinstance(case.searched, str):
            assert ("NetworkImageNet" in classes) is large and ("NetworkCIFAR" in classes) is not large
            assert ("Normalize" in classes) is large
        assert not {"InputError", "json", "to_json", "BatchNoise", "_check_cell"} & set(
            path.read_text().replace("(", " ").replace(".", " ").split())
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--line-length=120",
                           "--select=E,F,I,W", *map(str, folder.glob("*.py"))], capture_output=True, text=True)
    if "No module named" not in done.stderr:
        assert done.returncode == 0, done.stdout


def test_definitions_come_with_their_comments_and_docstrings():
    source = standalone.standalone_source('a "quoted" \\name """', EVERY, "NetworkImageNet", "x = 1")
    assert ast.get_docstring(ast.parse(source)) == 'a "quoted" \\name \'\'\''
    for text in ('"""All operations by name."""', "# s1 is half as large", "IMAGENET_MEAN ="):
        assert text in source
    genotype = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "Genotype")
    assert ast.get_docstring(genotype) == "Normal and reduction cell of an architecture."
    assert "ValueError: ``name`` is unknown" in source


def test_a_definition_is_found_with_all_that_belongs_to_it(tmp_path):
    module = ModuleType("made_up")
    module.__file__ = str(tmp_path / "made_up.py")
    Path(module.__file__).write_text('''\
import os.path
from math import pi as number, tau
from wsrnas.runtime.errors import InputError

# of nothing

# a comment
# of two lines
LIMIT: float = number
"""what it is"""

@decorated(tau)
def function(x):
    raise InputError(LIMIT)
''')
    found, imports = standalone.definitions(module)
    assert imports == {"os": "import os.path", "number": "from math import pi as number", "tau": "from math import tau"}
    assert found["LIMIT"].text == '# a comment\n# of two lines\nLIMIT: float = number\n"""what it is"""'
    assert found["function"].text == "@decorated(tau)\ndef function(x):\n    raise ValueError(LIMIT)"
    assert standalone.needed(["function"], found) >= {"function", "LIMIT", "number", "tau", "decorated", "ValueError"}
    assert standalone.import_block({"number", "tau", "LIMIT"}, imports) == "from math import pi as number, tau"


def test_every_genotype_is_written_as_it_is():
    wide = Genotype([[("sep_conv_3x3", k % 2)] * 9 for k in range(2)], (2, 3), [("none", 0), ("none", 1)], (2, 2))
    for genotype in (EVERY, NONE, BY_NODE, wide, *map(genotypes.load, genotypes.names())):
        text = standalone.genotype_literal(genotype)
        assert max(map(len, text.splitlines())) <= 120
        call, = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        made = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        assert call.func.id == "Genotype"
        assert made == {field.name: getattr(genotype, field.name) for field in fields(Genotype)}


# -- the weights -----------------------------------------------------------------------------------------------------

def plain(value) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(isinstance(key, str) and plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool, torch.Tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_plain_and_no_key_is_cut(name, files):
    folder, cases = files
    stored = torch.load(folder / f"{name}.pt", weights_only=True)
    cells = not isinstance(cases[name].searched, str)
    assert set(stored) == {"state_dict", "config", *["genotype"] * cells} and plain(stored)
    assert not [key for key in stored["state_dict"] if "model." in key or "module." in key]
    assert not cells or Genotype.from_json(json.dumps(stored["genotype"])) == cases[name].searched
    large = cases[name].description["dataset"] == "imagenet"
    assert stored["config"]["preprocessing"] == ("Res256Crop224" if large else None)
    expected = {key for key in cases[name].model.state_dict() if key not in ("normalize.mean", "normalize.std")}
    assert set(stored["state_dict"]) == expected and len(cases[name].model.state_dict()) - len(expected) == 2 * large


@pytest.mark.parametrize("name", CASES)
def test_robustbench_loads_it(name, files):
    """Its loader cuts 'module.' and 'model.', puts 'model.' before ImageNet's keys, and normalises in front."""
    folder, cases = files
    made = runpy.run_path(str(folder / f"{name}.py"))
    weights = torch.load(folder / f"{name}.pt", map_location="cpu")["state_dict"]
    for part in ("module.", "model."):
        weights = OrderedDict((key[len(part):] if part in key else key, value) for key, value in weights.items())
    network = made["build"]()
    if cases[name].description["dataset"] == "imagenet":
        network = nn.Sequential(OrderedDict(normalize=Normalize(made["MEAN"], made["STD"]), model=network))
        weights = {f"model.{key}": value for key, value in weights.items()}
        missing, unexpected = network.load_state_dict(weights, strict=False)
        assert (missing, unexpected) == (["normalize.mean", "normalize.std"], [])
    else:
        network.load_state_dict(weights, strict=True)
    pixels = images(cases[name].image_shape)
    with torch.no_grad():
        assert torch.equal(network.eval()(pixels), cases[name].model(pixels))


def test_weights_that_robustbench_would_rename_are_refused(tmp_path):
    case = package("x", NONE, "cifar10", (3, 8, 8), 10)
    case.model.submodel = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(InputError, match=r"submodel\.0\.weight contains 'model\.'"):
        write_weights(tmp_path / "x.pt", case)


# -- the check -------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("before, after, says", [
    ("padding=1, count_include_pad=False", "padding=1", "gives other logits"),
    ("import hashlib", "import hashlib, wsrnas.runtime.errors", "does not load in a fresh Python process .*wsrnas")])
def test_a_file_that_differs_is_not_exported(before, after, says, tmp_path, monkeypatch):
    source = python_source(package("x", BY_NODE, "cifar10", (3, 8, 8), 10), "8/255", "0")
    assert before in source
    monkeypatch.setattr(retrain.publishing.writing, "python_source", lambda *given: source.replace(before, after))
    case = package("x", BY_NODE, "cifar10", (3, 8, 8), 10)
    with pytest.raises(InputError, match=says), export.staged_beside(tmp_path / "out") as folder:
        retrain.publishing.writing.write_package(folder, case)
    assert list(tmp_path.iterdir()) == []
