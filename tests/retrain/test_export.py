"""Exported packages: any Python loads them, leaderboards read them, and only what was measured is claimed."""

import ast
import hashlib
import inspect
import itertools
import json
import runpy
import subprocess
import sys
import tomllib
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import genotypes
import retrain.publishing.writing
from retrain import export
from retrain.publishing import robustbench, standalone
from retrain.publishing.evaluation_table import evaluation_table, parameters
from retrain.publishing.evaluations import stored_evaluations
from retrain.publishing.onnx_file import PACKAGES, difference
from retrain.publishing.package import Package
from retrain.publishing.python_file import python_source
from retrain.publishing.training_record import Training, command, metrics
from retrain.publishing.writing import sha256, write_weights
from retrain.recipes import BASIC, IMAGENET
from wsrnas.attacks import mim
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.genotype import Genotype
from wsrnas.models import build_model, description
from wsrnas.network import Normalize
from wsrnas.operations import OPERATIONS
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program
from wsrnas.subjects.opening import open_model

EVERY = Genotype(  # every operation, in both cells; five nodes
    normal=list(zip(OPERATIONS, [0, 1, 0, 1, 2, 3, 0, 2, 4, 5], strict=True)), normal_concat=(2, 3, 4, 5, 6),
    reduce=list(zip(reversed(OPERATIONS), [0, 1, 1, 0, 2, 3, 0, 2, 4, 1], strict=True)), reduce_concat=(3, 6, 6))
NONE = Genotype(  # a node of nothing, an input that nothing reads
    normal=[("none", 1), ("none", 1), ("none", 1), ("sep_conv_3x3", 1)], normal_concat=(2, 3),
    reduce=[("skip_connect", 1), ("none", 0), ("max_pool_3x3", 2), ("none", 1)], reduce_concat=(3,))
BY_NODE = Genotype(  # one, two and all edges a node
    normal=[[("skip_connect", 0)], [("sep_conv_3x3", 1), ("avg_pool_3x3", 2)],
            [("dil_conv_3x3", k) for k in range(4)]], normal_concat=(4,),
    reduce=[[("avg_pool_3x3", 1), ("skip_connect", 0), ("dil_conv_5x5", 0)]], reduce_concat=(2,))
CASES = {  # name -> genotype, data set, image shape, classes
    "every": (EVERY, "cifar10", (3, 9, 9), 10), "none": (NONE, "cifar10", (3, 8, 8), 10),
    "by_node": (BY_NODE, "digits", (1, 8, 8), 7), "basic": (genotypes.load("WsrNet_Basic"), "cifar100", (3, 8, 8), 100),
    "nasnet": (genotypes.load("NASNet_A"), "svhn", (3, 8, 10), 10),
    "every_large": (EVERY, "imagenet", (3, 32, 32), 11), "none_large": (NONE, "imagenet", (3, 33, 40), 12),
    "by_node_large": (BY_NODE, "imagenet", (3, 32, 32), 10)}
NO_TRAINING = Training({}, "", "", ())


def network(genotype: Genotype, dataset: str, shape: tuple, classes: int) -> tuple[nn.Module, dict]:
    """Random weights and BatchNorm statistics, all of which the logits depend on; and the network's description."""
    draw = torch.Generator().manual_seed(len(str(genotype)))
    model = build_model(genotype, classes, 4, 4, dataset, shape[0]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias.data, -0.5),
                               (module.weight.data, 0.5)):
                value.copy_(torch.rand(value.shape, generator=draw) + low)
    return model, description(genotype, classes, 4, 4, dataset, shape)


def package(name: str, genotype: Genotype, dataset: str, shape: tuple, classes: int) -> Package:
    model, info = network(genotype, dataset, shape, classes)
    crop = "Res256Crop224" if dataset == "imagenet" else None
    return Package(name, model, info, "a cell", crop, NO_TRAINING, robustbench.Publication(), [],
                   robustbench.numbers([], dataset))


def images(shape: tuple) -> torch.Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))


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


# ---- the Python file ------------------------------------------------------------------------------------------

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
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_stranger_gets_the_same_logits(name, files, stranger):
    folder, cases = files
    with torch.no_grad():
        expected = cases[name].model(images(cases[name].image_shape))
    assert expected.std() > 1e-3  # they tell images and classes apart
    assert (torch.load(folder / f"{name}.logits") - expected).abs().max() <= 1e-6


def test_the_program_of_the_file_counts_parameters_and_knows_its_weights(files, stranger):
    _, cases = files
    lines = stranger.splitlines()
    for name, case in cases.items():
        end = lines.index(f"{name} {name == 'none'}")
        count = sum(p.numel() for p in case.model.parameters())
        assert lines[end - 2] == f"{count} parameters"
        assert ("as published" in lines[end - 1]) is (name != "none") and f"{name}.pt" in lines[end - 1]


