"""The study's report on results whose statistics are known by construction or by counting characters in loops."""

import json
import random
import re
import shlex
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest

from test_AN_estimator.report import (
    command,
    gap_figure,
    share_of_time,
    signed,
    three_digits,
    with_interval,
    write_report,
)
from test_AN_estimator.results import paired_gap, read_results, summarise, verdict
from test_AN_estimator.settings import PRESETS
from tests.quick import slow_after
from wsrnas.evaluation.intervals import difference_interval
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError

CONFIG = replace(PRESETS["tiny"], networks=("cna_r:4:1", "cna_m:4:1"), sources=(0.1, 0.2), single_source=0.1,
                 spectrum=(0.05, 0.1, 0.2, 0.25))
SETTINGS = {setting.name: setting for setting in CONFIG.settings()}
IMAGES = 40
ESTIMATORS = ("WA-ANE", "WA-ANE-paper", "A-ANE", "E-ANE", "E-ANE-minus", "A-ANE-plus", "C-ANE")
MEANS = ("cosine", "sign_agreement", "ball", "pgd_ball")


def first(count: int) -> str:
    return "1" * count + "0" * (IMAGES - count)


def strengths(setting: str) -> tuple:
    return SETTINGS[setting].targets or (*SETTINGS[setting].sources, None)


def store(study, setting, name, estimate, pgd=lambda network, epsilon: first(20), clean=lambda network: first(30),
          count=2, cell="cell", changes=None) -> dict:
    """Write a result; ``estimate`` and ``pgd`` give the characters of a network at a strength."""
    document = {
        "format": "wsrnas AN-Estimator 1", "estimator": name, "setting": setting, "sources": SETTINGS[setting].sources,
        "parameters": 1234567, "milliseconds": 0.25, "pgd_milliseconds": 5.0, "share_of_pgd": 0.05, "networks": [
            {"network": f"{network + 1}-{cell}", "clean": clean(network), "targets": [
                {"epsilon": epsilon, "estimate": estimate(network, epsilon), "pgd": pgd(network, epsilon)}
                | {mean: place + (epsilon or 100) + network for place, mean in enumerate(MEANS)}
                for epsilon in strengths(setting)]} for network in range(count)]} | (changes or {})
    folder = study / setting / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(document))
    return document


def summary_of(study, config=CONFIG):
    return summarise(config, read_results(config, study))


def seeded(*words) -> str:
    draw = random.Random(repr(words))
    return "".join(draw.choice("01") for _ in range(IMAGES))


# -- statistics -------------------------------------------------------------------------------------------------------

def score(documents: list[tuple], image: int) -> Fraction:
    """Mean over networks and strengths of right under the first noise minus right under the second."""
    return sum(Fraction(int(a[image]) - int(b[image])) for a, b in documents) / len(documents)


def expected_gap(pairs) -> tuple:
    scores = [float(score(pairs, image)) for image in range(IMAGES)]
    low, high = difference_interval(scores, [0.0] * IMAGES)
    return 100 * sum(scores) / IMAGES, (100 * low, 100 * high)


