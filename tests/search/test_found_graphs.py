"""The study that looks up what searches have found: shares, chance, and random searches, each by hand."""

import json
import sys

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from search.spaces.darts import DARTS
from search.tables.reading import open_table
from studies import found_graphs
from studies.found_graphs import Lookup, chance, random_searches, ranking_scores
from wsrnas.runtime.errors import InputError


@pytest.fixture(scope="module")
def lookup():
    return Lookup(open_table("demo"))


def test_shares_are_those_of_better_graphs_of_all_and_of_equal_size(lookup):
    best = int(lookup.truth.argmax())
    assert lookup.better(best) == (0, 0)
    place = 77
    same = [number for number in range(len(lookup.truth))
            if abs(lookup.parameters[number] / lookup.parameters[place] - 1) <= 0.02]
    above = [number for number in range(len(lookup.truth)) if lookup.truth[number] > lookup.truth[place]]
    assert lookup.better(place) == (len(above) / len(lookup.truth), len(set(above) & set(same)) / len(same))


def test_chance_is_exact():
    draws = np.random.default_rng(0).random((100_000, 3))
    assert chance([0.2, 0.5, 0.1]) == pytest.approx(0.125)
    assert (draws.max(1) <= 0.5).mean() == pytest.approx(0.125, abs=0.005)


def test_chance_of_what_is_found_is_never_too_small(lookup):
    """Whatever the level, chance is below it no more often than that: of a size with ties, one architecture each."""
    same = np.flatnonzero(lookup.parameters == lookup.parameters[lookup.truth.argmax()])
    assert len(np.unique(lookup.truth[same])) < len(same)  # ties
    values = np.array([chance([lookup.at_least(place)[1]]) for place in same])
    assert values.min() >= 1 / len(same)
    assert all((values <= level).mean() <= level for level in values)
    best = int(lookup.truth.argmax())
    assert lookup.at_least(best)[0] == (lookup.truth == lookup.truth[best]).mean() > 0


def test_random_searches_take_the_smallest_score(lookup):
    places = np.array([5, 9, 200, 3000])
    found = random_searches(lookup, {"truth": -lookup.truth[places], "worst": lookup.truth[places]}, places, 4)
    by_truth = places[lookup.truth[places].argsort()]
    for name, place in (("truth", by_truth[-1]), ("worst", by_truth[0])):
        assert found[name].tolist() == [list(lookup.better(place))] * 3  # all draws hold all of them
    of_one = random_searches(lookup, {"any": np.zeros(4)}, places, 1)["any"][:, 0]
    shares = sorted(lookup.better(place)[0] for place in places)
    assert shares[1] <= of_one[0] <= shares[2] and (of_one[1], of_one[2]) == (shares[0], shares[-1])
    with pytest.raises(InputError, match="random is 5, but the ranking has 4 architectures"):
        random_searches(lookup, {}, places, 5)


def ranked(folder, lookup):
    """Make the folder of a ranking of the table."""
    (folder / "rows").mkdir()
    (folder / "inputs.json").write_text(json.dumps({"architectures": lookup.table.restricted(()).fingerprint()}))


def test_a_ranking_of_other_architectures_is_refused(lookup, tmp_path):
    ranked(tmp_path, lookup)
    (tmp_path / "rows/supernet-0000.jsonl").write_text('{"place": 4, "losses": [1.0], "vulnerabilities": [1.0]}\n')
    (tmp_path / "inputs.json").write_text('{"architectures": "another"}')
    with pytest.raises(InputError, match="has ranked other architectures than those of demo; expected its own --table"):
        ranking_scores(tmp_path, lookup, 0.5, 0.25, {})