def test_the_file_needs_torch_alone_and_has_nothing_to_spare(files):
    folder, cases = files
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                   for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
        assert modules <= {"hashlib", "collections.abc", "dataclasses", "functools", "pathlib", "typing", "torch",
                           "torch.nn.functional"}
        large = cases[path.stem].description["dataset"] == "imagenet"
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
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


# ---- the weights ----------------------------------------------------------------------------------------------

def plain(value) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(isinstance(key, str) and plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool, torch.Tensor)


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_plain_and_no_key_is_cut(name, files):
    folder, cases = files
    stored = torch.load(folder / f"{name}.pt", weights_only=True)
    assert set(stored) == {"state_dict", "genotype", "config"} and plain(stored)
    assert not [key for key in stored["state_dict"] if "model." in key or "module." in key]
    assert Genotype.from_json(json.dumps(stored["genotype"])) == cases[name].genotype
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


# ---- the check ------------------------------------------------------------------------------------------------

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


# ---- numbers --------------------------------------------------------------------------------------------------

def attack(method: str, epsilon: float | None, accuracy: float, norm: str = "linf", **more) -> dict:
    return {"attack": method.upper(), "method": method, "norm": norm, "epsilon": epsilon, "accuracy": accuracy,
            "interval": [accuracy - 0.01, accuracy + 0.01], "steps": 20, "step_size": 0.00375, "restarts": 1,
            "random_start": False, "loss": "ce", "robust": "10", "seconds": 1.0} | more


def evaluation(*attacks: dict, images: int = 10_000, clean: float = 0.8149, dataset: str = "cifar10",
               fingerprint: str = "f", failed=()) -> dict:
    return {"format": "wsrnas evaluation 1", "name": "x", "protocol": "custom", "dataset": dataset, "images": images,
            "complete": True, "clean": {"accuracy": clean, "interval": [0.81, 0.82], "robust": "1"},
            "attacks": list(attacks), "average_robust": {"accuracy": 0.41, "interval": [0.4, 0.42], "over": ["PGD-20"]},
            "area": None,
            "checks": [{"check": "logits are deterministic", "passed": True, "says": "", "numbers": {}},
                       {"check": "square is weaker", "passed": None, "says": "", "numbers": {}}],
            "failed_checks": list(failed), "warnings": ["zero gradients"],
            "model": {"source": "runs/retrain/x/best.pt", "fingerprint": fingerprint}}


def listed(*documents: dict, dataset: str = "cifar10") -> dict:
    measured = robustbench.numbers(list(documents), dataset)
    return robustbench.model_info(robustbench.Publication(), measured, dataset, "a")


def test_a_complete_evaluation_is_listed_as_it_is():
    info = listed(evaluation(attack("pgd", 8 / 255, 0.55), attack("autoattack", 8 / 255, 0.51234),
                             attack("autoattack", 16 / 255, 0.2)))
    assert info == {
        "link": None, "name": None, "authors": None, "additional_data": False, "number_forward_passes": 1,
        "dataset": "cifar10", "venue": None, "architecture": "a", "eps": "8/255", "clean_acc": "81.49",
        "reported": "51.23", "autoattack_acc": "51.23", "footnote": None, "unreliable": False}
    assert robustbench.numbers([evaluation(attack("autoattack", 8 / 255, 0.5))], "cifar10").missing == ()