@pytest.mark.parametrize("setting", slow_after(1, SETTINGS))
def test_every_number_is_what_counting_gives(tmp_path, setting):
    clean, pgd = (lambda k: first(33 + k)), (lambda k, e: seeded("pgd", k, e))
    documents = {name: store(tmp_path, setting, name, lambda k, e, name=name: seeded(name, k, e), pgd, clean)
                 for name in ESTIMATORS}
    found = summary_of(tmp_path)["settings"][setting]
    assert list(found["estimators"]) == list(ESTIMATORS)
    for name, document in documents.items():
        row, networks = found["estimators"][name], document["networks"]
        for place, epsilon in enumerate(strengths(setting)):
            pairs = [(n["targets"][place]["estimate"], n["targets"][place]["pgd"]) for n in networks]
            at = row["strengths"][place]
            gap, interval = expected_gap(pairs)
            assert at["epsilon"] == epsilon
            assert at["gap"] == pytest.approx(gap) and at["interval"] == pytest.approx(interval)
            assert at["accuracy"] == pytest.approx(sum(a.count("1") for a, _ in pairs) / 2 / IMAGES * 100)
            assert at["pgd"] == pytest.approx(sum(b.count("1") for _, b in pairs) / 2 / IMAGES * 100)
            assert [at[mean] for mean in MEANS] == pytest.approx([(epsilon or 100) + 0.5 + i for i in range(4)])
        kept = [[t for t in n["targets"] if t["epsilon"] is not None] for n in networks]
        pairs = [(t["estimate"], t["pgd"]) for targets in kept for t in targets]
        gap, interval = expected_gap(pairs)
        assert row["gap"] == pytest.approx(gap) and row["interval"] == pytest.approx(interval)
        cells = {(n["network"], t["epsilon"]): (t["estimate"].count("1") - t["pgd"].count("1")) / IMAGES * 100
                 for n, targets in zip(networks, kept, strict=True) for t in targets}
        assert row["mean_absolute_gap"] == pytest.approx(sum(map(abs, cells.values())) / len(cells))
        largest = row["largest"]
        assert abs(largest["gap"]) == pytest.approx(max(map(abs, cells.values())))
        assert largest["gap"] == pytest.approx(cells[largest["network"], largest["epsilon"]])
        assert row["networks"] == pytest.approx([np.mean([gap for (network, _), gap in cells.items() if network == n])
                                                 for n in ("1-cell", "2-cell")])
        estimate, attack = (100 * sum(p[i].count("1") for p in pairs) / IMAGES / len(pairs) for i in (0, 1))
        assert row["accuracy"] == pytest.approx(estimate) and row["pgd"] == pytest.approx(attack)
        natural = 100 * 33.5 / IMAGES
        assert row["share_of_drop"] == pytest.approx((natural - estimate) / (natural - attack))
        assert row["cosine"] == pytest.approx(np.mean([t["cosine"] for targets in kept for t in targets]))
        assert (row["parameters"], row["milliseconds"], row["share_of_pgd"]) == (1234567, 0.25, 0.05)
    compared = {row["estimator"]: row for row in found["comparisons"]}
    assert list(compared) == ["A-ANE", "E-ANE", "A-ANE-plus", "C-ANE"]  # the others do not contain the average
    for name, row in compared.items():
        pairs = [(mine["estimate"], other["estimate"])
                 for a, b in zip(documents[name]["networks"], documents["WA-ANE"]["networks"], strict=True)
                 for mine, other in zip(a["targets"], b["targets"], strict=True) if mine["epsilon"] is not None]
        gap, interval = expected_gap(pairs)
        assert row["gap"] == pytest.approx(gap) and row["interval"] == pytest.approx(interval)


def test_pluses_and_minuses_cancel_in_the_mean_alone(tmp_path):
    store(tmp_path, "spectrum-1", "A-ANE", lambda network, epsilon: first(24 if network else 16))
    row = summary_of(tmp_path)["settings"]["spectrum-1"]["estimators"]["A-ANE"]
    assert row["gap"] == 0 and row["mean_absolute_gap"] == pytest.approx(10)
    assert row["networks"] == pytest.approx([-10, 10])


def test_gaps_where_nearly_no_image_is_right_are_said_to_show_nothing_before_all_numbers(tmp_path):
    """At 0.25 one image of 40 is right under either noise; one network is right on 4 of 40 without noise."""
    store(tmp_path, "spectrum-1", "A-ANE", lambda k, e: first(1 if e == 0.25 else 10), lambda k, e: first(
        1 if e == 0.25 else 3), lambda k: first(30 if k else 4), changes={"chance": 0.1})
    said = write_report(CONFIG, tmp_path).splitlines()
    report = (tmp_path / "report.md").read_text()
    weak = "Without noise, 1-cell is not above chance: their gaps show nothing."
    few = ("1 of 3 gaps show nothing, because fewer than 5 % of the images are right under either noise (†): "
           "spectrum-1 at 0.2500 (63.75/255).")
    assert said[:2] == [weak, few] and report.split("\n\n")[1:3] == [weak, few]
    marked = re.findall(r"^\| 0\.\d+ \(\S+ \|.*†.*$", report, re.MULTILINE)
    assert len(marked) == 1 and "| 2.5: +0.0 [-" in marked[0]


