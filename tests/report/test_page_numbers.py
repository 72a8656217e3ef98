"""The page of a run: what it shows is what the files hold."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest

from tests.report.run_pages import (
    AT_8,
    CELL,
    EPOCHS,
    attack_row,
    evaluation,
    made,
    numbers,
    rows_of_differences,
    search_row,
    write_run,
)
from wsrnas.operations import PRIMITIVES
from wsrnas.report.figures import noise as noise_figure
from wsrnas.report.figures import search as search_figures
from wsrnas.report.figures import weights as weights_figure
from wsrnas.report.key_facts import estimator_gap
from wsrnas.report.reading.evaluations import Evaluation
from wsrnas.report.reading.networks import networks_of
from wsrnas.report.reading.runs import Run
from wsrnas.report.reading.space import DARTS
from wsrnas.runtime import run_files

pytestmark = pytest.mark.usefixtures("quick_pages")


# -- the numbers -----------------------------------------------------------------------------------------------------

@pytest.mark.slow
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
    assert [row[0] for row in rows] == ["2", "3", "4", "5"]  # the first step is a warm-up step
    assert header[1] == "cₖ₋₂->2 none" and header[-1] == f"4->5 {PRIMITIVES[-1]}" and len(header) == 1 + 14 * 8
    for row in rows:
        parts = np.arange(14 * 8).reshape(14, 8) + int(row[0])
        assert np.array(row[1:], dtype=float) == pytest.approx((parts / parts.sum(1, keepdims=True)).ravel(), abs=1e-4)
    thick = [c.get_linewidths() for c in drawn["weights-normal"].axes[0].collections if len(c.get_linewidths()) == 8]
    assert len(thick) == 14 and all(np.argmax(widths) == 7 for widths in thick)  # alphas grow with the operation


def test_genotype_changes_are_marked_on_their_edge():
    rows = [search_row(step) for step in range(1, 5)]
    # private: a mark in the figure does not tell its edge
    found = weights_figure._changes(rows, "normal", DARTS)
    edges = [(node, source) for node in (2, 3, 4, 5) for source in range(node)]
    assert DARTS.edges == tuple((source, node) for node, source in edges)
    before, after = CELL.normal[2], ("skip_connect", 1)
    expected = {edges.index((3, before[1])), edges.index((3, after[1]))}
    assert {edge for edge, marks in enumerate(found) if marks} == expected and found[edges.index((3, 1))] == [1]
    # private: as above
    assert weights_figure._changes(rows, "reduce", DARTS) == [[]] * 14


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


def test_the_rank_correlation_is_the_searchs_own_and_says_what_the_trend_adds(a_search):
    """A supernet that learns lets both fall: the page once called +0.86 what was +0.06 without that."""
    x, y = [1, 2, 3, 4, 5], [1, 3, 2, 5, 4]
    rows = [search_row(step) for step in range(5)]
    assert search_figures.rank_of_predictions(rows) == {"pairs": 5, "tau": pytest.approx(0.6), "detrended": -0.3}
    assert search_figures.rank_of_predictions(rows[:4])["detrended"] is None
    assert search_figures.rank_of_predictions(rows[:2]) == {}
    run, page, _ = a_search
    assert "+0.60 the newest 5 predictions" in page.text and "; -0.30 without their trend" in page.text
    assert "τ of the newest 5 of all paths: +0.60. Without the trend over the steps it is -0.30" in page.text
    assert numbers(run, "predictions")[1:] == [[str(step), f"{a}.0", f"{b}.0"]
                                               for step, (a, b) in enumerate(zip(x, y, strict=True), start=1)]


def test_the_gap_and_its_fallback_are_drawn(a_search):
    run, page, drawn = a_search
    mean, largest, zero, fallback = drawn["estimator-gap"].axes[0].lines
    assert mean.get_xdata().tolist() == [1, 2, 3, 4, 5] and list(zero.get_ydata()) == [0, 0]
    assert mean.get_ydata() == pytest.approx([0, 1, 2, 3, 4]) and largest.get_ydata() == pytest.approx([0, 3, 6, 9, 12])
    assert list(fallback.get_xdata()) == [3, 3]
    assert "Strengths that PGD attacks: 0.0300 (7.65/255); 0.1000 (25.5/255) from step 4 on." in page.text
    assert "on 50 images of D_v" in page.text and "+4.0 points" in page.text
    assert numbers(run, "estimator-gap")[3:5] == [["3", "0.02", "0.06", "0.1", "0.03"],
                                                  ["4", "0.03", "0.09", "0.1", "0.03 0.1"]]


def test_skips_pools_and_entropy_are_drawn_and_a_collapse_is_said(a_search):
    run, page, drawn = a_search
    shares, entropies = drawn["collapse"].axes
    skips, pools = (line.get_ydata() for line in shares.lines[:2])
    assert skips == pytest.approx([12.5, 25, 37.5, 50]) and pools == pytest.approx([25] * 4)
    normal, reduce, most = (line.get_ydata() for line in entropies.lines[:3])
    assert normal == pytest.approx([1.9, 1.8, 1.7, 1.6]) and reduce == pytest.approx([1.5] * 4)
    assert list(most) == pytest.approx([np.log(8)] * 2)
    assert numbers(run, "collapse")[1] == ["2", "0.125", "0.25", "1.9", "1.5"]
    assert "The search collapses: half of it are skips." in page.text


@pytest.mark.slow
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


@pytest.mark.parametrize(("attack", "estimate", "facts", "said"), [
    (0.02, 0.01, ["0.5", "1.0"], "1.00"), (0.02, 0.0, ["1.0", ""], "nothing estimated"),
    (0.0, 0.01, ["", ""], "no noise"), (0.0, 0.0, ["", ""], "no noise")])
@pytest.mark.usefixtures("drawn_pages")
def test_a_noise_of_zeros_has_no_cosine(attack, estimate, facts, said):
    arrays = {"images": np.zeros((1, 3, 4, 4), np.uint8), "epsilons": np.array([0.03]), "step": np.array(0),
              "pgd": np.full((1, 1, 3, 4, 4), attack, np.float32),
              "estimated": np.full((1, 1, 3, 4, 4), estimate, np.float32)}
    drawn = noise_figure.noise(arrays)
    found = list(csv.reader(io.StringIO(drawn.table)))[1][4:]
    assert [value and f"{float(value):.1f}" for value in found] == facts and said in drawn.svg


def test_steps_whose_weights_are_not_numbers_are_not_drawn(tmp_path, drawn):
    rows = [search_row(step) for step in range(5)]
    rows[2]["architecture"]["alphas"]["normal"][0][0] = float("nan")
    run = write_run(tmp_path / "run", rows)
    made(run)
    assert [row[0] for row in numbers(run, "weights-normal")[1:]] == ["2", "4", "5"]


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


# -- several evaluations of one network ------------------------------------------------------------------------------

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
    assert "50.0 % PGD-20 at 2 strengths, 5 test" in page.text and "40.0 % PGD-20 at 3 strengths, 5" in page.text


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


def test_the_gap_of_an_estimator_is_no_number_where_nearly_no_image_is_right():
    right = {"0.03": 0.5, "0.06": 0.04, "0.1": 0.0}
    for names, value, words in ((["0.06", "0.1"], "not measurable", "nearly no image is right at 2 of 2 strengths"),
                                (["0.03", "0.1"], "+0.0 points", "last check; nearly no image is right at 1 of 2"),
                                (["0.03"], "+0.0 points", "mean weakness against PGD, last check")):
        some = {name: right[name] for name in names}
        check = {"mean_gap": 0.0, "gap": dict.fromkeys(names, 0.0), "estimated_accuracy": some, "pgd_accuracy": some}
        tile, = estimator_gap(Run(Path("run"), rows=[{"estimator_check": check}, {}]))
        assert tile.value == value and words in tile.remark