def test_what_was_not_measured_is_null_and_said():
    assert listed(evaluation() | {"checks": []})["unreliable"] is None  # an evaluation that was stopped before them
    info, measured = listed(), robustbench.numbers([], "cifar10")
    assert {key for key, value in info.items() if value is None} == {
        "link", "name", "authors", "venue", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"}
    assert "AutoAttack at 8/255" in measured.missing[0] and "clean" in measured.missing[0]


@pytest.mark.parametrize("other", [
    attack("autoattack", 0.031, 0.5), attack("autoattack", 8 / 255, 0.5, norm="l2"), attack("apgd-ce", 0.05, 0.5),
    attack("cw-l2", None, 0.1, norm="l2")])
def test_another_threat_model_is_not_listed(other):
    info = listed(evaluation(other))
    assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("81.49", None, None)


def test_a_weaker_attack_is_reported_with_its_name():
    info = listed(evaluation(attack("fgsm", 8 / 255, 0.61), attack("pgd", 8 / 255, 0.55)))
    assert (info["autoattack_acc"], info["reported"]) == (None, "55.00")
    assert "PGD" in info["footnote"] and "10,000 images" in info["footnote"]
    measured = robustbench.numbers([evaluation(attack("pgd", 8 / 255, 0.55))], "cifar10")
    assert measured.missing == ("not measured yet: AutoAttack at 8/255",)


def test_a_part_of_the_test_images_does_not_pass_for_all():
    part = evaluation(attack("autoattack", 8 / 255, 0.4), images=1000, clean=0.7)
    assert listed(part)["footnote"] == "Measured on 1,000 of 10,000 test images."
    assert "1,000 of 10,000" in robustbench.numbers([part], "cifar10").missing[0]
    whole = evaluation(attack("autoattack", 8 / 255, 0.5))
    for documents in itertools.permutations([part, whole]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["footnote"]) == ("81.49", "50.00", None)
    # The clean accuracy stands beside the attack: it is of the same images.
    for documents in itertools.permutations([part, evaluation(attack("pgd", 8 / 255, 0.6))]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("70.00", "40.00", "60.00")
        assert info["footnote"] == ("Clean accuracy and AutoAttack measured on 1,000 of 10,000 test images. The "
                                    "reported robust accuracy is under PGD, on 10,000 images.")
    info = listed(evaluation(), evaluation(attack("pgd", 8 / 255, 0.3), images=500, clean=0.9))
    assert (info["clean_acc"], info["reported"], info["footnote"]) == (
        "81.49", "30.00", "The reported robust accuracy is under PGD, on 500 images.")
    info = listed(evaluation(images=900, clean=0.7), evaluation(attack("pgd", 8 / 255, 0.3), images=500, clean=0.9))
    assert info["clean_acc"] == "70.00" and info["footnote"].startswith("Clean accuracy measured on 900 of 10,000")
    digits = listed(evaluation(images=300, dataset="digits"), dataset="digits")
    assert digits["footnote"] == "Measured on 300 test images."


def test_of_two_measurements_the_lower_one_counts():
    two = [evaluation(attack("autoattack", 8 / 255, a), clean=c) for a, c in ((0.5, 0.8), (0.49, 0.79))]
    for documents in (two, two[::-1]):
        assert (listed(*documents)["autoattack_acc"], listed(*documents)["clean_acc"]) == ("49.00", "79.00")
        assert (listed(*documents)["reported"], listed(*documents)["footnote"]) == ("49.00", None)


def test_the_lowest_accuracy_is_reported_whichever_attack_reached_it():
    standard, fgsm = evaluation(attack("autoattack", 8 / 255, 0.5)), evaluation(attack("fgsm", 8 / 255, 0.6), clean=0.9)
    lower = evaluation(attack("square", 8 / 255, 0.47), attack("pgd", 16 / 255, 0.1), clean=0.7)
    part = evaluation(attack("pgd", 8 / 255, 0.2), images=9_999)
    for documents in itertools.permutations([standard, fgsm, lower, part]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("81.49", "50.00", "47.00")
        assert info["footnote"] == "The reported robust accuracy is under SQUARE, on 10,000 images."
    for documents in itertools.permutations([fgsm, lower, part]):  # the clean accuracy is the lowest attack's
        assert (listed(*documents)["clean_acc"], listed(*documents)["reported"]) == ("70.00", "47.00")
    same = evaluation(attack("pgd", 8 / 255, 0.5), clean=0.7)
    for documents in itertools.permutations([standard, same]):
        assert (listed(*documents)["reported"], listed(*documents)["footnote"]) == ("50.00", None)


def test_imagenet_is_listed_at_its_own_strength_and_never_as_the_official_subset():
    document = evaluation(attack("autoattack", 8 / 255, 0.1), attack("autoattack", 4 / 255, 0.2), images=50_000,
                          dataset="imagenet")
    info = listed(document, dataset="imagenet")
    assert (info["eps"], info["autoattack_acc"]) == ("4/255", "20.00")
    assert "not on RobustBench's list of 5,000" in info["footnote"]


UNCHECKED = [{"check": "square is weaker", "passed": None, "says": "", "numbers": {}}]


def test_reliability_is_of_the_evaluations_whose_numbers_are_used():
    standard = evaluation(attack("autoattack", 8 / 255, 0.5))
    failed = {"failed": ["more steps are weaker"]}
    for documents in itertools.permutations([standard, evaluation(attack("pgd", 8 / 255, 0.6), clean=0.9, **failed)]):
        info = listed(*documents)
        assert (info["unreliable"], info["footnote"]) == (False, None)
    for used in (attack("autoattack", 8 / 255, 0.4), attack("pgd", 8 / 255, 0.4)):
        for documents in itertools.permutations([standard, evaluation(used, **failed)]):
            info = listed(*documents)
            assert info["unreliable"] is True and "checks of the evaluation: more steps are weaker." in info["footnote"]
    only_row = standard | {"checks": [*UNCHECKED, {"check": "noise is weaker", "passed": False}]}
    assert listed(only_row)["unreliable"] is True and "noise is weaker" in listed(only_row)["footnote"]
    assert "**Failed check: noise is weaker.**" in evaluation_table(only_row)
    both = only_row | {"failed_checks": ["noise is weaker"]}
    assert listed(both)["footnote"].count("noise is weaker") == evaluation_table(both).count("noise is weaker") == 1


@pytest.mark.parametrize("checks", [[], None, UNCHECKED])
def test_reliability_is_open_where_no_check_passed_or_failed(checks):
    unchecked, checked = {"checks": checks}, evaluation(attack("pgd", 8 / 255, 0.6), images=20_000)
    assert listed(evaluation(attack("pgd", 8 / 255, 0.5)) | unchecked)["unreliable"] is None
    standard = evaluation(attack("autoattack", 8 / 255, 0.5)) | unchecked
    for documents in itertools.permutations([standard, checked]):  # both numbers are listed
        assert listed(*documents)["unreliable"] is None
    lowest = evaluation(attack("pgd", 8 / 255, 0.4)) | unchecked
    for documents in itertools.permutations([lowest, evaluation(attack("autoattack", 8 / 255, 0.5))]):
        assert listed(*documents)["unreliable"] is None
    assert listed(standard, evaluation(attack("pgd", 8 / 255, 0.4), failed=["x"]))["unreliable"] is True
    assert listed(standard, evaluation())["unreliable"] is None
    assert listed(evaluation(attack("autoattack", 8 / 255, 0.5)), evaluation() | unchecked)["unreliable"] is False


@pytest.mark.parametrize("text, says", [
    ("{", "not JSON"), ("[]", "format"), ('{"images": 5}', "format"),
    (json.dumps(evaluation() | {"format": 2}), "format"), (json.dumps(evaluation() | {"area": 3}), "lacks"),
    (json.dumps(evaluation() | {"average_robust": {}}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, interval=[0.4]))), "lacks"),
    (json.dumps(evaluation() | {"clean": None}), "lacks"), (json.dumps(evaluation() | {"images": "9"}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 55.0))), "lacks"), (json.dumps(evaluation() | {"model": 1}), "lacks"),
    (json.dumps(evaluation() | {"attacks": [{}]}), "lacks"), (json.dumps(evaluation() | {"failed_checks": 7}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, steps="20"))), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, step_size="a"))), "lacks"),
    (json.dumps(evaluation(attack("transfer", 0.1, 0.5, source=["g"]))), "lacks"),
    (json.dumps(evaluation() | {"checks": [{"check": "a", "passed": 1}]}), "lacks"),
    (json.dumps(evaluation() | {"complete": False}), "still running or was stopped"),
    (json.dumps(evaluation() | {"complete": "yes"}), "still running or was stopped"),
    (json.dumps({key: value for key, value in evaluation().items() if key != "complete"}), "still running or was"),
    (json.dumps(evaluation(fingerprint="g") | {"complete": False}), "other weights"),
    (json.dumps(evaluation(fingerprint="g")), "other weights"), (json.dumps(evaluation(dataset="svhn")), "on svhn")])
