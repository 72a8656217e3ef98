"""Trainings side by side: closed forms, and differences counted image by image, seed by seed."""

import json
from dataclasses import replace
from itertools import permutations, product
from statistics import fmean, stdev

import numpy as np
import pytest
import torch

from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.comparison import against_random, main_measure, measures, noises, over_seeds, paired, spread
from wsrnas.evaluation.results import flags_of, measure
from wsrnas.evaluation.training_noise import UNKNOWN, TrainingNoise, training_noise, with_trainings

IMAGES = 50
STRENGTHS = (0.05, 0.1, 0.2)
PGD = tuple(at_strength(parse_attack("pgd-20"), strength) for strength in STRENGTHS)
OTHERS = (at_strength(parse_attack("fgsm"), 0.1), at_strength(parse_attack("pgd-l2-20"), 0.5),
          replace(at_strength(parse_attack("transfer-20"), 0.1), source="abcdef0123"), parse_attack("cw-l2-100"))
NAMES = ["clean", *map(str, (*PGD, *OTHERS)), "average robust", "area"]


class Known:
    """An evaluation whose flags are known."""

    seed, name = 0, "known"

    def __init__(self, clean, flags):
        self.images, self.flags, self.correct = len(clean), flags, clean

    def log(self, line):
        pass

    def clean(self):
        return self.correct

    def robust(self, attack, among):
        return self.flags[attack]

    def cost(self, attack):
        return 0.5, []

    def passes_of(self, attack):
        return None


@pytest.fixture(autouse=True)
def only_flags(monkeypatch):
    """The honesty checks and the accuracies' intervals have tests of their own."""
    monkeypatch.setattr("wsrnas.evaluation.results.honesty_checks", lambda *arguments: [])
    monkeypatch.setattr("wsrnas.evaluation.results.accuracy_interval", lambda scores: (0.0, 1.0))


def result(clean, flags, image_set="same"):
    """An evaluation's document, as it is read from its file."""
    document = measure(Known(clean, flags), list(flags), 10) | {"image_set": image_set}
    return json.loads(json.dumps(document))


def first(count, images=IMAGES):
    return torch.arange(images) < count


def counted(clean, *pgd, **about):
    """A training of which so many images survive PGD at each strength."""
    return result(first(clean), {attack: first(count) for attack, count in zip(PGD, pgd, strict=False)}, **about)


def random_result(number, chance=0.5, attacks=(*PGD, *OTHERS), **about):
    draw = torch.Generator().manual_seed(number)
    return result(torch.rand(IMAGES, generator=draw) < 0.9,
                  {attack: torch.rand(IMAGES, generator=draw) < chance for attack in attacks}, **about)


# -- what was measured ----------------------------------------------------------------------------------------------

def test_measures_have_the_names_of_attacks_and_where_they_were_made():
    found = measures(random_result(0))
    assert [row["name"] for row in found] == NAMES
    about = [tuple(row[key] for key in ("attack", "norm", "epsilon")) for row in found]
    assert about == [(None, None, 0.0), *(("PGD-20", "linf", strength) for strength in STRENGTHS),
                     ("FGSM", "linf", 0.1), ("PGD-20 L2", "l2", 0.5), ("transfer PGD-20 from abcdef", "linf", 0.1),
                     ("C&W-100 L2", "l2", None), (None, None, None), (None, None, None)]
    assert all(set(row) == {"name", "attack", "norm", "epsilon"} for row in found)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("pgd", "names"), [((), []), ((30,), [str(PGD[0])]),
                                            ((30, 20), [*map(str, PGD[:2]), "average robust", "area"])])
def test_averages_are_measures_where_there_are_several_strengths(pgd, names):
    training = counted(40, *pgd)
    assert [row["name"] for row in measures(training)] == ["clean", *names]
    assert list(over_seeds({0: training})) == [row["measure"] for row in paired({0: training}, {0: training})] == [
        "clean", *names]


# -- over seeds -----------------------------------------------------------------------------------------------------