def test_the_random_strength_is_a_row_of_its_own(tmp_path):
    store(tmp_path, "leave-one-out", "A-ANE", lambda network, epsilon: first(22 if epsilon else 40))
    row = summary_of(tmp_path)["settings"]["leave-one-out"]["estimators"]["A-ANE"]
    assert [row["gap"], row["mean_absolute_gap"], row["largest"]["gap"]] == pytest.approx([5, 5, 5])
    assert [at["gap"] for at in row["strengths"]] == pytest.approx([5, 5, 50])
    write_report(CONFIG, tmp_path)
    assert "\n| random | 50.0 | 100.0: +50.0 [" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_an_estimator_may_be_stronger_than_the_attack(tmp_path):
    store(tmp_path, "spectrum-1", "C-ANE", lambda network, epsilon: first(16))
    row = summary_of(tmp_path)["settings"]["spectrum-1"]["estimators"]["C-ANE"]
    assert row["gap"] == pytest.approx(-10) and row["interval"][1] < 0 and row["largest"]["gap"] == pytest.approx(-10)
    assert row["share_of_drop"] == pytest.approx(1.4)
    assert "-10.00 [" in write_report(CONFIG, tmp_path)


@pytest.mark.slow
def test_an_attack_without_effect_has_no_drop_to_share(tmp_path):
    store(tmp_path, "spectrum-1", "C-ANE", lambda network, epsilon: first(30), lambda network, epsilon: first(30))
    assert summary_of(tmp_path)["settings"]["spectrum-1"]["estimators"]["C-ANE"]["share_of_drop"] is None
    assert " – " in write_report(CONFIG, tmp_path)


def test_equal_counts_are_equal_scores():
    """In floating point 3/7 - 2/7 is not 1/7, and images that agree would look as if they did not."""
    mine = np.array([[row <= image for image in range(6)] for row in range(7)])
    attack = np.array([[row < image for image in range(6)] for row in range(7)])
    found = paired_gap(mine, attack)
    unseen = 1 - 0.05 ** (1 / 6)
    assert found["gap"] == pytest.approx(100 / 7)
    assert found["interval"] == pytest.approx([100 * (1 / 7 - unseen * 8 / 7), 100 * (1 / 7 + unseen * 6 / 7)])


def test_pairing_leaves_out_what_both_have_in_common():
    draw = np.random.default_rng(0)
    attack = draw.random((1, 4000)) < 0.5
    mine = attack.copy()
    mine[:, :40] = True
    low, high = paired_gap(mine, attack)["interval"]
    assert 0 < low < high < 1.2


@pytest.mark.parametrize("low, high, says", [(-2, -0.1, "clearly stronger than"), (0.1, 2, "clearly weaker than"),
                                             (-1, 1, "cannot be told from"), (0, 1, "cannot be told from"),
                                             (-1, 0, "cannot be told from")])
def test_the_verdict_follows_from_the_interval(low, high, says):
    assert verdict(low, high) == says


# -- text -------------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("right, says", [(first(10), "A-ANE is clearly stronger than WA-ANE: -25.00 ["),
                                         (first(30), "A-ANE is clearly weaker than WA-ANE: +25.00 ["),
                                         (first(20)[::-1], "A-ANE cannot be told from WA-ANE: +0.00 [")])
