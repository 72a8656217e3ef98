"""The page of a run: what it shows is what the files hold, whatever is in them, and a run never ends for it."""

import base64
import csv
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import genotypes
import retrain.train_cifar
import search.wsr_nas
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import SearchConfig, schedule
from tests.pages import Page, kept_figures
from wsrnas.attacks import multi_strength_pgd
from wsrnas.evaluation.attack_spec import attack_of
from wsrnas.operations import PRIMITIVES
from wsrnas.report import pages
from wsrnas.report import writing as report
from wsrnas.report.data import read_run
from wsrnas.report.differences import paired_differences
from wsrnas.report.evaluation_files import Evaluation, evaluation_problem
from wsrnas.report.figures import search as search_figures
from wsrnas.report.figures import weights as weights_figure
from wsrnas.report.figures.picture import Numbers
from wsrnas.report.figures.style import PAGE_COLOURS
from wsrnas.report.figures.svg import inline_svg, plain
from wsrnas.report.networks import networks_of
from wsrnas.report.sections import Section
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_programs")

CELL = genotypes.load("WsrNet_Basic")
PASSED = {"check": "logits are deterministic", "passed": True, "says": "largest relative change 0.0e+00"}
HOSTILE = "<script>alert(1)</script>\"'& $\\frac$ _x\x07\u202e"


# -- runs to draw -----------------------------------------------------------------------------------------------------

def evaluation(name="net", clean="11110", robust=None, image_set="images", **more):
    """An evaluation after the contract; ``robust``: (attack, method, norm, epsilon) -> one character per image."""
    if robust is None:
        robust = {("PGD-20", "pgd", "linf", 0.03): "11100", ("PGD-20", "pgd", "linf", 0.1): "11000",
                  ("AutoAttack", "autoattack", "linf", 8 / 255): "10000", ("C&W-100", "cw-l2", "l2", None): "00000"}

    def measured(text):
        share = text.count("1") / len(text)
        return {"accuracy": share, "interval": [max(share - 0.1, 0), min(share + 0.1, 1)], "robust": text}
    attacks = [{"attack": attack, "method": method, "norm": norm, "epsilon": epsilon, "steps": 20,
                "step_size": epsilon and epsilon / 8, "restarts": 1, "random_start": False, "loss": "ce", "source": "",
                "seconds": 1.0, **measured(text)} for (attack, method, norm, epsilon), text in robust.items()]
    pgd = [row for row in attacks if row["method"] == "pgd"]
    average = sum(row["accuracy"] for row in pgd) / max(len(pgd), 1)
    over = [f"PGD-20  eps {row['epsilon']:.4f} ({row['epsilon'] * 255:.4g}/255)" for row in pgd]
    return {"format": "wsrnas evaluation 1", "name": name, "protocol": "paper", "dataset": "cifar10",
            "images": len(clean), "seed": 0, "image_set": image_set, "clean": measured(clean), "attacks": attacks,
            "average_robust": {"accuracy": average, "interval": [0.1, 0.9], "over": over} if pgd else None,
            "area": {"value": 0.456, "interval": [0.4, 0.5], "up_to": 0.1} if pgd else None, "official": None,
            "complete": True, "checks": [PASSED], "failed_checks": [], "warnings": [],
            "environment": {"host": "secret-host", "command": ["/x/retrain/evaluate.py", "--model", "a b"]},
            "model": {"source": "best.pt", "fingerprint": f"weights of {name}", "parameters": 4544830,
                      "genotype": None}, **more}


def alphas(step):
    return np.log(np.arange(1, 1 + 14 * 8).reshape(14, 8) + step)


def search_row(step, **more):
    pairs = [[name, source] for name, source in CELL.normal]
    if step >= 2:
        pairs[2] = ["skip_connect", 1]
    return {"step": step, "phase": "search" if step >= 1 else "warm-up", "number": step,
            "train": {"loss": 2.5 - 0.1 * step, "adversarial_accuracy": 0.2 + 0.1 * step, "seconds": 3.0},
            "losses": {"natural": 1.5 - 0.1 * step, "eps_0.03": 2.5 - 0.1 * step},
            "accuracies": {"natural": 0.5 + 0.1 * step, "eps_0.03": 0.25 + 0.1 * step},
            "loss_estimator": {"predicted_objective": [1, 3, 2, 5, 4][step], "measured_objective": step + 1},
            "estimator": {"relative_error": 0.75},
            "estimator_check": {"images": 50, "mean_gap": 0.01 * step, "largest_gap": 0.03 * step,
                                "largest_gap_at": 0.1, "attacked": [0.03] if step < 3 else [0.03, 0.1],
                                **({"fallback": 0.1} if step == 2 else {})},
            "architecture": {"changed_choices": 3,
                             "genotype": {"normal": pairs, "reduce": [list(pair) for pair in CELL.reduce]},
                             "alphas": {kind: alphas(step).tolist() for kind in ("normal", "reduce")}},
            "seconds": {"train": 3.0 + step, "validate": 1.0}, **more}


def write_run(path, rows=(), evaluations=(), config=None, finished=False, **files):
    """A run directory by hand; ``files``: name with two underscores for the point -> text."""
    (path / "eval").mkdir(parents=True)
    config = {"epochs": 4, "learning_rate": 0.05} if config is None else config
    start = {"command": ["/somewhere/retrain/train_cifar.py", "--epochs", "4"], "torch": "2.15.0", "git": "0123abc",
             "host": "secret-host"}
    texts = {"config.json": json.dumps(config), "env.json": json.dumps([start]),
             "inputs.json": json.dumps({"data set": {"name": "digits", "hash": "beef"}, "genotype": CELL.to_json()}),
             "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    texts |= {name.replace("__", "."): text for name, text in files.items()}
    texts |= {f"eval/{number}.json": json.dumps(result) for number, result in enumerate(evaluations)}
    for name, text in (texts | ({"FINISHED": "done"} if finished else {})).items():
        (path / name).write_text(text)
    return path


def write_search(path, **files):
    run = write_run(path, [search_row(step) for step in range(5)],
                    config={"warmup_architectures": 1, "iterations": 4, "epsilon": 0.03}, **files)
    CELL.save(run / "genotype.json")
    stream = np.random.default_rng(0)
    pgd = stream.uniform(-1, 1, (2, 2, 3, 8, 8)) * np.array([0.03, 0.1]).reshape(2, 1, 1, 1)
    np.savez(run / run_files.NOISE_SAMPLES, images=stream.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8), pgd=pgd,
             epsilons=np.array([0.03, 0.1]), estimated=-2 * pgd, step=np.array(4))
    return run


EPOCHS = [{"step": step, "learning_rate": 0.1 / 2**step, "train": {"loss": 2.0 - 0.25 * step, "clean_accuracy": 0.4,
                                                                   "adversarial_accuracy": 0.25 + 0.05 * step,
                                                                   "seconds": 60.0, "images_per_second": 88.0},
           **({"held_out": {"clean_accuracy": 0.5, "robust_accuracy": [0.3, 0.35, 0.0][step]}} if step < 3 else {})}
          for step in range(4)]


def made(*paths, out=None):
    return Page(report.write_report([Path(p) for p in paths], out))


def numbers(folder, name):
    with open(folder / "figures" / f"{name}.csv") as file:
        return list(csv.reader(file))


@pytest.fixture
def drawn():
    with kept_figures() as figures:
        yield figures


@pytest.fixture(scope="module")
def a_search(tmp_path_factory):
    """A search's run directory by hand, its page, and the figures in it."""
    run = write_search(tmp_path_factory.mktemp("by-hand") / "run")
    with kept_figures() as figures:
        return run, made(run), figures


# -- the page ---------------------------------------------------------------------------------------------------------

