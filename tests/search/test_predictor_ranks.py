"""The study of predictors: both kinds of table, and what "at equal size" leaves."""

import json

import pytest
import torch

import studies.predictor_ranks as study
from search.spaces import SPACES
from wsrnas.runtime.errors import InputError

DARTS = SPACES["darts"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(study, "RANKERS", {name: study.RANKERS[name] for name in ("paths", "parameters")})
    monkeypatch.setattr(study, "RESAMPLES", 20)


def cells(tmp_path, count=30):
    """Random cells without the version of our files; the more parameters, the better."""
    choices = DARTS.sample(count, torch.Generator().manual_seed(0))
    gains = DARTS.cost(choices, 16, 8, 10, (3, 32, 32))[:, 0].double().argsort().argsort()
    listed = []
    for row, gain in zip(choices, gains.tolist(), strict=True):
        genotype = json.loads(DARTS.decode(row).to_json())
        del genotype["format"]
        listed.append({"genotype": genotype, "clean": 50.0 + gain, "pgd": 30.0 + gain})
    path = tmp_path / "cells.json"
    path.write_text(json.dumps({"cells": listed}))
    return path


@pytest.mark.slow
def test_cells_are_ranked_where_nobody_has_learned_from_them(quick, tmp_path, capsys):
    study.main(["--table", str(cells(tmp_path)), "--confirm", "20", "--seeds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["paths", "parameters"]
    assert "free: 1.000, confirmed 1.000 [1.000, 1.000]" in lines[1]


def test_a_cell_that_occurs_twice_is_not_kept_apart_from_itself(quick, tmp_path, monkeypatch):
    path, parts = cells(tmp_path), []
    document = json.loads(path.read_text())
    document["cells"] += document["cells"][:10]
    path.write_text(json.dumps(document))
    monkeypatch.setattr(study, "on_cells", lambda task, places, *rest: parts.append(places.tolist()))
    study.main(["--table", str(path), "--confirm", "20", "--seeds", "1"])
    assert len(parts[0]) == 30 == len(set(parts[0]))


def test_a_table_of_too_few_architectures_is_refused(tmp_path):
    with pytest.raises(InputError, match="the table has 30 different architectures; expected at least 35"):
        study.main(["--table", str(cells(tmp_path)), "--seeds", "1"])


def test_what_is_not_known_is_a_dash(monkeypatch, tmp_path, capsys):
    """Nothing is left of the size beside a line over the size, and numbers that leave too few to rank are left out."""
    monkeypatch.setattr(study, "RANKERS", {"parameters": study.RANKERS["parameters"]})
    monkeypatch.setattr(study, "RESAMPLES", 5)
    monkeypatch.setattr(study, "COUNTS", (10, 25))
    path = str(cells(tmp_path))
    study.main(["--table", path, "--confirm", "20", "--seeds", "1"])
    assert "at equal size: –, confirmed –" in capsys.readouterr().out
    study.main(["--table", path, "--seeds", "2"])
    said = capsys.readouterr().out
    assert "10: 1.000±0.000" in said and "25:" not in said


@pytest.mark.slow
def test_graphs_are_ranked_after_every_number_of_measurements(quick, capsys, monkeypatch):
    monkeypatch.setattr(study, "COUNTS", (10, 20))
    study.main(["--table", "demo", "--seeds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("10: " in line and "20: " in line for line in lines)


@pytest.mark.slow
def test_one_part_has_no_standard_error(quick, capsys, monkeypatch):
    monkeypatch.setattr(study, "COUNTS", (25,))
    study.main(["--table", "demo", "--seeds", "1"])
    assert "±" not in capsys.readouterr().out
    study.main(["--table", "demo", "--seeds", "2"])
    assert capsys.readouterr().out.count("±") == 4  # two rankers, all graphs and the best fifth


def test_columns_choose_what_is_predicted(quick, tmp_path, capsys):
    path = cells(tmp_path)
    document = json.loads(path.read_text())
    for place, cell in enumerate(document["cells"]):
        cell["pgd"] = 30.0 + place * 7 % 30  # nothing to do with the size
    path.write_text(json.dumps(document))
    for column, ranked in (("clean", True), ("pgd", False)):
        study.main(["--table", str(path), "--confirm", "20", "--seeds", "2", "--columns", column])
        line = capsys.readouterr().out.splitlines()[1]
        assert line.startswith("parameters") and ("confirmed 1.000 [1.000, 1.000]" in line) == ranked


@pytest.mark.parametrize("confirm", ["1", "21", "31"])
def test_too_few_cells_on_either_side_are_refused(tmp_path, confirm):
    words = f"confirm is {confirm} of 30 different cells; expected at least 10, and as many left"
    with pytest.raises(InputError, match=words):
        study.main(["--table", str(cells(tmp_path)), "--confirm", confirm])


def test_a_table_of_graphs_is_not_parted():
    with pytest.raises(InputError, match="demo is no list of cells, which --confirm parts"):
        study.main(["--table", "demo", "--confirm", "20"])


@pytest.mark.parametrize(("column", "words"), [("pdg", "cells has no column 'pdg'; expected some of clean, pgd$"),
                                               ("pgd_loss", "pgd_loss of cells holds losses; expected accuracies")])
def test_what_is_no_accuracy_is_named(tmp_path, column, words):
    path = cells(tmp_path)
    document = json.loads(path.read_text())
    for cell in document["cells"]:
        cell["pgd_loss"] = 1.5
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        study.main(["--table", str(path), "--confirm", "20", "--columns", column])
