"""The power of a race: closed forms, and simulated races that are compared as real ones are."""

import numpy as np
import pytest
from scipy.stats import norm

from retrain.race.results import power_of
from wsrnas.evaluation.comparison import paired
from wsrnas.evaluation.power import CELLS, Noise, measured_noise, power, seen, share_of_pairs, smallest_difference

MANY = 20_000
CLOSE = 3.5 * 0.5 / MANY**0.5  # of a share of many races


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("difference", [0.0, 0.004, -0.012])
def test_where_images_are_many_the_seeds_decide(seeds, difference):
    found = seen(np.full(MANY, difference), seeds, 10**9, Noise(0.01, 0.2)).mean()
    above = norm.cdf(difference / 0.01)
    assert found == pytest.approx(above**seeds + (1 - above)**seeds, abs=CLOSE)


@pytest.mark.parametrize("difference", [0.0, 0.02, -0.03])
def test_where_trainings_repeat_the_images_decide(difference):
    found = seen(np.full(MANY, difference), 2, 1000, Noise(0.0, 0.1)).mean()
    error = 0.01
    assert found == pytest.approx(norm.cdf(difference / error - 1.96) + norm.cdf(-difference / error - 1.96), abs=CLOSE)


def flags(rng, accuracy, shared, own):
    """One network's flags of the images: most follow the image, the others are its own."""
    mine = rng.random(len(shared)) < own
    return np.where(mine, rng.random(len(shared)), shared) < accuracy



def simulated(monkeypatch, rng, difference, images, seeds, deviation, own):
    """Return the row of ``paired`` for two networks that truly differ by ``difference`` in clean accuracy."""
    monkeypatch.setattr("wsrnas.evaluation.comparison.scores_by_attack", lambda found: {"clean": found["scores"]})
    shared = rng.random(images)
    accuracies = 0.5 + np.array([difference / 2, -difference / 2]) + deviation * rng.standard_normal((seeds, 2))
    first, second = ({seed: {"image_set": "one", "scores": flags(rng, accuracies[seed, which], shared, own) * 1.0}
                      for seed in range(seeds)} for which in (0, 1))
    return paired(first, second)[0]


def test_simulated_races_see_as_many_differences_as_is_said(monkeypatch):
    """The stated power comes from what one race has measured, and the empirical one from others like it."""
    rng, images, seeds, races, difference = np.random.default_rng(3), 600, 2, 300, 0.05
    rows = [simulated(monkeypatch, rng, difference, images, seeds, 0.01, 0.2) for _ in range(races)]
    noise = measured_noise(rows, images)
    stated = seen(np.full(MANY, difference), seeds, images, noise).mean()
    empirical = np.mean([row["distinct"] for row in rows])
    assert 0.3 < stated < 0.95
    assert empirical == pytest.approx(stated, abs=0.05 + 2 * (0.25 / races)**0.5)


def test_the_smallest_difference_is_seen_by_four_in_five_races():
    for seeds, images in ((2, 300), (3, 10_000), (5, 1000)):
        smallest = smallest_difference(seeds, images, Noise())
        assert seen(np.full(MANY, smallest), seeds, images, Noise()).mean() == pytest.approx(0.8, abs=0.005)


def test_more_images_and_quieter_trainings_see_more():
    rough, fine = Noise(0.02, 0.2), Noise(0.001, 0.05)
    few, many = smallest_difference(3, 1000, fine), smallest_difference(3, 10_000, fine)
    assert many < few < smallest_difference(3, 1000, rough)
    assert share_of_pairs(3, 10_000, fine) > share_of_pairs(3, 1000, fine) > share_of_pairs(3, 1000, rough)


def test_without_noise_every_pair_is_told_apart():
    assert share_of_pairs(2, 1, Noise(0.0, 0.0)) == 1 and CELLS > 0


def test_one_seed_sees_nothing_and_says_so():
    found = power(1, 10_000, Noise())
    assert found["smallest_difference"] is None and found["share_of_pairs"] == found["false_alarms"] == 0
    assert "--seeds 2" in found["summary"]


def test_trainings_that_differ_too_much_tell_no_networks_apart():
    found = power(2, 100, Noise(10.0, 0.1))
    assert found["smallest_difference"] is None and "cannot tell two networks apart" in found["summary"]


def test_the_sentence_holds_the_numbers():
    found = power(3, 10_000, Noise(0.005, 0.2, measured=True))
    assert f"{100 * found['smallest_difference']:.1f} points" in found["summary"]
    assert "3 seeds and 10,000 images" in found["summary"] and "measured in this race" in found["summary"]
    assert "an assumption" in power(3, 10_000, Noise())["summary"]


def test_the_noise_of_a_race_of_one_seed_is_unknown():
    alone = {"values": [0.0], "deviation": None, "interval": [-0.1, 0.1]}
    assert measured_noise([alone], 100) is None and measured_noise([], 9) is None
    rows = [{"values": [0.0] * 2, "deviation": 0.03, "interval": [-0.1, 0.096]},
            {"values": [0.0] * 2, "deviation": 0.04, "interval": [0, 0.196]}, alone]
    found = measured_noise(rows, 100)
    assert found.seeds == pytest.approx((0.0025 / 2)**0.5) and found.images == pytest.approx(0.0025 * 100)


def test_a_race_under_way_tells_the_power_that_it_will_have():
    """One seed is done of three: nothing is measured yet, and the plan counts."""
    one = {"values": [0.01], "deviation": None, "interval": [-0.1, 0.1]}
    assert power_of([one], 3, 100)["seeds"] == 3 and not power_of([one], 3, 100)["measured"]
    two = {"values": [0.01, 0.02], "deviation": 0.01, "interval": [-0.1, 0.1]}
    assert power_of([one, two], 3, 100)["seeds"] == 2 and power_of([one, two], 3, 100)["measured"]
    assert power_of([], 3, 100)["seeds"] == 3