def ranked_by(*left):
    """The measure that ranks where so many images are left under each attack, given by name and strength."""
    flags = {at_strength(parse_attack(name), strength) if strength else parse_attack(name): first(count)
             for name, strength, count in left}
    document = result(first(40), flags)
    return main_measure(measures(document), [over_seeds({0: document}), over_seeds({})])


def test_entrants_are_ranked_by_the_average_over_strengths_where_there_is_one():
    attacks = ("fgsm", 0.1, 3), ("pgd-20", 0.05, 20), ("pgd-20", 0.1, 9), ("autoattack", 0.1, 1)
    assert ranked_by(*attacks) == "average robust"


@pytest.mark.parametrize(("left", "named"), [
    ([("fgsm", 0.1, 20), ("pgd-20", 0.1, 10), ("noise", 0.1, 39)], "PGD-20"),
    ([("pgd-20", 0.1, 10), ("fgsm", 0.1, 20)], "PGD-20"),
    ([("fgsm", 0.1, 5), ("autoattack", 0.1, 8), ("pgd-20", 0.1, 10)], "AutoAttack"),
    ([("autoattack", 0.05, 8), ("autoattack", 0.1, 6)], "AutoAttack  eps 0.1000"),
    ([("cw-l2-100", None, 0), ("pgd-20", 0.1, 10)], "PGD-20"),  # without a bound, everything falls
    ([], "clean"),
])
def test_without_an_average_the_strictest_attack_ranks(left, named):
    assert ranked_by(*left).startswith(named)


def test_before_any_result_nothing_ranks_but_there_is_a_name():
    assert main_measure([], []) == "clean"


def test_values_and_their_spread():
    assert spread([1.0, 2.0, 6.0]) == {"values": [1.0, 2.0, 6.0], "mean": 3.0, "deviation": pytest.approx(7**0.5)}
    assert spread((0.25,)) == {"values": [0.25], "mean": 0.25, "deviation": None}
    assert spread([0.5, 0.5])["deviation"] == 0


def test_means_and_deviations_of_known_counts():
    """In the order of the seeds, whatever the order of the trainings."""
    found = over_seeds({7: counted(45, 30, 20, 5), 0: counted(40, 30, 10, 0), 3: counted(35, 30, 15, 10)})
    assert list(found) == ["clean", *map(str, PGD), "average robust", "area"]

    def expected(*values):
        return {"values": pytest.approx(values), "mean": pytest.approx(sum(values) / 3),
                "deviation": pytest.approx(np.std(values, ddof=1))}

    assert found["clean"] == expected(0.8, 0.7, 0.9)
    assert found[str(PGD[0])] == {"values": [0.6] * 3, "mean": pytest.approx(0.6), "deviation": pytest.approx(0)}
    assert found[str(PGD[1])] == expected(0.2, 0.3, 0.4)
    assert found[str(PGD[2])] == expected(0.0, 0.2, 0.1)
    assert found["average robust"] == expected(40 / 150, 55 / 150, 55 / 150)
    # Trapezoids between 0, 0.05, 0.1 and 0.2, over 0.2.
    areas = [(0.05 * (c + a) / 2 + 0.05 * (a + b) / 2 + 0.1 * (b + d) / 2) / 0.2
             for c, a, b, d in ((0.8, 0.6, 0.2, 0.0), (0.7, 0.6, 0.3, 0.2), (0.9, 0.6, 0.4, 0.1))]
    assert found["area"] == expected(*areas)
    assert json.loads(json.dumps(found)) == found


def test_one_training_has_no_deviation_and_none_no_measures():
    found = over_seeds({4: counted(40, 30, 20, 10)})
    assert found["clean"] == {"values": [0.8], "mean": 0.8, "deviation": None}
    assert {row["deviation"] for row in found.values()} == {None}
    assert over_seeds({}) == {}


# -- paired differences ---------------------------------------------------------------------------------------------

def image_scores(training, name):
    """What one image scores under a measure, for every image, one after the other."""
    clean, pgd = flags_of(training["clean"]), [flags_of(row) for row in training["attacks"][:3]]
    rows = dict(zip(map(str, (*PGD, *OTHERS)), training["attacks"], strict=True))
    scores = []
    for image in range(IMAGES):
        c, a, b, d = (float(flags[image]) for flags in (clean, *pgd))
        scores.append({"clean": c, "average robust": (a + b + d) / 3, "area": (c + 2 * a + 3 * b + 2 * d) / 8}[name]
                      if name not in rows else float(rows[name]["robust"][image]))
    return scores


