"""The study of several supernets: scores in one order, their mean, their agreement, each by hand."""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from studies import several_supernets
from studies.several_supernets import agreement, common_scores, mean_score, table
from wsrnas.report.reading.rankings import FORMAT
from wsrnas.runtime.errors import InputError

PLACES = [7, 2, 9, 4, 1, 30]
PGD = [40.0, 41, 38, 44, 39, 43]
LOSSES = [[-3.0, -1, -6, -2, -5, -4], [-2.0, -1, -3, -6, -5, -4]]


def ranking(number, places=PLACES, name="loss, clean", **changed):
    """Return what a folder of ``search.ranking`` holds, for a supernet whose score is ``LOSSES[number]``."""
    order = [PLACES.index(place) for place in places]
    values = {"place": places, "parameters": [100 + 10 * place for place in places],
              "truth": {"pgd": [PGD[place] for place in order]},
              "scores": [[LOSSES[number][place] for place in order], list(range(len(places)))]}
    return {"format": FORMAT, "run": f"run{number}", "table": "t", "columns": ["pgd"], "subsets": {}, "resamples": 50,
            "architectures": 6, "synthetic": False, "source": "a test",
            "seed": 0, "scores": [{"group": "supernet", "score": name}, {"group": "size", "score": "parameters"}],
            "values": values} | changed


def test_scores_are_in_the_order_of_the_first_ranking():
    shuffled = [30, 1, 9, 2, 7, 4]
    scores = common_scores([ranking(0), ranking(1, shuffled)])
    assert set(scores) == {"loss, clean"} and scores["loss, clean"].tolist() == LOSSES


def test_scores_that_one_supernet_lacks_are_left_out():
    more = ranking(0)
    more["scores"].append({"group": "supernet", "score": "loss, at 0.1"})
    more["values"]["scores"].append(LOSSES[1])
    assert set(common_scores([more, ranking(1)])) == {"loss, clean"}
    with pytest.raises(InputError, match="no score of a supernet in common; expected the same --strengths"):
        common_scores([ranking(0), ranking(1, name="loss, at 0.1")])


def test_a_score_that_is_always_the_same_has_no_tau():
    flat = ranking(1)
    flat["values"]["scores"][0] = [0.0] * 6
    rankings = [ranking(0), flat]
    for fixed in (False, True):
        row = table(rankings, common_scores(rankings), "pgd", fixed).splitlines()[-1]
        assert row.split("|")[2].split()[1] == "–" and "nan" not in row


@pytest.mark.parametrize("other", [ranking(1, table="another"), ranking(1, PLACES[:5])])
def test_rankings_of_different_architectures_are_refused(other):
    with pytest.raises(InputError, match="by run0 and run1 are about different architectures"):
        common_scores([ranking(0), other])


def test_the_mean_gives_each_supernet_the_same_weight():
    scores = np.array(LOSSES)
    stretched = scores * [[1], [1000]] + [[5], [-70]]
    assert mean_score(stretched) == pytest.approx(mean_score(scores))
    assert mean_score(scores) == pytest.approx((scores + 3.5).mean(0) / np.std(LOSSES[0]))
    beside_nothing = mean_score(np.stack([scores[0], np.full(6, 2.0)]))
    assert beside_nothing == pytest.approx((scores[0] + 3.5) / np.std(scores[0]) / 2)


def test_agreement_is_the_mean_over_pairs():
    third = [1.0, 2, 3, 4, 5, 6]
    pairs = [(LOSSES[0], LOSSES[1]), (LOSSES[0], third), (LOSSES[1], third)]
    assert agreement(np.array([*LOSSES, third])) == pytest.approx(np.mean([kendalltau(*pair).statistic
                                                                           for pair in pairs]))


def test_the_table_has_each_tau_and_that_of_the_mean():
    rankings = [ranking(0), ranking(1)]
    row = table(rankings, common_scores(rankings), "pgd", fixed=False).splitlines()[-1].split("|")
    each = [kendalltau(values, PGD).statistic for values in LOSSES]
    assert row[2].replace("−", "-").split() == [f"{value:.2f}" for value in each]
    assert row[3].replace("−", "-").split()[0] == f"{each[1] - each[0]:+.2f}"
    assert row[4].replace("−", "-").split()[0] == f"{kendalltau(mean_score(np.array(LOSSES)), PGD).statistic:+.2f}"
    size = np.log(ranking(0)["values"]["parameters"])
    line = np.polynomial.Polynomial.fit

    def rest(values):
        return np.array(values) - line(size, values, 1)(size)

    fixed = table(rankings, common_scores(rankings), "pgd", fixed=True).splitlines()[-1].split("|")
    assert fixed[2].replace("−", "-").split() == [f"{kendalltau(rest(values), rest(PGD)).statistic:.2f}"
                                                  for values in LOSSES]


def test_the_program_prints_both_tables_and_refuses_what_it_cannot_compare(tmp_path, monkeypatch, capsys):
    folders = []
    for number in (0, 1):
        folders.append(tmp_path / f"ranking{number}")
        folders[-1].mkdir()
        (folders[-1] / "ranking.json").write_text(json.dumps(ranking(number)))

    def start(*words):
        monkeypatch.setattr("sys.argv", ["studies.several_supernets", *map(str, words)])
        several_supernets.main()

    start(*folders)
    out = capsys.readouterr().out
    assert "Kendall's τ with pgd, all, 6 architectures" in out and "fixed size" in out and out.count("loss, clean") == 2
    (folders[1] / "inputs.json").write_text('{"architectures": "another table"}')
    with pytest.raises(InputError, match="have ranked the architectures of different tables; expected one"):
        start(*folders)
    for folder in folders:
        (folder / "inputs.json").write_text('{"architectures": "one table", "supernet": "one and the same"}')
    with pytest.raises(InputError, match=r"are measurements of one supernet with one seed; expected several supernets"):
        start(*folders)
    (folders[1] / "ranking.json").write_text(json.dumps(ranking(1, seed=1)))
    start(*folders)
    for folder in folders:
        (folder / "inputs.json").unlink()
    (folders[1] / "ranking.json").write_text(json.dumps(ranking(1, num_steps=9)))
    with pytest.raises(InputError, match=r"in several ways \(num_steps: None, 9\); expected the same --num_steps"):
        start(*folders)
    (folders[1] / "ranking.json").write_text(json.dumps(ranking(1)))
    with pytest.raises(InputError, match="one ranking was given"):
        start(folders[0])
    with pytest.raises(InputError, match="ranking1: given twice; expected different rankings"):
        start(*folders, folders[0] / ".." / "ranking1")
    with pytest.raises(InputError, match="column is clean; expected one of pgd"):
        start(*folders, "--column", "clean")
