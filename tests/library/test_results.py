"""From flags of images to accuracies, averages and areas, and to tables that say them."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.caveats import caveats, chance, is_at_chance, leader
from wsrnas.evaluation.check_levels import was_checked
from wsrnas.evaluation.honesty import choose_images
from wsrnas.evaluation.results import (
    average_robust,
    check_lines,
    difference_table,
    differences,
    flags_of,
    measure,
    normalised_area,
    official_table,
    table,
)

IMAGES = 200


def first(count: int) -> Tensor:
    return torch.arange(IMAGES) < count


class Known:
    """An evaluation whose answers are known: an attack leaves fewer images the stronger it is."""

    images, seed, name = IMAGES, 0, "known"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.lines = scale, []
        self.log = self.lines.append

    def clean(self) -> Tensor:
        return first(180)

    def robust(self, attack, among: Tensor) -> Tensor:
        assert among.tolist() == list(range(180)), "images that are wrong as they are were attacked"
        return first(int(180 - self.scale * 600 * (attack.epsilon or 0)))

    def cost(self, attack) -> tuple[float, list[str]]:
        return 1.26, ["odd"] if attack.method == "square" else []

    def passes_of(self, attack) -> tuple[float, float] | None:
        return (self.scale * attack.steps, 0.5) if attack else (0.0, 1.0)


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    """The honesty checks have tests of their own."""
    rows = [{"check": "a", "passed": True, "says": "fine", "numbers": {}},
            {"check": "b", "passed": False, "says": "bad", "numbers": {}},
            {"check": "c", "passed": None, "says": "no source", "numbers": {}}]
    monkeypatch.setattr("wsrnas.evaluation.results.honesty_checks", lambda *a: rows)


ATTACKS = [at_strength(parse_attack(name), e) for name in ("fgsm", "pgd-20", "square-50") for e in (0.05, 0.1, 0.2)]


def measured(scale: float = 1.0, image_set: str = "same", **arguments) -> dict:
    return {**measure(Known(scale), ATTACKS, 50, **arguments), "image_set": image_set}


def test_the_result_of_known_flags():
    kept: list[dict] = []
    result = measured(keep=kept.append)
    assert result["clean"]["accuracy"] == 0.9 and result["clean"]["robust"] == "1" * 180 + "0" * 20
    assert [row["accuracy"] for row in result["attacks"]] == pytest.approx([0.75, 0.6, 0.3] * 3)
    for row, attack in zip(result["attacks"], ATTACKS, strict=True):
        assert row["interval"][0] < row["accuracy"] < row["interval"][1] and row["seconds"] == 1.3
        assert (row["attack"], row["epsilon"], row["steps"]) == (attack.label, attack.epsilon, attack.steps)
        assert np.array_equal(flags_of(row), first(round(200 * row["accuracy"])).numpy())
    assert result["failed_checks"] == ["b"] and result["warnings"] == ["odd"] and result["complete"]
    assert [len(part["attacks"]) for part in kept] == list(range(1, 10))
    assert not any(part["complete"] or part["checks"] for part in kept)


def test_without_checks_a_result_is_complete_and_says_that_none_ran():
    result = measured(level="none")
    assert result["complete"] and result["check_level"] == "none" and result["checks"] == result["failed_checks"] == []
    assert check_lines(result) == ["  none, as --checks none asks"]
    assert (was_checked(result, "none"), was_checked(result, "quick")) == (True, False)
    assert measured()["check_level"] == "full" and was_checked({}, "full"), "older results had all checks"
    assert not was_checked({"check_level": "quick"}, "full") and not was_checked({"check_level": "?"}, "none")


def test_the_checks_are_given_correct_images_a_strength_and_all_flags(monkeypatch):
    given = []
    monkeypatch.setattr("wsrnas.evaluation.results.honesty_checks", lambda *arguments: given.append(arguments) or [])
    known = Known(1.4)
    known.seed = 3
    measure(known, ATTACKS, 50)
    (part, rows), = given
    assert part.level == "full"
    assert part.evaluation is known
    assert part.images.equal(choose_images(first(180), 50, 3)) and len(part.images) == 50
    assert part.strength == 0.1, "PGD's accuracies are 0.69, 0.48 and 0.06, half the clean one is 0.45"
    assert [(attack, int(flags.sum())) for attack, flags in rows] == list(zip(ATTACKS, [138, 96, 12] * 3, strict=True))


def test_the_longest_series_of_one_linf_pgd_is_averaged():
    """Whatever else was measured, and in whatever order."""
    counts = [("pgd-7", 0.1, 190), ("pgd-20", 0.2, 40), ("pgd-l2-20", 0.1, 190), ("pgd-20", 0.05, 160),
              ("pgd-l2-20", 0.2, 190), ("pgd-7", 0.2, 190), ("pgd-20", 0.1, 100), ("pgd-l2-20", 0.5, 190),
              ("pgd-l2-20", 2.0, 190), *(("mim-20", e, 190) for e in (0.1, 0.2, 0.3, 0.4))]
    flags = [(at_strength(parse_attack(name), e), first(count)) for name, e, count in counts]
    average = average_robust(flags)
    assert average["accuracy"] == pytest.approx((160 + 100 + 40) / 600)
    assert [name.split()[2] for name in average["over"]] == ["0.0500", "0.1000", "0.2000"]
    area = normalised_area(first(200), flags)
    assert area["value"] == pytest.approx((0.05 * (1 + 0.8) / 2 + 0.05 * (0.8 + 0.5) / 2 + 0.1 * (0.5 + 0.2) / 2) / 0.2)
    assert average_robust(flags[:3]) is None and average_robust([]) is None


def test_the_average_is_of_pgd_alone_and_its_interval_of_images_not_of_attacks():
    average = measured()["average_robust"]
    assert average["accuracy"] == pytest.approx((0.75 + 0.6 + 0.3) / 3)
    assert average["over"] == [f"PGD-20  eps {e:.4f} ({255 * e:.4g}/255)" for e in (0.05, 0.1, 0.2)]
    scores = np.mean([first(n).numpy() for n in (150, 120, 60)], axis=0)
    width = 2 * 1.96 * scores.std() / np.sqrt(IMAGES)
    assert average["interval"][1] - average["interval"][0] == pytest.approx(width, rel=0.06)
    assert average_robust([(ATTACKS[3], first(10))]) is None, "one strength is no average"


def test_the_area_is_the_trapezoids():
    area = measured()["area"]
    expected = (0.05 * (0.9 + 0.75) / 2 + 0.05 * (0.75 + 0.6) / 2 + 0.1 * (0.6 + 0.3) / 2) / 0.2
    assert area["value"] == pytest.approx(expected) and area["up_to"] == 0.2
    assert area["interval"][0] < expected < area["interval"][1]
    everything = [(attack, first(IMAGES)) for attack in ATTACKS[3:6]]
    assert normalised_area(first(IMAGES), everything)["value"] == pytest.approx(1.0)
    nothing = [(attack, first(0)) for attack in ATTACKS[3:6]]
    assert normalised_area(first(0), nothing)["value"] == 0
    assert normalised_area(first(5), everything[:1]) is None


def test_the_table_shows_every_number():
    said = table({"searched": measured(), "initial": measured(1.4)}).splitlines()
    assert [line[:3] for line in said[:5]].count("!!!") == 4, "a failed and a missing check of each"
    text = "\n".join(said[4:])
    rows = [re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", line) for line in text.splitlines()[2:-1]]
    assert all(len(row) == 2 for row in rows) and len(rows) == 1 + 9 + 2
    assert [row[0][0] for row in rows] == ["90.00", *["75.00", "60.00", "30.00"] * 3, "55.00", "60.00"]
    assert rows[2][1][0] == "48.00"
    assert all(float(low) < float(value) < float(high) for row in rows for value, low, high in row)
    header, *others = text.splitlines()
    assert header.split() == ["searched", "initial"]
    assert "PGD-20  eps 0.0500 (12.75/255)" in text and "200 test images, with 95 % intervals" in others[-1]
    assert len({len(line) for line in (header, *others[:-1])}) == 1, "the columns are not aligned"


@pytest.mark.slow
def test_attacks_that_only_one_network_met_have_a_gap_in_the_table():
    other = measured()
    other["attacks"] = [{**row, "source": "abc"} if row["attack"] == "FGSM" else row for row in other["attacks"]]
    lines = table({"a": measured(), "b": other}).splitlines()
    found = {line.split("  ")[0]: line.split()[-1] for line in lines if line.startswith("FGSM")}
    assert found["FGSM"] == "-" and found["FGSM from abc"] != "-" and sum("FGSM" in line for line in lines) == 6
    assert not any("FGSM" in row["attack"] for row in differences({"a": measured(), "b": other}))


def test_numbers_over_other_strengths_are_neither_subtracted_nor_in_one_row():
    every = measured()
    fewer = copy.deepcopy(every)
    pgd = [row for row in fewer["attacks"] if row["method"] == "pgd"]
    fewer["attacks"] = [row for row in fewer["attacks"] if row is not pgd[-1]]
    again = {"average_robust": fewer["average_robust"] | {"over": fewer["average_robust"]["over"][:-1]},
             "area": fewer["area"] | {"up_to": pgd[-2]["epsilon"]}}
    fewer |= again
    rows = [row["attack"] for row in differences({"a": every, "b": fewer})]
    assert "clean" in rows and "average robust" not in rows and "area" not in rows
    assert "average robust" in [row["attack"] for row in differences({"a": every, "b": copy.deepcopy(every)})]
    lines = [line for line in table({"a": every, "b": fewer}).splitlines() if line.startswith(("average", "area"))]
    assert len(lines) == 4 and all(line.split()[-1] == "-" or line.count("-  ") or " - " in line for line in lines)
    none = fewer | {"average_robust": None, "area": None, "images": fewer["images"] - 1}
    text = table({"a": every, "b": none})
    assert re.search(r"^test images +200 +199$", text, re.MULTILINE) and "accuracy in % of the test images" in text
    assert table({"b": none, "a": every})  # whichever comes first


def test_attacks_of_one_name_with_other_steps_are_two_attacks():
    first = measured()
    other = copy.deepcopy(first)
    for row in other["attacks"]:
        if row["method"] == "pgd":
            row["step_size"] = row["epsilon"] / 2
    rows = [row["attack"] for row in differences({"a": first, "b": other})]
    assert "clean" in rows and not [attack for attack in rows if attack.startswith("PGD")] and "area" not in rows
    assert sum(line.startswith("PGD") and ", steps of " in line for line in table({"a": first, "b": other}).splitlines()
               ) == 2 * sum(row["method"] == "pgd" for row in first["attacks"])


@pytest.mark.slow
def test_differences_are_paired_and_only_of_the_same_images():
    rows = differences({"a": measured(), "b": measured(1.4), "c": measured(1.4, image_set="others")})
    assert {(row["name"], row["against"]) for row in rows} == {("b", "a")} and len(rows) == 12
    clean, *attacks = rows
    assert [row["attack"] for row in attacks[-2:]] == ["average robust", "area"]
    assert attacks[-2]["difference"] == pytest.approx(-0.14)
    assert clean["difference"] == 0 and clean["interval"][0] < 0 < clean["interval"][1]
    assert [row["difference"] for row in attacks[:3]] == pytest.approx([-0.06, -0.12, -0.24])
    assert all(row["interval"][0] <= row["difference"] <= row["interval"][1] < 0 for row in attacks)
    text = difference_table(rows).splitlines()
    assert text[0].startswith("b - a  clean: +0.00 points") and not text[0].endswith("*")
    assert text[1].startswith("b - a  FGSM  eps 0.0500 (12.75/255): -6.00 points") and text[1].endswith("*")
    better = difference_table(differences({"a": measured(1.4), "b": measured()})).splitlines()
    assert better[1].startswith("b - a  FGSM  eps 0.0500 (12.75/255): +6.00 points [+") and better[1].endswith("*")


def test_a_network_at_chance_is_said_to_show_nothing_before_the_table():
    above = {**measured(level="none"), "chance": 0.5}
    below = {**above, "chance": 0.86}  # 180 of 200 images are right: 90 % [85.5, 94.0]
    assert not is_at_chance(above) and is_at_chance(below) and not is_at_chance(measured())
    first, second, third, header, *_ = table({"a": above, "b": below}).splitlines()
    assert first.startswith("!!! a: no honesty check ran (--checks none)")
    assert second.startswith("!!! b: the clean accuracy, 90.0 % [85.5, 94.") and "not above chance (86.0 %)" in second
    assert third.startswith("!!! b: no honesty check ran") and header.split() == ["a", "b"]


def test_checks_that_failed_or_did_not_run_are_said_before_the_table():
    lines = table({"a": measured()}).splitlines()
    assert lines[0].startswith("!!! a: 1 honesty check(s) FAILED") and lines[1] == (
        "!!! a: 1 of 3 honesty checks did not run: c")
    assert not caveats({**measured(), "failed_checks": [], "checks": measured()["checks"][:1]})


def test_chance_is_the_most_frequent_class():
    assert chance([0, 0, 0, 1], 4) == 0.75 and chance([0, 1, 2, 3], 4) == 0.25 and chance([0, 1], 10) == 0.5


@pytest.mark.parametrize("ranked, told, at_chance, found, words", [
    ("ab", {"ab"}, "", True, "a"), ("abc", {"ab"}, "", False, "a ranks first, but is not distinct from c"),
    ("abcde", {"ab"}, "", False, "a ranks first, but is not distinct from 3 others"),
    ("ab", {"ab"}, "a", False, "a ranks first, but its clean accuracy is not above chance"),
    ("ab", {"ab"}, "b", True, "a"), ("a", set(), "", False, "a has no rival"),
    ("", set(), "", False, "no network is evaluated yet"),
])
def test_only_who_differs_from_all_others_leads(ranked, told, at_chance, found, words):
    assert leader(ranked, lambda one, other: one + other in told, at_chance) == (found, words)


def test_failed_checks_are_loud():
    lines = check_lines(measured())
    assert [line.split()[0] for line in lines] == ["passed", "FAILED", "not", "!!!", "1"]
    assert "only upper" in lines[-2] and "bad" in lines[1]
    assert len(check_lines({**measured(), "failed_checks": []})) == 4


def test_the_published_way_is_said_with_its_difference():
    row = {"epsilon": 0.03, "published_way": 0.5, "honest": 0.4, "difference": 0.1, "interval": [0.05, 0.15]}
    assert official_table([row]) == ("  eps 0.0300 (7.65/255): published way 50.00 %, honest 40.00 %, difference "
                                     "+10.00 points [+5.0, +15.0]")
