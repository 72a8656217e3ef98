"""The figures of a race: means, deviations, and one look for each entrant."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.quick import slow_after
from tests.report.race_pages import MEASURES, PGD, bands, numbers, race, race_page, ranked
from wsrnas.report.figures.axes import line_look, short
from wsrnas.report.figures.race import look
from wsrnas.report.figures.style import MARKERS, PALETTE


def looks_of(line):
    return line.get_color(), line.get_marker()


@pytest.mark.slow
def test_lines_and_bands_over_the_strength_are_means_and_deviations(tmp_path, drawn):
    document = race()
    race_page(tmp_path, document)
    axes = drawn["accuracy-over-strength"].axes[0]
    order = ranked(document)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [e["name"] for e in order]
    for (line, band), e in zip(bands(axes), order, strict=True):
        scores = [e["best"][name] for name in ("clean", *PGD)]
        x = [0, 0.03 * 255, 0.1 * 255]
        assert line == pytest.approx(np.array([x, [100 * row["mean"] for row in scores]]).T)
        ends = {(round(a, 6), round(100 * (row["mean"] + sign * row["deviation"]), 6))
                for a, row in zip(x, scores, strict=True) for sign in (-1, 1)}
        assert {(round(a, 6), round(b, 6)) for a, b in band} == ends
    upper, = axes.child_axes
    assert upper.transData.transform((0.1, 0))[0] == pytest.approx(axes.transData.transform((25.5, 0))[0])
    stored = numbers(tmp_path, "accuracy-over-strength")
    assert [(row["entrant"], float(row["epsilon"]), float(row["mean"]), float(row["deviation"]), row["seeds"])
            for row in stored] == [(e["name"], epsilon, e["best"][name]["mean"], e["best"][name]["deviation"], "2")
                                   for e in order for name, epsilon in (("clean", 0), (PGD[0], 0.03), (PGD[1], 0.1))]
    assert {(row["attack"], row["norm"]) for row in stored} == {("clean", ""), ("PGD-20", "linf")}


@pytest.mark.parametrize(("norms", "expected", "label"), slow_after(1, [
    ({"a": ("l2", [2, 1]), "b": ("l2", [0.5])}, [1, 2], "L2 strength ε"),
    ({"a": ("l2", [1, 2, 3]), "b": ("linf", [0.2, 0.1])}, [0.1, 0.2], "L∞ strength ε (n/255)"),
    ({"a": ("linf", [0.05]), "b": ("linf", [0.2, 0.1])}, [0.1, 0.2], "L∞ strength ε (n/255)")]))
def test_the_longest_series_is_drawn_weakest_first(norms, expected, label, tmp_path, drawn, words_only):
    measures = MEASURES[:1] + [{"name": f"{attack} {epsilon}", "attack": attack, "norm": norm, "epsilon": epsilon}
                               for attack, (norm, epsilons) in norms.items() for epsilon in epsilons]
    race_page(tmp_path, race(measures=measures))
    axes = drawn["accuracy-over-strength"].axes[0]
    unit = 255 if "∞" in label else 1
    for line, _ in bands(axes):
        assert line[:, 0] == pytest.approx([0, *(unit * epsilon for epsilon in expected)])
    assert axes.get_xlabel() == label and len(axes.child_axes) == (unit == 255)


@pytest.mark.slow
def test_attacks_without_a_strength_are_no_series(tmp_path, words_only):
    measures = [*MEASURES[:1], {"name": "C&W-100 L2", "attack": "C&W-100", "norm": "l2", "epsilon": None}]
    page = race_page(tmp_path, race(measures=measures))
    assert "Accuracy over strength" not in page.titles() and "Ranked by C&W-100 L2" in page.text


def test_points_over_the_cost_are_means_with_bars_of_a_deviation(tmp_path, drawn, words_only):
    document = race()
    race_page(tmp_path, document)
    panels = np.array(drawn["accuracy-over-cost"].axes).reshape(2, 2)
    order = ranked(document)
    for (row, measure), (column, cost) in itertools.product(enumerate(("average robust", "clean")),
                                                            enumerate(("parameters", "multiply_adds"))):
        axes = panels[row, column]
        points = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() not in ("_", "|")]
        scores = [e["best"][measure] for e in order]
        assert points == [pytest.approx([e[cost] / 1e6, 100 * s["mean"]]) for e, s in zip(order, scores, strict=True)]
        bars = [segment[:, 1].tolist() for c in axes.collections for segment in c.get_segments()]
        assert bars == [pytest.approx([100 * (s["mean"] - s["deviation"]), 100 * (s["mean"] + s["deviation"])])
                        for s in scores]
    assert [axes.get_xlabel() for axes in panels[1]] == ["parameters (millions)", "multiply-adds (millions)"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["average robust (%)", "clean (%)"]
    stored = numbers(tmp_path, "accuracy-over-cost")
    assert [[row["entrant"], row["measure"], *(float(row[key]) for key in (
        "parameters", "multiply_adds", "mean", "deviation"))] for row in stored] == [
            [e["name"], measure, e["parameters"], e["multiply_adds"], e["best"][measure]["mean"],
             e["best"][measure]["deviation"]] for e in order for measure in ("average robust", "clean")]


def test_very_many_entrants_look_different_and_long_names_keep_both_ends():
    looks = [tuple(look(SimpleNamespace(number=number)).values()) for number in range(1, 91)]
    assert len(set(looks)) == 90 and len({tuple(line_look(number).values()) for number in range(30)}) == 30
    name = short("a network with a very long name, on digits, of the run one")
    assert len(name) == 32 and name.startswith("a network") and name.endswith("run one")
    assert short("n" * 32) == "n" * 32


@pytest.mark.slow
def test_an_entrant_looks_the_same_in_both_figures_and_unlike_the_others(tmp_path, drawn, words_only):
    document = race(names=[f"net {n}" for n in range(14)])
    race_page(tmp_path, document)
    strength, cost = drawn["accuracy-over-strength"].axes[0], drawn["accuracy-over-cost"].axes[0]
    looks = [looks_of(line) for line in strength.lines if len(line.get_xdata()) > 1]
    assert len(set(looks)) == 14
    assert [looks_of(line) for line in cost.lines if line.get_marker() not in ("_", "|")] == looks
    first = document["entrants"][0]["name"]
    place = [e["name"] for e in ranked(document)].index(first)
    assert place and looks[place] == (PALETTE[0], MARKERS[0])


@pytest.mark.slow
def test_unknown_costs_leave_gaps(tmp_path, drawn, words_only):
    document = race()
    document["entrants"][0]["parameters"] = None
    for e in document["entrants"]:
        e["multiply_adds"] = None
    page = race_page(tmp_path, document)
    assert len(drawn["accuracy-over-cost"].axes) == 2
    xs = [line.get_xdata()[0] for line in drawn["accuracy-over-cost"].axes[0].lines if line.get_marker() not in "_|"]
    assert sorted(map(math.isnan, xs)) == [False, False, True]
    assert "–" in page.table("activations (MiB)")[0].values()
    for e in document["entrants"]:
        e["parameters"] = None
    assert "Accuracy over parameters" not in race_page(tmp_path, document).titles()
