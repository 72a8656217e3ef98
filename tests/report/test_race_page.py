"""The page of a race: every number is that of the document, whatever the document holds."""

import base64
import copy
import json
import math
import random
import re
import shutil
import subprocess
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

import genotypes
from tests.pages import Page
from tests.processes import PATIENCE
from tests.quick import slow_after
from tests.report.race_pages import (
    AUTO,
    CELLS,
    MEASURES,
    NAMES,
    PGD,
    bands,
    numbers,
    race,
    race_page,
    ranked,
    score,
    store,
    told,
)
from wsrnas.report import writing as report
from wsrnas.report.race import page as page_of
from wsrnas.report.race import read_race, write_race_report
from wsrnas.report.reading.races import race_of
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

HOSTILE = "<script>alert(1)</script>\"'& $\\frac$ _x\x07\u202e\ud800"
SECTIONS = ["Standing", "Accuracy over strength", "Accuracy over parameters", "Paired differences", "Cost", "Cells",
            "How it was made"]


def signed(value):
    return f"{100 * value:+.1f}".replace("-", "−")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A race's folder, its document and its page."""
    folder, document = tmp_path_factory.mktemp("race") / "three", race()
    return folder, document, race_page(folder, document)


# -- the page --------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_race_has_all_sections_and_files(whole):
    folder, document, page = whole
    assert page.titles() == SECTIONS
    first = ranked(document)[0]
    best = first["best"]["average robust"]
    for words in ("three race of 3 architectures · finished, 6 of 6 jobs · last update", "4.5 M parameters ± 2 %",
                  f"leader {first['name']} average robust {told(best)} %, best weights, 2 seeds",
                  "seeds 0 1 one training for each", "images 400 test images of folder",
                  "Ranked by average robust, best weights.", "python -m retrain.compare --epochs 10",
                  "family of beta, paper of beta", "recipe tiny", "protocol paper", "configuration (2 fields)",
                  "data somewhere"):
        assert words in page.text, words
    for words in ("Not everything could be read", "failed", "not final", "could not be drawn"):
        assert words not in page.text, words
    names = {"accuracy-over-strength", "accuracy-over-cost", "cells-1-alpha", "cells-2-beta"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        *(f"{name}.{kind}" for name in names for kind in ("svg", "csv")), "standing.csv", "differences.csv"}
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere_and_its_markup_is_whole(whole):
    folder, _, page = whole
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "data:")
            assert target.startswith("data:") or target[1:] in ids, (tag, target)
    assert all(target.strip("'\"")[1:] in ids for target in re.findall(r"url\((.*?)\)", page.source))
    drawings = re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL)
    assert len(drawings) == 4 and "currentColor" in drawings[0] and "DejaVu" not in drawings[0]
    for drawing in drawings:
        assert len(ElementTree.fromstring(drawing).get("aria-label")) > 40
    downloads = {a["download"]: a["href"] for tag, a in page.tags if tag == "a" and "download" in a}
    assert len(downloads) == 6
    for name, target in downloads.items():
        assert base64.b64decode(target.split("base64,")[1]) == (folder / "figures" / name).read_bytes()