def test_the_size_says_nothing_beside_the_size(lookup, tmp_path):
    ranked(tmp_path, lookup)
    rows = [{"place": place, "losses": [1.0, 2.0], "vulnerabilities": [1.0, 1.0]} for place in range(0, 15_000, 500)]
    (tmp_path / "rows/supernet-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = found_graphs.ranks(lookup, *ranking_scores(tmp_path, lookup, 0.5, 0.25, {}))
    found = {name: taus for name, *taus in rows}
    assert found["largest"][1] == "–"


def test_scores_are_those_of_the_rows(lookup, tmp_path):
    ranked(tmp_path, lookup)
    rows = [{"place": place, "losses": [1.0 + place, 2.0], "vulnerabilities": [9.0, np.e]} for place in (4, 2)]
    (tmp_path / "rows/supernet-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, places = ranking_scores(tmp_path, lookup, 0.5, 0.25, {})
    assert places.tolist() == [2, 4] and scores["natural"].tolist() == [3, 5]
    assert scores["sensitive"].tolist() == pytest.approx([2.5, 4.5])
    assert scores["loss under attack"].tolist() == [2, 2] and scores["robust"].tolist() == [2.25, 2.75]
    assert scores["robust-sensitive"].tolist() == pytest.approx([1.75, 2.25])
    assert scores["largest"].tolist() == (-np.log(lookup.parameters[[2, 4]])).tolist()
    rows[0]["losses"][0] = None  # it was not finite
    (tmp_path / "rows/supernet-0002.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert ranking_scores(tmp_path, lookup, 0.5, 0.25, {})[0]["natural"].tolist() == [3, 3]
    with pytest.raises(InputError, match="holds no rows of a supernet"):
        ranking_scores(tmp_path / "rows", lookup, 0.5, 0.25, {})
    (tmp_path / "rows/supernet-0001.jsonl").write_text(json.dumps(rows[0]) + "\n{broken\n")
    with pytest.raises(InputError, match=r"supernet-0001\.jsonl: line 2 is damaged or not whole; start search.ranking"):
        ranking_scores(tmp_path, lookup, 0.5, 0.25, {})


def test_a_lean_ranking_has_no_idle_operations(lookup, tmp_path):
    choices = [[lookup.table.space.operations.index(name) for name in names.split()] for names in (
        "nor_conv_3x3 none none skip_connect none none",  # the convolution leads to node 1, and nothing from there
        "nor_conv_3x3 none none none skip_connect none")]
    idle, lean = lookup.table.find(torch.tensor(choices)).tolist()
    ranked(tmp_path, lookup)
    rows = [{"place": place, "losses": [1.0, 2.0], "vulnerabilities": [1.0, 1.0]} for place in (idle, lean)]
    (tmp_path / "rows/supernet-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ranking_scores(tmp_path, lookup, 0.5, 0.25, {}, lean=True)[1].tolist() == [lean]
    (tmp_path / "rows/supernet-0000.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match="random is 1, but the ranking has 0 architectures"):
        random_searches(lookup, *ranking_scores(tmp_path, lookup, 0.5, 0.25, {}, lean=True), 1)


@pytest.mark.parametrize(("flags", "words"), [
    (["--lean", "--runs", "a"], "--lean is about random architectures of a ranking; expected --ranking FOLDER"),
    ([], "nothing to look up: pass --runs RUN ... or --ranking FOLDER"),
    (["--ntk", "0.1", "--runs", "a"], "--ntk weighs scores of a ranking; expected --ranking FOLDER"),
    (["--runs", "a", "b", "a"], "a: given twice; expected different searches"),
    (["--random", "0"], "'0' is not a whole number of at least 1"),
    (["--ntk", "nan"], "'nan' is not a number of at least 0"), (["--naswot", "-2"], "is not a number of at least 0"),
    (["--alpha", "2"], "'2' is not a number from 0 to 1"), (["--sensitivity", "1e999"], "is not a number of at least"),
])
def test_what_cannot_be_looked_up_is_one_sentence(flags, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["study", "--table", "demo", *flags])
    with pytest.raises(InputError) as caught:
        found_graphs.main()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_was_found_in_another_space_is_refused(lookup, tmp_path):
    DARTS.decode(DARTS.sample(1, torch.Generator().manual_seed(0))[0]).save(tmp_path / "genotype.json")
    with pytest.raises(InputError, match="has found an architecture of another space than nas-bench-201"):
        lookup.place_of(tmp_path)


def test_training_free_scores_count_by_their_weights(lookup, tmp_path):
    ranked(tmp_path, lookup)
    rows = [{"place": place, "losses": [1.0, 2.0], "vulnerabilities": [1.0, 1.0]} for place in (2, 4, 6)]
    (tmp_path / "rows/supernet-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"place": place, "ntk": -place, "naswot": value} for place, value in ((4, None), (2, 7.0), (6, 9.0))]
    (tmp_path / "rows/training-free-0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, _ = ranking_scores(tmp_path, lookup, 0.5, 0.25, {"ntk": 2.0, "naswot": 0.5})
    known = np.array([2 * -2 + 3.5, 2 * -4 + 3.5, 2 * -6 + 4.5])  # None is as bad as the worst
    np.testing.assert_allclose(scores["training-free"], -known)
    np.testing.assert_allclose(scores["robust and training-free"], 1.75 - known)
    with pytest.raises(InputError, match="lacks consistency of some architectures"):
        ranking_scores(tmp_path, lookup, 0.5, 0.25, {"consistency": 1.0})


def test_the_program_prints_a_row_for_each_search_and_the_chance_of_all(lookup, tmp_path, monkeypatch, capsys):
    runs = []
    for number in (10, 2000):
        run = tmp_path / str(number) / "run"  # equal names are two searches
        run.mkdir(parents=True)
        lookup.table.space.decode(lookup.table.choices[number]).save(run / "genotype.json")
        runs.append(str(run))
    monkeypatch.setattr(sys, "argv", ["study", "--table", "demo", "--runs", *runs])
    found_graphs.main()
    said = capsys.readouterr().out
    places = [lookup.place_of(tmp_path / name) for name in ("10/run", "2000/run")]
    of_all, of_size = lookup.better(places[0])
    assert f"| run | {of_all:.4f} | {of_size:.4f} |" in said and "largest of the table" in said
    assert f"| chance of all | {max(lookup.at_least(place)[0] for place in places)**2:.2g} |" in said


def test_scores_are_ranked_with_the_truth_of_all_and_beside_the_size(lookup):
    places = np.array([5, 9, 200, 3000, 4000, 12_000])
    scores = {"truth": -lookup.truth[places], "worst": lookup.truth[places], "largest": -lookup.parameters[places],
              "equal": np.ones(6)}
    rows = {name: taus for name, *taus in found_graphs.ranks(lookup, scores, places)}
    assert rows["truth"][0].startswith("+1.00 [") and rows["truth"][1].startswith("+1.00 [")
    assert rows["worst"][0].startswith("−1.00 [") and rows["equal"] == ["–", "–"]
    tau = kendalltau(lookup.parameters[places], lookup.truth[places]).statistic
    assert rows["largest"][0].startswith(f"{tau:+.2f} [".replace("-", "−"))
