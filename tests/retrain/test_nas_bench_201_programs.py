"""Graphs of NAS-Bench-201 in the programs: their sizes and names, files that need no project, a run from end to end."""

import ast
import json
import runpy
from pathlib import Path

import pytest
import torch

import retrain.vulnerability.__main__ as vulnerability
from retrain import compare, evaluate, export, train_cifar
from retrain.publishing import writing
from retrain.publishing.standalone import literal, standalone_source
from retrain.race.entrants import load_entrants
from retrain.race.register import enter, entered
from retrain.recipes import IMAGENET_RECIPES, RECIPES, parse_recipe
from retrain.settings import ImageNetConfig, RetrainConfig
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.architectures.searched import SPACES
from wsrnas.models import build_model
from wsrnas.report.writing import write_report
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checkpoints import load_model

pytestmark = pytest.mark.usefixtures("quick_pages")

GRAPH = CellGraph.from_string("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
SHUFFLED = "|nor_conv_3x3~0|+|nor_conv_1x1~1|none~0|+|avg_pool_3x3~2|skip_connect~0|none~1|"
NAME = "nb201-302104"


def refused(*arguments):
    """The one sentence that a command line is refused with."""
    with pytest.raises(InputError) as caught:
        parse_recipe(RetrainConfig, RECIPES, list(arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Sizes and names

def test_a_graph_has_the_published_size_unless_another_is_given(tmp_path):
    GRAPH.save(tmp_path / "genotype.json")
    for given in (str(GRAPH), str(tmp_path), str(tmp_path / "genotype.json")):
        for cls, recipes in ((RetrainConfig, RECIPES), (ImageNetConfig, IMAGENET_RECIPES)):
            config, _ = parse_recipe(cls, recipes, ["--recipe", "tiny", "--arch", given])
            assert (config.arch, config.init_channels, config.layers) == (given, 16, 15)
    config, _ = parse_recipe(RetrainConfig, RECIPES, ["--arch", str(GRAPH), "--init_channels", "8", "--layers", "6"])
    assert (config.init_channels, config.layers) == (8, 6)


def test_the_size_of_a_recipe_stays_that_of_its_genotype():
    config, _ = parse_recipe(RetrainConfig, RECIPES, ["--recipe", "tiny", "--arch", "RACL"])
    assert (config.init_channels, config.layers) == (RECIPES["tiny"].init_channels, RECIPES["tiny"].layers)


def test_a_graph_has_one_run_directory_however_it_is_spelled():
    configs = [parse_recipe(RetrainConfig, RECIPES, ["--arch", given])[0] for given in (str(GRAPH), SHUFFLED)]
    assert configs[0] == configs[1]
    assert configs[0].name == f"{NAME}-wsrnet-basic-pgd-cifar10-seed0"


def test_a_depth_that_cannot_be_and_a_bad_graph_are_named():
    assert "layers is 20" in refused("--arch", str(GRAPH), "--layers", "20")
    assert "layers is 0" in refused("--arch", str(GRAPH), "--layers", "0")
    assert "'conv'" in refused("--arch", str(GRAPH).replace("nor_conv_3x3", "conv"))


def test_graphs_enter_a_race_under_short_names(tmp_path):
    GRAPH.save(tmp_path / "found.json")
    entrants = load_entrants([f"{GRAPH},mine={SHUFFLED}", f"{tmp_path}/found.json", "RACL"], 20, 0)
    assert [(entrant.name, entrant.layers) for entrant in entrants] == [
        (NAME, 15), ("mine", 15), ("found", 15), ("RACL", 20)]
    assert [entrant.arch for entrant in entrants[:3]] == [GRAPH] * 3
    (tmp_path / "race").mkdir()
    enter(tmp_path / "race", entrants, 1)
    assert entered(tmp_path / "race") == (entrants, 1)
    assert CellGraph.load(tmp_path / "race" / "genotypes" / f"{NAME}.json") == GRAPH


# Files that need no project

@pytest.mark.parametrize("large", [False, True], ids=["small images", "large images"])
def test_a_file_of_its_own_builds_the_same_network(large, tmp_path):
    sizes = {"init_channels": 4, "layers": 3, "num_classes": 5, "channels": 3}
    call = SPACES["nas-bench-201"].call(sizes, large)
    source = standalone_source("A network.", GRAPH, call.partition("(")[0], f"def build():\n    return {call}")
    assert {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)} <= {
        "collections.abc", "contextlib", "dataclasses", "pathlib", "typing", "torch"}
    assert max(map(len, source.splitlines())) <= 120
    for left_out in ("InputError", "from_string", "unique_string", "BatchNoise", "wsrnas"):
        assert left_out not in source
    (tmp_path / "network.py").write_text(source)
    expected = build_model(GRAPH, 5, 4, 3, "imagenet" if large else "digits").eval()
    network = runpy.run_path(str(tmp_path / "network.py"))["build"]().eval()
    network.load_state_dict(expected.state_dict())
    images = torch.rand(2, 3, 32, 40)
    assert torch.equal(network(images), expected(images))


@pytest.mark.parametrize("graph", [GRAPH, CellGraph(("nor_conv_3x3",) * 6)], ids=str)
def test_a_graph_is_written_as_it_is(graph, tmp_path):
    text = literal(graph)
    assert max(map(len, text.splitlines())) <= 120
    (tmp_path / "graph.py").write_text(text)
    assert runpy.run_path(str(tmp_path / "graph.py"), {"CellGraph": CellGraph})["GENOTYPE"] == graph


# From end to end

SMALL = ["--recipe", "tiny", "--epochs", "1", "--milestones", "1", "--max_train", "120", "--held_out", "20",
         "--batch_size", "50", "--num_steps", "1", "--select_steps", "1", "--select_every", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("graph")
    train_cifar.main([*SMALL, "--arch", str(GRAPH), "--init_channels", "4", "--layers", "3", "--runs",
                      str(place / "runs")])
    return place / "runs" / "retrain" / f"{NAME}-tiny-pgd-digits-seed0"


@pytest.mark.slow
def test_a_graph_is_trained_measured_and_exported(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, "check_in_fresh_process", lambda *given: None)  # a file of its own is checked above
    network, description = load_model(trained / "best.pt")
    assert network.graph == GRAPH
    assert (description["init_channels"], description["layers"]) == (4, 3)
    evaluate.main(["--model", str(trained), "--protocol", "custom", "--attacks", "pgd-1", "--strengths", "0.1",
                   "--max_test", "60", "--check_images", "30"])
    result = json.loads(next((trained / "eval").glob("*.json")).read_text())
    assert result["model"]["genotype"] == {"space": "nas-bench-201", "graph": str(GRAPH)}
    page = Path(write_report([trained])).read_text()
    assert "nor_conv_1x1" in page and "The cell as a graph" in page
    export.main(["--model", str(trained), "--out", str(tmp_path / "package"), "--name", "network_of_a_graph"])
    files = {path.name for path in (tmp_path / "package").iterdir()}
    assert {"network_of_a_graph.py", "network_of_a_graph.pt", "README.md", "cells.svg"} <= files
    card = (tmp_path / "package" / "README.md").read_text()
    assert "![The cell](cells.svg)" in card and "node 2 = none(input) + nor_conv_1x1(node 1)" in card
    assert f"{NAME} (C = 4, 3 cells)" in (tmp_path / "package" / "network_of_a_graph.py").read_text()


@pytest.mark.slow
def test_the_layers_of_its_vulnerability_are_its_cells(trained, tmp_path):
    vulnerability.main(["--model", str(trained), "--runs", str(tmp_path), "--save", "graph", "--max_test", "50",
                        "--num_steps", "1"])
    result = json.loads((tmp_path / "vulnerability" / "graph" / "vulnerability.json").read_text())
    measured = json.dumps(result)
    assert all(f'"cells.{number}"' in measured for number in range(3)) and '"cells.3"' not in measured


@pytest.mark.slow
def test_a_graph_races_against_a_genotype(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare.main([*SMALL, "--archs", f"{GRAPH},random:1", "--layers", "2", "--budget", "params=12k", "--tolerance",
                  "0.5", "--seeds", "1", "--protocol", "custom", "--attacks", "pgd-1", "--test_strengths", "0.1",
                  "--max_test", "40", "--check_images", "30", "--save", "race"])
    race = tmp_path / "runs" / "compare" / "race"
    document = json.loads((race / "race.json").read_text())
    assert [(entrant["name"], entrant["layers"]) for entrant in document["entrants"]] == [(NAME, 15), ("random_1", 2)]
    assert document["complete"] is True
    assert (race / "retrain" / f"{NAME}-seed0" / "best.pt").is_file()
    assert "The cell as a graph" in (race / "report.html").read_text()
