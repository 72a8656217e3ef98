"""How well trainings repeat: closed forms, simulated races with a known answer, and what is refused."""

import numpy as np
import pytest
import scipy

from studies.race_repeats import accuracies, between_seeds, repeats, report
from tests.report.race_pages import race
from wsrnas.runtime.errors import InputError


def simulated(entrants, seeds, deviation, noise, number=0):
    draw = np.random.default_rng(number)
    return (30 + deviation * draw.standard_normal((entrants, 1)) + 5 * draw.standard_normal(seeds)
            + noise * draw.standard_normal((entrants, seeds)))


def test_two_seeds_by_hand():
    """Differences of the seeds are 1, 3, 2 (mean 2): noise² = (1 + 1 + 0) / 2 / 2; means .5, 3.5, 5: variance 5.25."""
    found = repeats(np.array([[0.0, 1], [2, 5], [4, 6]]))
    assert found.noise**2 == pytest.approx(0.5) and found.entrants**2 == pytest.approx(5.25 - 0.5 / 2)
    assert found.share == pytest.approx(0.5 / 5.5) and found.correlation(1)**2 == pytest.approx(5 / 5.5)
    assert found.correlation(2)**2 == pytest.approx(5 / 5.25)


def test_a_large_race_finds_its_deviations_whatever_a_seed_does_to_all():
    found = repeats(simulated(4000, 3, 0.6, 0.4))
    assert found.entrants == pytest.approx(0.6, rel=0.05) and found.noise == pytest.approx(0.4, rel=0.03)
    assert found.share == pytest.approx(0.16 / 0.52, rel=0.05)


def test_the_interval_covers_the_share_as_often_as_it_says():
    covered = [low <= 0.16 / 0.52 <= high for low, high in
               (repeats(simulated(15, 2, 0.6, 0.4, number)).interval for number in range(1000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def test_what_noise_explains_is_noise_and_equal_trainings_have_none():
    found = repeats(np.array([[0.0, 3], [2, 1], [3, 0]]))
    assert (found.entrants, found.share, found.interval[1]) == (0, 1, 1) and found.correlation(1) == 0
    exact = repeats(np.array([[0.0, 1], [2, 3], [5, 6]]))
    assert (exact.noise, exact.share, exact.interval) == (0, 0, (0, 0)) and exact.correlation(1) == 1


def test_correlations_are_means_over_pairs_of_seeds():
    values = simulated(12, 3, 1, 1)
    tau, low, high = between_seeds(values, scipy.stats.kendalltau)
    pairs = [scipy.stats.kendalltau(values[:, a], values[:, b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert tau == pytest.approx(np.mean(pairs)) and low < tau < high


def test_a_race_is_read_and_printed():
    document = race()
    document["main"] = "average robust"
    names, values = accuracies(document, "", "")
    assert names == ["alpha", "beta", "gamma"] and values.shape == (3, 2)
    assert values[1, 0] == 100 * document["entrants"][1]["best"]["average robust"]["values"][0]
    said = report(names, values, "average robust")
    assert "average robust, 3 entrants, 2 seeds" in said and f"{repeats(values).noise:.2f}" in said
    assert accuracies(document, "clean", "")[1][0, 0] == 100 * document["entrants"][0]["best"]["clean"]["values"][0]


@pytest.mark.parametrize("change, arguments, words", [
    ({}, ("robust", ""), "measure is 'robust'; expected one of 'clean'"),
    ({}, ("", "random"), "family is 'random'; expected one of 'family of alpha'"),
    ({}, ("", "family of alpha"), "the race has 2 seeds, and 1 entrants with all of them; expected at least 2 and 3"),
    ({"seeds": [0]}, ("", ""), "the race has 1 seeds"),
])
def test_what_cannot_be_compared_is_refused(change, arguments, words):
    document = race(**({"seeds": (0, 1)} | change)) | {"main": "average robust"}
    with pytest.raises(InputError, match=words):
        accuracies(document, *arguments)