def test_the_comparison_with_the_contained_average_is_said(tmp_path, right, says):
    store(tmp_path, "spectrum-2", "WA-ANE", lambda network, epsilon: first(20))
    store(tmp_path, "spectrum-2", "A-ANE", lambda network, epsilon: right)
    shown = write_report(CONFIG, tmp_path)
    assert f"- spectrum-2: {says}" in (tmp_path / "report.md").read_text()
    assert says.replace(" is ", " ") in shown


def test_an_estimator_that_is_its_average_is_not_compared(tmp_path):
    for name in ("WA-ANE", "C-ANE"):
        store(tmp_path, "leave-one-out", name, lambda network, epsilon: first(20))
    assert summary_of(tmp_path)["settings"]["leave-one-out"]["comparisons"] == []


def cells(text: str, start: str) -> list[list[str]]:
    """The rows of the table whose header begins with ``start``."""
    lines = text[text.index(f"| {start} |"):].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_the_papers_table_has_the_papers_figures_beside_ours(tmp_path):
    for name in ESTIMATORS:
        store(tmp_path, "leave-one-out", name, lambda network, epsilon: first(22 if epsilon else 40))
    write_report(CONFIG, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "The paper's WA-ANE (67.4) is neither: its code sends Eq. 6 through a random convolution." in text
    _, *rows = cells(text, "noise")
    assert rows[0] == ["PGD-7", "75.0", "50.0", "73.0", "38.7"]
    assert all(row[1:3] == ["75.0", "55.0"] for row in rows[1:])
    assert {row[0]: row[3:] for row in rows[1:]} == {
        "WA-ANE": ["–", "–"], "WA-ANE-paper": ["–", "–"], "A-ANE": ["73.0", "43.6"], "E-ANE": ["73.0", "48.9"],
        "E-ANE-minus": ["73.0", "71.1"], "A-ANE-plus": ["–", "–"], "C-ANE": ["–", "–"]}


@pytest.mark.slow
def test_tables_of_networks_and_strengths(tmp_path):
    pgd = lambda network, epsilon: first({0.1: 20, 0.2: 10}.get(epsilon, 16) - 2 * network)  # noqa: E731
    clean = lambda network: first(30 - 2 * network)  # noqa: E731
    store(tmp_path, "leave-one-out", "WA-ANE", pgd, pgd, clean)
    for name, more in (("WA-ANE", 4), ("C-ANE", 1)):
        store(tmp_path, "spectrum-1", name, lambda k, e, more=more: first(pgd(k, e).count("1") + more * (k + 1)), pgd,
              clean)
    write_report(CONFIG, tmp_path)
    text = (tmp_path / "report.md").read_text()
    header, *rows = cells(text, "network")
    assert header[2:4] == ["PGD-7 at 0.1000 (25.5/255)", "PGD-7 at 0.2000 (51/255)"]
    assert rows == [["1-cell", "75.0", "50.0", "25.0", "+10.00", "+2.50"],
                    ["2-cell", "70.0", "45.0", "20.0", "+20.00", "+5.00"]]
    header, *rows = cells(text[text.index("## spectrum-1"):], "strength")
    assert header == ["strength", "PGD-7", "WA-ANE", "C-ANE"]
    assert [row[:2] for row in rows] == [["0.0500 (12.75/255)", "37.5"], ["0.2000 (51/255)", "22.5"],
                                         ["0.2500 (63.75/255)", "37.5"]]
    assert rows[0][2].startswith("52.5: +15.0 [") and rows[1][2].startswith("37.5: +15.0 [")
    assert rows[0][3].startswith("41.2: +3.8 [")
    header, *rows = cells(text[text.rindex("share of equal signs, and size"):], "strength")
    assert header == ["strength", "WA-ANE", "C-ANE"] and len(rows) == 3
    means = summary_of(tmp_path)["settings"]["spectrum-1"]["estimators"]["C-ANE"]["strengths"][1]
    assert rows[1][2] == f"{means['cosine']:.2f} {means['sign_agreement']:.2f} {means['ball']:.2f}"
    _, *rows = cells(text[text.index("## spectrum-1"):], "estimator")
    assert rows[0][0] == "WA-ANE" and rows[0][1].startswith("+15.00 [") and rows[0][2] == "15.00"
    assert rows[0][3] == "+20.0, 2-cell, 0.0500 (12.75/255)" and rows[0][8:] == ["1,234,567", "0.25", "1/20 (5 %)"]
    assert rows[0][4] == "62.5 %"  # of 40 points on average, 15 remain


@pytest.mark.slow
def test_one_network_and_one_result_make_a_report(tmp_path):
    store(tmp_path, "spectrum-1", "C-ANE", lambda network, epsilon: first(21), count=1)
    shown = write_report(replace(CONFIG, networks=("cna_r:4:1",)), tmp_path)
    assert re.search(r"C-ANE +\+2\.50 \[", shown) and "1 networks" not in shown.split("gap:")[0]
    text = (tmp_path / "report.md").read_text()
    assert "Table 5" not in text and "## spectrum-2" not in text and "Against" not in text
    header, *rows = cells(text, "network")
    assert "PGD-7 at 0.1000 (25.5/255)" not in header  # the source of spectrum-1 is no target of it
    assert rows == [["1-cell", "75.0", "50.0", "+2.50"]]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"gap-spectrum-1.png", "gap-spectrum-1.svg"}
    assert "figures/gap-spectrum-1.svg" in text


