"""The comparison of steps with and without CUDA graphs: what it measures and writes; nothing about speed."""

import json

import pytest
import torch
from torch import nn

from benchmarks import cuda_graphs
from tests.graph_tape import Tape
from wsrnas.attacks import pgd
from wsrnas.quick.graphs import Graphs
from wsrnas.runtime.distributed import World


def attack():
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2)
    return lambda: pgd(model, images, torch.tensor([0, 1]), 0.1, 1)


def test_a_recording_is_trusted_before_it_is_timed():
    tape, said = Tape(), []
    found = cuda_graphs.measure(attack(), 1, 1, Graphs(log=said.append, recorder=tape), World())
    assert tape.recorded == 2 and tape.repeated == 2 * 3 and said == ["CUDA graphs are used for attacks"]
    assert set(found) == {"plain", "graphs"} and all(seconds > 0 for seconds in found.values())


def test_the_hours_are_those_of_all_trainings_and_all_measurements():
    assert cuda_graphs.search_hours(0.1, 0, 64) == pytest.approx(300 * 390 * 0.1 / 3600)
    assert cuda_graphs.search_hours(0, 0.2, 64) == pytest.approx(200 * 250 * 0.2 / 3600)
    assert cuda_graphs.search_hours(0.1, 0.2, 16) == pytest.approx(4 * cuda_graphs.search_hours(0.1, 0.2, 64))


def test_the_program_writes_every_case(tmp_path, monkeypatch, capsys):
    names = cuda_graphs.TRAINING, cuda_graphs.VALIDATION, cuda_graphs.BASIC
    monkeypatch.setattr(cuda_graphs, "cases", lambda *arguments: {name: attack() for name in names})
    cuda_graphs.main(["--steps", "1", "--turns", "1", "--device", "cpu", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["seconds"]) == set(names) and found["said"] == []
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in names)


@pytest.mark.slow
def test_every_case_makes_a_step():
    for step in cuda_graphs.cases(1, 1, World()).values():
        step()