def test_a_search_has_the_sections_of_its_data_and_no_others(a_search):
    run, page, _ = a_search
    assert page.titles() == ["The cell", "Architecture weights", "Losses over the strengths",
                             "Predicted and measured objective", "Estimator against PGD", "Estimated noise", "Training",
                             "Time", "How it was made"]
    assert "not finished, 5 of 6 steps" in page.text and "3 of 16" in page.text and "0.750" in page.text
    names = {"cells", "weights-normal", "weights-reduce", "losses", "predictions", "estimator-gap", "noise", "training",
             "time"}
    files = {path.name for path in (run / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("svg", "csv")}


def test_a_retraining_with_evaluations(tmp_path):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation()], finished=True))
    assert page.titles() == ["Accuracy under attack", "Honesty checks", "The cell", "Training", "How it was made"]
    for words in ("run", "retrain.train_cifar", "finished, 4 epochs", "35.0 % best: epoch 2, clean 50.0 %",
                  "python -m retrain.train_cifar --epochs 4", "python -m retrain.evaluate --model 'a b'",
                  "0123abc", "data hash beef", "4,544,830", "88 images/s",
                  "4 min 00 s", "PGD-20 L∞ 0.0300 7.65 60.0 [50.0, 70.0] 20 0.00375 1 image ce",
                  "no attack 80.0 [70.0, 90.0]", "C&W-20 L2 L2 unbounded – 0.0 [0.0, 10.0] 20 – 1 – ce",
                  "average robust 50.0 [10.0, 90.0]", "area under the curve 45.6 [40.0, 50.0]",
                  "Average robust: the mean over PGD-20 eps 0.0300 (7.65/255), PGD-20 eps 0.1000 (25.5/255).",
                  "80.0 % 5 test images", "50.0 % 2 attacks, 5 test images"):
        assert words in page.text, words
    assert "secret-host" not in page.source and "Not everything could be read" not in page.text


def test_what_holds_for_one_network_names_it(tmp_path, words_only):
    whole = evaluation("whole", warnings=["few images."])
    partial = evaluation("partial", average_robust=None, area=None, warnings=["few images", "one restart"])
    page = made(write_run(tmp_path / "run", EPOCHS, [whole, partial]))
    for words in ("Average robust: the mean over PGD-20", "average robust 50.0 [10.0, 90.0] –",
                  "Area: the mean accuracy over ε from 0 to 0.1000", " Few images. ", "partial: one restart."):
        assert words in page.text, words


def test_a_run_of_nothing_but_evaluations(tmp_path):
    (tmp_path / "net" / "eval").mkdir(parents=True)
    (tmp_path / "net" / "eval" / "a.json").write_text(json.dumps(evaluation()))
    page = made(tmp_path / "net")
    assert page.titles() == ["Accuracy under attack", "Honesty checks", "How it was made"]
    assert "evaluated" in page.text and "missing" not in page.text


@pytest.mark.usefixtures("drawn_pages")
def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    page = made(write_search(tmp_path / "a"), write_run(tmp_path / "b", EPOCHS, [evaluation()]), out=tmp_path / "out")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) > 100 and len(set(ids)) == len(ids)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "data:")
            assert target.startswith("data:") or (target[0] == "#" and target[1:] in ids), (tag, target)
        assert not any(name.startswith("on") for name in attributes)
    for target in re.findall(r"url\((.*?)\)", page.source):
        assert target.strip("'\"")[1:] in ids, target
    assert "@import" not in page.source
    assert "prefers-color-scheme: dark" in page.source and "@media print" in page.source
    figures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(figures) == 12 and all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in figures)


@pytest.mark.usefixtures("drawn_pages")
def test_a_figure_of_the_page_takes_the_pages_colours_and_its_file_keeps_its_own(tmp_path):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation()]))
    for path in (tmp_path / "run" / "figures").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        text = path.read_text()
        assert "var(" not in text and "currentColor" not in text and "dc:date" not in text
    inside = page.source[page.source.index("<svg"):]
    assert "currentColor" in inside and "var(--line)" in inside and "DejaVu" not in inside and "<metadata" not in inside
    assert not any(colour in inside for colour in PAGE_COLOURS)
    for body in re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL):
        ElementTree.fromstring(body)


