"""Rank correlations, their intervals, and what size leaves of a score."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from search.rankings import statistics
from search.rankings.compared import Score, combined
from search.rankings.scores import finite, logarithm
from search.rankings.statistics import by_subset, correlations, estimate, without_size


def data(count=60, ties=True, seed=0):
    """Three scores and two columns of truth, with ties if asked."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(2, count))
    scores = np.stack([truth[0] + noise * random.normal(size=count) for noise in (0.5, 1, 2)])
    return (scores.round(1), truth.round(1)) if ties else (scores, truth)


def test_kendalls_tau_is_that_of_all_pairs():
    scores, truth = data(count=9)
    for place, row in enumerate(scores):
        concordant = discordant = different = unequal = 0
        for i, j in itertools.combinations(range(9), 2):
            a, b = np.sign(row[i] - row[j]), np.sign(truth[0][i] - truth[0][j])
            concordant, discordant = concordant + (a * b > 0), discordant + (a * b < 0)
            different, unequal = different + (a != 0), unequal + (b != 0)
        expected = (concordant - discordant) / math.sqrt(different * unequal)
        assert correlations(scores, truth)[0, place, 0] == pytest.approx(expected)


@pytest.mark.parametrize("memory", [statistics.MEMORY, 100])  # the second: in parts
@pytest.mark.parametrize("ties", [True, False])
def test_correlations_are_those_of_scipy(ties, memory, monkeypatch):
    monkeypatch.setattr(statistics, "MEMORY", memory)
    scores, truth = data(ties=ties)
    tau, rho = correlations(scores, truth)
    for i, j in itertools.product(range(3), range(2)):
        assert tau[i, j] == pytest.approx(scipy.stats.kendalltau(scores[i], truth[j]).statistic)
        assert rho[i, j] == pytest.approx(scipy.stats.spearmanr(scores[i], truth[j]).statistic)


def test_many_architectures_are_sorted_with_the_same_result(monkeypatch):
    random = np.random.default_rng(4)
    scores, truth = random.normal(size=(5, 60)).round(), random.normal(size=(3, 60)).round(1)
    scores[2] = 1.0
    pairs = correlations(scores, truth)[0]
    monkeypatch.setattr(statistics, "DENSE", 59)
    np.testing.assert_allclose(correlations(scores, truth)[0], pairs, rtol=0, atol=1e-12)
    assert np.isnan(pairs[2]).all()


def test_equal_scores_rank_nothing():
    scores, truth = np.ones((1, 12)), np.arange(12.0)[None]
    found = estimate(scores, truth, 20, 0)
    assert np.isnan(found.tau).all() and np.isnan(found.rho).all()


def test_what_a_line_over_the_size_leaves_has_no_slope():
    random = np.random.default_rng(1)
    size, noise = np.arange(20.0), random.normal(size=(2, 20))
    rest = without_size(3 * size + noise, size)
    assert np.abs(rest @ (size - size.mean())).max() < 1e-8
    np.testing.assert_allclose(rest, without_size(noise, size), atol=1e-10)
    # The closed form for three points at -1, 0, 1: the slope is half of the difference between the ends.
    np.testing.assert_allclose(without_size(np.array([[1.0, 5.0, 3.0]]), np.array([-1.0, 0.0, 1.0])), [[-1, 2, -1]])


def test_size_itself_has_no_rank_at_fixed_size():
    size, truth = np.log(np.arange(1.0, 31)), np.random.default_rng(0).normal(size=(1, 30))
    found = by_subset(np.stack([size, 7 - 2 * size]), truth, size, 20, 0)["fixed size"]
    assert np.isnan(found.tau).all()
    assert (without_size(np.ones((1, 5)), np.ones(5)) == 0).all()  # all equal: nothing is left