def test_evaluations_of_no_use_are_left_out_aloud(text, says, tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "a.json").write_text(text)
    (tmp_path / "eval" / "b.json").write_text(json.dumps(evaluation()))
    found, remarks = stored_evaluations(tmp_path, "f", "cifar10")
    assert found == [evaluation()]
    assert len(remarks) == 1 and remarks[0].startswith(f"{tmp_path / 'eval' / 'a.json'} is left out: ")
    assert says in remarks[0]


# ---- the card -------------------------------------------------------------------------------------------------

def test_the_table_names_every_attack_with_its_parameters():
    text = evaluation_table(evaluation(
        attack("pgd", 8 / 255, 0.5512), attack("cw-l2", None, 0.1, "l2", steps=100, loss=""),
        attack("autoattack", 0.5, 0.3, "l2", steps=0, step_size=None, loss=""), images=1000,
        failed=["weaker | stronger"]))
    assert "| PGD | L-infinity 0.0314 (8/255) | 20 steps of 0.00375, from the image, cross-entropy loss | 55.12 | " \
           "54.1 to 56.1 |" in text
    assert "| CW-L2 | L2, unbounded | 100 steps" in text
    assert "| AUTOATTACK | L2 0.5 | standard version: APGD-CE," in text
    assert "passed: logits are deterministic." in text and "could not be run: square is weaker." in text
    assert "Warning: zero gradients" in text
    assert "| none |  |  | 81.49 | 81.0 to 82.0 |" in text and "1,000 test images" in text
    assert "41.00 | 40.0 to 42.0" in text and "**Failed check: weaker | stronger.**" in text
    assert "| average over the strengths of PGD |" in text


GRADIENT = "from the image, cross-entropy loss"