def test_the_same_run_gives_the_same_figures(a_search, tmp_path):
    run, _, _ = a_search
    made(run, out=tmp_path)
    for path in (run / "figures").iterdir():
        assert (tmp_path / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_downloaded_table_is_the_file(a_search):
    run, page, _ = a_search
    links = {a["download"]: a["href"] for tag, a in page.tags if tag == "a"}
    assert len(links) == 9
    for name, target in links.items():
        assert base64.b64decode(target.split("base64,")[1]) == (run / "figures" / name).read_bytes()


def test_ids_and_references_get_their_prefix():
    svg = ('<?xml?><svg width="72pt" height="1pt" viewBox="0 0 72 36"><g id="a"/>'
           '<use xlink:href="#a" clip-path="url(#a)"/></svg>')
    assert inline_svg(svg, "one", "seen") == (
        '<svg viewBox="0 0 72 36" role="img" aria-label="seen" style="--natural: 96px"><g id="one-a"/>'
        '<use xlink:href="#one-a" clip-path="url(#one-a)"/></svg>')


# -- hostile and broken files -----------------------------------------------------------------------------------------

@pytest.mark.usefixtures("drawn_pages")
def test_nothing_in_a_file_becomes_markup(tmp_path):
    result = evaluation(HOSTILE, robust={(HOSTILE, HOSTILE, "linf", 0.03): "11100", ("_b", "own", "linf", 0.1): "10000",
                                         (HOSTILE, "pgd", "linf", 0.1): "10000"},
                        checks=[{"check": HOSTILE, "passed": False, "says": HOSTILE}], warnings=[HOSTILE])
    result["model"]["source"] = HOSTILE
    row = {**EPOCHS[0], "seconds": {HOSTILE: 1.0, "_b": 2.0}, "losses": {HOSTILE: 1.0}}
    page = made(write_run(tmp_path / "a<b>&", [row], [result], config={HOSTILE: HOSTILE, "epochs": 3},
                          env__json=json.dumps([{"command": [HOSTILE], "git": HOSTILE}])))
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "PGD-20" in page.text  # the row's own parameters name the attack, not what it calls itself
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
    assert "could not be drawn" not in page.text
    for path in (tmp_path / "a<b>&" / "figures").glob("*.svg"):
        ElementTree.parse(path)
    legend = (tmp_path / "a<b>&" / "figures" / "accuracy.svg").read_text()
    assert "_b" in legend and "alert(1)" in legend


def test_plain_text_is_neither_formula_nor_hidden():
    assert plain("a$b$") == r"a\$b\$" and plain("_x") != "_x" and plain("_x").endswith("_x")
    assert plain("a\x00b").isprintable() and plain("ε 0.03") == "ε 0.03"


WRONG = [({"config__json": "{"}, "config.json cannot be read"),
         ({"config__json": "[]"}, "config.json holds a JSON list"),
         ({"env__json": "no"}, "env.json cannot be read"),
         ({"inputs__json": '"x"'}, "inputs.json holds a JSON str"),
         ({"inputs__json": '{"genotype": "{}"}'}, "the genotype cannot be drawn: the genotype lacks the keys"),
         ({"metrics__jsonl": json.dumps(EPOCHS[0]) + '\n{"step": 1, "tr'}, "line 2 of metrics.jsonl is incomplete"),
         ({"metrics__jsonl": "}{\n" + json.dumps(EPOCHS[0]) + "\n"}, "line 1 of metrics.jsonl is not a row"),
         ({"metrics__jsonl": '{"step": 0, "train": {"loss": [], "seconds": null}}\n'}, "1 of 4"),
         ({"metrics__jsonl": '{"step": 0, "losses": {"natural": "x"}, "architecture": 3}\n'}, "could not be drawn"),
         ({"metrics__jsonl": '{"step": 0, "train": {"loss": NaN, "clean_accuracy": Infinity}}\n'}, "1 of 4"),
         ({"eval/old__json": '{"images": 5, "clean_accuracy": 0.5, "strengths": []}'},
          "eval/old.json has the format None, expected 'wsrnas evaluation 1'"),
         ({"eval/torn__json": '{"format": "wsrnas eval'}, "eval/torn.json cannot be read"),
         ({"eval/x__json": json.dumps({"format": "wsrnas evaluation 1", "attacks": []})}, "lacks the clean accuracy"),
         ({"eval/x__json": json.dumps(evaluation(average_robust=[1], checks=[3], official="no"))},
          "could not be drawn"),
         ({run_files.NOISE_SAMPLES.replace(".", "__"): "PK no zip"}, "noise_samples.npz cannot be read")]


@pytest.mark.parametrize(("files", "words"), WRONG, ids=[f"{n}-{next(iter(w[0]))}" for n, w in enumerate(WRONG)])
def test_a_broken_run_still_has_a_page_that_says_what_is_missing(files, words, tmp_path):
    page = made(write_run(tmp_path / "run", EPOCHS[:1], [evaluation(robust={})], **({"inputs__json": "{}"} | files)))
    assert words in page.text
    assert "Accuracy under attack" in page.titles() or "could not be drawn" in page.text


def test_missing_files_are_named(tmp_path, words_only):
    run = write_run(tmp_path / "run", EPOCHS[:2])
    for name in ("config.json", "env.json", "inputs.json"):
        (run / name).unlink()
    page = made(run)
    assert all(f"{name} is missing" in page.text for name in ("config.json", "env.json", "inputs.json"))
    assert page.titles() == ["Training"] and "not finished, 2 epochs" in page.text
    (run / "metrics.jsonl").unlink()
    (run / "config.json").write_text("{}")
    assert made(run).titles() == []
    (run / "config.json").write_text('{"epochs": 4}')
    assert "metrics.jsonl is missing: no step is complete yet" in made(run).text


def test_what_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("dear reader")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="is not a run directory; expected a folder with one of"):
            report.main([str(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(SystemExit) as left:
        run_program(lambda: report.main([str(tmp_path)]))
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1 and "is not a run directory" in said


@pytest.mark.parametrize("change", [{"format": "other"}, {"clean": None}, {"clean": {"accuracy": "high"}},
                                    {"attacks": None}, {"attacks": [{"accuracy": 0.5, "epsilon": 0.1}]},
                                    {"clean": {"accuracy": True}},
                                    {"attacks": [{"attack": "a", "accuracy": 0.5, "epsilon": "8/255"}]},
                                    {"clean": {"accuracy": 0.5, "interval": "wide"}}])
def test_a_document_that_is_no_evaluation(change):
    assert evaluation_problem(evaluation()) is None
    assert evaluation_problem({**evaluation(), **change})


def test_a_section_that_fails_says_why_under_its_title_and_costs_no_other(tmp_path, words_only, monkeypatch):
    def fail(run):
        raise OSError("no ink")
    monkeypatch.setattr(pages, "SECTIONS", (*pages.SECTIONS, Section("Broken", fail, "a test"),
                                            Section("Dummy", lambda run: [f"<p>{len(run.rows)} rows</p>"], "a test"),
                                            Section("Absent", lambda run: [], "a test")))
    page = made(write_run(tmp_path / "run", EPOCHS))
    assert page.titles() == ["The cell", "Training", "How it was made", "Broken", "Dummy"]
    assert "This section could not be drawn: OSError: no ink." in page.text and "4 rows" in page.text


def test_a_key_number_that_fails_is_a_tile_that_says_why(tmp_path, words_only):
    rows = [{"step": 0, "train": {"seconds": 60.0}, "architecture": 3}]
    page = made(write_run(tmp_path / "run", rows))
    assert "changed choices ? cannot be read: TypeError" in page.text
    assert "time 1 min 00 s measured, without set-up" in page.text


# -- the numbers ------------------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("drawn_pages")
def test_the_curve_is_drawn_through_the_measured_points(tmp_path, drawn):
    run = write_run(tmp_path / "run", EPOCHS, [evaluation()])
    made(run)
    axes = drawn["accuracy"].axes[0]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 3)  # clean and the two strengths of PGD-20
    assert line.get_xydata() == pytest.approx(np.array([[0, 80], [7.65, 60], [25.5, 40]]))
    band, = (c for c in axes.collections if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection"))
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert {(0, 70), (0, 90), (7.65, 50), (7.65, 70), (25.5, 30), (25.5, 50)} <= corners
    alone = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata()) == 1]
    assert [[pytest.approx(8), pytest.approx(20)]] in alone  # AutoAttack; C&W has no strength and is not drawn
    bars = [segment.tolist() for c in axes.collections if type(c).__name__ == "LineCollection"
            for segment in c.get_segments()]
    assert bars == [[[pytest.approx(8), pytest.approx(10)], [pytest.approx(8), pytest.approx(30)]]]
    header, *rows = numbers(run, "accuracy")
    assert header == ["network", "attack", "norm", "epsilon", "accuracy", "low", "high"]
    assert [row[:3] for row in rows] == [["net", "clean", ""], ["net", "PGD-20", "linf"], ["net", "PGD-20", "linf"],
                                         ["net", "AutoAttack", "linf"]]
    assert np.array([row[3:] for row in rows], dtype=float) == pytest.approx(np.array(
        [[0, 0.8, 0.7, 0.9], [0.03, 0.6, 0.5, 0.7], [0.1, 0.4, 0.3, 0.5], [8 / 255, 0.2, 0.1, 0.3]]))
    top, = axes.child_axes
    assert top.transData.transform((0.1, 0))[0] == pytest.approx(axes.transData.transform((25.5, 0))[0])


def test_l2_strengths_have_a_figure_of_their_own(tmp_path, drawn):
    robust = {("PGD-20", "pgd", "linf", 0.03): "11100", ("PGD-20 L2", "pgd", "l2", 0.5): "11000"}
    made(write_run(tmp_path / "run", EPOCHS, [evaluation(robust=robust)]))
    line = next(line for line in drawn["accuracy-l2"].axes[0].lines if len(line.get_xdata()) == 2)
    assert line.get_xydata() == pytest.approx(np.array([[0, 80], [0.5, 40]]))
    assert drawn["accuracy-l2"].axes[0].get_xlabel() == "L2 strength ε"


def test_weights_are_the_softmax_of_the_search_phase(a_search):
    run, _, drawn = a_search
    header, *rows = numbers(run, "weights-normal")
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]  # step 0 is a warm-up step
    assert header[1] == "cₖ₋₂->2 none" and header[-1] == f"4->5 {PRIMITIVES[-1]}" and len(header) == 1 + 14 * 8
    for row in rows:
        parts = np.arange(1, 1 + 14 * 8).reshape(14, 8) + int(row[0])
        assert np.array(row[1:], dtype=float) == pytest.approx((parts / parts.sum(1, keepdims=True)).ravel(), abs=1e-4)
    thick = [c.get_linewidths() for c in drawn["weights-normal"].axes[0].collections if len(c.get_linewidths()) == 8]
    assert len(thick) == 14 and all(np.argmax(widths) == 7 for widths in thick)  # alphas grow with the operation


def test_genotype_changes_are_marked_on_their_edge():
    rows = [search_row(step) for step in range(1, 5)]
    # private: a mark in the figure does not tell its edge
    found = weights_figure._changes(rows, "normal")
    edges = weights_figure._edges(14)  # private: as above
    assert edges == [(node, source) for node in (2, 3, 4, 5) for source in range(node)]
    before, after = CELL.normal[2], ("skip_connect", 1)
    expected = {edges.index((3, before[1])), edges.index((3, after[1]))}
    assert {edge for edge, marks in enumerate(found) if marks} == expected and found[edges.index((3, 1))] == [1]
    # private: as above
    assert weights_figure._changes(rows, "reduce") == [[]] * 14


def test_losses_and_phases_are_those_of_the_rows(a_search):
    _, page, drawn = a_search
    left, right = drawn["losses"].axes
    assert [line.get_ydata().tolist() for line in left.lines] == [pytest.approx([1.5, 1.4, 1.3, 1.2, 1.1]),
                                                                 pytest.approx([2.5, 2.4, 2.3, 2.2, 2.1])]
    assert right.lines[1].get_ydata().tolist() == pytest.approx([25, 35, 45, 55, 65])
    assert [line.get_xdata().tolist() for line in left.lines] == [[1, 2, 3, 4, 5]] * 2
    bars = drawn["time"].axes[0].patches
    assert [bar.get_y() for bar in bars[5:]] == [3, 4, 5, 6, 7] and {bar.get_height() for bar in bars[5:]} == {1}
    assert "train 25.0 s 83.3 validate 5.0 s 16.7 all 30.0 s 100.0" in page.text


def test_the_rank_correlation_counts_pairs(a_search):
    x, y = [1, 2, 3, 4, 5], [1, 3, 2, 5, 4]
    signs = [np.sign((a - c) * (b - d)) for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2)]
    rows = [search_row(step) for step in range(5)]
    assert search_figures.rank_correlation(rows) == pytest.approx(sum(signs) / len(signs)) == pytest.approx(0.6)
    assert search_figures.rank_correlation(rows[:2]) is None
    run, page, _ = a_search
    assert "+0.60" in page.text and "τ of all 5: +0.60" in page.text
    assert numbers(run, "predictions")[1:] == [[str(step), f"{a}.0", f"{b}.0"]
                                               for step, (a, b) in enumerate(zip(x, y, strict=True))]


