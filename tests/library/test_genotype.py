"""Genotypes: forms, validation, JSON, differences, published names."""

import json
import os
import re

import pytest

import genotypes
from wsrnas.genotype import Genotype, count_differences
from wsrnas.runtime.errors import InputError

FLAT = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("none", 0)]
BY_NODE = [[("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 2), ("none", 0)]]
UNEVEN = [[("sep_conv_3x3", 0)], [("max_pool_3x3", 2), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1)]]


def make(normal=FLAT, normal_concat=(2, 3), reduce=FLAT, reduce_concat=(2, 3)) -> Genotype:
    return Genotype(normal, normal_concat, reduce, reduce_concat)


def says(*words: str):
    """Expect one sentence, on one line, that holds every word in this order."""
    return pytest.raises(InputError, match=r"\A[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


# Forms

def test_flat_and_by_node_are_stored_alike():
    assert make(FLAT) == make(BY_NODE)
    assert hash(make(FLAT)) == hash(make(BY_NODE))
    assert make(BY_NODE).normal == tuple(FLAT)
    assert make(BY_NODE).nodes("normal") == make(FLAT).nodes("normal") == tuple(map(tuple, BY_NODE))


def test_uneven_nodes_stay_by_node():
    genotype = make(reduce=UNEVEN)
    assert genotype.reduce == genotype.nodes("reduce") == tuple(map(tuple, UNEVEN))
    assert genotype.normal == tuple(FLAT)


def test_concat_may_repeat_and_omit_nodes():
    assert make(reduce_concat=[3, 3]).reduce_concat == (3, 3)


def test_nodes_of_an_unknown_kind():
    with says("'reduction'", "'normal' or 'reduce'"):
        make().nodes("reduction")


# Bad cells

@pytest.mark.parametrize("fields, words", [
    ({"normal": [*FLAT[:3], ("conv_9x9", 1)]},
     ("'conv_9x9'", "edge 1 of node 3 in the normal cell", "sep_conv_3x3", "conv_7x1_1x7")),
    ({"reduce": [[("sep_conv_3x3", 0)], [("skip", 1)]]}, ("'skip'", "edge 0 of node 3 in the reduce cell")),
    ({"normal": [(3, 0), ("none", 1)]}, ("unknown operation 3", "edge 0 of node 2")),
    ({"normal": [("none", -1), ("none", 1)]}, ("edge 0 of node 2 in the normal cell", "negative", "-1")),
    ({"normal": [("none", 0), ("none", 2)]},
     ("edge 1 of node 2 in the normal cell", "refers forward", "2", "0 to 1")),
    ({"reduce": [*FLAT[:3], ("none", 9)]},
     ("edge 1 of node 3 in the reduce cell", "refers forward", "9", "0 to 2")),
    ({"normal": [("none", 1.0), ("none", 1)]}, ("edge 0 of node 2", "1.0", "an integer")),
    ({"normal": [("none", "1"), ("none", 1)]}, ("edge 0 of node 2", "'1'", "an integer")),
    ({"normal": [("none", True), ("none", 1)]}, ("edge 0 of node 2", "True", "an integer")),
    ({"normal": FLAT[:3]}, ("normal cell", "odd number of pairs, 3")),
    ({"normal": []}, ("normal cell is empty",)),
    ({"reduce": [[("none", 0)], []]}, ("node 3 of the reduce cell has no edge",)),
    ({"normal": "none"}, ("normal cell is 'none'", "pairs")),
    ({"normal": None}, ("normal cell is None", "pairs")),
    ({"normal": [("none",), ("none", 1)]}, ("edge 0 of node 2 in the normal cell", "('none',)", "pair")),
    ({"normal": [("none", 0), "none"]}, ("edge 1 of node 2 in the normal cell", "'none'", "pair")),
    ({"normal": [[("none", 0)], "none"]}, ("node 3 of the normal cell", "'none'", "pairs")),
    ({"normal_concat": []}, ("normal_concat is empty", "2 to 3")),
    ({"reduce_concat": [2, 4]}, ("reduce_concat", "node 4", "does not exist", "2 to 3")),
    ({"reduce_concat": [1, 2]}, ("reduce_concat", "node 1", "does not exist")),
    ({"reduce_concat": [2, "3"]}, ("reduce_concat", "node '3'", "does not exist")),
    ({"normal_concat": 2}, ("normal_concat is 2", "list of nodes")),
])
def test_a_bad_cell_is_named(fields, words):
    with says(*words):
        make(**fields)


# JSON

@pytest.mark.parametrize("genotype", [make(), make(reduce=UNEVEN, normal_concat=[3, 3])])
def test_a_genotype_is_the_same_after_json(genotype, tmp_path):
    assert Genotype.from_json(genotype.to_json()) == genotype
    path = tmp_path / "genotype.json"
    genotype.save(path)
    genotype.save(path, meta={"epoch": 49})  # overwrites
    assert Genotype.load(path) == genotype
    assert json.loads(path.read_text())["meta"] == {"epoch": 49}
    assert [file.name for file in tmp_path.iterdir()] == ["genotype.json"]


def test_a_file_may_have_a_long_name(tmp_path):
    path = tmp_path / ("g" * 245 + ".json")
    make().save(path)
    assert Genotype.load(path) == make() and len(list(tmp_path.iterdir())) == 1


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "genotype.json"
    make().save(path)

    def full_disk(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        make(reduce=UNEVEN).save(path)
    assert Genotype.load(path) == make()
    assert [file.name for file in tmp_path.iterdir()] == ["genotype.json"]


def edited(**changes) -> str:
    document = json.loads(make().to_json()) | changes
    return json.dumps({key: value for key, value in document.items() if value is not ...})


@pytest.mark.parametrize("text, words", [
    ("normal: 3", ("not JSON",)),
    ("[" * 100_000, ("not JSON",)),
    ("[1, 2]", ("list", "expected an object")),
    (edited(reduce=..., format=...), ("lacks", "format, reduce",)),
    (edited(dropout=0.1, extra=1), ("unknown keys", "dropout, extra")),
    (edited(format=2), ("format 2", "format 1")), (edited(format=True), ("format True", "format 1")),
    (edited(meta=[]), ("meta is []", "an object")),
    (edited(normal=[["conv_9x9", 0], ["none", 1]]), ("'conv_9x9'", "normal cell")),
])
def test_bad_json_is_named(text, words, tmp_path):
    with says(*words):
        Genotype.from_json(text)
    path = tmp_path / "found.json"
    path.write_text(text)
    with says("found.json", *words):
        Genotype.load(path)


def test_an_unreadable_file_is_named(tmp_path):
    with says("missing.json", "does not exist"):
        Genotype.load(tmp_path / "missing.json")
    with says(str(tmp_path), "is a folder"):
        Genotype.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it: to open it would wait for ever
    with says("pipe", "is a pipe"):
        Genotype.load(tmp_path / "pipe")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with says("binary.json", "UTF-8"):
        Genotype.load(tmp_path / "binary.json")


# Differences

def test_differences_ignore_the_order_of_edges_and_count_repeats():
    assert count_differences(make(), make([FLAT[1], FLAT[0], *FLAT[2:]])) == 0
    assert count_differences(make(), make([FLAT[0], FLAT[1], ("none", 0), ("none", 0)])) == 1
    twice = make([FLAT[0], FLAT[0], *FLAT[2:]])
    assert count_differences(twice, make()) == 1
    assert count_differences(make(reduce=UNEVEN), make()) == 2  # two of four edges are shared
    swapped = make([*FLAT[:2], ("max_pool_3x3", 0), ("none", 2)])
    assert count_differences(make(), swapped) == 2


def test_published_cells_share_as_many_choices_as_their_files_do():
    """The overlaps that were counted in the published genotype files, of 16 choices each."""
    basic = genotypes.load("cna_r")
    overlaps = {"cna_m": 15, "cna_m_1": 14, "WsrNet_Plus": 14, "cna_n": 11, "cna_r_minus": 14}
    for name, shared in overlaps.items():
        assert 16 - count_differences(basic, genotypes.load(name)) == shared, name
    assert count_differences(genotypes.load("WsrNet_M_1"), genotypes.load("WsrNet_Plus")) == 0
    assert count_differences(genotypes.load("RACL"), genotypes.load("AdvRush")) == 11
    assert count_differences(basic, genotypes.load("RACL")) >= 15


# Names

def test_names_are_unique_when_written_plainly():
    spelled = {name.lower().replace("_", ""): name for name in genotypes.names()}
    assert len(spelled) == len(genotypes.names()) == 32
    for alias, name in genotypes.ALIASES.items():
        assert name in genotypes.names() and spelled.get(alias.lower().replace("_", ""), name) == name


@pytest.mark.parametrize("spec, name", [
    ("WsrNet_Basic", "WsrNet_Basic"), ("WsrNet_Robust", "WsrNet_Basic"), ("cna_r", "WsrNet_Basic"),
    ("WSRNET_BASIC", "WsrNet_Basic"), ("wsrnet-basic", "WsrNet_Basic"), ("WsrNetBasic", "WsrNet_Basic"),
    ("WsrNet-Plus", "WsrNet_Plus"), ("cna_m", "WsrNet_M"), ("cna_m_1", "WsrNet_M_1"), ("WsrNet-M-1", "WsrNet_M_1"),
    ("cna_n", "WsrNet_N"), ("CNA_R_minus", "WsrNet_R_minus"), ("racl", "RACL"), ("ADVRUSH", "AdvRush"),
    ("AdvRush", "AdvRush"),
])
def test_a_published_cell_is_loaded_by_its_name(spec, name):
    assert genotypes.load(spec) is genotypes.PUBLISHED[name]


def test_a_genotype_is_loaded_from_its_file_or_folder(tmp_path, monkeypatch):
    genotype = make(reduce=UNEVEN)
    genotype.save(tmp_path / "genotype.json", meta={"epoch": 1})
    monkeypatch.chdir(tmp_path.parent)
    for spec in (tmp_path, tmp_path / "genotype.json", str(tmp_path), tmp_path.name):
        assert genotypes.load(spec) == genotype


def test_load_says_what_is_wrong(tmp_path):
    for missing in ("runs/search/lost", "lost.json"):
        with says(missing, "does not exist"):
            genotypes.load(missing)
    with says(str(tmp_path), "no genotype.json"):
        genotypes.load(tmp_path)
    with says("'WsrNet_Bsic'", "did you mean WsrNet_Basic", "known names", "PNAS", "cna_r_minus"):
        genotypes.load("WsrNet_Bsic")
    with says("''", "known names"):
        genotypes.load("")
