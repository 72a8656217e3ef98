"""The benchmark of a search iteration: what it counts, adds up and refuses; nothing about speed."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks import search_iteration
from benchmarks.clock import Clock
from benchmarks.iteration_phases import (
    IMAGES,
    Iteration,
    PublishedIteration,
    Scale,
    columns,
    percent_per_strength,
    published_columns,
)
from benchmarks.published_procedure import PublishedSearch, repetitions
from benchmarks.published_supernet import PublishedSupernet
from search.supernet import Supernet
from search.wsr_nas_settings import PRESETS
from wsrnas.complexity import count_parameters
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

PHASES = {"train": 100.0, "recalibrate": 2.0, "validate": 70.0, "validate/attack": 40.0, "validate/estimate": 2.0,
          "check": 4.0, "remember_noise": 3.0, "train_estimator": 1.0, "train_losses": 5.0}
ESTIMATES = {"estimate_once": 2.0, "estimate_twice": 3.5}


def clock(**seconds):
    made = Clock(torch.device("cpu"))
    made.cpu.update({name.replace("estimate_3", "estimate 3"): value for name, value in seconds.items()})
    return made


def test_the_published_procedure_makes_as_many_passes_as_were_counted_in_its_code():
    counts = repetitions(3, 3, IMAGES)
    training = 391 * 8  # the smaller last batch counts as a whole one there
    assert counts["train"] == pytest.approx(391, abs=0.5)
    assert training + 7 * (counts["attack"] + counts["attack_for_tasks"]) == 14_356
    assert 2 * counts["judge"] + 2 * 391 == 5_462


def test_without_estimated_strengths_nothing_is_attacked_for_an_estimator():
    counts = repetitions(6, 0, IMAGES)
    assert counts["attack"] == 6 * 390
    assert counts["attack_for_tasks"] == counts["tasks"] == counts["estimate"] == counts["train_estimator"] == 0


def test_the_published_supernet_has_the_size_of_the_published_one():
    assert count_parameters(PublishedSupernet(16, 8, 10)) == 1_930_618


@pytest.mark.parametrize("number", range(3))
def test_both_supernets_are_the_same_function_of_a_path(number):
    torch.manual_seed(number)
    ours, theirs = Supernet(2, 6).double(), PublishedSupernet(2, 6, 10).double()
    for own, other in zip(ours.weight_parameters(), theirs.parameters(), strict=True):
        other.data.copy_(own.data)
    theirs.sample(torch.Generator().manual_seed(number))
    ours.use(torch.stack([theirs.weights(kind) for kind in range(2)]).double())
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(theirs(images), ours(images))


def test_the_parts_of_the_published_procedure_train_what_they_should():
    search = PublishedSearch(2, 3, 10, torch.device("cpu"))
    search.supernet.sample(torch.Generator().manual_seed(0))
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    before = [parameter.clone() for parameter in search.supernet.parameters()]
    search.train(images, labels)
    assert any(not torch.equal(a, b) for a, b in zip(before, search.supernet.parameters(), strict=True))
    noise = search.attack(images, labels, 0.03) - images
    assert 0.029 < noise.abs().max() < 0.0301
    alphas = [alpha.clone() for alpha in search.supernet.alphas]
    search.train_losses(1)
    search.move()
    assert all(not torch.equal(a, b) for a, b in zip(alphas, search.supernet.alphas, strict=True))


def test_every_phase_belongs_to_one_column():
    found = columns(PHASES)
    assert found == {"adversarial_training": 102, "attacks": 40, "searcher": 33, "estimator": 10}
    assert sum(found.values()) == sum(seconds for name, seconds in PHASES.items() if "/" not in name)


def test_an_estimated_strength_costs_its_estimate_its_pass_and_its_check():
    assert percent_per_strength(PHASES | ESTIMATES, 3, 3) == pytest.approx(100 * ((1.5 + 4) / 3 + 28 / 7) / 185)


def test_the_published_parts_add_up_to_the_columns():
    found = published_columns(clock(train=1, attack=1, judge=1, clean=1, estimate_3=1, tasks=1, train_estimator=1,
                                    train_losses=1, move=1), 3, 3)
    assert sum(found.values()) == sum(repetitions(3, 3, IMAGES).values())


def test_presets_are_compared_with_the_published_procedure_for_as_many_strengths():
    found = {name: tuple(search_iteration.divisions(PRESETS[name]).values()) for name in search_iteration.NAMES}
    assert found == {"paper": ((3, 3), (3, 3), (6, 0)), "plus": ((3, 8), (6, 5), (11, 0)), "naive-6": ((6, 0),) * 3,
                     "naive-11": ((11, 0),) * 3, "wide": ((3, 13), (8, 8), (16, 0))}


def test_a_ratio_compares_turns_on_the_same_path():
    slow, fast = ({name: factor * value for name, value in PHASES.items()} for factor in (2, 1))
    parts = [clock(train=2.0, move=0), clock(train=1.0, move=0), clock(train=1.0, move=0)]
    found = search_iteration.summarize({"naive-6": [slow, fast, fast]}, parts)
    assert found["ratio"]["naive-6"] == pytest.approx(390.625 / 185)
    assert found["seconds"]["naive-6"]["attacks"] == 40
    assert "naive-6" not in found["percent_per_estimated_strength"]
    assert "published 6 + 0" in search_iteration.table(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "wide"])
def test_the_phases_of_a_small_iteration_are_scaled_to_the_papers_data(name):
    quick = replace(PRESETS[name], layers=1, num_steps=1, loss_passes=5, estimator_memory=20)
    iteration = Iteration(quick, Scale(64 / IMAGES, 1 / 16, fewest_checked=10), World())
    phases = iteration.phases(iteration.run(0))
    assert {"train", "validate", "validate/attack", "validate/estimate", "check", "move"} <= set(phases)
    validated = quick.max_validation or IMAGES
    assert iteration.factors() == {"train": 390, "recalibrate": 10, "check": 10, **dict.fromkeys(
        ("validate", "estimate_once", "estimate_twice"), validated / 64)}
    assert phases["estimate_once"] > 0 and phases["estimate_twice"] > 0
    assert 0 < phases["validate/attack"] < phases["validate"]


@pytest.mark.parametrize("targets", [set(), {0, 2}])
def test_every_part_of_the_published_procedure_is_timed(targets):
    published = PublishedIteration(Scale(1, 1 / 16), targets, World())
    published.search = search = PublishedSearch(1, 3, 10, torch.device("cpu"))
    published.images, published.labels = published.images[:4], published.labels[:4]
    search.train_losses, search.train_estimator = partial(search.train_losses, 1), lambda: None
    parts = set(published.run(0).cpu)
    assert parts == {"train", "attack", "tasks", "judge", "clean", "train_estimator", "train_losses", "move",
                     *(f"estimate {count}" for count in targets - {0})}


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_writes_its_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Iteration, "run", lambda self, turn: clock(**{"train": 1.0, "validate": 2.0}))
    monkeypatch.setattr(PublishedIteration, "run", lambda self, turn: clock(train=1.0, attack=1.0))
    phases = {"validate/attack": 1.0}
    monkeypatch.setattr(Iteration, "phases", lambda self, made: made.cpu | phases)
    search_iteration.main(["--preset", "naive-6", "--scale", "0.001", "0.1", "--turns", "1",
                           "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "a")])
    assert "| naive-6 | 1.0 | 1.0 | 1.0 | 0.0 | 3.0 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["ratio"]) == {"naive-6"} and found["scale"] == {"data": 0.001, "width": 0.1}
    assert (tmp_path / "a.svg").exists() and (tmp_path / "a.png").exists()


@pytest.mark.parametrize("flags", [["--scale", "0"], ["--scale", "0.1", "2"], ["--scale", "1", "1", "1"],
                                   ["--turns", "0"], ["--threads", "0"], ["--preset", "small"]])
def test_wrong_flags_are_refused(flags):
    with pytest.raises(InputError, match=flags[0]):
        search_iteration.main(flags)
