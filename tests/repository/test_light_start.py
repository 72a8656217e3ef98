"""Help and errors of the command line: programs answer them without torch, so in a fraction of a second."""

import json
import os
import subprocess
import sys

import pytest

from tests.repository.test_structure import ROOT
from wsrnas.runtime.pages import use_large_pages
from wsrnas.runtime.program import leave_memory_to_the_system
from wsrnas.runtime.threads import OWN_SETTINGS, sleep_when_idle

HEAVY = ("torch", "torchvision", "matplotlib")
LIGHT = ("wsrnas", "search.wsr_nas", "search.rnas", "search.tabular", "search.ranking", "retrain.train_cifar",
         "retrain.train_imagenet", "retrain.evaluate", "retrain.compare", "retrain.vulnerability", "retrain.export",
         "wsrnas.models", "wsrnas.plotting", "wsrnas.report", "test_AN_estimator.benchmark",
         "benchmarks.search_iteration", "benchmarks.attack_throughput", "benchmarks.training", "benchmarks.gpu_check")
REFUSED = {"search.wsr_nas": "--strength_weights 1 2", "search.rnas": "--upper_weights 0 0",
           "search.tabular": "--size_class 20:18", "search.ranking": "--sample 1",
           "retrain.train_cifar": "--epochs 0", "retrain.train_imagenet": "--epochs 0",
           "test_AN_estimator.benchmark": "--num_steps 0"}  # configurations

DRIVER = f"""
import contextlib, io, json, os, runpy, sys
answers = {{}}
for program in {LIGHT!r}:
    for arguments in filter(None, ("--help", "--no-such-flag", {REFUSED!r}.get(program))):
        sys.argv, said = [program, *arguments.split()], io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
                code = 0
            except SystemExit as end:
                code = end.code
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        answers[f"{{program}} {{arguments}}"] = code or 0, said.getvalue(), loaded
answers["idle threads"] = os.environ.get("OMP_WAIT_POLICY")
answers["large pages"] = os.environ.get("THP_MEM_ALLOC_ENABLE")
print(json.dumps(answers))
"""


def unset(environment):
    """The environment of a user who has said nothing about threads and memory."""
    return {name: value for name, value in environment.items()
            if name not in (*OWN_SETTINGS, "THP_MEM_ALLOC_ENABLE")}


@pytest.fixture(scope="module")
def answers():
    """Exit code, text and loaded libraries for help and for a wrong flag of each program, all in one new process."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", DRIVER], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, env=unset(os.environ))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", LIGHT)
def test_help_and_a_wrong_flag_are_answered_without_torch(answers, program):
    code, said, loaded = answers[f"{program} --help"]
    assert code == 0 and "--help" in said and loaded == []
    code, said, loaded = answers[f"{program} --no-such-flag"]
    assert code == 2 and "error: " in said and loaded == []


@pytest.mark.parametrize("program", REFUSED)
def test_a_configuration_is_refused_without_torch(answers, program):
    code, said, loaded = answers[f"{program} {REFUSED[program]}"]
    assert code == 2 and "error: " in said and "; expected" in said and loaded == []


def test_programs_let_idle_threads_sleep_before_torch_is_there(answers):
    assert answers["idle threads"] == "passive"


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_a_user_s_own_setting_of_idle_threads_stays(name):
    environment = {name: "active"}
    sleep_when_idle(environment)
    assert environment == {name: "active"}
    environment.clear()
    sleep_when_idle(environment)
    assert environment == {"OMP_WAIT_POLICY": "passive"}


def test_large_tensors_lie_on_large_pages_unless_a_user_says_otherwise(answers):
    assert answers["large pages"] == "1"
    environment = {"THP_MEM_ALLOC_ENABLE": "0"}
    use_large_pages(environment)
    assert environment == {"THP_MEM_ALLOC_ENABLE": "0"}


def test_the_last_collection_is_spared_unless_triton_would_complain(monkeypatch):
    frozen = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(True))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    leave_memory_to_the_system()
    assert frozen == [True]
    monkeypatch.setitem(sys.modules, "triton", object())
    leave_memory_to_the_system()
    assert frozen == [True]


DRY_RUNS = """
import contextlib, io, runpy, sys
for words in ("search.wsr_nas --preset wide", "search.rnas --preset tiny", "retrain.train_cifar"):
    sys.argv = [*words.split(), "--dataset", "digits", "--dry_run"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    assert "memory" in said.getvalue()
print(*[name for name in ("torch._dynamo", "sympy", "scipy.linalg", "scipy.stats") if name in sys.modules])
"""


def test_counting_the_cost_of_a_run_imports_neither_a_compiler_nor_statistics():
    """The compiler of torch and its algebra take another second, linear algebra and statistics of scipy as long."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", DRY_RUNS], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
