"""Bootstrap intervals against the binomial law they converge to, and the sign test against counting."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom

from wsrnas.evaluation import intervals
from wsrnas.evaluation.intervals import accuracy_interval, bootstrap_interval, difference_interval, sign_test


@pytest.mark.parametrize("right, images", [(50, 100), (3, 40), (970, 1000), (4890, 10_000)])
def test_of_an_accuracy_it_is_the_quantiles_of_the_binomial_law(right, images):
    flags = np.arange(images) < right
    low, high = accuracy_interval(flags)
    expected = binom.ppf([0.025, 0.975], images, right / images) / images
    step = 1 / images  # ten thousand resamples miss a quantile of a discrete law by one step at most
    assert abs(low - expected[0]) <= step + 1e-12 and abs(high - expected[1]) <= step + 1e-12
    assert low < right / images < high


def test_paired_differences_are_narrower_than_unpaired_ones():
    draw = np.random.default_rng(0)
    first = draw.random(2000) < 0.5
    second = first.copy()
    second[:40] = ~second[:40]  # the same network but for 40 images
    low, high = difference_interval(first, second)
    difference = first.mean() - second.mean()
    assert low <= difference <= high
    spread = np.std(first.astype(float) - second, ddof=1) / np.sqrt(2000)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.05)
    unpaired = accuracy_interval(first)
    assert high - low < (unpaired[1] - unpaired[0]) / 3


def test_many_distinct_scores_need_little_memory_and_give_the_same(monkeypatch):
    scores = np.random.default_rng(0).random(1500)
    tracemalloc.start()
    found = accuracy_interval(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 240 MB if all are drawn at once
    monkeypatch.setattr(intervals, "DRAWN", 10**9)
    assert accuracy_interval(scores) == found


def test_means_of_several_attacks_take_their_own_spread():
    scores = np.repeat([0.0, 0.25, 0.5, 1.0], [100, 300, 500, 100])
    low, high = accuracy_interval(scores)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(1000), rel=0.05)


@pytest.mark.parametrize("images", [1, 20, 500])
def test_where_all_images_agree_the_interval_is_what_none_seen_allows(images):
    """At the upper end p, seeing none of ``images`` has probability 5 %."""
    low, high = accuracy_interval(np.zeros(images))
    assert low == 0 and (1 - high) ** images == pytest.approx(0.05)
    assert accuracy_interval(np.ones(images)) == pytest.approx((1 - high, 1.0))
    same = difference_interval(np.ones(images), np.ones(images))
    assert same == pytest.approx((-high, high))


def test_the_seed_repeats_it_and_order_does_not_matter():
    draw = np.random.default_rng(1)
    scores = draw.random(50)
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores[::-1], seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)
    with pytest.raises(ValueError, match="no images"):
        bootstrap_interval([])


@pytest.mark.parametrize("more, fewer", [(0, 0), (3, 0), (0, 3), (5, 2), (4, 4)])
def test_the_sign_test_counts_coin_tosses(more, fewer):
    tosses = list(itertools.product([0, 1], repeat=more + fewer))
    expected = sum(sum(toss) >= more for toss in tosses) / len(tosses)
    assert sign_test(more, fewer) == pytest.approx(expected)