def test_the_gap_and_its_fallback_are_drawn(a_search):
    run, page, drawn = a_search
    mean, largest, zero, fallback = drawn["estimator-gap"].axes[0].lines
    assert mean.get_xdata().tolist() == [1, 2, 3, 4, 5] and list(zero.get_ydata()) == [0, 0]
    assert mean.get_ydata() == pytest.approx([0, 1, 2, 3, 4]) and largest.get_ydata() == pytest.approx([0, 3, 6, 9, 12])
    assert list(fallback.get_xdata()) == [3, 3]
    assert "Strengths that PGD attacks: 0.0300 (7.65/255); 0.1000 (25.5/255) from step 4 on." in page.text
    assert "on 50 images of D_v" in page.text and "+4.0 points" in page.text
    assert numbers(run, "estimator-gap")[3:5] == [["2", "0.02", "0.06", "0.1", "0.03"],
                                                  ["3", "0.03", "0.09", "0.1", "0.03 0.1"]]


def test_a_search_without_estimates_has_no_gap(tmp_path, words_only):
    rows = [{name: value for name, value in search_row(step).items() if not name.startswith("estimator")}
            for step in range(3)]
    page = made(write_run(tmp_path / "run", rows))
    assert "Estimator against PGD" not in page.titles() and "estimator" not in page.text.replace("loss estimator", "")


def test_noises_are_amplified_as_said_and_compared_in_closed_form(a_search):
    run, page, drawn = a_search
    for row in numbers(run, "noise")[1:]:  # the estimate is minus twice the noise
        assert float(row[4]) == pytest.approx(3) and float(row[5]) == pytest.approx(-1)
        assert float(row[3]) == pytest.approx(2 * float(row[2])) and float(row[2]) <= float(row[1])
    assert "×16.7 at 0.0300 (7.65/255), ×5 at 0.1000 (25.5/255)" in page.text
    canvas = drawn["noise"].axes[0].images[0].get_array()
    stored = np.load(run / run_files.NOISE_SAMPLES)
    assert canvas.shape == (2 * 8 + 2, 5 * 8 + 4 * 2, 4)
    canvas = np.asarray(canvas)
    assert canvas[:8, :8, :3] == pytest.approx(stored["images"][0].transpose(1, 2, 0) / 255)
    for position, (name, strength) in enumerate([("pgd", 0), ("estimated", 0), ("pgd", 1), ("estimated", 1)], start=1):
        expected = np.clip(0.5 + 0.5 * stored[name][1, strength] / (0.03, 0.1)[strength], 0, 1).transpose(1, 2, 0)
        assert canvas[10:, 10 * position:10 * position + 8, :3] == pytest.approx(expected)
    assert (canvas[8:10, :, 3] == 0).all() and (canvas[:8, :8, 3] == 1).all()


def test_training_curves_skip_epochs_without_a_number(tmp_path, drawn):
    run = write_run(tmp_path / "run", EPOCHS)
    made(run)
    loss, accuracies, rate = drawn["training"].axes
    assert loss.lines[0].get_ydata().tolist() == [2.0, 1.75, 1.5, 1.25]
    assert rate.lines[0].get_ydata().tolist() == [0.1, 0.05, 0.025, 0.0125]
    clean, robust, held_out_clean, held_out_robust = accuracies.lines
    assert clean.get_ydata().tolist() == [40] * 4 and held_out_clean.get_ydata().tolist() == [50] * 3
    assert robust.get_ydata() == pytest.approx([25, 30, 35, 40])
    assert held_out_robust.get_xydata() == pytest.approx(np.array([[1, 30], [2, 35], [3, 0]]))
    assert numbers(run, "training")[4] == ["4", "1.25", "0.4", "0.4", "", "", "0.0125"]


# -- honesty and comparison -------------------------------------------------------------------------------------------

def test_failed_checks_are_loud(tmp_path, words_only):
    checks = [{"check": "more steps are not weaker", "passed": True, "says": "fine"},
              {"check": "white box beats black box", "passed": False, "says": "Square: 31 %, PGD: 38 %"},
              {"check": "transfer", "passed": None, "says": "no --source"}]
    quiet = made(write_run(tmp_path / "a", EPOCHS, [evaluation(checks=[checks[0], checks[2]])]))
    assert "alarm" not in {a.get("class") for _, a in quiet.tags} and "FAILED" not in quiet.text
    assert "transfer not run" in quiet.text and "more steps are not weaker passed" in quiet.text
    loud = made(write_run(tmp_path / "b", EPOCHS, [evaluation(checks=checks, failed_checks=[checks[1]["check"]])]))
    head = loud.source[:loud.source.index("<main>")]
    assert 'class="alarm" role="alert"' in head and "1 honesty check failed" in head
    assert "white box beats black box – Square: 31 %" in head
    order = [loud.text.index(f"{check['check']} {word}") for check, word in zip(checks, ("passed", "FAILED", "not run"),
                                                                             strict=True)]
    assert order[1] < order[0] < order[2]
    named = made(write_run(tmp_path / "c", EPOCHS, [evaluation(failed_checks=["one without details"])]))
    assert "net: one without details" in named.source[:named.source.index("<main>")]


def test_the_published_way_stands_beside_the_honest_one(tmp_path, words_only):
    row = {"epsilon": 0.03, "published_way": 0.55, "honest": 0.5, "difference": 0.05, "interval": [-0.01, 0.11]}
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(official=[row])]))
    assert "net 0.0300 (7.65/255) 55.0 50.0 +5.0 [−1.0, +11.0]" in page.text


@pytest.fixture
def two(tmp_path):
    stream = np.random.default_rng(1)
    draws = {name: ["".join("01"[int(x < share)] for x in stream.random(300)) for share in shares]
             for name, shares in (("strong", (0.9, 0.7, 0.5)), ("weak", (0.9, 0.4, 0.2)))}
    robust = {name: {("PGD-20", "pgd", "linf", e): text for e, text in zip((0.03, 0.1), texts[1:], strict=True)}
              for name, texts in draws.items()}
    runs = [write_run(tmp_path / name, EPOCHS, [evaluation(name, draws[name][0], robust[name])],
                      config={"epochs": 4, "adv_loss": name}) for name in ("strong", "weak")]
    return runs, draws


def test_paired_differences_are_means_over_the_images(two, tmp_path, words_only, monkeypatch):
    runs, draws = two
    seen = []
    monkeypatch.setattr("wsrnas.report.differences.difference_interval",
                        lambda own, base: seen.append(own - base) or (-0.123, 0.045))
    page = made(*runs, out=tmp_path / "out")
    bits = {name: np.array([[int(c) for c in text] for text in texts]) for name, texts in draws.items()}
    expected = list(bits["weak"] - bits["strong"])
    expected.append((bits["weak"] - bits["strong"])[1:].mean(0))  # the average robust accuracy
    clean, small, large = bits["weak"] - bits["strong"]  # straight lines from 0 over 0.03 to 0.1
    expected.append((0.03 * (clean + small) / 2 + 0.07 * (small + large) / 2) / 0.1)
    assert len(seen) == 5 and all(values == pytest.approx(right) for values, right in zip(seen, expected, strict=True))
    for label, values in zip(["no attack", "PGD-20 eps 0.0300 (7.65/255)", "PGD-20 eps 0.1000 (25.5/255)",
                              "average robust", "area under the curve"], expected, strict=True):
        text = f"{100 * values.mean():+.1f}".replace("-", "−")
        assert f"{label} {text} [−12.3, +4.5] undecided" in page.text, label
    assert "weak minus strong" in page.text


def test_a_comparison_shows_the_runs_side_by_side(two, tmp_path, words_only):
    page = made(*two[0], two[0][0], out=tmp_path / "out")  # one given twice counts once
    assert page.titles() == ["Runs", "Accuracy under attack", "Paired differences", "Honesty checks"]
    assert "Comparison of 2 runs" in page.text and "adv_loss strong weak" in page.text and "lower" in page.text
    assert page.source.count("<details><summary>strong</summary>") == 1
    assert {"run1-training.svg", "run2-training.csv", "accuracy.svg"} <= {
        p.name for p in (tmp_path / "out" / "figures").iterdir()}
    assert not (two[0][0] / "report.html").exists()


# What the second network's evaluation says otherwise, and whether it is compared with the first's all the same.
OTHERWISE = [({"image_set": "others"}, False), ({"image_set": ""}, False), ({"model": {}}, False),
             ({"protocol": "rnas"}, True), ({"attacks": []}, False),
             ({"attacks": evaluation(robust={("PGD-20", "pgd", "linf", 0.2): "1" * 300})["attacks"]}, False)]


@pytest.mark.parametrize(("change", "paired"), OTHERWISE)
def test_networks_are_paired_on_the_same_images_under_the_same_attack(change, paired, two, tmp_path, words_only):
    change_evaluation(two[0][1], **change)
    page = made(*two[0], out=tmp_path / "out")
    assert ("Paired differences" in page.titles(), "weak minus strong" in page.text) == (paired, paired)