@pytest.mark.slow
def test_estimators_added_later_extend_the_report(tmp_path):
    store(tmp_path, "spectrum-2", "A-ANE", lambda network, epsilon: first(21))
    before = write_report(CONFIG, tmp_path)
    store(tmp_path, "spectrum-2", "WA-ANE", lambda network, epsilon: first(22))
    after = write_report(replace(CONFIG, estimators=("WA-ANE",)), tmp_path)
    assert "WA-ANE" not in before and after.index("WA-ANE") < after.index("A-ANE  ")
    assert list(json.loads((tmp_path / "summary.json").read_text())["settings"]["spectrum-2"]["estimators"]) == [
        "WA-ANE", "A-ANE"]


@pytest.mark.slow
def test_lines_for_a_terminal_are_aligned(tmp_path):
    store(tmp_path, "spectrum-2", "WA-ANE-paper", lambda network, epsilon: first(40))
    store(tmp_path, "spectrum-2", "C-ANE", lambda network, epsilon: first(20))
    lines = write_report(CONFIG, tmp_path).splitlines()[:3]
    assert len(set(map(len, lines))) == 1 and lines[0].startswith("spectrum-2 ")


@pytest.mark.slow
def test_the_machine_is_named_once_and_without_its_host(tmp_path):
    for name in ("A-ANE", "C-ANE"):
        store(tmp_path, "spectrum-2", name, lambda network, epsilon: first(20))
        start = {"device": "A GPU", "threads": 3, "torch": "2.15", "host": "secret", "command": ["/home/me/x.py"]}
        (tmp_path / "spectrum-2" / name / "env.json").write_text(json.dumps([start | {"device": "old"}, start]))
    store(tmp_path, "spectrum-2", "E-ANE", lambda network, epsilon: first(20))
    (tmp_path / "spectrum-2" / "E-ANE" / "env.json").write_text("{broken")
    write_report(CONFIG, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("A GPU (CPU threads: 3), torch 2.15") == 1
    assert "old" not in text and "secret" not in text and "/home" not in text and str(tmp_path) not in text


@pytest.mark.parametrize("config", [
    PRESETS["paper"], PRESETS["tiny"], replace(CONFIG, seed=3, data="/somewhere", save="x"),
    replace(PRESETS["small"], dataset="folder", epsilon=0.05, networks=("a path/file.pt", "cna_r:4:1"))])
@pytest.mark.parametrize("measured", [("A-ANE", "WA-ANE"), tuple(ESTIMATORS)])
def test_the_command_repeats_the_configuration(config, measured):
    words = command(config, {"settings": {"spectrum-1": {"estimators": dict.fromkeys(measured)}}})
    assert words.startswith("python -m test_AN_estimator.benchmark --preset ") and "/somewhere" not in words
    repeated, _ = parse_config(type(config), PRESETS, shlex.split(words)[3:])
    for field in fields(config):
        if field.metadata.get("identity", True):
            assert getattr(repeated, field.name) == getattr(config, field.name)
    assert set(repeated.estimators) == set(measured)
    assert ("--data DATA" in words) == (config.dataset != "digits")


@pytest.mark.parametrize("share, text", [(0.0382, "1/26 (3.8 %)"), (0.31, "1/3.2 (31 %)"), (0.98, "1/1.0 (98 %)"),
                                         (0.996, "1.0 times"), (1.4, "1.4 times"), (250, "250.0 times"),
                                         (0.00041, "1/2439 (0.041 %)")])
def test_the_share_of_the_attacks_time_is_said(share, text):
    assert share_of_time(share) == text


def test_numbers_are_rounded_without_a_negative_zero():
    assert signed(-0.04) == "+0.0" and signed(-0.05 - 1e-9) == "-0.1" and signed(12.345, 2) in ("+12.35", "+12.34")
    assert with_interval({"gap": 0.42, "interval": [-0.04, 0.94]}) == "+0.4 [0.0, 0.9]"
    assert [three_digits(v) for v in (0.0001234, 12.34, 1234.5)] == ["0.000123", "12.3", "1,230"]


# -- figures ----------------------------------------------------------------------------------------------------------

def test_the_figure_draws_the_gaps_and_the_sources(tmp_path):
    for name, right in (("WA-ANE", 22), ("E-ANE-minus", 38), ("C-ANE", 19)):
        store(tmp_path, "spectrum-2", name, lambda network, epsilon, right=right: first(right))
    found = summary_of(tmp_path)["settings"]["spectrum-2"]
    axes = gap_figure(CONFIG, SETTINGS["spectrum-2"], found).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    for name, row in found["estimators"].items():
        assert lines[name].get_ydata() == pytest.approx([at["gap"] for at in row["strengths"]])
        assert lines[name].get_xdata() == pytest.approx([255 * 0.05, 255 * 0.25])
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    for band, row in zip(bands, found["estimators"].values(), strict=True):
        ends = [end for at in row["strengths"] for end in at["interval"]]
        assert (band.min(), band.max()) == pytest.approx((min(ends), max(ends)))
    assert lines["attacked strength"].get_xdata() == pytest.approx([25.5, 51])
    height = lambda gap: axes.transAxes.inverted().transform(axes.transData.transform((0, gap)))[1]  # noqa: E731
    assert height(0.5) - height(0) > 0.05 and height(45) < 1, "a large gap must not flatten the small ones"
    low, high = axes.get_ylim()
    assert low < -2.5 and high > 45 and {"0", "+1", "+20", "-1"} <= {t.get_text() for t in axes.get_yticklabels()}


def test_an_estimator_keeps_its_colour_whichever_others_there_are(tmp_path):
    colours = []
    for names in (("C-ANE",), ("WA-ANE", "A-ANE", "C-ANE")):
        for name in names:
            store(tmp_path, "spectrum-2", name, lambda network, epsilon: first(20))
        axes = gap_figure(CONFIG, SETTINGS["spectrum-2"], summary_of(tmp_path)["settings"]["spectrum-2"]).axes[0]
        drawn = {line.get_label(): line.get_color() for line in axes.lines}
        assert len({drawn[name] for name in names}) == len(names)
        colours.append(drawn["C-ANE"])
    assert colours[0] == colours[1]


@pytest.mark.slow
def test_the_same_results_give_the_same_files(tmp_path):
    kept = []
    for _ in range(2):
        store(tmp_path, "spectrum-1", "WA-ANE", lambda network, epsilon: first(25))
        store(tmp_path, "leave-one-out", "WA-ANE", lambda network, epsilon: first(25))
        write_report(CONFIG, tmp_path)
        paths = [tmp_path / "report.md", tmp_path / "summary.json", *sorted((tmp_path / "figures").iterdir())]
        assert len(paths) == 4
        kept.append([path.read_bytes() for path in paths])
    assert kept[0] == kept[1] and kept[0][2].startswith(b"\x89PNG") and b"WA-ANE" in kept[0][3]


# -- bad input --------------------------------------------------------------------------------------------------------

def test_a_study_without_results_says_so(tmp_path):
    with pytest.raises(InputError, match="no result yet"):
        write_report(CONFIG, tmp_path)


NO_TEXT = {"network": "1-cell", "clean": 7, "targets": []}
SHORT = {"network": "1-cell", "clean": first(3), "targets": [
    {"epsilon": 0.1, "estimate": "01", "pgd": first(3), "cosine": 0, "sign_agreement": 0, "ball": 0, "pgd_ball": 0}]}


@pytest.mark.parametrize("changes", [
    {"format": "other"}, {"setting": "spectrum-1"}, {"estimator": "E-ANE"}, {"networks": []}, {"networks": [NO_TEXT]},
    {"networks": [SHORT]}, {"networks": 3}, {"networks": None}, {"share_of_pgd": "much"}, {"parameters": None}])
def test_a_result_that_is_none_gets_one_sentence(tmp_path, changes):
    store(tmp_path, "spectrum-2", "A-ANE", lambda network, epsilon: first(20), changes=changes)
    with pytest.raises(InputError) as caught:
        write_report(CONFIG, tmp_path)
    assert str(tmp_path / "spectrum-2" / "A-ANE" / "result.json") in str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "report.md").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}"])
