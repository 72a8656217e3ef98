"""The page of a run: honesty checks, comparisons, and what cannot be trusted yet."""

import json
import re

import numpy as np
import pytest

from tests.quick import slow_after
from tests.report.run_pages import EPOCHS, PASSED, attack_row, evaluation, made, rows_of_differences, write_run
from wsrnas.evaluation.attack_spec import attack_of
from wsrnas.report import writing as report
from wsrnas.report.differences import paired_differences
from wsrnas.report.figures.accuracy import accuracy_figure
from wsrnas.report.html import prose
from wsrnas.report.reading.evaluations import Evaluation, evaluation_problem
from wsrnas.report.reading.networks import area_series, networks_of
from wsrnas.report.reading.whole_curves import whole_curve
from wsrnas.report.texts import duration
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_pages")

# -- honesty and comparison ------------------------------------------------------------------------------------------

@pytest.mark.slow
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


CURVE = {"norm": "l2", "strengths": [1.0, 2.0], "steps": 55, "distances": [0.0, 0.5, 1.25, None, 3.0],
         "area": {"value": 0.55, "interval": [0.3, 0.9], "up_to": 2.0}, "lowered_by": ["AutoAttack L2  eps 1"],
         "median": {"value": 1.25, "interval": [0.5, None]}}


def test_the_curve_says_its_area_and_its_median(tmp_path, words_only):
    robust = {("curve-55 L2", "curve", "l2", strength): flags for strength, flags in ((1.0, "00111"), (2.0, "00011"))}
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(robust=robust, curve=CURVE, area=CURVE["area"])]))
    assert "Area: the mean accuracy over ε from 0 to 2." in page.text
    assert "net L2 2 55.0 [30.0, 90.0] 1.25 [0.5, none found] curve-55 L2 AutoAttack L2 eps 1" in page.text


def test_a_whole_curve_is_drawn_as_its_exact_steps():
    rows = [attack_row(attack="curve-55 L2", method="curve", norm="l2", epsilon=strength, steps=55, step_size=None,
                       loss="margin") for strength in CURVE["strengths"]]
    auto = attack_row(attack="AutoAttack L2", method="autoattack", norm="l2", epsilon=1.0, steps=0, step_size=None)
    result = evaluation(attacks=[*rows, auto], curve=CURVE)
    axes = accuracy_figure(networks_of([Evaluation("net", "l", result)]), "l2").axes[0]
    steps, *others = [line for line in axes.lines if len(line.get_xdata())]
    assert steps.get_drawstyle() == "steps-post"
    assert steps.get_xydata() == pytest.approx(np.array([[0, 80], [0.5, 60], [1.25, 40], [2, 40]]))
    assert [line.get_xydata().tolist() for line in others if line.get_marker() == "s"] == [[[1, 40]]]  # AutoAttack's
    assert not any(line.get_marker() == "o" for line in others)  # the strengths are points of the steps
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["net", "area 55.0 %, median 1.25", "curve-55 L2", "AutoAttack L2"]


def test_the_area_under_the_steps_is_the_area_of_the_curve():
    distances = np.random.default_rng(0).exponential(1.0, 300).round(2)  # some are equal
    distances[:60], distances[-9:] = 0, np.inf
    document = {**CURVE, "distances": [None if np.isinf(d) else d for d in distances]}
    curve = whole_curve(document, 300)
    assert curve.accuracies[:-1] @ np.diff(curve.places) == pytest.approx(np.minimum(distances, 2).sum() / 300)
    assert all(share == (distances > place).mean() for place, share in zip(curve.places, curve.accuracies, strict=True))
    few, shares, *_ = curve.drawn(40)
    assert len(few) <= 42 and (few[0], few[-1], shares[-1]) == (0, 2, curve.accuracies[-1])
    assert {*zip(few, shares, strict=True)} <= {*zip(curve.places, curve.accuracies, strict=True)}


