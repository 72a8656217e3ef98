"""The check of a machine with a GPU: its page, its hours, and a machine without one."""

import json
import runpy
import sys

import pytest
import torch

from benchmarks import attack_throughput, cuda_graphs, gpu_check, search_iteration, training
from wsrnas.runtime.errors import InputError

ABOUT = {"device": "NVIDIA H200", "torch": "2.14", "cuda": "13.0", "git": "abc", "time": "2026-11-29"}
SECONDS = {"adversarial_training": 10.0, "attacks": 20.0, "searcher": 5.0, "estimator": 1.0}
TRAINED = {"amp": "off", "seconds": 2.0, "batch": 400, "epochs": 201, "images_per_second": 200.0, "peak_gib": 9.0,
           "share_of_products": 0.25, "share_of_copies": 0.5}
RESULTS = {
    "tests": {"exit_code": 0, "output": "....\n17 passed in 20 s\n"},
    "attacks": {"exit_code": 2, "output": "one\ntwo\nthree\nerror: no memory\n"},
    "graphs": {"exit_code": 0, "numbers": {"seconds": {"training step": {"plain": 0.05, "graphs": 0.02}},
                                           "hours": {"plain": 3.0, "graphs": 2.0}, "said": ["CUDA graphs are used"]}},
    "iteration": {"exit_code": 0, "numbers": {"seconds": {"paper": SECONDS}, "ratio": {"paper": 5.0},
                                              "peak_gib": {"paper": 3.0}}},
    "training": {"exit_code": 0, "numbers": {"rows": [TRAINED]}},
}


def test_the_hours_of_a_search_count_its_epochs():
    assert gpu_check.search_hours("paper", SECONDS) == pytest.approx((100 * 10 + 200 * 36) / 3600)


def test_the_hours_of_a_training_are_those_of_cifar():
    steps = (50_000 - gpu_check.BASIC.held_out) // 400
    assert gpu_check.training_hours(TRAINED) == pytest.approx(2 * steps * 201 / 3600)


def test_the_page_shows_every_part():
    text = gpu_check.page(ABOUT, RESULTS)
    assert text.startswith("# NVIDIA H200\n") and "17 passed in 20 s" in text
    assert "Failed:\n\n```\ntwo\nthree\nerror: no memory\n```" in text
    assert "| paper | 36.0 | 2.28 | 5.0 | 3.0 |" in text and "| off | 200 | 25% | 50% |" in text
    assert "| training step, ms | 50.0 | 20.0 |" in text and "\n\nCUDA graphs are used\n" in text
    assert "Not run yet." in gpu_check.page(ABOUT, {})


def test_a_machine_without_a_gpu_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device is visible"):
        gpu_check.main([])


def test_parts_that_ended_well_are_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "environment", lambda world: ABOUT)
    ran = []

    def run(name, folder, limit):
        ran.append(name)
        return RESULTS[name] | {"seconds": 1.0}

    monkeypatch.setattr(gpu_check, "run_part", run)
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            gpu_check.main(["--out", str(tmp_path)])
        assert end.value.code == 1
    assert ran == [*gpu_check.PARTS, "attacks"]
    assert set(json.loads((tmp_path / "gpu_check.json").read_text())["parts"]) == set(gpu_check.PARTS)
    assert (tmp_path / "gpu_check.md").read_text().startswith("# NVIDIA H200")
    assert "the same command runs what is missing or failed" in capsys.readouterr().out


def test_a_part_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    slow = gpu_check.Part(lambda folder: ["-c", "import time; time.sleep(60)"], 1, str)
    monkeypatch.setitem(gpu_check.PARTS, "tests", slow)
    found = gpu_check.run_part("tests", tmp_path, 0.2)
    assert found["exit_code"] == -1 and "stopped after" in found["output"]


def test_every_program_writes_its_numbers_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "IMAGES_A_CLASS", 1)
    for name, part in gpu_check.PARTS.items():
        module, *flags = part.command(tmp_path)[1:]
        if name != "tests":
            assert str(gpu_check.measured(tmp_path, name)) in flags
            assert module.startswith("benchmarks.")
    assert len(list((tmp_path / "pictures" / "train").glob("*/*.png"))) == gpu_check.CLASSES


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nothing_but_the_gpu_is_missing_to_the_parts(tmp_path, monkeypatch):
    def here(program, arguments, count, precisions, checkouts):  # what its processes would do
        return training.measure_here(program, [*arguments, "--amp", precisions[-1]], count)

    monkeypatch.setattr(training, "measure_by_turns", here)
    programs = {"attacks": attack_throughput, "graphs": cuda_graphs, "iteration": search_iteration,
                "training": training}
    for name, program in programs.items():
        with pytest.raises(InputError, match="no CUDA device is visible"):
            program.main(gpu_check.PARTS[name].command(tmp_path)[2:])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_program_ends_with_code_2_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "out")])
    monkeypatch.delitem(sys.modules, "benchmarks.gpu_check")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("benchmarks.gpu_check", run_name="__main__")
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()