def test_broken_json_gets_one_sentence(tmp_path, text):
    store(tmp_path, "spectrum-2", "A-ANE", lambda network, epsilon: first(20))
    path = tmp_path / "spectrum-2" / "A-ANE" / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(path))):
        write_report(CONFIG, tmp_path)


@pytest.mark.parametrize("characters", ["2" + first(20)[1:], first(20)[1:], "é" + first(20)[1:], ""])
def test_characters_that_mark_no_image_are_refused(tmp_path, characters):
    store(tmp_path, "spectrum-2", "A-ANE", lambda k, e: characters if k and e == 0.25 else first(20))
    with pytest.raises(InputError, match=r"result\.json is not a result of A-ANE in spectrum-2"):
        write_report(CONFIG, tmp_path)


@pytest.mark.parametrize("other", [{"pgd": lambda k, e: first(20 if e != 0.25 else 21)}, {"count": 1},
                                   {"clean": lambda k: first(31)}, {"cell": "another"},
                                   {"pgd": lambda k, e: first(20)[::-1] if e == 0.25 and k else first(20)}])
@pytest.mark.parametrize("setting", ["spectrum-1", "spectrum-2"])
def test_results_of_other_attacks_or_networks_are_not_compared(tmp_path, other, setting):
    store(tmp_path, "spectrum-2", "WA-ANE", lambda network, epsilon: first(20))
    store(tmp_path, setting, "C-ANE", lambda network, epsilon: first(20), **other)
    with pytest.raises(InputError, match="of other networks, images or attacks"):
        write_report(CONFIG, tmp_path)
    assert not (tmp_path / "report.md").exists()


def test_results_of_other_strengths_are_refused(tmp_path):
    store(tmp_path, "spectrum-2", "WA-ANE", lambda network, epsilon: first(20))
    with pytest.raises(InputError, match="strengths are not the setting's"):
        write_report(replace(CONFIG, spectrum=(0.05, 0.1, 0.2, 0.24)), tmp_path)
