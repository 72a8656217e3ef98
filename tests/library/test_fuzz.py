"""Readers of files, fed with anything: a value, or one short sentence; never another error."""

import io
import json
import resource
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import genotypes
from search.tables.reading import open_table
from search.wsr_nas_settings import PRESETS, SearchConfig
from wsrnas.architectures import searched
from wsrnas.evaluation.journal import Journal
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import load_config, to_dict
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.opening import open_model

values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                      lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=9), some, max_size=4),
                      max_leaves=12)
CELL = json.loads(genotypes.load("WsrNet_Basic").to_json())
GRAPH = {"space": "nas-bench-201", "graph": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|"}
CONFIG = to_dict(PRESETS["tiny"])
TABLE = {"cells": [{"genotype": CELL, "clean": 90.0, "pgd": 50.0}], "columns": ["clean", "pgd"]}
SECONDS, KIBIBYTES = 5, 2**21  # of one file
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def changed(draw, document):
    """A document, one part of which is something else or missing."""
    copy = json.loads(json.dumps(document))
    place, key = copy, draw(st.sampled_from(sorted(copy)))
    while isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if draw(st.booleans()):
        place[key] = draw(values)
    else:
        del place[key]
    return json.dumps(copy).encode()


def documents(document):
    """Bytes that may stand in a file of this kind."""
    whole = json.dumps(document).encode()
    return st.one_of(changed(document), values.map(lambda value: json.dumps(value).encode()), st.binary(max_size=200),
                     st.integers(0, len(whole)).map(lambda end: whole[:end]))


def answers(read, *arguments):
    """Read, and look at the sentence if there is one, at the time and at the memory."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return read(*arguments)
    except InputError as error:
        assert str(error) and "\n" not in str(error)[:50]
        return error
    finally:
        assert time.process_time() - begun < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIBIBYTES


@pytest.mark.parametrize(("read", "document"), [
    (searched.load, CELL), (searched.load, GRAPH), (lambda path: load_config(SearchConfig, path), CONFIG),
    (lambda path: open_table(str(path), ()), TABLE),
])
def test_a_json_file_is_read_or_refused(read, document, tmp_path):
    @few
    @given(documents(document))
    def try_all(data):
        (tmp_path / "file.json").write_bytes(data)
        answers(read, tmp_path / "file.json")
    try_all()


def bytes_of(payload) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


WHOLE = bytes_of({"step": 1, "model": {"a": torch.arange(3.0)}, "network": {"arch": "vgg16"}})


@few
@given(st.one_of(st.binary(max_size=300), st.dictionaries(st.text(max_size=9), values, max_size=4).map(bytes_of),
                 st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)).map(
                     lambda at: WHOLE[:at[0]] + bytes([WHOLE[at[0]] ^ at[1]]) + WHOLE[at[0] + 1:]),
                 st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])))
def test_a_checkpoint_is_read_or_refused(tmp_path, data):
    (tmp_path / "c.pt").write_bytes(data)
    for read in (checkpoint.read, lambda path: open_model(str(path))):
        answers(read, tmp_path / "c.pt")


CHUNK = {"stage": "a", "images": [0], "robust": "1", "seconds": 1.0, "warnings": []}


@few
@given(st.lists(st.one_of(values.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60),
                          st.integers(0, 10**12).map(lambda image: json.dumps(CHUNK | {"images": [image]}).encode()),
                          changed(CHUNK | {"passes": [1, 2]})), max_size=4))
def test_a_journal_is_read_as_far_as_it_is_whole(tmp_path, lines):
    (tmp_path / "pgd.0.jsonl").write_bytes(b"\n".join([json.dumps({"of": "a"}).encode(), *lines, b""]))
    known = Journal(tmp_path, {"of": "a"}).read("pgd", "a", 3)
    assert known.values.shape == (3,)
