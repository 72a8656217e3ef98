"""How much trainings differ: closed forms, and simulated races in which the intervals must cover the truth."""

from itertools import combinations
from statistics import fmean, variance

import numpy as np
import pytest
import scipy

from wsrnas.evaluation.intervals import student_reach
from wsrnas.evaluation.training_noise import (
    UNKNOWN,
    TrainingNoise,
    training_noise,
    with_trainings,
)


def table(rng, networks, seeds, deviation=0.01):
    """Accuracies of networks that differ, with seeds that do the same to all, and noise."""
    values = (rng.normal(0.5, 0.1, (networks, 1)) + rng.normal(0, 0.05, (1, seeds))
              + rng.normal(0, deviation, (networks, seeds)))
    return [dict(enumerate(row)) for row in values.tolist()]


@pytest.mark.parametrize(("networks", "seeds"), [(2, 2), (2, 5), (4, 3), (15, 2)])
def test_it_is_half_the_mean_variance_of_the_differences(networks, seeds):
    found = table(np.random.default_rng(networks), networks, seeds)
    noise = training_noise(found)
    differences = [variance(one[seed] - other[seed] for seed in range(seeds)) for one, other in combinations(found, 2)]
    assert noise.deviation == pytest.approx((fmean(differences) / 2)**0.5)
    assert noise.freedom == (networks - 1) * (seeds - 1)


def test_what_a_seed_does_to_all_networks_is_no_noise():
    found = [{seed: 0.4 + 0.1 * network + 0.03 * seed for seed in range(3)} for network in range(4)]
    assert training_noise(found) == TrainingNoise(0.0, 6)
    found[2][1] += 0.02
    assert training_noise(found).deviation > 0.002


def test_networks_may_have_other_seeds():
    """With a hole, the noise is what the seeds that two networks have in common tell."""
    random = np.random.default_rng(4)
    found = table(random, 2, 3)
    common = training_noise(found)
    wide = training_noise([found[0], {**found[1], 7: 0.3}, {5: 0.9}])
    assert wide.freedom == common.freedom and wide.deviation == pytest.approx(common.deviation)


@pytest.mark.parametrize("found", [[], [{}], [{0: 0.5}], [{0: 0.5}, {0: 0.6}], [{0: 0.5, 1: 0.7}],
                                   [{0: 0.5, 1: 0.7}, {2: 0.5, 3: 0.7}], [{0: 0.5, 1: 0.7}, {1: 0.5, 2: 0.7}]])
def test_where_no_two_networks_share_two_seeds_nothing_is_known(found):
    assert training_noise(found) == UNKNOWN and not UNKNOWN.freedom


def test_the_estimate_is_right_on_average():
    random = np.random.default_rng(5)
    variances = [training_noise(table(random, 3, 2, 0.02)).deviation**2 for _ in range(4000)]
    assert np.mean(variances) == pytest.approx(0.0004, rel=0.06)


def test_an_interval_for_trainings_is_students_and_both_parts_add_as_squares():
    noise = TrainingNoise(0.02, 6)
    reach = scipy.stats.t.ppf(0.975, 6) * 0.02 * (2 / 3)**0.5
    assert with_trainings(0.1, (0.1, 0.1), 3, noise) == pytest.approx((0.1 - reach, 0.1 + reach))
    low, high = with_trainings(0.1, (0.07, 0.12), 3, noise)
    assert (0.1 - low)**2 == pytest.approx(0.03**2 + reach**2) and (high - 0.1)**2 == pytest.approx(0.02**2 + reach**2)
    assert with_trainings(0.1, (0.07, 0.12), 3, UNKNOWN) == pytest.approx((0.07, 0.12))
    assert student_reach(0) == 0 and student_reach(10**9) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize(("networks", "seeds", "deviation", "error"), [
    (2, 2, 0.01, 1e-6), (2, 3, 0.01, 0.01), (5, 2, 0.01, 1e-6), (5, 2, 0.01, 0.01), (8, 3, 1e-6, 0.01)])
def test_intervals_cover_the_true_difference(networks, seeds, deviation, error):
    """Of 4,000 races between equal networks, at most 5 % tell the first two apart."""
    random, races = np.random.default_rng(networks + seeds), 4000
    values = random.normal(0, deviation, (races, networks, seeds)) + random.normal(0, 0.05, (races, 1, seeds))
    covered = 0
    for race in values:
        difference = float((race[0] - race[1]).mean() + error * random.standard_normal())
        images = (difference - 1.96 * error, difference + 1.96 * error)
        low, high = with_trainings(difference, images, seeds, training_noise([dict(enumerate(row)) for row in race]))
        covered += low <= 0 <= high
    assert covered / races > 0.95 - 3 * (0.05 * 0.95 / races)**0.5