@pytest.mark.parametrize("name, epsilon, row, shown", [
    ("fgsm", 8 / 255, "FGSM | L-infinity 0.0314 (8/255)", f"one step of 0.03137, {GRADIENT}"),
    ("fgsm-l2", 0.5, "FGSM L2 | L2 0.5", f"one step of 0.5, {GRADIENT}"),
    ("pgd-20", 0.03, "PGD-20 | L-infinity 0.0300 (7.65/255)", f"20 steps of 0.00375, {GRADIENT}"),
    ("pgd-1", 0.03, "PGD | L-infinity 0.0300 (7.65/255)", f"one step of 0.075, {GRADIENT}"),
    ("pgd-50x10", 0.02, "PGD-50x10 | L-infinity 0.0200 (5.1/255)",
     "50 steps of 0.001, 10 random starts, cross-entropy loss"),
    ("pgd-l2-20", 0.5, "PGD-20 L2 | L2 0.5", f"20 steps of 0.0625, {GRADIENT}"),
    ("pgd-l2-20x2", 0.5, "PGD-20x2 L2 | L2 0.5", "20 steps of 0.0625, 2 random starts, cross-entropy loss"),
    ("mim-20", 0.02, "MIM-20 | L-infinity 0.0200 (5.1/255)", f"20 steps of 0.001, momentum 1, {GRADIENT}"),
    ("cw-l2", None, "C&W-100 L2 | L2, unbounded",
     "100 steps of Adam (learning rate 0.01), penalty c = 0.5, from the image"),
    ("cw-linf", 0.02, "C&W margin-100 | L-infinity 0.0200 (5.1/255)",
     "100 steps of 0.0005, from the image, margin loss"),
    ("cw-linf-50x3", 0.02, "C&W margin-50x3 | L-infinity 0.0200 (5.1/255)",
     "50 steps of 0.001, 3 random starts, margin loss"),
    ("noise-10", 0.02, "random noise-10 | L-infinity 0.0200 (5.1/255)",
     "the worst of 10 random noises, every pixel up or down by the whole strength"),
    ("noise-1", 0.02, "random noise | L-infinity 0.0200 (5.1/255)",
     "one random noise, every pixel up or down by the whole strength"),
    ("transfer-20", 0.02, "transfer PGD-20 | L-infinity 0.0200 (5.1/255)",
     f"20 steps of 0.0025, made on another network, {GRADIENT}"),
    ("apgd-ce", 0.02, "APGD-CE | L-infinity 0.0200 (5.1/255)",
     "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, cross-entropy loss"),
    ("apgd-ce-l2", 0.5, "APGD-CE L2 | L2 0.5",
     "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, cross-entropy loss"),
    ("autoattack", 0.02, "AutoAttack | L-infinity 0.0200 (5.1/255)",
     "standard version: APGD-CE, APGD-T, FAB-T, Square"),
    ("autoattack-l2", 0.5, "AutoAttack L2 | L2 0.5", "standard version: APGD-CE, APGD-T, FAB-T, Square"),
    ("square", 0.02, "Square-5000 | L-infinity 0.0200 (5.1/255)", "5,000 queries, of logits alone"),
    ("square-l2-1", 0.5, "Square L2 | L2 0.5", "1 query, of logits alone")])
def test_every_attack_reads_as_it_was_made(name, epsilon, row, shown):
    stored = at_strength(parse_attack(name), epsilon).describe() | {"accuracy": 0.5}
    assert f"\n| {row} | {shown} | 50.00 |  |" in evaluation_table(evaluation(stored))


def test_attacks_that_differ_read_differently():
    pgd, random = (at_strength(parse_attack("pgd-20"), 0.03, random_start=flag).describe() for flag in (False, True))
    assert parameters(random) == "20 steps of 0.00375, a random start, cross-entropy loss"
    assert parameters(pgd | {"loss": "mine"}).endswith("from the image, mine loss")
    transfer = at_strength(parse_attack("transfer-20"), 0.02).describe() | {"source": "0f3a"}
    assert "made on another network (`0f3a`)" in parameters(transfer)
    assert parameters({"method": "pgd", "steps": 7}) == "7 steps, from the image"  # a row with little in it
    every = {parameters(at_strength(parse_attack(name), 0.02).describe()) for name in ATTACKS}
    assert len(every) == len(ATTACKS)


def test_the_card_knows_what_the_rows_do_not_hold():
    """The attacks' own defaults, and the original AutoAttack's."""
    from pyautoattack import AutoAttack
    default = {**inspect.signature(carlini_wagner).parameters, **inspect.signature(mim).parameters}
    assert [default[name].default for name in ("learning_rate", "penalty", "momentum")] == [0.01, 0.5, 1.0]
    for norm in ("Linf", "L2"):
        apgd = AutoAttack(nn.Flatten(), norm=norm, eps=0.1, device="cpu").apgd
        assert (apgd.n_iter, apgd.n_restarts, apgd.loss) == (100, 1, "ce")


def test_the_command_is_without_the_machines_paths():
    argv = ["/home/me/wsrnas/retrain/train_cifar.py", "--recipe", "strong", "--data=/scratch/cifar", "--runs", "/big",
            "--arch", "/home/me/runs/search/x/genotype.json", "--save", "my run"]
    assert command({"command": argv, "processes": 1}) == (
        "python -m retrain.train_cifar --recipe strong --data=DATA --runs RUNS --arch x/genotype.json --save 'my run'")
    assert command({"command": argv[:3], "processes": 8}) == (
        "torchrun --standalone --nproc_per_node=8 -m retrain.train_cifar --recipe strong")