def change_evaluation(run, **change):
    path = run / "eval" / "0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_unknown_images_are_not_the_same():
    unknown = [Evaluation(name, name, evaluation(name, image_set=None)) for name in "ab"]
    assert paired_differences(networks_of(unknown)) == []


def test_only_one_network_is_no_comparison(tmp_path, words_only):
    runs = [write_run(tmp_path / name, EPOCHS, [evaluation("net", image_set=name) for name in ("one", "two")])
            for name in "ab"]  # a copy of a run is still the same network
    assert "Paired differences" not in made(*runs, out=tmp_path / "out").titles()


def test_damaged_scores_are_left_out_and_so_are_averages_over_them():
    attacks = evaluation()["attacks"]
    assert [row[0] for row in rows_of_differences(attacks)] == [
        "no attack", *(str(attack_of(row)) for row in attacks), "average robust", "area under the curve"]
    torn = [{**attacks[0], "robust": None}, {**attacks[1], "robust": "110"}, {**attacks[2], "method": "?"}, attacks[3]]
    assert [row[0] for row in rows_of_differences(torn)] == ["no attack", "C&W-20 L2"]
    assert rows_of_differences(torn[:3]) is None
    assert rows_of_differences(attacks, clean={"accuracy": 0.5, "robust": "x"}) is None
    short = [*attacks, attack_row(robust="110")]  # the average would be over the two others: not what the file says
    assert [row[0] for row in rows_of_differences(short)] == ["no attack", *(str(attack_of(row)) for row in attacks)]
    old = [{name: value for name, value in row.items() if name != "source"} for row in attacks]
    assert len(rows_of_differences(old)) == 7


def rows_of_differences(attacks, **change):
    """The rows of the table of differences between a network whose attacks these are and one that is whole."""
    seen = []
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsrnas.report.differences.table", lambda header, rows, *rest: seen.append(rows))
        damaged = Evaluation("b", "b", {**evaluation("b"), "attacks": attacks, **change})
        section = paired_differences(networks_of([Evaluation("a", "a", evaluation("a")), damaged]))
    assert bool(section) == bool(seen)
    return seen[0] if seen else None


# -- several evaluations of one network -------------------------------------------------------------------------------

AT_8 = {("PGD-20", "pgd", "linf", 8 / 255): "11000"}


def test_evaluations_of_one_network_are_one_column(tmp_path, drawn):
    stale = {("PGD-20", "pgd", "linf", 0.03): "10000", **AT_8}
    run = write_run(tmp_path / "run", EPOCHS, [evaluation(protocol="paper"), evaluation(robust=stale, protocol="rnas")])
    for name, when in (("0", 2000), ("1", 1000)):  # the file that is read first is the newer
        os.utime(run / "eval" / f"{name}.json", (when, when))
    page = made(run)
    assert "ε in 1/255 net steps" in page.text and "net rnas, paper cifar10 5 0 best.pt" in page.text
    for words in ("PGD-20 L∞ 0.0300 7.65 60.0 [50.0, 70.0] 20", "PGD-20 L∞ 0.0314 8 40.0 [30.0, 50.0] 20"):
        assert page.text.count(words) == 1, words
    assert "20.0 [10.0, 30.0] 20 0.00375" not in page.text  # the stale measurement
    assert page.text.count("logits are deterministic passed") == 1
    rows = numbers(run, "accuracy")[1:]
    assert [row[1] for row in rows].count("clean") == 1
    assert sorted(float(row[3]) for row in rows if row[1] == "PGD-20") == pytest.approx([0.03, 8 / 255, 0.1])
    line = next(line for line in drawn["accuracy"].axes[0].lines if len(line.get_xdata()) == 4)
    assert line.get_xydata() == pytest.approx(np.array([[0, 80], [7.65, 60], [8, 40], [25.5, 40]]))
    os.utime(run / "eval" / "1.json", (3000, 3000))
    text = made(run).text
    assert "PGD-20 L∞ 0.0300 7.65 20.0 [10.0, 30.0] 20" in text
    assert text.index("PGD-20 L∞ 0.0314") < text.index("PGD-20 L∞ 0.1000")  # in the order of strengths, not of files


def test_averages_over_other_attacks_are_rows_of_their_own(tmp_path, words_only):
    other = {("PGD-20", "pgd", "linf", e): "11000" for e in (0.2, 0.3, 0.4)}
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(), evaluation(robust=other)]))
    for words in ("average robust [1] 50.0", "average robust [2] 40.0", "area under the curve [2] 45.6",
                  "Average robust [2]: the mean over PGD-20 eps 0.2000 (51/255), PGD-20 eps 0.3000 (76.5/255), PGD-20"):
        assert words in page.text, words
    assert "50.0 % 2 attacks, 5 test images" in page.text and "40.0 % 3 attacks, 5 test images" in page.text


NAMESAKES = [([{}, {"image_set": "b", "images": 7}], ["net, 5 images", "net, 7 images"]),
             ([{}, {"image_set": "b", "dataset": "digits"}], ["net, cifar10", "net, digits"]),
             ([{}, {"model": {"source": "/x/last.pt", "fingerprint": "b"}}], ["net, best", "net, last"]),
             ([{}, {"image_set": "b", "images": 7}, {"model": {"source": "last.pt", "fingerprint": "b"}}],
              ["net, 5 images, best", "net, 7 images, best", "net, 5 images, last"]),
             ([{}, {"image_set": "b"}], ["net [1]", "net [2]"]),
             ([{}, {"image_set": "b", "name": "other"}], ["net", "other"]),
             ([{}, {}], ["net"]), ([{}, {"seed": 1, "protocol": "rnas"}], ["net"]),
             ([{"image_set": None}, {"image_set": None}], ["net [1]", "net [2]"])]


@pytest.mark.parametrize(("changes", "names"), NAMESAKES)
def test_a_name_says_as_little_as_tells_networks_apart(changes, names):
    results = [{**evaluation(), **change} for change in changes]
    evaluations = [Evaluation(result["name"], "label-634de3d8", result, "run") for result in results]
    assert [network.title for network in networks_of(evaluations)] == names


def test_networks_of_one_name_take_the_name_of_their_run():
    results = [{**evaluation(), "model": {"source": "best.pt", "fingerprint": run}} for run in "ab"]
    evaluations = [Evaluation("net", "l", result, f"run {run}") for result, run in zip(results, "ab", strict=True)]
    assert [network.name for network in networks_of(evaluations)] == ["net, run a", "net, run b"]


def attack_row(**change):
    return {**evaluation(robust=AT_8)["attacks"][0], **change}


def test_attacks_of_another_manner_or_source_are_others(tmp_path, drawn):
    transfer = {"attack": "transfer PGD-20", "method": "transfer"}
    rows = [attack_row(), attack_row(step_size=2 / 255), attack_row(random_start=True, epsilon=0.1, step_size=0.0125),
            attack_row(**transfer, source="aaaaaaaa1"), attack_row(**transfer, source="bbbbbbbb2")]
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(attacks=rows, average_robust=None, area=None)]))
    for words in ("transfer PGD-20 from aaaaaa L∞", "transfer PGD-20 from bbbbbb L∞"):
        assert page.text.count(words) == 1, words
    legend = [text.get_text() for text in drawn["accuracy"].axes[0].get_legend().get_texts()]
    assert legend == ["net", "PGD-20, step 0.125 ε", "PGD-20, step 0.25 ε", "PGD-20, step 0.125 ε, random start",
                      "transfer PGD-20 from aaaaaa", "transfer PGD-20 from bbbbbb"]
    assert sum(len(line.get_xdata()) for line in drawn["accuracy"].axes[0].lines) == 1 + len(rows)  # each point once
    other = rows_of_differences([attack_row(step_size=2 / 255), *evaluation()["attacks"]])
    assert not [row for row in other if row[0].startswith("PGD-20 eps 0.0314")]  # steps of another length: no pair


# -- what cannot be trusted yet ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [{"complete": False, "checks": []}, {"complete": None}, {"complete": "yes"}])
def test_an_unfinished_evaluation_is_an_alarm(change, tmp_path, words_only):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(), evaluation("other", **change)]))
    alarm = re.search(r'<div class="alarm" role="alert">.*?</div>', page.source.split("<main>")[0])[0]
    assert "1 evaluation unfinished" in alarm and "other (run/eval/1.json): 4 attacks are measured" in alarm
    assert "ε in 1/255 net other (unfinished) steps" in page.text and "any honesty check" not in page.text
    assert "80.0 % test, other (unfinished)" in page.text and "80.0 % test, net average" in page.text
    assert "Accuracy of net, other (unfinished) over" in page.source  # and in the figure's legend
    alone = made(write_run(tmp_path / "alone", EPOCHS, [evaluation(**change)]))
    assert "80.0 % 5 test images, unfinished" in alone.text