@pytest.mark.slow
def test_the_same_race_gives_the_same_files(whole, tmp_path):
    folder, document, _ = whole
    race_page(tmp_path / "three", document)
    for path in (folder / "figures").iterdir():
        assert (tmp_path / "three" / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_the_report_program_knows_a_race(tmp_path, words_only, capsys):
    folder = store(tmp_path / "race", race())
    report.main([str(folder)])
    assert capsys.readouterr().out == f"report: {folder / 'report.html'}\n"
    assert Page(folder / "report.html").titles() == SECTIONS
    assert report.write_report([folder], tmp_path / "out") == tmp_path / "out" / "report.html"
    assert Page(tmp_path / "out" / "report.html").titles() == SECTIONS
    assert (tmp_path / "out" / "figures" / "standing.csv").exists()


def test_a_page_that_cannot_be_written_is_a_sentence(tmp_path, words_only):
    folder = store(tmp_path / "race", race())
    (folder / "figures").write_text("in the way")
    with pytest.raises(InputError, match=r"the report cannot be written to .*race/figures: file exists; "):
        write_race_report(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "race.json"]


# -- the standing ----------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_standing_is_that_of_the_document(whole):
    folder, document, page = whole
    rows, order = page.table("parameters", "clean"), ranked(document)
    assert [row["entrant"] for row in rows] == [e["name"] for e in order] != list(NAMES)
    for row, e in zip(rows, order, strict=True):
        facts = [e["name"], "2", str(e["init_channels"]), f"{e['parameters']:,}", f"{e['multiply_adds'] / 1e6:.1f}"]
        assert list(row.values())[:5] == facts
        assert {name: row[" ".join(name.split())] for name in e["best"]} == {n: told(r) for n, r in e["best"].items()}
    assert list(rows[0])[5:] == ["clean", "average robust", *(" ".join(name.split()) for name in [*PGD, AUTO])]
    stored = numbers(folder, "standing")
    assert len(stored) == 3 * 2 * 5
    for row in stored:
        e = next(e for e in document["entrants"] if e["name"] == row["entrant"])
        found, measure = e[row["weights"]][row["measure"]], MEASURES[list(e["best"]).index(row["measure"])]
        assert [float(row["mean"]), float(row["deviation"])] == [found["mean"], found["deviation"]]
        assert list(map(float, row["values, one a seed"].split())) == found["values"]
        assert [row["attack"], row["norm"]] == [measure["attack"] or "", measure["norm"] or ""]
        assert row["epsilon"] == ("" if measure["epsilon"] is None else str(measure["epsilon"]))


@pytest.mark.slow
def test_the_last_weights_have_a_table_with_what_they_lost(whole):
    _, document, page = whole
    for row, e in zip(page.table("best minus last (points)"), ranked(document), strict=True):
        assert row["entrant"] == e["name"]
        lost = e["best"]["average robust"]["mean"] - e["last"]["average robust"]["mean"]
        assert row["best minus last (points)"] == signed(lost)
        assert {name: row[" ".join(name.split())] for name in e["last"]} == {n: told(r) for n, r in e["last"].items()}


@pytest.mark.slow
def test_best_and_last_of_other_seeds_are_not_subtracted(tmp_path, words_only):
    document = race()
    alpha = document["entrants"][0]
    alpha["best"] = {name: score(row["values"][:1]) for name, row in alpha["best"].items()}
    page = race_page(tmp_path, document)
    lost = {row["entrant"]: row["best minus last (points)"] for row in page.table("best minus last (points)")}
    assert lost["alpha"] == "–" != lost["beta"]
    seeds = {row["entrant"]: row["seeds"] for row in page.table("parameters", "clean")}
    assert seeds == {"alpha": "1 of 2", "beta": "2", "gamma": "2"}


@pytest.mark.parametrize(("kept", "ranking"), slow_after(1, [(["clean", *PGD, AUTO], PGD[0]), (["clean", AUTO], AUTO),
                                               (["clean"], "clean")]))
def test_without_an_average_the_first_attack_ranks(kept, ranking, tmp_path, words_only):
    document = race(measures=[measure for measure in MEASURES if measure["name"] in kept])
    page = race_page(tmp_path, document)
    assert f"Ranked by {' '.join(ranking.split())}, best weights." in page.text
    order = [e["name"] for e in ranked(document, measure=ranking)]
    assert [row["entrant"] for row in page.table("parameters", "clean")] == order
    assert ("Accuracy over strength" in page.titles()) == (len(kept) > 1)


@pytest.mark.slow
def test_the_document_says_what_ranks(tmp_path, words_only):
    document = race(measures=[measure for measure in MEASURES if measure["name"] in ("clean", *PGD, AUTO)])
    for main, ranking in ((AUTO, AUTO), (PGD[1], PGD[1]), ("nothing of the kind", PGD[0]), (None, PGD[0])):
        page = race_page(tmp_path, {**document, "main": main})
        assert f"Ranked by {' '.join(ranking.split())}, best weights." in page.text
        order = [e["name"] for e in ranked(document, measure=ranking)]
        assert [row["entrant"] for row in page.table("parameters", "clean")] == order


@pytest.mark.slow
def test_where_nothing_was_held_out_the_last_weights_rank(tmp_path, words_only):
    document = race()
    for e in document["entrants"]:
        e["best"] = None
    page = race_page(tmp_path, document)
    assert "Ranked by average robust, last weights." in page.text and "Best weights" not in page.text
    order = ranked(document, "last")
    assert [row["entrant"] for row in page.table("parameters", "clean")] == [e["name"] for e in order]
    square = page.table("row minus column")
    assert [row["row minus column"] for row in square] == [e["name"] for e in order]
    means = [e["last"]["average robust"]["mean"] for e in order]
    assert square[0][order[1]["name"]].removesuffix(" *") == signed(means[0] - means[1])
    stored = numbers(tmp_path, "accuracy-over-strength")
    assert {float(row["mean"]) for row in stored if row["epsilon"] == "0.0"} == {
        e["last"]["clean"]["mean"] for e in order}


def test_one_seed_has_no_deviation(tmp_path, drawn, words_only):
    document = race(seeds=(5,))
    page = race_page(tmp_path, document)
    assert "±" not in " ".join(text for row in page.table("parameters", "clean") for text in row.values())
    assert "best weights, 1 seed" in page.text and "one training of every entrant" in page.text
    assert all(row["deviation"] == "" for row in numbers(tmp_path, "accuracy-over-strength"))
    for line, band in bands(drawn["accuracy-over-strength"].axes[0]):
        assert band == {(x, y) for x, y in line}
    assert not drawn["accuracy-over-cost"].axes[0].collections  # no bars


def test_one_entrant_is_a_race_of_one(tmp_path, words_only):
    page = race_page(tmp_path, race(names=("alpha",)))
    assert page.titles() == [title for title in SECTIONS if title != "Paired differences"]
    assert "race of 1 architecture · " in page.text and not (tmp_path / "figures" / "differences.csv").exists()


def test_a_race_that_has_only_begun(tmp_path, words_only):
    document = race(complete=False, done=0, differences=[])
    for e in document["entrants"]:
        e |= {"best": None, "last": None}
    page = race_page(tmp_path, document)
    assert page.titles() == ["Standing", "Cost", "Cells", "How it was made"]
    assert "not finished, 0 of 6 jobs" in page.text and "No network is evaluated yet." in page.text
    assert "These numbers are not final" in page.text and "Not everything" not in page.text
    assert "leader" not in page.text and "standing.csv" not in page.source
    assert [row["seeds"] for row in page.table("parameters", "seeds")] == ["0 of 2"] * 3


def test_a_race_that_goes_on(tmp_path, words_only):
    document = race(complete=False, done=3)
    document["entrants"][0]["best"] = None
    page = race_page(tmp_path, document, live=True)
    assert "running, 3 of 6 jobs" in page.text and "leader so far" in page.text
    rows = page.table("parameters", "clean")
    assert [rows[-1]["entrant"], rows[-1]["seeds"], rows[-1]["clean"]] == ["alpha", "0 of 2", "–"]


def test_failed_checks_are_loud(tmp_path, words_only):
    document = race()
    first = ranked(document)[0]
    first["failed_checks"] = ["net-seed0 best: more steps never help", "net-seed1 last: black box"]
    page = race_page(tmp_path, document)
    assert "2 honesty checks failed: these networks may be less robust than their accuracies say." in page.text
    alarm = re.search(r'<div class="alarm".*?</div>', page.source)[0]
    assert "more steps never help" in alarm and "net-seed1 last: black box" in alarm
    assert [row["entrant"] for row in page.table("parameters", "clean")].count(f"{first['name']} (check failed)") == 1
    assert re.search(r'class="remark">average robust [^<]*; a check failed<', page.source)


# -- differences and cost --------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("power", [None, "much", {"smallest_difference": 1}, {"summary": HOSTILE}])
def test_the_page_says_which_differences_the_race_can_see(tmp_path, power):
    page = race_page(tmp_path / "race", race() | {"power": power})
    assert "other test images alone (bootstrap)" in page.text and "so no difference gets a star" in page.text
    assert page.titles() == SECTIONS and ("alert(1)" in page.text) == (power == {"summary": HOSTILE})


@pytest.mark.slow
@pytest.mark.parametrize("rows", [None, "much", [1], [{"p": 1}], [{"entrant": "x", "p": "high"}]])
def test_a_damaged_comparison_with_random_cells_is_left_out(tmp_path, rows):
    page = race_page(tmp_path / "race", race() | {"against_random": rows})
    assert page.titles() == SECTIONS and "Against random cells" not in page.text


@pytest.mark.slow
def test_the_page_says_how_entrants_stand_among_random_cells(tmp_path):
    rows = [{"entrant": HOSTILE, "random": 12, "as_good": 3, "p": 4 / 13, "difference": -0.0061, "deviation": 0.008}]
    page = race_page(tmp_path / "race", race() | {"against_random": rows})
    (row,) = page.table("entrant", "random cells as good")
    assert "alert(1)" in row["entrant"]
    assert list(row.values())[1:] == ["3 of 12", "0.31", "−0.6"]


@pytest.mark.slow
def test_the_square_of_differences_is_antisymmetric_and_starred(whole):
    _, document, page = whole
    rows = {row["row minus column"]: row for row in page.table("row minus column")}
    order = [e["name"] for e in ranked(document)]
    assert list(rows) == order and list(rows[order[0]])[1:] == order
    found = {(d["first"], d["second"]): d for d in document["differences"]
             if (d["weights"], d["measure"]) == ("best", "average robust")}
    assert {d["distinct"] for d in found.values()} == {True, False}
    for (first, second), d in found.items():
        star = " *" * d["distinct"]
        assert rows[first][second] == signed(d["difference"]) + star
        assert rows[second][first] == signed(-d["difference"]) + star
    assert all(rows[name][name] == "–" for name in order)
    for words in ("other test images (bootstrap) and other trainings", "whose interval excludes 0",
                  "3 pairs are compared, and the intervals are not corrected for their number"):
        assert words in page.text, words


@pytest.mark.slow
def test_all_differences_are_listed(whole):
    folder, document, page = whole
    rows, stored = page.table("first", "second"), numbers(folder, "differences")
    assert len(rows) == len(stored) == len(document["differences"]) == 3 * 2 * 5
    for row, kept, d in zip(rows, stored, document["differences"], strict=True):
        low, high = d["interval"]
        assert list(row.values()) == [
            d["first"], d["second"], d["weights"], " ".join(d["measure"].split()),
            f"{signed(d['difference'])} [{signed(low)}, {signed(high)}]", f"± {100 * d['deviation']:.1f}",
            "*" if d["distinct"] else ""]
        assert [kept[key] for key in ("first", "second", "weights", "measure", "distinct")] == [
            d["first"], d["second"], d["weights"], d["measure"], str(d["distinct"]).lower()]
        assert [float(kept[key]) for key in ("difference", "deviation", "low", "high")] == [
            d["difference"], d["deviation"], low, high]


@pytest.mark.slow
def test_the_leader_says_from_whom_it_is_not_distinct(tmp_path, words_only):
    document = race()
    first, *others = [e["name"] for e in ranked(document)]
    for distinct, words in ((True, "2 seeds<"), (False, f"ranks first, but is not distinct from {', '.join(others)};")):
        for d in document["differences"]:
            d["distinct"] = distinct if first in (d["first"], d["second"]) else not distinct
        page = race_page(tmp_path, document)
        assert words in page.source and ("leader none" in page.text) is not distinct


def test_entrants_at_chance_and_missing_checks_are_said_at_the_top(tmp_path, words_only):
    document = race()
    first = ranked(document)[0]
    for d in document["differences"]:
        d["distinct"] = True
    first |= {"at_chance": True, "unchecked": ["1 of 8 honesty checks did not run: transfer"] * 2}
    page = race_page(tmp_path, document)
    head = page.source.split("<main>")[0]
    assert f"leader none {first['name']} ranks first, but its clean accuracy is not above chance" in page.text
    assert "not above chance in some training: nothing follows" in head
    assert "In 2 evaluations, 1 of 8 honesty checks did not run: transfer." in head


@pytest.mark.slow
def test_the_cost_is_that_of_the_document(whole):
    _, document, page = whole
    for row, e in zip(page.table("activations (MiB)"), ranked(document), strict=True):
        threads = e["latency"]["threads"]
        assert list(row.values()) == [
            e["name"], f"{e['parameters']:,}", f"{e['multiply_adds'] / 1e6:.1f}",
            f"{e['activation_bytes'] / 2**20:.1f}", "12.5", f"{1000 * 0.5 / 64:.4g}", "64",
            f"some device, {threads} thread{'s' if threads > 1 else ''}"]


@pytest.mark.slow
def test_without_a_latency_there_are_dashes(tmp_path, words_only):
    document = race()
    document["entrants"][0]["latency"] = None
    document["entrants"][1]["latency"] |= {"batch": 0}
    rows = {row["entrant"]: list(row.values())[4:] for row in race_page(tmp_path, document).table("activations (MiB)")}
    assert rows["alpha"] == ["–"] * 4 and rows["beta"][:3] == ["12.5", "–", "0"]


@pytest.mark.parametrize(("budget", "words"), slow_after(1, [
    (None, "budget none every entrant has its own size"), ({"quantity": "params"}, "budget none"),
    ({"quantity": "macs", "value": 6.9e8}, "budget 690 M multiply-adds every entrant is scaled to it")]))
def test_the_budget_is_said(budget, words, tmp_path, words_only):
    assert words in race_page(tmp_path, race(budget=budget)).text


# -- cells and jobs --------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_every_cell_is_drawn_and_folded_away(whole):
    folder, document, page = whole
    section = re.search(r'<section id="cells">.*?</section>', page.source, flags=re.DOTALL)[0]
    order = [e["name"] for e in ranked(document) if e["genotype"]]
    assert re.findall(r"<details><summary>(.*?)</summary><figure", section) == order and len(order) == 2
    for name, file in (("alpha", "cells-1-alpha"), ("beta", "cells-2-beta")):
        genotype = genotypes.load(CELLS[name])
        edges = [[kind, str(node), operation, str(source)] for kind in ("normal", "reduce")
                 for node, pairs in enumerate(genotype.nodes(kind), start=2) for operation, source in pairs]
        assert [list(row.values()) for row in numbers(folder, file)] == edges
        assert f'id="figure-{file}"' in section and f'aria-label="{name}: ' in section


def test_cells_that_cannot_be_drawn_say_why(tmp_path, words_only):
    document = race()
    document["entrants"][0]["genotype"]["normal"][0] = ["conv_99x99", 0]
    page = race_page(tmp_path, document)
    assert "These cells cannot be drawn: unknown operation 'conv_99x99'" in page.text
    assert (tmp_path / "figures" / "cells-2-beta.svg").exists()


@pytest.mark.slow
def test_jobs_with_a_page_are_links_to_it(tmp_path, words_only):
    document = race(names=("alpha", "odd #1 50%?"))
    folder, out = tmp_path / "race", tmp_path / "elsewhere" / "out"
    jobs = [job for e in document["entrants"] for job in e["jobs"]]
    absent = jobs.pop(0)
    for job in jobs:
        (folder / job).mkdir(parents=True)
        (folder / job / "report.html").write_text(job)
    for base, options in ((folder, {}), (out, {"out": out})):
        page = race_page(folder, document, **options)
        assert len(page.links()) == 3
        for link, job in zip(page.links(), jobs, strict=True):
            assert not link.startswith("/") and not set(link) & set(" #?")
            assert (base / unquote(link)).read_text() == job
        assert f"alpha: {absent.split('/')[1]}, " in page.text and "odd #1 50%?-seed1" in page.text


# -- hostile and damaged documents -----------------------------------------------------------------------------------

def renamed(value, change):
    """A document with every text that ``change`` names replaced."""
    if isinstance(value, dict):
        return {change.get(key, key): renamed(inner, change) for key, inner in value.items()}
    return [renamed(inner, change) for inner in value] if isinstance(value, list) else (
        change.get(value, value) if isinstance(value, str) else value)


@pytest.mark.slow
def test_nothing_in_a_document_becomes_markup(tmp_path):
    texts = ["alpha", PGD[0], PGD[1], "PGD-20", "folder", "tiny", "paper", "some device", "somewhere", "linf",
             "family of alpha", "paper of alpha", "retrain/alpha-seed0", "params"]
    document = renamed(race(), {text: f"{HOSTILE} {text}" for text in texts})
    document["entrants"][0]["failed_checks"] = [HOSTILE]
    document["entrants"][1]["genotype"]["normal"][0] = [HOSTILE, 0]
    document["config"][HOSTILE] = HOSTILE
    document["entrants"].append({"name": HOSTILE, "best": {HOSTILE: 3}})
    document["entrants"].append({"name": HOSTILE * 40, "genotype": document["entrants"][0]["genotype"],
                                 "jobs": ["<img>"]})
    folder = tmp_path / "a<b>&c"
    page = race_page(folder, document)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "img"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>\"'& $\\frac$ _x" in page.text and "a<b>&c" in page.text
    assert set(page.titles()) == set(SECTIONS) and "could not be drawn" not in page.text
    entrants = [row["entrant"] for row in page.table("parameters", "clean")]
    assert sum(name.endswith("? alpha (check failed)") for name in entrants) == 1
    for path in (folder / "figures").iterdir():
        if path.suffix == ".svg":
            ElementTree.parse(path)
        assert re.fullmatch(r"[A-Za-z0-9-]{1,60}\.(svg|csv)", path.name)


@pytest.mark.parametrize(("text", "words"), [
    (None, "race.json does not exist; expected the folder of a race"),
    ("", "race.json is not JSON"), ('{"format": "wsrnas ra', "race.json is not JSON"), ("[" * 100000, "is not JSON"),
    ("\udcff", "is not UTF-8 text"), ("[]", "has the format None; expected 'wsrnas race 2'"),
    ("{}", "has the format None; expected 'wsrnas race 2'"),
    ('{"format": "wsrnas race 1"}', "has the format 'wsrnas race 1'; expected 'wsrnas race 2'")])
def test_what_is_no_race_is_refused(text, words, tmp_path, capsys):
    if text is not None:
        (tmp_path / "race.json").write_bytes(text.encode(errors="surrogateescape"))
    for action in (read_race, write_race_report):
        with pytest.raises(InputError, match=words):
            action(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["race.json"] * (text is not None)
    if text is not None:
        with pytest.raises(SystemExit) as left:
            run_program(lambda: report.main([str(tmp_path)]))
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.count("\n") == 1 and said.startswith("error: ")


def test_a_document_is_read_as_it_is(tmp_path):
    assert read_race(store(tmp_path, race())) == race()


def best_of_alpha(**change):
    def damage(document):
        document["entrants"][0]["best"]["clean"] |= change
    return damage


DAMAGES = [
    (lambda d: d.update(entrants=None), "race.json holds no list of entrants"),
    (lambda d: d["entrants"].append(3), "entrant 4 of race.json has no name and is left out"),
    (lambda d: d["entrants"][0].pop("name"), "entrant 1 of race.json has no name and is left out"),
    (lambda d: d["entrants"][1].update(name="alpha"), "2 entrants are called alpha"),
    (lambda d: d["entrants"][0].update(best=[1]), "alpha, best weights: the results are damaged and are left out"),
    (best_of_alpha(mean=math.nan), "alpha, best weights: the result under clean is damaged and is left out"),
    (best_of_alpha(mean=10**400), "alpha, best weights: the result under clean is damaged"),
    (best_of_alpha(mean=True), "alpha, best weights: the result under clean is damaged"),
    (best_of_alpha(values=[0.5, "x"]), "alpha, best weights: the result under clean is damaged"),
    (best_of_alpha(values=[math.inf]), "alpha, best weights: the result under clean is damaged"),
    (best_of_alpha(deviation=-0.1), "alpha, best weights: the result under clean is damaged"),
    (best_of_alpha(deviation=math.nan), "alpha, best weights: the result under clean is damaged"),
    (lambda d: d["entrants"][2]["last"].update({AUTO: None}), f"gamma, last weights: the result under {AUTO}"),
    (lambda d: d["measures"].append({}), "measure 6 of race.json has no name and is left out"),
    (lambda d: d.pop("measures"), f"race.json does not say which attack {PGD[0]} is"),
    (lambda d: d["differences"][4].update(difference=None), "difference 5 of race.json is damaged and is left out"),
    (lambda d: d["differences"].append("x"), "difference 31 of race.json is damaged and is left out")]


@pytest.mark.parametrize(("damage", "words"), slow_after(3, DAMAGES))
def test_a_damaged_part_is_named_and_the_rest_is_shown(damage, words, tmp_path, words_only):
    document = race()
    damage(document)
    page = race_page(tmp_path, document)
    missing = re.search(r'<div class="missing">.*?</div>', page.source)[0]
    assert " ".join(words.split()) in " ".join(missing.split())
    assert "could not be drawn" not in page.text and "How it was made" in page.titles()
    if document["entrants"]:
        assert page.titles()[0] == "Standing" and "nan" not in page.text.lower().replace("alpha", "")


@pytest.mark.slow
def test_a_damaged_score_is_a_dash_and_no_point(tmp_path, drawn, words_only):
    document = race()
    document["entrants"][0]["best"][PGD[0]]["mean"] = math.nan
    page = race_page(tmp_path, document)
    row = next(row for row in page.table("parameters", "clean") if row["entrant"] == "alpha")
    assert row[" ".join(PGD[0].split())] == "–" and row["clean"] == told(document["entrants"][0]["best"]["clean"])
    place = [e["name"] for e in ranked(document)].index("alpha")
    assert [len(line) for line, _ in bands(drawn["accuracy-over-strength"].axes[0])] == [
        2 if n == place else 3 for n in range(3)]


def places(value, path=()):
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@pytest.mark.slow
def test_whatever_is_wrong_anywhere_there_is_a_page(tmp_path, words_only):
    document = race(names=("delta", "gamma"), measures=[MEASURES[0], MEASURES[1], MEASURES[-1]])
    store(tmp_path, document)
    draw = random.Random(0)
    everywhere = [path for path in places(document) if path not in ((), ("format",))]
    top = [path for path in everywhere if len(path) < 2]
    for path in top + draw.sample(everywhere, 25):
        changed = copy.deepcopy(document)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if (wrong := draw.choice((None, "x", [], {}, math.nan, -1, [[3]], True, "absent"))) == "absent":
            del parent[path[-1]]
        else:
            parent[path[-1]] = wrong
        text, _ = page_of(race_of(changed), tmp_path, tmp_path)
        assert "<h2>How it was made</h2>" in text and "could not be drawn" not in text, (path, wrong)


# -- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body>{}<script>addEventListener("load", () => {{
  const said = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument.documentElement, svgs = [...page.querySelectorAll("svg")];
    const heights = svgs.map(drawing => drawing.getBoundingClientRect().height);
    return [frame.clientWidth, page.scrollWidth, svgs.length, Math.min(...heights)];
  }});
  document.body.textContent = "RESULT" + JSON.stringify(said) + "END"; }});</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_the_page_without_sideways_scrolling(tmp_path):
    document = renamed(race(), {"alpha": "a-network-with-a-very-long-name-" * 4, "somewhere": "x" * 500})
    document["entrants"][1]["failed_checks"] = ["c" * 300]
    path = write_race_report(store(tmp_path / "race", document))
    path.write_text(path.read_text().replace("<details>", "<details open>"))
    frames = "".join(f'<iframe src="race/report.html" style="border:0;width:{width}px;height:900px"></iframe>'
                     for width in (1280, 390))
    (tmp_path / "probe.html").write_text(PROBE.format(frames))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
               f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
               "--window-size=1700,1000", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000",
               "--dump-dom", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert "CONSOLE" not in done.stderr, done.stderr
    results = json.loads(re.search(r"RESULT(.*)END", done.stdout)[1])
    assert [width for width, *_ in results] == [1280, 390]
    for width, needed, figures, height in results:
        assert needed <= width and figures == 4 and height > 100


