"""CONTRIBUTING.md's examples: a copy of the repository gets all of them; then help, runs and pages show each."""

import ast
import contextlib
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, copies

ROOT = Path(__file__).parents[2]
KINDS = ("an operation", "a published cell", "a hand-designed network", "an attack", "a training loss", "a data set",
         "an AN-Estimator", "an objective of the search", "a search space", "a search strategy",
         "a section of the page")
EXAMPLE = re.compile(r"```python\n# (?P<file>[\w/]+\.py), (?P<place>before|in|at the end|a new file) ?(?P<name>\w*)\n"
                     r"(?P<text>.*?)```", re.DOTALL)
COPIED = ("wsrnas", "search", "retrain", "test_AN_estimator", "docs")
# Runs inside the copy and writes what the tests look at as JSON.
DRIVER = r'''
import contextlib, dataclasses, io, json, pathlib
import torch
import genotypes, retrain.evaluate, retrain.train_cifar, search.tables.demo, search.tabular, search.wsr_nas
import wsrnas.models
import test_AN_estimator.benchmark
from docs.write_tables import TABLES
from wsrnas.evaluation import honesty
from wsrnas.report.figures import picture

torch.set_num_threads(1)
parse = honesty.parse_attack
honesty.parse_attack = lambda text: dataclasses.replace(parse(text), steps=min(parse(text).steps, 2))
search.tables.demo.NETWORK = (4, 3, 10, (3, 8, 8))  # measured once for each operation
draw = picture.svg_text  # the cells alone are drawn: an operation that is added is in them
picture.svg_text = lambda figure, name: draw(figure, name) if name == "cells" else '<svg viewBox="0 0 1 1"></svg>'


def help_of(program):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        program.main(["--help"])
    return " ".join(printed.getvalue().split())


small = ("--dataset stripes --device cpu --init_channels 2 --layers 3 --batch_size 16 --num_steps 1 "
         "--max_train 64".split())
train = "--recipe tiny --held_out 16 --epochs 1 --select_steps 1".split()
search.wsr_nas.main("--preset tiny --max_validation 20 --recalibration_batches 1 --loss_passes 3 --estimator_images 2 "
                    "--warmup_architectures 1 --population 1 --iterations 1 --check_images 0 --estimator Nearest-ANE "
                    "--objective worst --save run".split() + small)
search.wsr_nas.main("--preset tiny --max_validation 20 --recalibration_batches 1 --loss_passes 3 --estimator_images 2 "
                    "--warmup_architectures 2 --iterations 2 --space chain --save chain".split() + small)
retrain.train_cifar.main([*train, *small, "--arch", "runs/search/chain", "--adv_loss", "half-pgd", "--save", "chain"])
retrain.train_cifar.main([*train, *small, "--arch", "Blurred", "--adv_loss", "half-pgd", "--save", "cell"])
without_layers = [word for word in small if word not in ("--layers", "3")]
retrain.train_cifar.main([*train, *without_layers, "--arch", "two_layers", "--save", "design"])
retrain.evaluate.main("--model runs/retrain/cell runs/retrain/design --attacks darken pgd-1 --strengths 0.1 "
                      "--max_test 32 --device cpu --check_images 30".split())
search.tabular.main("--table demo --strategy alternating --queries 4 --seeds 1 --out runs/tabular/run".split())
programs = {"search": search.wsr_nas, "tabular": search.tabular, "train": retrain.train_cifar,
            "evaluate": retrain.evaluate, "study": test_AN_estimator.benchmark}
seen = {"help": {name: help_of(program) for name, program in programs.items()},
        "cells": genotypes.names(), "architectures": wsrnas.models.names(),
        "tables": {name: table() for name, table in TABLES.items()}}
pathlib.Path("seen.json").write_text(json.dumps(seen))
'''


def examples():
    """Yield file, place, name and text of every example in CONTRIBUTING.md."""
    for found in EXAMPLE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        yield found["file"], found["place"], found["name"], found["text"]


def insert(path, place, name, text):
    """Put an example where its first line says."""
    if place in ("a new file", "at the end"):
        old = path.read_text(encoding="utf-8") + "\n\n" if place == "at the end" else ""
        path.write_text(old + text, encoding="utf-8")
        return
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    table = next(node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)
                 and name in (ast.unparse(node.target) if isinstance(node, ast.AnnAssign)
                              else ast.unparse(node.targets[0])).split())
    if place == "before":
        lines.insert(table.lineno - 1, text + "\n\n")
    else:
        before = "".join(lines[:table.value.end_lineno])
        closing = before.rstrip()[-1]
        inside = before.rstrip()[:-1].rstrip().removesuffix(",")
        lines[:table.value.end_lineno] = [f"{inside},\n{text}{closing}\n"]
    path.write_text("".join(lines), encoding="utf-8")


