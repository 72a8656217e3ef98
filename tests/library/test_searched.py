"""Searched architectures of any space: files are read by their content, networks built, described and found again."""

import json
import re
from pathlib import Path

import pytest
import torch

import genotypes
from search.spaces import SPACES
from wsrnas.architectures import searched
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.architectures.nas_bench_201.network import NetworkNB201
from wsrnas.complexity import count_parameters
from wsrnas.models import build_described, build_model, description, load_architecture, sizes
from wsrnas.models import main as list_models
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.opening import open_model

GRAPH = CellGraph.from_string("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
EMPTY = CellGraph(("none",) * 6)


def says(*words: str):
    """Expect one sentence, on one line, that holds every word in this order."""
    return pytest.raises(InputError, match=r"\A[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


def saved(architecture, folder: Path) -> Path:
    folder.mkdir()
    architecture.save(folder / "genotype.json")
    return folder


# Reading

@pytest.mark.parametrize("architecture", [GRAPH, genotypes.load("WsrNet_Basic")], ids=["graph", "genotype"])
def test_a_file_gives_the_architecture_of_its_space(architecture, tmp_path):
    folder = saved(architecture, tmp_path / "run")
    for given in (folder, folder / "genotype.json", str(folder), architecture):
        assert load_architecture(given) == architecture
    assert genotypes.load(folder) == searched.load(folder / "genotype.json") == architecture
    assert searched.read(architecture.to_json()) == architecture


def test_a_graph_is_an_architecture_in_the_spelling_of_the_tables():
    assert load_architecture(str(GRAPH)) == genotypes.load(str(GRAPH)) == GRAPH
    with says("'nor_conv'", "from node 0 to node 1", "did you mean nor_conv_1x1?"):
        load_architecture(str(GRAPH).replace("nor_conv_3x3~0", "nor_conv~0"))
    with says("unknown architecture 'nor_conv_3x3~0'"):
        load_architecture("nor_conv_3x3~0")


@pytest.mark.parametrize("text, words", [
    ('{"space": "nas-bench-101", "graph": ""}', ("the space 'nas-bench-101'", "expected nas-bench-201, or no")),
    ('{"space": ["darts"]}', ("the space ['darts']", "nas-bench-201, or no entry space for two cells")),
    ('{"space": "darts"}', ("the space 'darts'", "expected nas-bench-201, or no entry space for two cells")),
    ('{"space": null}', ("the space None", "expected nas-bench-201, or no entry space for two cells")),
    ('{"space": "darts", "format": 1}', ("the space 'darts'",)),
    ('{"space": "nas-bench-201"}', ("lacks the key graph",)),
    ("{", ("not JSON",)),
    ("[]", ("is a list",)),
])
def test_a_bad_file_is_named(text, words, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(text)
    with says(str(path), *words):
        load_architecture(path)
    with says(*words):
        searched.read(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff")
    with says("latin.json", "UTF-8"):
        searched.load(tmp_path / "latin.json")
    with says("none.json", "does not exist"):
        searched.load(tmp_path / "none.json")


def test_only_graphs_have_names_of_their_own():
    assert searched.short_name(str(GRAPH)) == searched.name_of(GRAPH) == GRAPH.name == "nb201-303104"
    assert searched.short_name("WsrNet_Basic") == searched.name_of(genotypes.load("WsrNet_Basic")) == ""
    assert searched.space_of("WsrNet_Basic") is None


# Building

def test_the_usual_network_is_the_published_one():
    with torch.device("meta"):
        network = build_model(str(GRAPH))
    assert isinstance(network, NetworkNB201)
    assert len(network.cells) == 15
    assert network.stem[0].out_channels == 16
    assert count_parameters(network) == 73306 + 2 * 5 * (9 * (16**2 + 32**2 + 64**2) + 2 * (16 + 32 + 64))
    assert sizes(GRAPH, "cifar10") == sizes(str(GRAPH), "imagenet") == (16, 15)


def test_width_depth_classes_and_channels_are_those_that_are_asked_for():
    network = build_model(GRAPH, 7, 5, 6, "digits", channels=1).eval()
    assert len(network.cells) == 6
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    large = build_model(GRAPH, 7, 4, 3, "imagenet").eval()
    assert large(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    assert large.normalize(torch.zeros(1, 3, 1, 1)).abs().min() > 1


@pytest.mark.parametrize("arguments, words", [
    ({"layers": 4}, ("layers is 4", "multiple of 3")),
    ({"layers": 20}, ("layers is 20", "multiple of 3")),
    ({"layers": 0}, ("layers is 0; expected at least 1",)),
    ({"layers": -3}, ("layers is -3; expected at least 1",)),
    ({"dataset": "imagenet", "channels": 1}, ("channels is 1; expected 3 for imagenet",)),
    ({"init_channels": 0}, ("init_channels is 0",)),
    ({"num_classes": 0}, ("num_classes is 0",)),
    ({"auxiliary": True}, ("no auxiliary head",)),
    ({"dataset": "imagenet", "channels": 1}, ("channels is 1", "3 for imagenet")),
])
def test_a_size_that_cannot_be_is_named(arguments, words):
    with says(*words):
        build_model(GRAPH, **arguments)


@pytest.mark.parametrize("layers", [16, 0])
def test_a_space_builds_no_other_number_of_cells_than_it_is_asked_for(layers):
    with says(f"layers is {layers}", "multiple of 3"):
        SPACES["nas-bench-201"].network(GRAPH, 4, layers, 10)


def test_an_architecture_and_its_description_build_the_same_network():
    stored = description(str(GRAPH), 4, 3, 6, "digits", (1, 8, 8))
    assert json.loads(stored["genotype"]) == {"space": "nas-bench-201", "graph": str(GRAPH)}
    network = build_described(json.loads(json.dumps(stored)))
    assert network.graph == GRAPH
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in build_model(GRAPH, 4, 3, 6, "digits", 1).state_dict().items()}


@pytest.mark.parametrize("graph, layers", [(GRAPH, None), (EMPTY, 3)], ids=["sizes of the weights", "depth is given"])
def test_weights_are_opened_by_the_spelling_of_their_graph(graph, layers, tmp_path):
    network = build_model(graph, 5, 6, 3).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    opened = open_model(str(graph), genotype=graph, state_dict=str(tmp_path / "weights.pt"), num_classes=5,
                        layers=layers)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(opened.model(images), network(images))
    assert opened.name == graph.name
    assert opened.description["init_channels"] == 6


def test_weights_that_do_not_tell_the_depth_want_it(tmp_path):
    """A graph without convolutions has no weights in its cells; another depth would be another network."""
    torch.save(build_model(EMPTY, 5, 6, 3).state_dict(), tmp_path / "weights.pt")
    with says("weights.pt: the cells have no weights", "expected their number (--layers)"):
        open_model(str(EMPTY), genotype=EMPTY, state_dict=str(tmp_path / "weights.pt"), num_classes=5)


def test_weights_of_another_graph_are_refused(tmp_path):
    torch.save(build_model(GRAPH, 5, 6, 3).state_dict(), tmp_path / "weights.pt")
    with says("do not fit", "6 channels, 3 layers"):
        open_model(str(EMPTY), genotype=CellGraph(("nor_conv_1x1",) * 6), state_dict=str(tmp_path / "weights.pt"),
                   num_classes=5)


def test_the_list_shows_how_a_graph_is_named(capsys, monkeypatch):
    monkeypatch.setattr("wsrnas.models.ENTRIES", {})  # it counts every network of its table
    list_models([])  # as with --list
    example = re.search(r"NAS-Bench-201.*'(\|.*\|)'", capsys.readouterr().out)[1]
    assert isinstance(load_architecture(example), CellGraph)
