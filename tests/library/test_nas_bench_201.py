"""Cells of NAS-Bench-201 and their networks: spelling, storage, published counts, the forward pass."""

import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import empty_layers
from tests.quick import slow_after
from wsrnas.architectures.nas_bench_201 import EDGES, OPERATIONS, CellGraph
from wsrnas.architectures.nas_bench_201.network import CellNB201, NetworkNB201, ReductionBlock, nb201_operation
from wsrnas.complexity import count_parameters, multiply_adds
from wsrnas.runtime.errors import InputError

ALL_3X3 = CellGraph(("nor_conv_3x3",) * 6)
EMPTY = CellGraph(("none",) * 6)
MIXED = CellGraph.from_string("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|nor_conv_1x1~2|")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nas_robbench_201_cifar10.json"
GRAPHS = st.lists(st.sampled_from(OPERATIONS), min_size=6, max_size=6).map(CellGraph)


def says(*words: str):
    """Expect one sentence, on one line, that holds every word in this order."""
    return pytest.raises(InputError, match=r"\A[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


# Spelling

def test_the_spelling_is_that_of_the_published_tables():
    graph = CellGraph(("nor_conv_3x3", "none", "nor_conv_1x1", "skip_connect", "avg_pool_3x3", "nor_conv_3x3"))
    assert str(graph) == ("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+"
                          "|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|")
    assert graph.choices == (3, 0, 2, 1, 4, 3)
    assert graph.nodes == ((("nor_conv_3x3", 0),), (("none", 0), ("nor_conv_1x1", 1)),
                           (("skip_connect", 0), ("avg_pool_3x3", 1), ("nor_conv_3x3", 2)))


@given(GRAPHS)
def test_every_form_gives_the_graph_back(graph):
    assert CellGraph.from_string(str(graph)) == graph
    assert CellGraph.from_choices(graph.choices) == graph
    assert CellGraph.from_json(graph.to_json()) == graph
    assert hash(CellGraph.from_string(str(graph))) == hash(graph)


def test_the_edges_of_a_node_may_be_in_any_order():
    text = " |avg_pool_3x3~0| + |skip_connect~1|nor_conv_1x1~0|+|nor_conv_1x1~2|nor_conv_3x3~0|none~1|\n"
    assert CellGraph.from_string(text) == MIXED


@pytest.mark.parametrize("text, words", [
    ("", ("''", "1 node", "expected 3")),
    ("|none~0|+|none~0|none~1|", ("2 nodes", "expected 3")),
    (f"{EMPTY}+|none~0|", ("4 nodes", "expected 3")),
    ("|conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
     ("'conv_3x3'", "from node 0 to node 1", "did you mean nor_conv_3x3?", "avg_pool_3x3")),
    ("|~0|+|none~0|none~1|+|none~0|none~1|none~2|", ("''", "from node 0 to node 1", "known operations")),
    ("|none~0|+|none~0|none~2|+|none~0|none~1|none~2|", ("node 2 has an edge from node 2", "before it")),
    ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", ("node 2 has two edges from node 0",)),
    ("|none~0|+|none~0|none~1|+|none~0|none~2|", ("node 3 has no edge from node 1", "none~1")),
    ("|none~0|+|none~0|+|none~0|none~1|none~2|", ("node 2 has no edge from node 1", "none~1")),
    ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", ("node 1 is 'none~0'", "|skip_connect~0|")),
    ("|+|none~0|none~1|+|none~0|none~1|none~2|", ("node 1 is '|'", "between bars")),
    ("||+|none~0|none~1|+|none~0|none~1|none~2|", ("an edge of node 1 is ''", "OPERATION~NODE")),
    ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", ("an edge of node 1 is 'none'", "OPERATION~NODE")),
    ("|none~x|+|none~0|none~1|+|none~0|none~1|none~2|", ("'none~x'", "OPERATION~NODE")),
    (f"|none~{'9' * 5000}|+|none~0|none~1|+|none~0|none~1|none~2|", ("OPERATION~NODE",)),
    ("|none~\u0660|+|none~0|none~1|+|none~0|none~1|none~2|", ("OPERATION~NODE",)),
    ("|none~-1|+|none~0|none~1|+|none~0|none~1|none~2|", ("'none~-1'", "OPERATION~NODE")),
])
def test_a_bad_spelling_is_named(text, words):
    with says(*words):
        CellGraph.from_string(text)


@pytest.mark.parametrize("operations, words", [
    (("none",) * 5, ("5 operations", "expected 6")),
    (("none",) * 7, ("7 operations", "expected 6")),
    ("none", ("'none'", "list of 6 names")),
    (None, ("None", "list of 6 names")),
    (("none", "none", "sep_conv_3x3", "none", "none", "none"), ("'sep_conv_3x3'", "from node 1 to node 2")),
    (("none", "none", "none", "none", "none", 3), ("unknown operation 3", "from node 2 to node 3")),
])
def test_bad_operations_are_named(operations, words):
    with says(*words):
        CellGraph(operations)


@pytest.mark.parametrize("choices, words", [
    ([0] * 5, ("5 operations",)),
    ([0, 0, 5, 0, 0, 0], ("edge 2 is 5", "0 to 4")),
    ([0, -1, 0, 0, 0, 0], ("edge 1 is -1", "0 to 4")),
    ([True] + [0] * 5, ("edge 0 is True", "integer")),
    ([1.0] + [0] * 5, ("edge 0 is 1.0", "integer")),
])
def test_bad_choices_are_named(choices, words):
    with says(*words):
        CellGraph.from_choices(choices)


# Storage

def test_a_file_says_its_space_and_holds_the_published_spelling(tmp_path):
    MIXED.save(tmp_path / "genotype.json", {"epoch": 3})
    document = json.loads((tmp_path / "genotype.json").read_text())
    assert document == {"space": "nas-bench-201", "graph": str(MIXED), "meta": {"epoch": 3}}
    assert CellGraph.load(tmp_path / "genotype.json") == MIXED
    assert [path.name for path in tmp_path.iterdir()] == ["genotype.json"]


@pytest.mark.parametrize("text, words", [
    ("{", ("not JSON",)),
    ("[]", ("is a list", "space and graph")),
    ("{}", ("lacks the keys space, graph",)),
    ('{"space": "nas-bench-201"}', ("lacks the key graph",)),
    ('{"space": "darts", "graph": ""}', ("the space 'darts'", "'nas-bench-201'")),
    ('{"space": "nas-bench-201", "graph": 3}', ("graph is 3", "expected text")),
    ('{"space": "nas-bench-201", "graph": ""}', ("1 node", "expected 3")),
    ('{"space": "nas-bench-201", "graph": "", "cell": 1}', ("unknown keys: cell",)),
    ('{"space": "nas-bench-201", "graph": "", "meta": 1}', ("meta is 1", "object")),
])
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "genotype.json"
    path.write_text(text)
    with says(str(path), *words):
        CellGraph.load(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with says(f"the genotype file {tmp_path / 'none.json'} does not exist"):
        CellGraph.load(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b"\xff")
    with says("latin.json", "UTF-8"):
        CellGraph.load(tmp_path / "latin.json")


# Graphs of the same function

ALL_GRAPHS = [CellGraph.from_choices(choices) for choices in itertools.product(range(5), repeat=6)]


def value(graph: CellGraph) -> float:
    """Return a number that a graph computes from 1, with a function that keeps zero for each operation."""
    functions = {"none": lambda x: 0.0, "skip_connect": lambda x: x, "nor_conv_1x1": lambda x: math.sin(3.1 * x),
                 "nor_conv_3x3": lambda x: x * x * x - 0.37 * x, "avg_pool_3x3": lambda x: math.atan(1.7 * x)}
    values = [1.0]
    for edges in graph.nodes:
        values.append(sum(functions[operation](values[source]) for operation, source in edges))
    return values[-1]


def test_graphs_with_one_unique_string_compute_the_same():
    by_string: dict[str, set[float]] = {}
    for graph in ALL_GRAPHS:
        by_string.setdefault(graph.unique_string(), set()).add(round(value(graph), 9))
    assert len(by_string) == 6466
    assert all(max(values) - min(values) < 1e-8 for values in by_string.values())
    assert len(set(itertools.chain(*by_string.values()))) > 4900  # the numbers tell functions apart


@pytest.mark.skipif(not TABLE.exists(), reason="the table is not here")
def test_unique_strings_part_the_graphs_as_the_published_table_does():
    table = json.loads(TABLE.read_text())
    assert tuple(table["ops"]) == OPERATIONS
    pairs = Counter((CellGraph.from_choices(map(int, digits)).unique_string(), row)
                    for digits, row in zip(table["arch"], table["row_of"], strict=True))
    assert len(pairs) == len({string for string, _ in pairs}) == len({row for _, row in pairs}) == 6466


# Operations and blocks

def test_a_graph_reads_its_input_where_a_path_leads_to_its_output():
    """A path is a set of edges that lead on from node to node: all four are written out."""
    paths = [{(0, 3)}, {(0, 1), (1, 3)}, {(0, 2), (2, 3)}, {(0, 1), (1, 2), (2, 3)}]
    for used in itertools.product((True, False), repeat=6):
        graph = CellGraph(tuple("avg_pool_3x3" if one else "none" for one in used))
        edges = {edge for edge, one in zip(EDGES, used, strict=True) if one}
        assert graph.reads_input == any(path <= edges for path in paths), graph


def test_an_unknown_operation_and_a_change_of_width_are_named():
    with says("'conv'", "none, skip_connect"):
        nb201_operation("conv", 4, 4)
    with says("skip_connect has 4 channels", "8"):
        nb201_operation("skip_connect", 4, 8)


@pytest.mark.parametrize("name, stride", [*itertools.product(OPERATIONS, (1, 2))])
def test_operations_divide_the_size_by_the_stride_rounded_up(name, stride):
    assert nb201_operation(name, 4, 4, stride)(torch.rand(2, 4, 7, 10)).shape == (2, 4, -(-7 // stride), 10 // stride)


def relu_conv_norm(sequence, x):
    """Compute ReLU, convolution and BatchNorm in evaluation mode from their weights."""
    _, conv, norm = sequence
    x = F.conv2d(x.clamp_min(0), conv.weight, stride=conv.stride, padding=conv.padding)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x * scale.view(-1, 1, 1) + (norm.bias - norm.running_mean * scale).view(-1, 1, 1)


def mean_of_neighbours(x):
    """Return the mean over the pixels of each 3x3 window that lie in the image."""
    count = F.conv2d(torch.ones_like(x[:1, :1]), torch.ones(1, 1, 3, 3, dtype=x.dtype), padding=1)
    weight = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    return F.conv2d(x, weight, padding=1, groups=x.shape[1]) / count


def by_hand(network, graph, images):
    """Compute the logits of a network in evaluation mode from its weights, edge by edge."""
    conv, norm = network.stem
    x = norm(F.conv2d(images, conv.weight, padding=1))
    for number, cell in enumerate(network.cells):
        if number in (len(network.cells) // 3, 2 * len(network.cells) // 3):
            block = network.reductions[number * 3 // len(network.cells) - 1]
            first, second = block.body
            y = relu_conv_norm(second, relu_conv_norm(first, x))
            quarter = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            x = y + F.conv2d(quarter, block.shortcut[1].weight)
        node = {0: x, 1: 0 * x, 2: 0 * x, 3: 0 * x}
        for operation, edge, module in zip(graph.operations, EDGES, cell.edges, strict=True):
            if operation.startswith("nor_conv"):
                node[edge[1]] = node[edge[1]] + relu_conv_norm(module, node[edge[0]])
            elif operation == "avg_pool_3x3":
                node[edge[1]] = node[edge[1]] + mean_of_neighbours(node[edge[0]])
            elif operation == "skip_connect":
                node[edge[1]] = node[edge[1]] + node[edge[0]]
        x = node[3]
    x = network.activation[0](x).clamp_min(0).flatten(2).mean(2)
    return x @ network.classifier.weight.T + network.classifier.bias


@pytest.mark.parametrize("graph", [MIXED, ALL_3X3, EMPTY, *ALL_GRAPHS[1234::3571]], ids=str)
def test_the_logits_are_those_of_the_definition(graph):
    torch.manual_seed(0)
    network = NetworkNB201(graph, 3, 2, 5, channels=2).double()
    network.train()(torch.rand(8, 2, 12, 8).double())  # running statistics that are not zero and one
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.rand_like(parameter)
    images = torch.rand(3, 2, 12, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), by_hand(network, graph, images), rtol=1e-9, atol=1e-9)


def test_the_outputs_are_those_of_the_cells_at_the_three_sizes():
    network, outputs = NetworkNB201(MIXED, 4, 2), []
    network(torch.rand(2, 3, 9, 8), outputs)
    assert [tuple(features.shape[1:]) for features in outputs] == [
        (4, 9, 8), (4, 9, 8), (8, 5, 4), (8, 5, 4), (16, 3, 2), (16, 3, 2)]


def test_large_images_are_normalised_and_divided_by_eight_first():
    network, outputs = NetworkNB201(MIXED, 4, 1, imagenet=True).eval(), []
    images = torch.rand(2, 3, 64, 48)
    logits = network(images, outputs)
    assert outputs[0].shape[2:] == (8, 6)
    normalised = network.normalize(images)
    network.normalize = torch.nn.Identity()
    assert torch.equal(network(normalised), logits)
    with says("channels is 1", "3 for imagenet"):
        NetworkNB201(MIXED, channels=1, imagenet=True)


@pytest.mark.parametrize("number", ["init_channels", "cells_per_stage", "num_classes", "channels"])
def test_a_number_below_one_is_named(number):
    with says(f"{number} is 0", "at least 1"):
        NetworkNB201(MIXED, **{number: 0})


def test_drop_path_drops_in_training_alone():
    torch.manual_seed(0)
    cell = CellNB201(CellGraph(("none", "none", "none", "avg_pool_3x3", "none", "none")), 2)
    images = torch.rand(64, 2, 4, 4)
    expected = cell(images)
    cell.drop_path.rate = 0.5
    assert torch.equal(cell.eval()(images), expected)
    dropped = [not image.any() for image in cell.train()(images)]
    assert 0 < sum(dropped) < len(dropped)


def test_a_reduction_block_takes_odd_sides():
    assert ReductionBlock(2, 4)(torch.rand(1, 2, 1, 7)).shape == (1, 4, 1, 4)


# Published counts

def counts(graph, num_classes=10, side=32):
    """Return the parameters and multiply-adds of the published network, in millions, as the tables print them.

    The tables also count an addition for each bias of the classifier.
    """
    with empty_layers():
        network = NetworkNB201(graph, num_classes=num_classes)
    return count_parameters(network) / 1e6, (multiply_adds(network, (3, side, side)) + num_classes) / 1e6


# Sources: the smallest and the largest count of the tables for CIFAR-10 and CIFAR-100, as users of the tables report
# them; github.com/D-X-Y/NATS-Bench, issues 18 (graph 1), 24 (graph 0, CIFAR-10 and ImageNet16-120) and 36.
@pytest.mark.parametrize("graph, num_classes, side, parameters, operations", slow_after(2, [
    (ALL_3X3, 10, 32, 1.531546, 220.11969),
    (ALL_3X3, 100, 32, 1.537396, 220.12554),
    (EMPTY, 10, 32, 0.073306, 7.78305),
    (EMPTY, 100, 32, 0.079156, 7.7889),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", 10, 32,
     0.802, 113.95),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", 100, 32,
     0.808, 113.96),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", 120, 16,
     0.810, 28.50),
    ("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|", 10, 32,
     None, 15.64737),
    ("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|", 120, 16,
     None, 3.91948),
    ("|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|", 10, 32,
     0.802426, 113.95137),
]))
def test_the_counts_are_the_published_ones(graph, num_classes, side, parameters, operations):
    graph = CellGraph.from_string(graph) if isinstance(graph, str) else graph
    found, done = counts(graph, num_classes, side)
    digits = 2 if operations in (113.95, 113.96, 28.50) else 5
    assert round(done, digits) == operations
    assert parameters is None or round(found, 3 if digits == 2 else 6) == parameters


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(GRAPHS, st.integers(1, 9), st.integers(1, 3))
def test_the_counts_follow_their_formula(graph, width, per_stage):
    with empty_layers():
        network = NetworkNB201(graph, width, per_stage, 10)
    taps = sum({"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(operation, 0) for operation in graph.operations)
    convolutions = sum(operation.startswith("nor_conv") for operation in graph.operations)
    cells = per_stage * sum(taps * c * c + convolutions * 2 * c for c in (width, 2 * width, 4 * width))
    blocks = sum(9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c + 2 * 2 * 2 * c for c in (width, 2 * width))
    assert count_parameters(network) == 27 * width + 2 * width + cells + blocks + 8 * width + 40 * width + 10
    area = {width: 1024, 2 * width: 256, 4 * width: 64}
    done = 27 * width * 1024 + per_stage * sum(taps * c * c * area[c] for c in area) + 40 * width
    done += sum((9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c) * area[2 * c] for c in (width, 2 * width))
    assert multiply_adds(network, (3, 32, 32)) == done
