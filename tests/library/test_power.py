"""The power of a race: closed forms, and simulated races that are compared as real ones are."""

import numpy as np
import pytest
from scipy.stats import nct, norm, t

from retrain.race.results import power_of
from wsrnas.evaluation.comparison import noises, paired
from wsrnas.evaluation.power import (
    CELLS,
    Noise,
    Plan,
    measured_noise,
    planned,
    power,
    seen,
    share_of_pairs,
    smallest_difference,
)
from wsrnas.evaluation.training_noise import UNKNOWN, TrainingNoise

MANY = 20_000
CLOSE = 3.5 * 0.5 / MANY**0.5  # of a share of many races


@pytest.mark.parametrize("freedom", [1, 4, 30])
def test_where_images_are_many_one_network_in_twenty_is_told_apart_wrongly(freedom):
    """The estimate of the noise between trainings is Student's."""
    found = seen(np.zeros(MANY), Plan(3, 10**12, freedom), Noise(0.01, 0.2)).mean()
    assert found == pytest.approx(0.05, abs=CLOSE)


@pytest.mark.parametrize("difference", [0.004, -0.012])
@pytest.mark.parametrize("freedom", [2, 9])
def test_where_images_are_many_the_trainings_decide(difference, freedom):
    found = seen(np.full(MANY, difference), Plan(4, 10**12, freedom), Noise(0.01, 0.2)).mean()
    scaled, ends = difference / 0.005, t.ppf(0.975, freedom)
    assert found == pytest.approx(nct.sf(ends, freedom, scaled) + nct.cdf(-ends, freedom, scaled), abs=CLOSE)


@pytest.mark.parametrize("difference", [0.0, 0.02, -0.03])
def test_where_trainings_repeat_the_images_decide(difference):
    found = seen(np.full(MANY, difference), Plan(2, 1000, 3), Noise(0.0, 0.1)).mean()
    error = 0.01
    assert found == pytest.approx(norm.cdf(difference / error - 1.96) + norm.cdf(-difference / error - 1.96), abs=CLOSE)


def flags(rng, accuracy, shared, own):
    """One network's flags of the images: most follow the image, the others are its own."""
    mine = rng.random(len(shared)) < own
    return np.where(mine, rng.random(len(shared)), shared) < accuracy



def simulated(monkeypatch, rng, difference, images, seeds, deviation, own, others=2):
    """Return the row of ``paired`` for two networks that truly differ, and the noise that their race learns."""
    monkeypatch.setattr("wsrnas.evaluation.comparison.scores_by_attack", lambda found: {"clean": found["scores"]})
    shared, networks = rng.random(images), 2 + others
    accuracies = 0.5 + np.array([difference / 2, -difference / 2] + [0.0] * others) + deviation * rng.standard_normal(
        (seeds, networks))
    entrants = [{seed: {"image_set": "one", "scores": flags(rng, accuracies[seed, which], shared, own) * 1.0}
                 for seed in range(seeds)} for which in range(networks)]
    noise = noises(entrants)
    return paired(*entrants[:2], noise)[0], noise["clean"]


def test_simulated_races_see_as_many_differences_as_is_said(monkeypatch):
    """The stated power comes from what races have measured, and the empirical one from them, too."""
    rng, images, seeds, races, difference = np.random.default_rng(3), 600, 2, 300, 0.06
    rows, noises_of = zip(*[simulated(monkeypatch, rng, difference, images, seeds, 0.01, 0.2) for _ in range(races)],
                          strict=True)
    mean = TrainingNoise(float(np.mean([noise.deviation**2 for noise in noises_of])**0.5), noises_of[0].freedom)
    noise = measured_noise(rows, images, mean)
    stated = seen(np.full(MANY, difference), Plan(seeds, images, mean.freedom), noise).mean()
    empirical = np.mean([row["distinct"] for row in rows])
    assert mean.freedom == 3 and 0.3 < stated < 0.95
    assert empirical == pytest.approx(stated, abs=0.05 + 2 * (0.25 / races)**0.5)


def test_the_smallest_difference_is_seen_by_four_in_five_races():
    for plan in Plan(2, 300, 1), Plan(3, 10_000, 14), Plan(5, 1000, 8):
        smallest = smallest_difference(plan, Noise())
        assert seen(np.full(MANY, smallest), plan, Noise()).mean() == pytest.approx(0.8, abs=0.005)


def test_more_images_more_entrants_and_quieter_trainings_see_more():
    rough, fine = Noise(0.02, 0.2), Noise(0.001, 0.05)
    few, many = planned(4, 3, 1000), planned(4, 3, 10_000)
    assert smallest_difference(many, fine) < smallest_difference(few, fine) < smallest_difference(few, rough)
    assert smallest_difference(planned(9, 3, 1000), rough) < smallest_difference(few, rough)
    assert share_of_pairs(many, fine) > share_of_pairs(few, fine) > share_of_pairs(few, rough)
    assert planned(9, 3, 1000).freedom == 16


def test_without_noise_every_pair_is_told_apart():
    assert share_of_pairs(Plan(2, 1, 1), Noise(0.0, 0.0)) == 1 and CELLS > 0


@pytest.mark.parametrize(("entrants", "seeds", "words"), [(5, 1, "--seeds 2"), (1, 1, "--seeds 2"), (1, 3, "no rival")])
def test_one_seed_or_one_entrant_sees_nothing_and_says_so(entrants, seeds, words):
    found = power(planned(entrants, seeds, 10_000), Noise())
    assert found["smallest_difference"] is None and found["share_of_pairs"] == found["false_alarms"] == 0
    assert words in found["summary"]


def test_trainings_that_differ_too_much_tell_no_networks_apart():
    found = power(planned(3, 2, 100), Noise(10.0, 0.1))
    assert found["smallest_difference"] is None and "cannot tell two networks apart" in found["summary"]


def test_the_sentence_holds_the_numbers():
    found = power(planned(6, 3, 10_000), Noise(0.005, 0.2, measured=True))
    assert f"{100 * found['smallest_difference']:.1f} points" in found["summary"]
    assert "3 seeds and 10,000 images" in found["summary"] and "measured in this race" in found["summary"]
    assert "an assumption" in power(planned(6, 3, 10_000), Noise())["summary"]


def row_of(values, low, high):
    return {"values": values, "images_interval": [low, high]}


def test_the_noise_of_a_race_is_that_of_trainings_and_of_the_pairs_with_most_seeds():
    alone, known = row_of([0.0], -0.1, 0.1), TrainingNoise(0.03, 4)
    assert measured_noise([alone], 100, UNKNOWN) is None and measured_noise([], 9, known) is None
    rows = [row_of([0.0] * 2, -0.1, 0.096), row_of([0.0] * 2, 0, 0.196), row_of([0.0], -0.5, 0.5)]
    found = measured_noise(rows, 100, known)
    assert found.seeds == pytest.approx(0.03 * 2**0.5) and found.images == pytest.approx(0.0025 * 100)


def test_a_race_under_way_tells_the_power_that_it_will_have():
    """One seed is done of three: nothing is measured yet, and the plan counts."""
    one, plan = row_of([0.01], -0.1, 0.1), planned(3, 3, 100)
    assert power_of([one], UNKNOWN, plan)["seeds"] == 3 and not power_of([one], UNKNOWN, plan)["measured"]
    both = power_of([one, row_of([0.01, 0.02], -0.1, 0.1)], TrainingNoise(0.01, 1), plan)
    assert both["seeds"] == 2 and both["measured"] and both["freedom"] == 1
    assert power_of([], UNKNOWN, plan)["seeds"] == 3