def test_a_race_is_ranked_in_closed_form():
    document = race()
    for e, mean in zip(document["entrants"], (0.25, 0.75, 0.5), strict=True):
        e["best"]["average robust"] = {"values": [mean], "mean": mean, "deviation": None}
    assert [e.name for e in race_of(document).standing] == ["beta", "gamma", "alpha"]


def test_no_one_leads_whom_another_beats_on_their_common_seeds(tmp_path):
    """Its mean is over more seeds than the other has, and one of them was lucky."""
    document = race(names=("alpha", "beta"))
    for weights in ("best", "last"):
        document["entrants"][0][weights]["average robust"] = score([0.4, 0.4, 0.9])
        document["entrants"][1][weights]["average robust"] = score([0.45, 0.45])
    document["differences"] = [row | {"difference": -0.05, "interval": [-0.06, -0.04], "distinct": True}
                               for row in document["differences"]]
    page = race_page(tmp_path / "worse", document)
    assert "alpha ranks first, but is not distinct from beta" in page.text
    document["differences"] = [row | {"difference": 0.05, "interval": [0.04, 0.06]} for row in document["differences"]]
    assert "not distinct" not in race_page(tmp_path / "better", document).text
    document["differences"] = [row | {"first": row["second"], "second": row["first"], "difference": -0.05}
                               for row in document["differences"]]
    assert "not distinct" not in race_page(tmp_path / "turned", document).text


def test_jobs_that_failed_are_said(tmp_path):
    failed = {"beta-seed1": "the training loss is nan at step 3"}
    page = race_page(tmp_path, race(complete=False, done=5, failed=failed))
    assert "1 job failed; the same command tries them again." in page.text
    assert "beta-seed1: the training loss is nan at step 3" in page.text
