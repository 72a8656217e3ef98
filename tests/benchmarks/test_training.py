"""The benchmark of training steps: its sums, another process, and what it refuses; nothing about speed."""

import io
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ceiling, training, training_steps
from benchmarks.ceiling import measure_ceilings, shares
from benchmarks.training_steps import MARK
from wsrnas.runtime.errors import InputError

TINY = ["--recipe", "tiny", "--max_train", "400", "--device", "cpu"]
CEILINGS = {"float32": 100.0, "bfloat16": 200.0, "bytes": 10.0}
# Steps that need no torch, say whose library they import, and note whose turn it is.
STEPS = """
import json, sys, wsrnas
from pathlib import Path
root = Path(wsrnas.__file__).parents[1].name

def serve(program, arguments, count):
    print("words that are not meant for anybody")
    print("measured: " + json.dumps({
        "recipe": program, "arguments": arguments, "count": count, "root": root, "amp": arguments[-1], "device": "cpu",
        "parameters": 1, "loss": "pgd", "batch": 4, "batch_text": "4", "processes": 1, "epochs": 1,
        "steps_per_epoch": 5, "threads": 1, "operations": 1, "bytes": 1}), flush=True)
    for number, _ in enumerate(sys.stdin):
        with open("turns", "a") as file:
            file.write(f"{root} {number}\\n")
        print("measured: " + json.dumps({"cpu": 1.0, "wall": 2.0, "loss": 0.5, "peak_gib": 1.0}), flush=True)
"""
FAILING = """
def serve(program, arguments, count):
    from wsrnas.runtime.errors import InputError
    raise InputError("nothing like " + arguments[-1])
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that lets processes run other steps, in an empty folder."""
    def replace(steps: str) -> None:
        (tmp_path / "steps.py").write_text(steps)
        monkeypatch.setattr(training, "STEPS_FILE", tmp_path / "steps.py")
        monkeypatch.setattr(training, "measure_ceilings", lambda device: CEILINGS)
        monkeypatch.chdir(tmp_path)
    return replace


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
def test_ceilings_are_measured_on_the_cpu(monkeypatch):
    monkeypatch.setattr(ceiling, "SIDE", 256)
    monkeypatch.setattr(ceiling, "COPIED", 2**20)
    assert all(value > 1e6 for value in measure_ceilings(torch.device("cpu")).values())


def test_matrix_products_are_measured_in_the_arithmetic_of_convolutions(monkeypatch):
    monkeypatch.setattr(ceiling, "SIDE", 8)
    monkeypatch.setattr(ceiling, "COPIED", 8)
    matmul, cudnn, seen = torch.backends.cuda.matmul, torch.backends.cudnn, []
    before, product = matmul.allow_tf32, torch.mm
    monkeypatch.setattr(torch, "mm", lambda *matrices: (seen.append(matmul.allow_tf32 == cudnn.allow_tf32),
                                                        product(*matrices)))
    try:
        for other in (False, True):
            matmul.allow_tf32 = other
            measure_ceilings(torch.device("cpu"))
            assert seen and all(seen) and matmul.allow_tf32 == other
    finally:
        matmul.allow_tf32 = before


def test_a_step_counts_the_passes_of_attack_and_objective(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("step\n"))
    runpy.run_path(str(training.STEPS_FILE))["serve"]("cifar", TINY, 2)  # as another process does
    about, taken = (json.loads(line.removeprefix(MARK)) for line in capsys.readouterr().out.splitlines()
                    if line.startswith(MARK))
    passes = 2 * 3 + 3  # three steps of PGD need the input's gradient alone, the objective the weights' as well
    assert about["operations"] % passes == 0 and about["batch"] == 32 and about["amp"] == "off"
    assert taken["loss"] > 0 and taken["peak_gib"] > 0


@pytest.mark.slow
def test_two_checkouts_take_turns_in_processes_of_their_own(program, tmp_path, capsys):
    program(STEPS)
    other = tmp_path / "other" / "wsrnas"
    (other / "runtime").mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "runtime" / "program.py").write_text("def run_program(function):\n    function()\n")
    training.main(["cifar", *TINY, "--steps", "1", "--precision", "off", "--baseline", "other", "--json", "found.json"])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    here = Path(training.__file__).parents[1].name
    assert [(row["checkout"], row["root"]) for row in rows] == [("this checkout", here), ("baseline", "other")]
    assert all(row["arguments"] == [*TINY, "--amp", "off"] and row["count"] == 1 for row in rows)
    assert (tmp_path / "turns").read_text().split("\n")[:-1] == [f"{here} 0", "other 0", f"{here} 1", "other 1"]
    assert "| baseline | off |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_that_fails_ends_the_measurement_with_a_sentence(program, capfd):
    program(FAILING)
    with pytest.raises(InputError, match="ended with exit code 2"):
        training.main(["cifar", *TINY, "--precision", "off"])
    assert "nothing like off" in capfd.readouterr().err


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--baseline", "docs"], ["--precision", "fp8"]])
def test_wrong_flags_are_refused(flags):
    with pytest.raises(InputError, match=flags[0]):
        training.main(["cifar", *TINY, *flags])


def test_more_steps_than_the_recipe_has_are_refused():
    with pytest.raises(InputError, match="--steps is 1000; expected 1 to"):
        training.main(["cifar", *TINY, "--steps", "1000"])


@pytest.mark.slow
def test_a_process_that_is_killed_while_others_step_is_named(program, tmp_path):
    program(STEPS.replace("    for number, _ in enumerate(sys.stdin):", "    import os, signal\n"
                          "    for number, _ in enumerate(sys.stdin):\n"
                          "        if arguments[-1] == 'bf16' and number == 1:\n"
                          "            os.kill(os.getpid(), signal.SIGKILL)"))
    with pytest.raises(InputError, match="ended with exit code -9"):
        training.main(["cifar", *TINY, "--steps", "2", "--precision", "bf16"])