def resampled(differences):
    """The 95 % interval of a mean: the images drawn anew, one by one."""
    draws = np.random.default_rng(5).integers(len(differences), size=(20_000, len(differences)))
    return np.quantile(np.asarray(differences)[draws].mean(1), [0.025, 0.975])


def test_differences_are_those_of_the_same_image_and_the_same_seed():
    one = {seed: random_result(seed, 0.6) for seed in (2, 0, 1)}
    other = {seed: random_result(10 + seed, 0.4) for seed in (0, 1, 2)}
    noise = dict.fromkeys(NAMES, TrainingNoise(0.001, 4)) | {NAMES[-1]: TrainingNoise(0.3, 2), NAMES[-2]: UNKNOWN}
    rows = paired(one, other, noise)
    assert [row["measure"] for row in rows] == NAMES
    for row in rows:
        each = [[a - b for a, b in zip(image_scores(one[seed], row["measure"]),
                                       image_scores(other[seed], row["measure"]), strict=True)] for seed in range(3)]
        values = [fmean(differences) for differences in each]
        assert row["values"] == pytest.approx(values)
        assert row["difference"] == pytest.approx(fmean(values)) and row["deviation"] == pytest.approx(stdev(values))
        low, high = resampled([fmean(of_an_image) for of_an_image in zip(*each, strict=True)])
        step = 1 / (3 * IMAGES)  # of a mean of what images score: its quantiles move in steps
        assert row["images_interval"] == pytest.approx([low, high], abs=1.01 * step) and high - low > 15 * step
        known = noise.get(row["measure"], UNKNOWN)
        assert row["interval"] == list(with_trainings(row["difference"], row["images_interval"], 3, known))
        assert row["distinct"] is (known.freedom > 0 and not row["interval"][0] <= 0 <= row["interval"][1])
    assert {row["distinct"] for row in rows} == {True, False}
    assert json.loads(json.dumps(rows)) == rows


def swaps(better, worse):
    """A training that withstands ``better`` images which the plain one does not, and loses ``worse`` of its own."""
    flags = first(25)
    flags[25:25 + better] = True
    flags[:worse] = False
    return result(first(IMAGES), {PGD[0]: flags})


def plain():
    return swaps(0, 0)


@pytest.mark.parametrize(("trainings", "distinct", "excluded"), [
    ([(10, 0), (12, 1), (9, 0)], True, True),
    ([(0, 10), (1, 12), (0, 9)], True, True),
    ([(20, 0), (20, 0), (0, 1)], False, True),  # trainings differ too much
    ([(20, 0), (0, 0)], False, True),  # two seeds of two networks say little
    ([(10, 9), (10, 9), (10, 9)], False, False),  # all seeds agree, but on too few images
    ([(0, 0), (0, 0), (0, 0)], False, False),
    ([(12, 0)], False, True),  # a single seed says nothing of training
    ([(1, 0)], False, False),
])
def test_distinct_is_what_trainings_and_images_say(trainings, distinct, excluded):
    one = {seed: swaps(*counts) for seed, counts in enumerate(trainings)}
    other = dict.fromkeys(one, plain())
    row = next(row for row in paired(one, other, noises([one, other])) if row["measure"] == str(PGD[0]))
    low, high = row["images_interval"]
    assert row["values"] == pytest.approx([(better - worse) / IMAGES for better, worse in trainings])
    assert (low > 0 or high < 0) is excluded and row["distinct"] is distinct
    assert low <= row["difference"] <= high


def test_what_both_have_in_common_does_not_widen_the_interval():
    """Two trainings that differ in five images of fifty: unpaired, the interval would be nearly twice as wide."""
    row = paired({0: swaps(5, 0)}, {0: plain()})[1]
    assert row["interval"] == row["images_interval"]  # how much trainings differ is not known
    width = row["interval"][1] - row["interval"][0]
    assert width == pytest.approx(2 * 1.96 * (0.1 * 0.9 / IMAGES) ** 0.5, rel=0.1)
    assert width < 0.5 * 2 * 1.96 * ((0.5 * 0.5 + 0.6 * 0.4) / IMAGES) ** 0.5