def test_fixed_size_reveals_what_size_hides():
    random = np.random.default_rng(3)
    size, quality = random.normal(size=200), random.normal(size=200)
    found = by_subset((quality - 3 * size)[None], (quality + 3 * size)[None], size, 20, 0)
    assert found["all"].tau[0, 0, 0] < -0.5
    np.testing.assert_allclose(found["fixed size"].tau[:, 0, 0], 1)


def test_the_best_fifth_is_that_of_each_column():
    random = np.random.default_rng(4)
    truth = random.normal(size=(2, 50))
    scores = np.where(truth[0] >= np.sort(truth[0])[-10], truth[0], -truth[0])[None]  # right at the top alone
    found = by_subset(scores, truth, random.normal(size=50), 10, 0)
    assert found["best fifth"].architectures == 10 and found["best fifth"].tau[0, 0, 0] == pytest.approx(1)
    top = np.argsort(-truth[1])[:10]
    assert found["best fifth"].tau[0, 0, 1] == pytest.approx(scipy.stats.kendalltau(scores[0][top],
                                                                                   truth[1][top]).statistic)


def test_an_interval_covers_the_true_correlation_as_often_as_it_says():
    tau = 2 / math.pi * math.asin(0.6)  # of normal numbers with the correlation .6
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        truth = random.normal(size=40)
        score = 0.6 * truth + 0.8 * random.normal(size=40)
        _, low, high = estimate(score[None], truth[None], 100, seed).tau[:, 0, 0]
        covered += low <= tau <= high
    assert 86 <= covered <= 99  # 95 expected, standard deviation 2.2; a percentile interval of 40 is a little narrow


def test_an_interval_is_the_percentiles_of_resamples_that_fit_the_line_anew():
    scores, truth = data(count=30)
    size = np.random.default_rng(5).normal(size=30)
    found = estimate(scores, truth, 50, 9, size)
    random = np.random.default_rng(9)
    drawn = []
    for _ in range(50):
        rows = random.integers(30, size=30)
        drawn.append(scipy.stats.kendalltau(*(without_size(values[rows], size[rows])
                                              for values in (scores[1], truth[1]))).statistic)
    np.testing.assert_allclose(found.tau[1:, 1, 1], np.percentile(drawn, (2.5, 97.5)))


def test_a_difference_of_correlations_is_that_in_every_resample():
    random = np.random.default_rng(3)
    truth = random.normal(size=50)
    scores = np.stack([truth + random.normal(size=50), truth + 2 * random.normal(size=50)])
    found = estimate(scores, truth[None], 200, 7, minus_first=True).tau[:, :, 0]
    draws = np.random.default_rng(7)
    by_hand = []
    for rows in (draws.integers(50, size=50) for _ in range(200)):
        first, second = (scipy.stats.kendalltau(score[rows], truth[rows]).statistic for score in scores)
        by_hand.append(second - first)
    assert found[:, 0].tolist() == [0, 0, 0]
    assert found[1:, 1] == pytest.approx(np.percentile(by_hand, [2.5, 97.5]))
    each = estimate(scores, truth[None], 2, 7).tau[0, :, 0]
    assert found[0, 1] == pytest.approx(each[1] - each[0])


def test_values_that_are_not_finite_rank_last():
    assert finite(np.array([1.0, np.nan, -2.0, np.inf])).tolist() == [1, -2, -2, -2]
    np.testing.assert_allclose(logarithm(np.array([0.0, math.e, 1.0])), [0, 1, 0])


def test_a_vulnerability_that_is_not_finite_counts_as_worst_in_the_sums_of_ranks():
    values = {"loss, clean": [4.0, 3, 2, 1], "vulnerability F, at 0.03": -np.log([0.1, 0.2, 0.3, np.nan])}
    scores = [Score("supernet", name, np.array(value, dtype=float)) for name, value in values.items()]
    found = {score.name: score.values for score in combined([*scores, Score("size", "parameters", np.arange(4.0))])}
    assert found["high F + parameters"].tolist() == [1.5 + 1, 3 + 2, 4 + 3, 1.5 + 4]