@pytest.mark.parametrize("change", [
    {"distances": None}, {"distances": [1.0]}, {"distances": ["x"] * 5}, {"distances": [-1.0] * 5}, {"norm": "l1"},
    {"strengths": []}, {"strengths": [0.0]}, {"area": None}, {"area": {"value": "x"}}, {"median": 3}, {"steps": None}])
def test_a_damaged_curve_is_not_drawn(change):
    assert whole_curve(CURVE, 5).short and whole_curve({**CURVE, "median": None}, 5).short
    assert whole_curve({**CURVE, **change}, 5) is None and whole_curve(None, 5) is None


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(("change", "paired"), slow_after(2, OTHERWISE))
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


# -- what cannot be trusted yet --------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", slow_after(1, [
    {"complete": False, "checks": []}, {"complete": None}, {"complete": "yes"}]))
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


def test_a_network_at_chance_is_an_alarm(tmp_path, words_only):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(chance=0.75)]))
    head = page.source.split("<main>")[0]
    assert 'class="alarm"' in head and "80.0 % [70.0, 90.0], is not above chance (75.0 %)" in head
    assert "net (at chance)" in page.text


def test_checks_that_did_not_run_are_said_at_the_top(tmp_path, words_only):
    missing = {"check": "transfer", "passed": None, "says": "no other network"}
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(checks=[PASSED, missing])]))
    assert "1 of 2 honesty checks did not run: transfer." in page.source.split("<main>")[0]


def test_checks_that_were_turned_off_are_an_alarm_that_says_so(tmp_path, words_only):
    page = made(write_run(tmp_path / "run", EPOCHS, [evaluation(checks=[], check_level="none")]))
    assert prose("run/eval/0.json): --checks none was asked for") in page.source.split("<main>")[0]


def test_a_whole_evaluation_is_no_alarm(tmp_path, words_only):
    failed = {"check": "transfer", "passed": False, "says": "no"}
    calm, failing = (made(write_run(tmp_path / name, EPOCHS, [evaluation(checks=checks)]))
                     for name, checks in (("calm", [PASSED]), ("failing", [failed])))
    assert 'class="alarm"' not in calm.source and failing.source.count('class="alarm"') == 1
    assert "1 honesty check failed" in failing.text and "unchecked" not in failing.text


@pytest.mark.slow
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


def test_areas_are_compared_where_they_are_under_the_same_curve():
    def result(norm, up_to, steps=50):
        return {"area": {"value": 0.5, "up_to": up_to}, "curve": {"norm": norm, "steps": steps}}

    kinds = [result("linf", 0.1), result("l2", 0.1), result("l2", 1.0), result("l2", 1.0, 100),
             {"area": {"value": 0.5, "up_to": 0.1}, "average_robust": {"over": ["a", "b"]}}]
    assert len({area_series(kind) for kind in kinds}) == len(kinds)
    assert area_series(result("l2", 1.0)) == area_series(result("l2", 1.0))


@pytest.mark.parametrize("damage", [
    {"clean": {"accuracy": 0.5, "interval": [None, 1]}}, {"clean": {"accuracy": 0.5, "interval": ["x", 1]}},
    {"clean": {"accuracy": float("nan"), "interval": [0, 1]}}, {"clean": {"accuracy": 10**400}},
    {"clean": {"accuracy": 0.5, "interval": [0, float("inf")]}}, {"attacks": [
        {"attack": "PGD-20", "epsilon": float("nan"), "accuracy": 0.5}]},
    {"chance": 10**400}, {"chance": "half"}, {"checks": [{"check": "a"}, {"passed": True}]},
    {"checks": [{"check": 3}]}])
def test_a_damaged_evaluation_is_named_and_costs_no_page(damage, tmp_path):
    assert evaluation_problem(evaluation() | damage).startswith("is damaged")
    page = made(write_run(tmp_path / "run", evaluations=[evaluation() | damage]))
    assert "is damaged" in page.text


def test_a_time_that_is_none_is_a_dash():
    assert [duration(value) for value in (59.97, -5, float("nan"), float("inf"))] == ["1 min 00 s", "–", "–", "–"]