def test_the_interval_is_of_the_mean_over_seeds():
    """Each seed gains other images: every image gains a third, and the mean has little to vary in."""
    def gains(images):
        flags = torch.zeros(IMAGES, dtype=torch.bool)
        flags[images::3] = True
        return result(first(IMAGES), {PGD[0]: flags})

    nothing = result(first(IMAGES), {PGD[0]: first(0)})
    row = paired({seed: gains(seed) for seed in range(3)}, dict.fromkeys(range(3), nothing))[1]
    assert row["values"] == pytest.approx([17 / 50, 17 / 50, 16 / 50]) and row["difference"] == pytest.approx(1 / 3)
    low, high = row["interval"]  # no resample can differ: it reaches as far as what fifty images cannot rule out
    unseen = 1 - 0.05 ** (1 / IMAGES)
    assert high == pytest.approx(1 / 3 + unseen * 2 / 3) and low == pytest.approx(1 / 3 - unseen * 4 / 3)


def test_the_other_way_round_it_is_the_opposite():
    one, other = ({seed: random_result(seed + 20 * side, 0.5 + 0.2 * side) for seed in range(3)} for side in range(2))
    there, back = paired(one, other), paired(other, one)
    assert len(there) == len(back) == len(NAMES)
    for a, b in zip(there, back, strict=True):
        assert a["measure"] == b["measure"] and a["distinct"] is b["distinct"]
        assert a["values"] == pytest.approx([-value for value in b["values"]])
        assert a["difference"] == pytest.approx(-b["difference"]) and a["deviation"] == pytest.approx(b["deviation"])
        (low, high), (other_low, other_high) = a["interval"], b["interval"]  # the resamples are others
        assert [low, high] == pytest.approx([-other_high, -other_low], abs=0.05 * (high - low))


def test_a_training_against_itself_is_no_different():
    for row in paired(trainings := {seed: random_result(seed) for seed in range(2)}, trainings):
        assert row["values"] == [0, 0] and row["difference"] == row["deviation"] == 0 and row["distinct"] is False
        assert row["interval"][0] < 0 < row["interval"][1]


def test_the_noise_of_a_measure_is_that_of_its_accuracies():
    entrants = [{seed: random_result(seed + 10 * place) for seed in range(3 - place)} for place in range(2)]
    found, values = noises([*entrants, {}]), [over_seeds(trainings) for trainings in entrants]
    assert list(found) == NAMES
    for name in NAMES:
        assert found[name] == training_noise([dict(enumerate(entrant[name]["values"])) for entrant in values])
    assert noises([]) == noises([{}]) == {}
    del entrants[0][1]["attacks"][0]  # one training lacks a measure
    assert noises(entrants)[str(PGD[0])].freedom == 0 < noises(entrants)["clean"].freedom


@pytest.mark.slow
def test_only_seeds_that_both_have_are_compared():
    one = {seed: random_result(seed) for seed in (0, 1, 2, 5)}
    other = {seed: random_result(10 + seed) for seed in (5, 1, 8)}
    assert paired(one, other) == paired({seed: one[seed] for seed in (1, 5)}, {seed: other[seed] for seed in (1, 5)})
    assert len(paired(one, other)[0]["values"]) == 2
    single = paired(one, {2: other[1]})
    assert {(len(row["values"]), row["deviation"]) for row in single} == {(1, None)}
    assert paired(one, {}) == paired({}, one) == paired({0: one[0]}, {1: one[1]}) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_other_test_images_are_not_compared(seed):
    one, other = ({s: random_result(s + side) for s in range(2)} for side in (0, 10))
    other[seed] = other[seed] | {"image_set": "others"}
    assert paired(one, other) == paired(other, one) == []
    del other[seed]
    assert len(paired(one, other)) == len(NAMES)  # of the seed that is left