def test_epochs_are_counted_once_and_torn_lines_left_out(tmp_path):
    assert metrics(tmp_path) == []
    rows = [{"step": step, "train": {"seconds": seconds}} for step, seconds in ((0, 5), (1, 9), (1, 7))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n[]\n{"step": 2, "tra')
    assert [row["train"]["seconds"] for row in metrics(tmp_path)] == [5, 7]


# ---- the program ----------------------------------------------------------------------------------------------

def make_run(folder: Path, dataset: str = "cifar10", genotype: Genotype = NONE, **changes) -> Path:
    """A run directory as retraining leaves it, with a best and another last checkpoint."""
    shape, classes = ((3, 32, 32), 11) if dataset == "imagenet" else ((3, 8, 8), 10)
    recipe = IMAGENET if dataset == "imagenet" else replace(BASIC, dataset=dataset)
    config = to_dict(replace(recipe, runs="/secret/runs", data="/secret/data", epochs=9, **changes))
    folder.mkdir(parents=True)
    model, info = network(genotype, dataset, shape, classes)
    torch.save({"step": 9, "network": info, "model": model.state_dict(), "config": config}, folder / "checkpoint.pt")
    model.classifier.bias.data += 1
    best = {"epoch": 5, "clean_accuracy": 0.8, "robust_accuracy": 0.5}
    torch.save({"step": 5, "network": info, "model": model.state_dict(), "best": best, "config": config},
               folder / "best.pt")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "env.json").write_text(json.dumps([{
        "command": ["/secret/retrain/train_cifar.py", "--data", "/secret/data"], "processes": 1, "device": "H200",
        "python": "3.12", "torch": "2.15", "cuda": "13", "git": "abc", "host": "secret"}]))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"step": k, "train": {"seconds": 1800.0}, "peak_memory_gib": 2.0}) + "\n" for k in range(9)))
    (folder / "FINISHED").write_text("done")
    return folder


def store(run: Path, document: dict, file: str = "best.pt") -> None:
    document["model"]["fingerprint"] = open_model(str(run / file)).fingerprint
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / f"{len(list((run / 'eval').iterdir()))}.json").write_text(json.dumps(document))


@pytest.fixture
def hasty(monkeypatch):
    """Without the fresh process and the drawing, which other tests look at."""
    monkeypatch.setattr(retrain.publishing.writing, "check_in_fresh_process", lambda *given: None)
    monkeypatch.setattr(retrain.publishing.writing, "draw_genotype", lambda *given: None)


