"""The benchmark of training steps: its sums, another process, and what it refuses; nothing about speed."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import training, training_steps
from benchmarks.ceiling import measure_ceilings, shares
from benchmarks.training_steps import Steps
from wsrnas.runtime.errors import InputError

TINY = ["--recipe", "tiny", "--max_train", "400", "--device", "cpu"]
CEILINGS = {"float32": 100.0, "bfloat16": 200.0, "bytes": 10.0}


def test_speeds_are_compared_with_products_and_copies():
    assert shares(1000, 20, 20, "float32", CEILINGS) == {"share_of_products": 0.5, "share_of_copies": 0.1}
    assert shares(1000, 20, 20, "bfloat16", CEILINGS) == {"share_of_products": 0.25, "share_of_copies": 0.1}


def test_the_first_step_and_the_slowest_do_not_count():
    about = {"batch": 8, "steps_per_epoch": 90, "epochs": 2}
    taken = [{"wall": seconds, "cpu": 2 * seconds, "peak_gib": 1.0} for seconds in (2.0, 100.0, 2.0)]
    found = training.summary(taken, about)
    assert found["images_per_second"] == 4 and found["images_per_cpu_second"] == 2 and found["hours"] == 0.1


def test_shares_and_speeds_are_those_of_each_precision():
    row = {"batch": 10, "processes": 2, "operations": 100, "bytes": 0, "seconds": 10, "device": "cuda:0", "threads": 1}
    rows = [row | {"amp": amp, "cpu_seconds": cpu} for amp, cpu in (("off", 1), ("bf16", 3), ("off", 2), ("bf16", 3))]
    training.add_shares(rows, CEILINGS)
    assert [row["share_of_products"] for row in rows] == [0.5, 0.25, 0.5, 0.25]
    assert [row["speed_ratio"] for row in rows] == [2, 1, 1, 1]
    on_a_cpu = [row | {"device": "cpu", "threads": 2, "amp": "off", "cpu_seconds": 10}]
    training.add_shares(on_a_cpu, CEILINGS)
    assert on_a_cpu[0]["share_of_products"] == 1


def test_every_program_that_trains_can_be_measured():
    assert tuple(training_steps.PROGRAMS) == training.PROGRAMS


@pytest.mark.slow
def test_ceilings_are_measured_on_the_cpu():
    assert all(value > 1e6 for value in measure_ceilings(torch.device("cpu")).values())


def test_a_step_counts_the_passes_of_attack_and_objective():
    steps = Steps("cifar", TINY, 2)
    about, taken = steps.about, steps.step()
    passes = 2 * 3 + 3  # three steps of PGD need the input's gradient alone, the objective the weights' as well
    assert about["operations"] % passes == 0 and about["batch"] == 32 and about["amp"] == "off"
    assert taken["loss"] > 0 and taken["peak_gib"] > 0


@pytest.mark.slow
def test_two_checkouts_take_turns_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "measure_ceilings", lambda device: CEILINGS)
    monkeypatch.chdir(tmp_path)
    here = str(Path(training.__file__).parents[1])
    training.main(["cifar", *TINY, "--steps", "1", "--baseline", here, "--json", "found.json"])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["checkout"] for row in rows] == ["this checkout", "baseline"]
    assert "| baseline | off |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_that_fails_ends_the_measurement_with_a_sentence(capfd):
    with pytest.raises(InputError, match="ended with exit code 2"):
        training.main(["cifar", *TINY, "--precision", "off", "--arch", "nothing_like_it"])
    assert "nothing_like_it" in capfd.readouterr().err


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--baseline", "docs"], ["--precision", "fp8"]])
def test_wrong_flags_are_refused(flags):
    with pytest.raises(InputError, match=flags[0]):
        training.main(["cifar", *TINY, *flags])


def test_more_steps_than_the_recipe_has_are_refused():
    with pytest.raises(InputError, match="--steps is 1000; expected 1 to"):
        training.main(["cifar", *TINY, "--steps", "1000"])