@pytest.mark.parametrize(("side", "seed"), list(product(range(2), range(2))))
def test_a_measure_that_one_training_lacks_is_left_out(side, seed):
    trainings = [{s: random_result(s + 10 * number) for s in range(2)} for number in range(2)]
    trainings[side][seed] = random_result(99, attacks=(PGD[0], *OTHERS[1:]))
    assert {row["measure"] for row in paired(*trainings)} == {"clean", str(PGD[0]), *map(str, OTHERS[1:])}


# -- against random cells ---------------------------------------------------------------------------------------------

def test_the_chance_of_a_random_cell_is_that_of_all_orders():
    """Among all orders of one entrant and n random cells, p is at most a in a share of a: an exact test."""
    for cells in (1, 2, 4):
        names = [f"random_{number}" for number in range(cells)]
        found = []
        for order in permutations(range(cells + 1)):
            scores = {name: spread([value / 10]) for name, value in zip([*names, "found"], order, strict=True)}
            (row,) = against_random(scores, names, dict.fromkeys(scores, (0,)))
            assert (row["entrant"], row["random"], row["as_good"]) == ("found", cells, cells - order[-1])
            found.append(row["p"])
        for step in range(1, cells + 2):
            share = sum(p <= step / (cells + 1) + 1e-9 for p in found) / len(found)
            assert share == pytest.approx(step / (cells + 1))


def test_equal_scores_count_against_the_entrant_and_the_difference_is_that_from_the_mean():
    scores = {"a": spread([0.5, 0.7]), "r1": spread([0.6, 0.6]), "b": None, "r2": spread([0.4, 0.4]), "r3": None,
              "r4": spread([0.9])}  # trained once so far
    cells, seeds = ["r1", "r2", "r3", "r4"], {"a": [0, 1], "r1": [1, 0], "b": [], "r2": {0, 1}, "r3": [], "r4": [0]}
    (row,) = against_random(scores, cells, seeds)
    assert (row["entrant"], row["random"], row["as_good"], row["p"]) == ("a", 2, 1, pytest.approx(2 / 3))
    assert (row["difference"], row["deviation"]) == (pytest.approx(0.1), pytest.approx(0.02 ** 0.5))
    assert "1 of 2 random cells are as good or better" in row["summary"] and "p = 0.67" in row["summary"]
    assert "+10.0 points" in row["summary"] and "14.1 (standard deviation)" in row["summary"]
    assert against_random(scores, [], seeds) == []
    assert [row["random"] for row in against_random(scores, cells, seeds | {"r2": [1, 2]})] == [1]  # other seeds


def test_rounding_breaks_no_ties():
    """Equal numbers of right images at several strengths, in another order, are equal accuracies."""
    random = np.random.default_rng(0)
    for trial in range(40):
        hits = random.integers(1, IMAGES, 3)
        turned = random.permutation(hits)
        one, other = ({0: counted(IMAGES, *numbers.tolist())} for numbers in (hits, turned))
        first_, second = (over_seeds(training)["average robust"] for training in (one, other))
        assert first_["mean"] == second["mean"], trial
        row, = against_random({"a": first_, "random": second}, ["random"], {"a": [0], "random": [0]})
        assert row["as_good"] == 1
        assert {row["values"][0] for row in paired(one, other) if row["measure"] == "average robust"} <= {0.0}


def test_trainings_at_chance_teach_nothing_about_the_noise_of_others():
    """Beside entrants that learned nothing, and are all alike, the others' noise is what it was without them."""
    learned = [{seed: counted(clean, clean - 1) for seed, clean in enumerate(row)}
               for row in ((30, 40, 35), (38, 33, 41))]
    idle = [{seed: counted(5, 5) | {"chance": 0.1, "clean": counted(5)["clean"] | {"interval": [0.02, 0.2]}}
             for seed in range(3)} for _ in range(4)]
    assert noises([*learned, *idle]) == noises(learned) and noises(idle) == {}
    above = [{seed: row | {"clean": row["clean"] | {"interval": [0.15, 0.2]}} for seed, row in one.items()}
             for one in idle]
    assert noises([*learned, *above])["clean"].deviation < noises(learned)["clean"].deviation
