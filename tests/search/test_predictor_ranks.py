"""The study of predictors: both kinds of table, and what "at equal size" leaves."""

import json

import pytest
import torch

import studies.predictor_ranks as study
from search.spaces import SPACES

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


@pytest.mark.slow
def test_graphs_are_ranked_after_every_number_of_measurements(quick, capsys, monkeypatch):
    monkeypatch.setattr(study, "COUNTS", (10, 20))
    study.main(["--table", "demo", "--seeds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("10: " in line and "20: " in line for line in lines)