def test_the_whole_package(tmp_path, capsys):
    run, out = make_run(tmp_path / "run", genotype=genotypes.load("WsrNet_Plus")), tmp_path / "out"
    name = "Cheng2023Neural_WsrNet_Plus"
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)))
    export.main(["--model", str(run), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {
        f"{name}.py", f"{name}.pt", f"{name}.json", "MODEL_CARD.md", "NEW_MODEL_ISSUE.md", "LICENSE", "hubconf.py",
        "cells.svg", "cells.png"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    info = json.loads((out / f"{name}.json").read_text())
    assert info["name"] == "Neural Architecture Search for Wide Spectrum Adversarial Robustness"
    assert info["authors"].startswith("Zhi Cheng, ") and info["venue"] == "AAAI 2023" and info["link"]
    assert info["architecture"] == "WsrNet_Plus (C = 4, 4 cells)" and info["autoattack_acc"] == "50.00"
    card = (out / "MODEL_CARD.md").read_text()
    for path in out.iterdir():
        line = f"| {path.name} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"
        assert (line in card) is (path.name != "MODEL_CARD.md")
    assert f'SHA256 = "{sha256(out / f"{name}.pt")}"' in (out / f"{name}.py").read_text()
    for text in ("![Both cells](cells.svg)", "epoch 5 of 9", "`best.pt`", "50.0% (clean: 80.0%)", "4.50 hours", "H200",
                 "L-infinity digital perturbations only", "MIT", "--data DATA", "| `weight_decay` | 0.0005 |",
                 "1,000 images of the training set were held out", "| AUTOATTACK | L-infinity 0.0314 (8/255) |"):
        assert text in card, text
    issue = (out / "NEW_MODEL_ISSUE.md").read_text()
    for text in (f"[New Model] {name}", "- **Clean accuracy**: 81.49 %", "- **Robust accuracy**: 50.00 %",
                 "- **Threat Model**: Linf", "- **eps**: 8/255", f"'model': {name}.build"):
        assert text in issue, text
    assert not [path for path in out.glob("*.*") if b"secret" in path.read_bytes()]
    assert "Permission is hereby granted" in (out / "LICENSE").read_text()
    said = capsys.readouterr().out
    assert said == f"package: {out}\n" and "not finished" not in card

    network = torch.hub.load(str(out), name, source="local")
    expected = open_model(str(run / "best.pt")).model
    with torch.no_grad():
        assert torch.equal(network(images((3, 8, 8))), expected(images((3, 8, 8)))) and not network.training
        other = torch.hub.load(str(out), name, source="local", pretrained=False)
        assert not torch.equal(other(images((3, 8, 8))), expected(images((3, 8, 8))))


def test_the_checkpoint_is_read_once(tmp_path, monkeypatch):
    run, read, load = make_run(tmp_path / "run"), [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **named: read.append(path) or load(path, **named))
    export.read_package(export.ExportConfig(model=str(run)))
    assert read == [run / "best.pt"]


def test_the_last_weights_have_their_own_numbers(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "some run")
    (run / "FINISHED").unlink()
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)), "best.pt")
    store(run, evaluation(attack("autoattack", 8 / 255, 0.3)) | {"complete": False}, "checkpoint.pt")
    export.main(["--model", str(run), "--weights", "last", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    info = json.loads((tmp_path / "out" / "network_some_run.json").read_text())
    assert info["autoattack_acc"] is None and "other weights" in said
    assert f"\n{run / 'eval' / '1.json'} is left out: the evaluation is still running or was stopped" in said
    assert f"the training in {run} is not finished" in said
    assert f"--model {run} --weights last" in said and "--attacks autoattack --strengths 8/255" in said
    assert "--title --authors --venue --link" in said and "pass --name" in said
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert ("epoch 9 of 9 (`checkpoint.pt`), the last one trained; no epoch was selected. The training was not "
            "finished.") in card
    assert "AUTOATTACK" not in card
    weights = torch.load(tmp_path / "out" / "network_some_run.pt")["state_dict"]
    assert torch.equal(weights["classifier.bias"], torch.load(run / "checkpoint.pt")["model"]["classifier.bias"])


def test_the_advised_command_is_one_of_the_evaluation(tmp_path, hasty, capsys):
    from retrain.evaluate_settings import EvaluateConfig
    from wsrnas.runtime.config import parse_config
    export.main(["--model", str(make_run(tmp_path / "run")), "--out", str(tmp_path / "out")])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("measure with: "))
    words = line.split(";")[0].split()
    assert words[2:5] == ["python", "-m", "retrain.evaluate"]
    protocol, attacks = parse_config(EvaluateConfig, argv=words[5:])[0].chosen("cifar10")
    assert protocol == "custom" and [(a.method, a.norm) for a in attacks] == [("autoattack", "linf")]
    assert attacks[0].epsilon == 8 / 255


def test_imagenets_package(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run", "imagenet")
    store(run, evaluation(images=500, dataset="imagenet", failed=["gradients are not zero"]))
    paper = ["--name", "Me2026My_Net", "--title", "My title"]
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), *paper])
    issue = (tmp_path / "out" / "NEW_MODEL_ISSUE.md").read_text()
    assert "normalize_model(Me2026My_Net.build(), Me2026My_Net.MEAN, Me2026My_Net.STD)" in issue
    assert "'preprocessing': 'Res37Crop32'" in issue and "- **eps**: 4/255" in issue  # 32 pixels here
    assert "- **Paper Title**: My title" in issue and "- **Paper authors**: TO BE FILLED IN" in issue
    said, card = capsys.readouterr().out, (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "--strengths 4/255" in said and "a check of the evaluation failed" in said
    assert "**These numbers are unreliable" in card and "**Failed check: gradients are not zero.**" in card
    assert json.loads((tmp_path / "out" / "Me2026My_Net.json").read_text())["unreliable"] is True
    assert "network.normalize = Normalize(MEAN, STD)" in (tmp_path / "out" / "Me2026My_Net.py").read_text()


def test_flags_come_before_what_is_known_of_a_published_cell():
    plus = genotypes.load("WsrNet_Plus")
    assert export.cell_name(plus, {}) == export.cell_name(plus, {"config": {"arch": "other.json"}}) == "WsrNet_Plus"
    basic = genotypes.load("WsrNet_Basic")
    assert export.cell_name(basic, {"config": {"arch": "wsrnet-robust"}}) == "WsrNet_Robust"
    assert export.cell_name(NONE, {}) == ""
    known = export.publication(export.ExportConfig(title="Mine"), "WsrNet_Plus")
    assert (known.title, known.venue) == ("Mine", "AAAI 2023")
    assert export.publication(export.ExportConfig(venue="X"), "RACL") == robustbench.Publication(venue="X")


def test_data_sets_without_a_leaderboard_get_no_issue(tmp_path, hasty, capsys):
    export.main(["--model", str(make_run(tmp_path / "run", "svhn")), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "NEW_MODEL_ISSUE.md").exists()
    assert "no leaderboard for svhn" in capsys.readouterr().out


def test_onnx_runtime_agrees(tmp_path, hasty, capsys):
    for name in PACKAGES:
        pytest.importorskip(name)
    import onnx
    import onnxruntime
    run = make_run(tmp_path / "run", genotype=EVERY)
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net", "--onnx"])
    path = tmp_path / "out" / "Net.onnx"
    assert {opset.domain: opset.version for opset in onnx.load(path).opset_import}[""] == 18
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert isinstance(session.get_inputs()[0].shape[0], str) and session.get_inputs()[0].shape[1:] == [3, 8, 8]
    model = open_model(str(run / "best.pt")).model
    for batch in (1, 3, 16):
        pixels = torch.rand(batch, 3, 8, 8)
        logits = torch.from_numpy(session.run(["logits"], {"images": pixels.numpy()})[0])
        with torch.no_grad():
            assert (logits - model(pixels)).abs().max() <= 1e-5
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "`Net.onnx` (opset 18)" in card and f"| Net.onnx | `{sha256(path)}` |" in card
    assert "opset 18" in capsys.readouterr().out


# ---- bad input, and what is in the way ------------------------------------------------------------------------

def contents(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("flags, says", [
    (["--name", "a-b"], "name is 'a-b'"), (["--name", "9a"], "name is '9a'"), (["--name", "torch"], "name is 'torch'"),
    (["--name", "json"], "name is 'json'"), (["--name", "class"], "name is 'class'"), (["--name", "été"], "name is"),
    (["--name", "cells"], "name is 'cells'"), (["--opset", "7"], "opset is 7"), (["--title", "a\nb"], "title is"),
    (["--weights", "worst"], "invalid choice"), (["--outt", "x"], "did you mean --out"),
    (["--model", ""], "pass --model"), (["--model", "nowhere"], "no checkpoint at nowhere")])
def test_bad_input_is_one_sentence(flags, says, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: export.main(["--model", str(run), "--out", str(tmp_path / "out"), *flags]))
    said = capsys.readouterr()
    assert end.value.code == 2 and said.err.count("\n") == 1 and said.out == ""
    assert says.replace("\n", "\\n") in said.err and contents(tmp_path) == before


def test_other_files_than_checkpoints_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name in ("script.pt", "text.pt"):
        with pytest.raises(InputError, match=name):
            export.main(["--model", str(tmp_path / name), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path, hasty):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    for place, says in ((out, "holds other files"), (run, "holds other files"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=says):
            export.main(["--model", str(run), "--out", str(place), "--overwrite"])
    assert contents(tmp_path) == before


def test_an_earlier_package_is_moved_aside_when_told(tmp_path, hasty):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()  # an empty one will do
    command = ["--model", str(run), "--out", str(out), "--name", "Net"]
    export.main(command)
    (out / "notes.txt").write_text("mine")
    first = contents(out)
    with pytest.raises(InputError, match=r"earlier package.*--overwrite"):
        export.main(command)
    assert contents(out) == first
    export.main([*command, "--overwrite"])
    export.main([*command, "--overwrite", "--title", "T"])
    assert contents(tmp_path / "out.old1") == first and (tmp_path / "out.old2").is_dir()
    assert json.loads((out / "Net.json").read_text())["name"] == "T" and not (out / "notes.txt").exists()


def test_a_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "require_packages", lambda: None)  # they may be missing here
    before = contents(tmp_path)
    export.main(["--model", str(run), "--onnx", "--dry_run"])
    assert contents(tmp_path) == before
    said = capsys.readouterr().out
    count = sum(p.numel() for p in open_model(str(run / "best.pt")).model.parameters())
    assert f"would write to {tmp_path / 'runs' / 'export' / 'network_run'}: " in said and "network_run.onnx" in said
    assert f"{count / 1000:.4g}k parameters" in said and "not measured yet" in said


@pytest.mark.parametrize("missing", [["onnxscript"], ["onnx", "onnxruntime"]])
def test_missing_onnx_packages_are_named(missing, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in missing else object())
    with pytest.raises(SystemExit) as end:
        run_program(lambda: export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--onnx"]))
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert f"--onnx needs {' and '.join(missing)}, not found" in said.err
    assert "pip install -e '.[export]'" in said.err and not (tmp_path / "out").exists()


def test_the_extra_holds_what_onnx_needs():
    described = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extra = described["project"]["optional-dependencies"]["export"]
    assert sorted(requirement.partition(">=")[0] for requirement in extra) == sorted(PACKAGES)


def test_a_file_that_onnx_runtime_cannot_read_is_one_sentence(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"ONNX Runtime \d.* cannot read x\.onnx .*--opset$"):
        difference(nn.Flatten(), (3, 8, 8), tmp_path / "x.onnx")


def test_unknown_reliability_is_said(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run")
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)) | {"checks": UNCHECKED})
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    assert json.loads((tmp_path / "out" / "Net.json").read_text())["unreliable"] is None
    assert "Net.json: no check of the evaluation passed or failed" in capsys.readouterr().out