@pytest.mark.parametrize("checks", [[], None, [{"check": "transfer", "passed": None, "says": "only 9 images"}]])
def test_an_evaluation_without_a_check_is_an_alarm(checks, tmp_path, words_only):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(checks=checks)]))
    head = page.source.split("<main>")[0]
    assert 'class="alarm"' in head and "1 evaluation without any honesty check" in head and "unfinished" not in head
    assert "run/eval/0.json): " + ("only 9 images" if checks else "its file holds no check") in head
    assert "ε in 1/255 net (unchecked) steps" in page.text and "80.0 % 5 test images, unchecked" in page.text


def test_a_whole_evaluation_is_no_alarm(tmp_path, words_only):
    failed = {"check": "transfer", "passed": False, "says": "no"}
    calm, failing = (made(write_run(tmp_path / name, EPOCHS, [evaluation(checks=checks)]))
                     for name, checks in (("calm", [PASSED]), ("failing", [failed])))
    assert 'class="alarm"' not in calm.source and failing.source.count('class="alarm"') == 1
    assert "1 honesty check failed" in failing.text and "unchecked" not in failing.text


def test_a_page_that_cannot_be_written_is_a_sentence(tmp_path, words_only, capsys):
    run = write_run(tmp_path / "run", EPOCHS, [evaluation()])
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    for out in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "taken", "/proc/x"):
        with pytest.raises(SystemExit) as left:
            run_program(lambda out=out: report.main([str(run), "--out", str(out)]))
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.count("\n") == 1
        assert said.startswith(f"error: the report cannot be written to {out}: ")
    assert (tmp_path / "file").read_text() == "in the way"


# -- refreshing -------------------------------------------------------------------------------------------------------

