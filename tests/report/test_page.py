"""The page of a run: it needs nothing else, survives whatever files hold, and is written again in time."""

import base64
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.processes import PATIENCE
from tests.quick import slow_after
from tests.report.run_pages import (
    EPOCHS,
    evaluation,
    made,
    search_row,
    write_run,
    write_search,
)
from wsrnas.report import pages
from wsrnas.report import writing as report
from wsrnas.report.figures.picture import Numbers
from wsrnas.report.figures.style import PAGE_COLOURS
from wsrnas.report.figures.svg import inline_svg, plain
from wsrnas.report.page_files import write_files
from wsrnas.report.reading.evaluations import evaluation_problem
from wsrnas.report.reading.runs import read_run
from wsrnas.report.sections import Section
from wsrnas.runtime import locks, run_files
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_pages")

HOSTILE = "<script>alert(1)</script>\"'& $\\frac$ _x\x07\u202e"


# -- the page --------------------------------------------------------------------------------------------------------

def test_a_search_has_the_sections_of_its_data_and_no_others(a_search):
    run, page, _ = a_search
    assert page.titles() == ["The cell", "Architecture weights", "Collapse", "Losses over the strengths",
                             "Predicted and measured objective", "Estimator against PGD", "Estimated noise", "Training",
                             "Time", "How it was made"]
    assert "not finished, 5 of 6 steps" in page.text and "3 of 16" in page.text and "0.750" in page.text
    names = {"cells", "weights-normal", "weights-reduce", "collapse", "losses", "predictions", "estimator-gap", "noise",
             "training", "time"}
    files = {path.name for path in (run / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("svg", "csv")}


@pytest.mark.parametrize(("strategy", "output", "steps", "said"), [
    ("wsr", "verified", 9, "This is the measured architecture with the smallest predicted objective, which noise "
     "misleads less."),
    ("wsr-paper", "argmax", 10, "This is the architecture of A, as in the paper."),
])
def test_a_search_says_which_output_the_genotype_is(strategy, output, steps, said, tmp_path):
    config = {"warmup_architectures": 3, "population": 2, "iterations": 4, "strategy": strategy, "output": output}
    page = made(write_run(tmp_path / "run", [search_row(0)], config=config))
    assert said in page.text and f"1 of {steps} steps" in page.text


@pytest.mark.parametrize(("config", "steps"), [
    ({"paths_per_iteration": 3}, 3 + 2 + 4), ({"train_only": True}, 3), ({"supernet": "runs/search/net"}, 2 + 4)])
def test_the_page_knows_how_many_steps_a_search_has(config, steps, tmp_path):
    config |= {"warmup_architectures": 3, "population": 4 if "paths_per_iteration" in config else 2, "iterations": 4,
               "strategy": "wsr"}
    write_run(tmp_path / "run", [search_row(0)], config=config)
    assert read_run(tmp_path / "run").steps == steps


def test_a_retraining_with_evaluations_shows_every_number_of_both(tmp_path):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation()], finished=True))
    assert page.titles() == ["Accuracy under attack", "Honesty checks", "The cell", "Training", "How it was made"]
    for words in ("run", "retrain.train_cifar", "finished, 4 epochs", "35.0 % best: epoch 2, clean 50.0 %",
                  "python -m retrain.train_cifar --epochs 4", "python -m retrain.evaluate --model 'a b'",
                  "0123abc", "data hash beef", "4,544,830", "88 images/s",
                  "4 min 00 s", "PGD-20 L∞ 0.0300 7.65 60.0 [50.0, 70.0] 20 0.00375 1 image ce",
                  "no attack 80.0 [70.0, 90.0]", "C&W-20 L2 L2 unbounded – 0.0 [0.0, 10.0] 20 – 1 – ce",
                  "average robust 50.0 [10.0, 90.0]", "area under the curve 45.6 [40.0, 50.0]",
                  "Average robust: the mean over PGD-20 eps 0.0300 (7.65/255), PGD-20 eps 0.1000 (25.5/255).",
                  "80.0 % 5 test images", "50.0 % PGD-20 at 2 strengths, 5 test images"):
        assert words in page.text, words
    assert "secret-host" not in page.source and "Not everything could be read" not in page.text


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert len(figures) == 13 and all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in figures)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_run_gives_the_same_figures(a_search, tmp_path):
    run, _, _ = a_search
    made(run, out=tmp_path)
    for path in (run / "figures").iterdir():
        assert (tmp_path / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_downloaded_table_is_the_file(a_search):
    run, page, _ = a_search
    links = {a["download"]: a["href"] for tag, a in page.tags if tag == "a"}
    assert len(links) == 10
    for name, target in links.items():
        assert base64.b64decode(target.split("base64,")[1]) == (run / "figures" / name).read_bytes()


def test_ids_and_references_get_their_prefix():
    svg = ('<?xml?><svg width="72pt" height="1pt" viewBox="0 0 72 36"><g id="a"/>'
           '<use xlink:href="#a" clip-path="url(#a)"/></svg>')
    assert inline_svg(svg, "one", "seen") == (
        '<svg viewBox="0 0 72 36" role="img" aria-label="seen" style="--natural: 96px"><g id="one-a"/>'
        '<use xlink:href="#one-a" clip-path="url(#one-a)"/></svg>')


# -- hostile and broken files ----------------------------------------------------------------------------------------

@pytest.mark.slow
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
         ({"config__json": "[]"}, "config.json holds a list; expected an object"),
         ({"env__json": "no"}, "env.json cannot be read"),
         ({"inputs__json": '"x"'}, "inputs.json holds a text; expected an object"),
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
         ({"eval/x__json": json.dumps(evaluation(average_robust=[1], official="no"))}, "could not be drawn"),
         ({"eval/x__json": json.dumps(evaluation(checks=[3]))}, "a check has no name, or no outcome"),
         ({run_files.NOISE_SAMPLES.replace(".", "__"): "PK no zip"}, "noise_samples.npz cannot be read")]


