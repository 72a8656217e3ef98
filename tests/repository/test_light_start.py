"""Help and errors of the command line: programs answer them without torch, so in a fraction of a second."""

import json
import subprocess
import sys

import pytest

from tests.repository.test_structure import ROOT

HEAVY = ("torch", "torchvision", "matplotlib")
LIGHT = ("wsrnas", "retrain.train_cifar", "retrain.train_imagenet", "retrain.evaluate", "retrain.compare",
         "retrain.vulnerability", "retrain.export", "wsrnas.models", "wsrnas.plotting", "wsrnas.report",
         "test_AN_estimator.benchmark", "benchmarks.search_iteration", "benchmarks.attack_throughput",
         "benchmarks.training", "benchmarks.gpu_check")

DRIVER = f"""
import contextlib, io, json, runpy, sys
answers = {{}}
for program in {LIGHT!r}:
    for argument in ("--help", "--no-such-flag"):
        sys.argv, said = [program, argument], io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
                code = 0
            except SystemExit as end:
                code = end.code
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        answers[f"{{program}} {{argument}}"] = code or 0, said.getvalue(), loaded
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    """Exit code, text and loaded libraries for help and for a wrong flag of each program, all in one new process."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", DRIVER], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", LIGHT)
def test_help_and_a_wrong_flag_are_answered_without_torch(answers, program):
    code, said, loaded = answers[f"{program} --help"]
    assert code == 0 and "--help" in said and loaded == []
    code, said, loaded = answers[f"{program} --no-such-flag"]
    assert code == 2 and "error: " in said and loaded == []