@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; writing a page takes ``clock.cost`` seconds and is noted in ``clock.written``."""
    class Clock:
        def __init__(self):
            self.now, self.cost, self.written = 1000.0, 0.0, []

        def write(self, paths, live=False):
            self.written.append((self.now, live))
            self.now += self.cost
    clock = Clock()
    monkeypatch.setattr(report.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(report, "_started", clock.now)  # private: the clock begins with the module
    monkeypatch.setattr(report, "_refreshed", {})  # private: what earlier tests wrote
    monkeypatch.setattr(report, "write_report", clock.write)
    return clock


def test_a_page_is_refreshed_once_a_minute(clock, tmp_path):
    for _ in range(300):
        report.refresh(tmp_path, World())
        clock.now += 1
    assert [round(at - 1000) for at, _ in clock.written] == [60, 120, 180, 240]
    assert all(live for _, live in clock.written)
    report.refresh(tmp_path, World(), ended=True)
    assert clock.written[-1] == (1300, False)


def test_a_slow_page_takes_at_most_a_twentieth_of_the_time(clock, tmp_path):
    clock.cost = 30.0
    while clock.now < 20_000:
        report.refresh(tmp_path, World())
        clock.now += 5
    spent = 30 * len(clock.written)
    assert 0.03 < spent / (clock.now - 1000) <= 0.05


def test_only_the_main_process_writes(clock, tmp_path, monkeypatch):
    report.refresh(tmp_path, World(rank=1, size=2), ended=True)
    assert clock.written == []
    monkeypatch.setenv("RANK", "1")  # torchrun's, of processes that share out runs of their own
    report.refresh(tmp_path, World(), ended=True)
    assert len(clock.written) == 1


def test_a_failing_report_is_one_line_in_the_log(clock, tmp_path, monkeypatch):
    def fail(*arguments, **named):
        raise ZeroDivisionError("no page today")
    monkeypatch.setattr(report, "write_report", fail)
    lines = []
    report.refresh(tmp_path, World(), lines.append, ended=True)
    assert lines == ["the report could not be written: ZeroDivisionError: no page today"]
    report.refresh(tmp_path, World(), lines.append)  # not again at once
    assert len(lines) == 1

    def full_disk(line):
        raise OSError("no space left")
    report.refresh(tmp_path, World(), full_disk, ended=True)


# -- the programs -----------------------------------------------------------------------------------------------------

SMALL = ["--preset", "tiny", "--dataset", "digits", "--device", "cpu", "--init_channels", "2", "--layers", "3",
         "--batch_size", "15", "--save", "run"]
SEARCH = [*SMALL, "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--recalibration_batches", "1",
          "--loss_passes", "3", "--estimator_images", "2", "--warmup_architectures", "1", "--iterations", "2"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    search.wsr_nas.main([*SEARCH, "--runs", str(folder)])
    return folder / "search" / "run"


def test_a_search_writes_its_page(searched):
    page = Page(searched / "report.html")
    assert "finished, 4 steps" in page.text and "could not be" not in page.text
    assert {"The cell", "Architecture weights", "Losses over the strengths", "Estimated noise",
            "Time"} <= set(page.titles())


def test_a_search_records_its_architecture_parameters(searched):
    rows = read_run(searched).rows
    weights = torch.load(searched / "checkpoint.pt", weights_only=True)["searcher"]["supernet"]
    for kind in ("normal", "reduce"):
        recorded = torch.tensor(rows[-1]["architecture"]["alphas"][kind])
        assert recorded.shape == (14, 8) and (recorded - weights[f"alphas_{kind}"]).abs().max() <= 0.51e-4
        assert rows[0]["architecture"]["alphas"][kind] != rows[-1]["architecture"]["alphas"][kind]


def test_noises_are_kept_after_every_step(searched):
    arrays = read_run(searched).noise
    config = json.loads((searched / "config.json").read_text())
    assert arrays["images"].dtype == np.uint8 and arrays["images"].shape[0] == 3
    assert arrays["pgd"].shape == arrays["estimated"].shape == (3, 2, *arrays["images"].shape[1:])
    assert arrays["epsilons"] == pytest.approx([config["strengths"][1], config["strengths"][3]]) and arrays["step"] == 3
    for name in ("pgd", "estimated"):
        sizes = np.abs(arrays[name].astype(float)).max((0, 2, 3, 4))
        assert (sizes <= arrays["epsilons"] * 1.001).all() and (sizes > 0.5 * arrays["epsilons"]).all()
    assert searched.joinpath(run_files.NOISE_SAMPLES).stat().st_size < 200_000


def test_noise_samples_change_nothing_and_are_pgds(tmp_path):
    from wsrnas.data.datasets import load_dataset
    from wsrnas.data.splits import balanced_split
    from wsrnas.runtime.config import parse_config
    config = parse_config(SearchConfig, search.wsr_nas.PRESETS, SEARCH)[0]
    data = load_dataset("digits", "data", max_train=60, seed=0)
    searcher = Searcher(config, data, balanced_split(data.train.labels, 0.5, 0, data.num_classes), World())
    step = schedule(config)[-1]
    searcher.sample(step)
    state = {key: value.clone() for key, value in searcher.supernet.state_dict().items()}
    before = torch.get_rng_state()
    first, again = searcher.check_estimator(step)[1], searcher.check_estimator(step)[1]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in searcher.supernet.state_dict().items())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    images, labels = next(iter(searcher.check_loader.batches()))
    assert np.array_equal(first["images"], (images[:3] * 255).round().byte().numpy())
    whole = multi_strength_pgd(searcher.supernet, images, labels, searcher.target_epsilons, steps=1)
    assert first["pgd"] == pytest.approx((whole - images.unsqueeze(1))[:3].numpy(), abs=1e-4)
    sources = multi_strength_pgd(searcher.supernet, images, labels, searcher.source_epsilons, steps=1)
    with torch.no_grad():
        estimate = searcher.estimator(sources - images.unsqueeze(1), images, searcher.source_epsilons,
                                      searcher.target_epsilons)
    assert first["estimated"] == pytest.approx(estimate[:3].numpy(), abs=1e-4)


def test_a_retraining_writes_its_page_while_it_runs_and_at_its_end(tmp_path, words_only, monkeypatch):
    monkeypatch.setattr(report, "REFRESH_SECONDS", -1)
    monkeypatch.setattr(report, "REFRESH_SHARE", 1e9)
    seen = []
    original = report.write_report
    monkeypatch.setattr(report, "write_report", lambda paths, live: seen.append(Page(original(paths, live=live)).text))
    retrain.train_cifar.main([*SMALL, "--max_train", "60", "--held_out", "20", "--epochs", "2", "--milestones", "1",
                              "--runs", str(tmp_path)])
    assert ["running, 1 of 2 epochs" in seen[0], "finished, 2 epochs" in seen[-1], len(seen)] == [True, True, 3]


# -- in a browser -----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<script>
addEventListener("load", async () => {{
  const said = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, broken = [];
    for (const image of page.querySelectorAll("img, image")) {{
      const copy = new Image(); copy.src = image.src || image.getAttribute("href") || image.getAttribute("xlink:href");
      try {{ await copy.decode(); }} catch (error) {{ broken.push(copy.src.slice(0, 40)); }}
    }}
    const tall = [...page.querySelectorAll("svg")].filter(f => f.getBoundingClientRect().height < 50).length;
    said.push({{width: frame.clientWidth, needed: page.documentElement.scrollWidth, broken, tall,
                figures: page.querySelectorAll("svg").length, pictures: page.querySelectorAll("img, image").length}});
  }}
  document.body.textContent = "RESULT" + JSON.stringify(said) + "END";
}});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_the_page_without_errors_or_sideways_scrolling(tmp_path):
    made(write_search(tmp_path / "search"), write_run(tmp_path / "retraining", EPOCHS, [
        evaluation("a-network-with-a-very-long-name-" * 4,
                   checks=[{"check": "c" * 90, "passed": False, "says": "s" * 200}])],
        config={"epochs": 4, "long": "x" * 500}), out=tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    page.write_text(page.read_text().replace("<details>", "<details open>"))
    frames = "".join(f'<iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>'
                     for width in (1280, 390))
    (tmp_path / "out" / "probe.html").write_text(PROBE.format(frames=frames))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
               "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1700,1000", "--enable-logging=stderr", "--v=0",
               "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "out" / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    results = json.loads(re.search(r"RESULT(.*)END", done.stdout)[1].replace("&lt;", "<"))
    assert [result["width"] for result in results] == [1280, 390]
    for result in results:
        assert result["needed"] <= result["width"], result
        assert result["broken"] == [] and result["tall"] == 0
        assert result["figures"] == 12 and result["pictures"] >= 1


def test_the_table_of_numbers_keeps_commas_and_gaps():
    shown = Numbers("n", ("a", "b"), [["x,y", None], [1.5, 2]])
    assert list(csv.reader(io.StringIO(shown.table))) == [["a", "b"], ["x,y", ""], ["1.5", "2"]]


def test_paths_are_as_fine_as_a_screen_and_no_finer(a_search, drawn_pages, tmp_path):
    text = (report.write_report([a_search[0]], tmp_path).parent / "figures" / "weights-normal.svg").read_text()
    decimals = [len(d) for path in re.findall(r'\bd="([^"]*)"', text) for d in re.findall(r"\.(\d+)", path)]
    assert max(decimals) == 2 and "e-" not in "".join(re.findall(r'\bd="([^"]*)"', text))


# -- vulnerability and the bound on it --------------------------------------------------------------------------------

BOUND = {"bound": 0.01, "reference": 0.02, "values": [0.01, 0.02, 0.04]}
RNAS = {"epochs": 6, "vulnerability_bound": "rel:0.5", "watched_batches": 2, "bound_batches": 4, "batch_size": 16,
        "num_steps": 7, "epsilon": 8 / 255, "distance": "spatial"}
FOUND = {"bound": 0.01, "projection": {"feasible": 1.0, "before": 0.0125, "after": 0.01},
         "child": {"vulnerability": 0.015, "cells": [0.01, 0.02], "clean_accuracy": 0.75, "adversarial_accuracy": 0.25}}


def rnas_row(step, bounded=True):
    """An epoch of five: two of the warm-up, then one whose projections never moved A, one without a feasible point."""
    network, searched = 0.03 - 0.005 * step, step >= 2
    share = (0.0, 0.5, 1.0)[step - 2]
    moved = {"projections": 4, "active": share, "feasible": (1.0, 1.0, 0.75)[step - 2], "before": 0.012 + 0.001 * step,
             "after": 0.009 + 0.0005 * step, "multiplier": 10.0 * share * step, "distance": share * step}
    search = {"phase": "search", "upper_loss": {"clean": 0.5 + step, "adversarial": 1.5 + step},
              "projection": moved if bounded else {"projections": 0, "travelled": 0.0},
              **({"bound": BOUND} if bounded and step == 2 else {})}
    base = search_row(step)
    mass = {"none_mass": {"normal": 0.125 + 0.01 * step, "reduce": 0.125}, "skip_mass": {"normal": 0.1, "reduce": 0.2}}
    return {"step": step, "number": step, "phase": "warm-up", "train": base["train"],
            "seconds": {"train": 3.0, "vulnerability": 1.0},
            "vulnerability": {"network": network, "cells": [1.5 * network, 0.5 * network]},
            "architecture": base["architecture"] | mass, **(search if searched else {})}


def write_rnas(path, rows=None, found=FOUND, **config):
    rows = [rnas_row(step) for step in range(5)] if rows is None else rows
    return write_run(path, rows, config=RNAS | config,
                     **({"vulnerability__json": json.dumps(found)} if found is not None else {}))


def floats(values):
    return [None if value is None else pytest.approx(value) for value in values]


@pytest.fixture(scope="module")
def an_rnas(tmp_path_factory):
    run = write_rnas(tmp_path_factory.mktemp("rnas") / "run")
    with kept_figures() as figures:
        return run, made(run), figures


def test_an_rnas_search_has_its_sections_and_counts_epochs(an_rnas):
    run, page, figures = an_rnas
    assert page.titles() == ["The cell", "Architecture weights", "Vulnerability", "The discretised network", "Training",
                             "Time", "How it was made"]
    assert "not finished, 5 of 6 epochs" in page.text and "epochs 3 to 5 from left to right" in page.text
    assert "vulnerability 0.015 discretised network, H 0.01" in page.text
    for name in ("vulnerability", "projections", "masses", "training", "time"):
        assert {axes.get_xlabel() for axes in figures[name].axes} == {"epoch"}, name
    live = made(write_rnas(run.parent / "live", found=None), out=run.parent / "out")
    assert "The discretised network" not in live.titles() and "vulnerability.json" not in live.text
    assert "vulnerability 0.01 supernet, last epoch, H 0.01" in live.text


def test_the_vulnerability_its_bound_and_the_projections_are_those_of_the_rows(an_rnas):
    run, page, figures = an_rnas
    axes, = figures["vulnerability"].axes
    network = [0.03, 0.025, 0.02, 0.015, 0.01]
    first, last, thick, bound, before, after, cross = axes.lines
    for line, factor in ((first, 1.5), (last, 0.5), (thick, 1)):
        assert line.get_xydata() == pytest.approx(np.array([[i + 1, factor * f] for i, f in enumerate(network)]))
    assert thick.get_linewidth() > 2 * first.get_linewidth()
    assert bound.get_linestyle() == "--" and bound.get_xdata().tolist() == [2.5, 3, 4, 5, 5.5]  # not in the warm-up
    assert set(bound.get_ydata()) == {0.01}
    assert before.get_xydata() == pytest.approx(np.array([[3, 0.014], [4, 0.015], [5, 0.016]]))
    assert after.get_xydata() == pytest.approx(np.array([[3, 0.01], [4, 0.0105], [5, 0.011]]))
    assert cross.get_xydata() == pytest.approx(np.array([[5, 0.011]]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "supernet", "cell 1", "cell 2", "bound H", "before projecting", "after projecting", "some infeasible"]
    header, *rows = numbers(run, "vulnerability")
    assert header == ["step", "network", "cell 1", "cell 2", "bound", "before", "after", "feasible"]
    assert rows[1][4:] == [""] * 4 and floats(map(float, rows[4])) == [4, 0.01, 0.015, 0.005, 0.01, 0.016, 0.011, 0.75]
    for words in ("the first 2 batches of 16 images of D_v under PGD-7 at ε 0.0314 (8/255)", "“spatial” distance",
                  "H = 0.01 (rel:0.5: a share of 0.02, the value after the warm-up as the median of 3 batches)"):
        assert words in page.text, words


def test_multiplier_and_distance_are_of_the_projections_that_moved(an_rnas):
    run, _, figures = an_rnas
    multiplier, distance, shares = figures["projections"].axes
    assert multiplier.lines[0].get_ydata()[1:].tolist() == [15, 40] and np.isnan(multiplier.lines[0].get_ydata()[0])
    assert distance.lines[0].get_ydata()[1:].tolist() == [1.5, 4] and np.isnan(distance.lines[0].get_ydata()[0])
    assert [line.get_ydata().tolist() for line in shares.lines] == [[0, 50, 100], [100, 100, 75]]
    assert shares.lines[0].get_xdata().tolist() == [3, 4, 5]
    assert floats(map(float, numbers(run, "projections")[2])) == [3, 0.015, 0.0105, 15, 1.5, 0.5, 1]


def test_masses_and_the_upper_loss_are_those_of_the_rows(an_rnas):
    run, _, figures = an_rnas
    axes, = figures["masses"].axes
    assert [line.get_ydata()[[0, 4]].tolist() for line in axes.lines[:4]] == [
        pytest.approx(ends) for ends in ([12.5, 16.5], [12.5, 12.5], [10, 10], [20, 20])]
    assert list(axes.lines[4].get_ydata()) == [12.5, 12.5]
    colours, styles = ([getattr(line, f"get_{what}")() for line in axes.lines[:4]] for what in ("color", "linestyle"))
    assert colours[0] == colours[1] != colours[2] == colours[3] and styles == ["-", "--"] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "none, normal cell", "none, reduction cell", "skip, normal cell", "skip, reduction cell"]
    loss = figures["training"].axes[0]
    assert [line.get_ydata()[2:].tolist() for line in loss.lines] == [
        pytest.approx([2.3, 2.2, 2.1]), [2.5, 3.5, 4.5], [3.5, 4.5, 5.5]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "D_v clean", "D_v adversarial"]
    header, *rows = numbers(run, "training")
    assert header[:4] == ["epoch", "loss", "D_v clean", "D_v adversarial"] and rows[3][2:4] == ["3.5", "4.5"]


def test_a_loss_without_weight_is_not_drawn(tmp_path, drawn):
    rows = [rnas_row(step) for step in range(5)]
    for row in rows[2:]:
        row["upper_loss"]["clean"] = 0.0
    made(write_rnas(tmp_path / "run", rows))
    assert [text.get_text() for text in drawn["training"].axes[0].get_legend().get_texts()] == [
        "training", "D_v adversarial"]


def test_the_discretised_network_says_what_it_is(an_rnas):
    text = an_rnas[1].text
    for words in ("before the last projection 0.0125 1.25 – –", "supernet after it 0.01 1.00 – –",
                  "discretised network 0.015 1.50 75.0 25.0", "is not retrained", "the first 4 batches of 16 images"):
        assert words in text, words


def test_a_last_projection_that_missed_the_bound_says_so(tmp_path, words_only):
    missed = FOUND | {"projection": {"feasible": 0.0, "before": 0.03, "after": 0.02}}
    assert "supernet after it, infeasible 0.02 2.00" in made(write_rnas(tmp_path / "run", found=missed)).text


def test_without_a_bound_there_is_none(tmp_path, drawn):
    rows = [rnas_row(step, bounded=False) for step in range(5)]
    page = made(write_rnas(tmp_path / "run", rows, {"bound": math.inf, "child": FOUND["child"]},
                           vulnerability_bound="inf"))
    assert "Vulnerability" in page.titles() and "projections" not in drawn and "masses" in drawn
    assert len(drawn["vulnerability"].axes[0].lines) == 3
    assert "There is no bound (vulnerability_bound is inf)." in page.text and "Triangles" not in page.text
    assert "discretised network 0.015 no bound 75.0 25.0" in page.text and "last projection" not in page.text
    assert "0.015 discretised network " in page.text and ", H" not in page.text
    early = made(write_rnas(tmp_path / "early", rows[:2], None)).text
    assert "There is no bound yet (vulnerability_bound is rel:0.5)." in early


@pytest.mark.parametrize(("low", "scale"), [(0.01, "linear"), (0.0005, "log")])
def test_the_axis_is_logarithmic_where_a_decade_is_not_enough(low, scale, tmp_path, drawn):
    rows = [rnas_row(step) for step in range(2)]
    rows[1]["vulnerability"]["cells"] = [0.02, low]
    rows[0]["vulnerability"]["cells"][0] = 0.0
    made(write_rnas(tmp_path / "run", rows, None))
    assert drawn["vulnerability"].axes[0].get_yscale() == scale


LACKS = [({}, ("vulnerability",)), ({"vulnerability": {}}, ()), ({"vulnerability": {"network": 0.1}}, ()),
         ({"vulnerability": {"network": "x", "cells": [None, "y", 1.0]}}, ()), ({"projection": None}, ()),
         ({"projection": {"projections": 3}}, ()), ({}, ("phase", "projection", "bound")),
         ({"bound": 3, "upper_loss": [1]}, ()), ({"architecture": {"none_mass": 0.5}}, ())]


@pytest.mark.parametrize(("change", "without"), LACKS)
def test_rows_that_lack_something_are_drawn_as_far_as_they_go(change, without, tmp_path, words_only):
    rows = [rnas_row(step) for step in range(5)]
    rows[2:4] = [{key: value for key, value in (row | change).items() if key not in without} for row in rows[2:4]]
    page = made(write_rnas(tmp_path / "run", rows))
    assert "Vulnerability" in page.titles() and "could not be drawn" not in page.text
    assert "H = 0.01" in page.text  # where the row that told H is lost, vulnerability.json still knows


@pytest.mark.parametrize("found", [{}, {"bound": "x", "child": 3}, {"projection": {"before": []}, "child": {}}])
def test_a_vulnerability_file_without_numbers_makes_no_section(found, tmp_path, words_only):
    page = made(write_rnas(tmp_path / "run", found=found))
    assert "The discretised network" not in page.text and "could not be drawn" not in page.text
    damaged = made(write_run(tmp_path / "torn", [rnas_row(0)], config=RNAS, vulnerability__json='{"bound": 1'))
    assert "vulnerability.json cannot be read" in damaged.text and "Vulnerability" in damaged.titles()


def bounded_row(step):
    row = search_row(step, phase="search" if step >= 3 else "population",
                     vulnerabilities={"eps_0.03": 0.01 * (step + 1), "eps_0.1": 0.02 * (step + 1)})
    if step >= 3:
        row["projection"] = {"bounds": {"eps_0.03": 0.02, "eps_0.1": 0.05}, "projections": 1, "active": 1.0,
                             "feasible": float(step == 4), "before": 0.5 * step, "after": 0.25 * step,
                             "multiplier": 2.0 * step, "distance": 1.0 * step}
    return row


def test_a_bounded_wsr_nas_shows_every_strength_with_its_bound(tmp_path, drawn):
    run = write_run(tmp_path / "run", [bounded_row(step) for step in range(5)],
                    config={"warmup_architectures": 1, "iterations": 4, "vulnerability_bound": "rel:0.6"})
    page = made(run)
    assert "not finished, 5 of 6 steps" in page.text and "The discretised network" not in page.text
    weak, weak_bound, strong, strong_bound = drawn["vulnerability"].axes[0].lines
    assert weak.get_ydata() == pytest.approx(0.01 * np.arange(1, 6)) and weak.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert strong.get_ydata() == pytest.approx(0.02 * np.arange(1, 6))
    for line, bound, value in ((weak, weak_bound, 0.02), (strong, strong_bound, 0.05)):
        assert bound.get_color() == line.get_color() and bound.get_linestyle() == "--"
        assert bound.get_xdata().tolist() == [3.5, 4, 5, 5.5] and set(bound.get_ydata()) == {value}
    assert weak.get_color() != strong.get_color()
    assert [text.get_text() for text in drawn["vulnerability"].axes[0].get_legend().get_texts()] == [
        "ε 0.0300 (7.65/255)", "ε 0.1000 (25.5/255)", "its bound H"]
    predicted, multiplier, _, shares = drawn["projections"].axes
    before, after, cross, limit = predicted.lines
    assert before.get_ydata().tolist() == [1.5, 2] and after.get_ydata().tolist() == [0.75, 1]
    assert cross.get_xydata().tolist() == [[4, 0.75]] and list(limit.get_ydata()) == [1, 1]
    assert multiplier.lines[0].get_ydata().tolist() == [6, 8] and shares.lines[1].get_ydata().tolist() == [0, 100]
    assert numbers(run, "vulnerability")[5] == ["4", "0.05", "0.1", "0.02", "0.05"]
    assert {axes.get_xlabel() for axes in (*drawn["projections"].axes, *drawn["time"].axes)} == {"step"}
    assert "rel:0.6" in page.text and "masses" not in drawn  # these rows tell no masses


def test_a_search_without_vulnerabilities_has_no_such_section(a_search):
    assert "Vulnerability" not in a_search[1].titles() and "vulnerability" not in a_search[2]