@pytest.mark.parametrize(("files", "words"), slow_after(6, WRONG),
                         ids=[f"{n}-{next(iter(w[0]))}" for n, w in enumerate(WRONG)])
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
    (run / "env.json").write_text("[]")
    (run / "config.json").write_text("{}")
    assert made(run).titles() == []
    (run / "config.json").write_text('{"epochs": 4}')
    assert "metrics.jsonl is missing: no step is complete yet" in made(run).text


def test_what_is_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("dear reader")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="is not a run directory; expected a folder"):
            report.main([str(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(SystemExit) as left:
        run_program(lambda: report.main([str(tmp_path)]))
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1 and "is not a run directory" in said


def test_of_a_folder_of_runs_one_is_named(tmp_path):
    (tmp_path / "search" / "mine").mkdir(parents=True)
    (tmp_path / "search" / "mine" / "env.json").write_text("[]")
    with pytest.raises(InputError, match=r"is not a run directory; expected a folder .*, such as .*/search/mine"):
        report.main([str(tmp_path)])


def test_the_page_of_a_study_an_export_or_a_vulnerability_stays(tmp_path):
    """They have a configuration like a run. Their own programs write their pages."""
    (tmp_path / "config.json").write_text('{"format": "wsrnas package 1"}')
    (tmp_path / "report.html").write_text("the page of an export")
    with pytest.raises(InputError, match="is not a run directory; the page in it is written by the program that"):
        report.main([str(tmp_path)])
    assert (tmp_path / "report.html").read_text() == "the page of an export"


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


# -- refreshing ------------------------------------------------------------------------------------------------------

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


def test_a_page_does_not_say_running_once_the_program_has_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_live", set())  # private: what other tests have left there
    monkeypatch.setattr(report, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(report, "REFRESH_SHARE", 1e9)
    monkeypatch.setattr(report, "write_report", lambda *given, **named: None)
    page = tmp_path / "report.html"
    page.write_text("<p>a · running, 2 of 4 epochs · b</p></header>· running, elsewhere", "utf-8")
    report.refresh(tmp_path, World())
    report._no_longer_running()  # private: runs when the interpreter ends
    assert page.read_text("utf-8") == "<p>a · stopped, 2 of 4 epochs · b</p></header>· running, elsewhere"
    report.refresh(tmp_path, World(), ended=True)
    assert not report._live  # private: a finished page is left alone


def test_the_page_of_a_race_says_running_while_another_process_works(tmp_path, monkeypatch):
    page, claimed = tmp_path / "report.html", tmp_path / "claims" / "job"
    monkeypatch.setattr(report, "_live", {page})  # private: this process has written the page
    page.write_text("race · running, 3 of 6 jobs</header>", "utf-8")
    claimed.mkdir(parents=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with locks.claim(claimed, must_lock=True):
            os.write(writing, b"held")
            time.sleep(PATIENCE)
            os._exit(0)
    try:
        assert os.read(reading, 4) == b"held"
        report._no_longer_running()  # private: runs when the interpreter ends
        assert "· running, 3 of 6 jobs" in page.read_text("utf-8")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    report._no_longer_running()  # private: the same
    assert "· stopped, 3 of 6 jobs" in page.read_text("utf-8")


def test_processes_may_write_one_page_at_a_time(tmp_path):
    """Each name of a temporary file is met by one writer alone, and none is left."""
    failed, names = [], set()

    def write(number):
        try:
            for _ in range(40):
                write_files(tmp_path, f"{number}" * 50_000, {})
        except Exception as error:
            failed.append(error)
    replaced = os.replace
    with pytest.MonkeyPatch.context() as context:
        context.setattr(os, "replace", lambda source, target: (names.add(source), replaced(source, target)))
        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    assert not failed and len(names) == 120
    assert len(set((tmp_path / "report.html").read_text())) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_page_does_not_bring_back_a_folder_that_was_moved(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", EPOCHS)

    def moved(*given):
        run.rename(tmp_path / "away")
        return "page", {}

    monkeypatch.setattr(report, "page", moved)
    with pytest.raises(InputError, match="is gone; its page is not written"):
        report.write_report([run])
    assert not run.exists()


def test_a_folder_that_is_moved_while_the_folder_of_its_figures_is_made_is_gone(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", EPOCHS)
    original = os.mkdir

    def moved(path, *more):  # the system says "exists", and then it does not
        try:
            original(path, *more)
        finally:
            if "run" in Path(path).parts and run.exists():
                run.rename(tmp_path / "away")

    monkeypatch.setattr(os, "mkdir", moved)
    with pytest.raises(InputError, match="is gone; its page is not written"):
        report.write_report([run])
    assert not run.exists()


# -- in a browser ----------------------------------------------------------------------------------------------------

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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_the_page_without_errors_or_sideways_scrolling(drawn_pages, tmp_path):
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert "CONSOLE" not in done.stderr, done.stderr
    results = json.loads(re.search(r"RESULT(.*)END", done.stdout)[1].replace("&lt;", "<"))
    assert [result["width"] for result in results] == [1280, 390]
    for result in results:
        assert result["needed"] <= result["width"], result
        assert result["broken"] == [] and result["tall"] == 0
        assert result["figures"] == 13 and result["pictures"] >= 1


def test_the_table_of_numbers_keeps_commas_and_gaps():
    shown = Numbers("n", ("a", "b"), [["x,y", None], [1.5, 2]])
    assert list(csv.reader(io.StringIO(shown.table))) == [["a", "b"], ["x,y", ""], ["1.5", "2"]]


@pytest.mark.slow
def test_paths_are_as_fine_as_a_screen_and_no_finer(a_search, drawn_pages, tmp_path):
    text = (report.write_report([a_search[0]], tmp_path).parent / "figures" / "weights-normal.svg").read_text()
    decimals = [len(d) for path in re.findall(r'\bd="([^"]*)"', text) for d in re.findall(r"\.(\d+)", path)]
    assert max(decimals) == 2 and "e-" not in "".join(re.findall(r'\bd="([^"]*)"', text))


def test_the_words_of_a_figure_are_not_its_colours_and_ids():
    words = 'net #d55e00 id=&quot;q&quot; url(#x)'
    svg = f'<svg width="10pt" height="10pt"><g id="a" style="fill: #d55e00"><text>{words} id="q"</text></g></svg>'
    found = inline_svg(svg, "one", "seen")
    assert f"{words} id=\"q\"</text>" in found and 'id="one-a"' in found and "fill: #d55e00" not in found