def drive(folder):
    """Run the driver in the copy as a new Python would, but torch is there already: importing it takes the time."""
    with open(folder / "log.txt", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        os.dup2(log.fileno(), 2)  # a traceback of multiprocessing
        for name in [name for name in sys.modules if name.split(".")[0] in (*COPIED, "genotypes")]:
            del sys.modules[name]
        sys.path.insert(0, str(folder))
        os.chdir(folder)
        runpy.run_path("driver.py")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code with every example, in which the driver has run; its folder and what the driver has seen."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("images", "runs"))
    shutil.copy(ROOT / "genotypes.py", folder)
    for file, place, name, text in examples():
        insert(folder / file, place, name, text)
    (folder / "driver.py").write_text(DRIVER)
    process = copies().Process(target=drive, args=(folder,))
    process.start()
    process.join(PATIENCE)
    process.kill()
    assert process.exitcode == 0, (folder / "log.txt").read_text()[-3000:]
    return folder, json.loads((folder / "seen.json").read_text())


def page(copy, run):
    return (copy[0] / "runs" / run / "report.html").read_text(encoding="utf-8")


def test_every_kind_has_an_example():
    headings = re.findall(r"^### (.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading.lower() for heading in headings][:len(KINDS)] == [kind.lower() for kind in KINDS]
    assert len(list(examples())) >= len(KINDS)


pytestmark = pytest.mark.slow


def test_an_operation_and_a_published_cell_are_added(copy):
    assert "Blurred" in copy[1]["cells"] and "Blurred" in copy[1]["architectures"]
    assert "blur_5x5" in page(copy, "retrain/cell")


def test_a_hand_designed_network_is_added(copy):
    assert "two_layers" in copy[1]["architectures"]
    assert "two_layers" in page(copy, "retrain/design")


def test_an_attack_is_added(copy):
    assert "darken" in copy[1]["help"]["evaluate"] and "`darken`" in copy[1]["tables"]["attacks"]
    assert "Darkening" in page(copy, "evaluate/cell-design")


def test_a_training_loss_is_added(copy):
    assert "half-pgd" in copy[1]["help"]["train"] and "`half-pgd`" in copy[1]["tables"]["losses"]
    assert "half-pgd" in page(copy, "retrain/cell")


@pytest.mark.parametrize("program", ["search", "train", "evaluate", "study"])
def test_a_data_set_is_added(program, copy):
    assert "stripes" in copy[1]["help"][program] and "`stripes`" in copy[1]["tables"]["data-sets"]
    assert all("stripes" in page(copy, run) for run in ("search/run", "retrain/cell", "evaluate/cell-design"))


def test_an_estimator_is_added(copy):
    assert all("Nearest-ANE" in copy[1]["help"][program] for program in ("search", "study"))
    assert "`Nearest-ANE`" in copy[1]["tables"]["estimators"] and "Nearest-ANE" in page(copy, "search/run")


def test_an_objective_of_the_search_is_added(copy):
    assert "worst" in copy[1]["help"]["search"]
    assert re.search(r"objective.{0,80}worst", page(copy, "search/run"), re.DOTALL)


def test_a_search_space_is_added(copy):
    assert "chain (three operations in a row)" in copy[1]["help"]["search"] and "`chain`" in copy[1]["tables"]["spaces"]
    assert "3 edges of the cell" in page(copy, "search/chain") and "of 3" in page(copy, "search/chain")
    graph = json.loads((copy[0] / "runs" / "search" / "chain" / "genotype.json").read_text())["graph"]
    assert graph.count("none") == 3 and "|none~0|" in graph
    assert "nor_conv" in page(copy, "retrain/chain") or "skip_connect" in page(copy, "retrain/chain")


def test_a_search_strategy_is_added(copy):
    assert "alternating (by turns" in copy[1]["help"]["tabular"] and "`alternating`" in copy[1]["tables"]["strategies"]
    assert "alternating" in page(copy, "tabular/run")


def test_a_section_of_the_page_is_added(copy):
    assert all("Size of the record" in page(copy, run) for run in ("search/run", "retrain/cell"))


def test_every_example_appears_in_the_list_of_files(copy):
    assert "`wsrnas/estimators/nearest.py`" in copy[1]["tables"]["files-library"]
