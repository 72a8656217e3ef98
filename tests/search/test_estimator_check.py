"""The check of the AN-Estimator inside the search: its numbers, its decision, and what a fallback changes."""

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import search.wsr_nas_parts
import search.wsr_nas_searcher
from search.bound import Bound
from search.strategy.estimator_check import estimator_gap
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, schedule
from tests.processes import run_twice
from wsrnas.attacks import attack_mode, pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.splits import balanced_split
from wsrnas.estimators import build_estimator
from wsrnas.estimators.base import NoiseEstimator
from wsrnas.runtime.distributed import World, initialize, shutdown
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_data")

CONFIG = replace(PRESETS["tiny"], strategy="wsr-paper", output="argmax", space="nas-bench-201", init_channels=2,
                 layers=3, num_steps=2, max_train=120,
                 max_validation=20, batch_size=20, learning_rate=0.1, recalibration_batches=2, eval_batch_size=8,
                 check_images=13, num_pgd_strengths=1, num_estimated_strengths=4, attacked_strengths=(0.06,),
                 estimator="C-ANE", strengths=(0.02, 0.06, 0.1, 0.15, 0.25), strength_weights=(1 / 5,) * 5)
OTHERS = (0.02, 0.1, 0.15, 0.25)
NAMES = ("eps_0.02", "eps_0.1", "eps_0.15", "eps_0.25")
STEP = schedule(CONFIG)[4]


class Nothing(NoiseEstimator):
    """An estimator that sees no noise anywhere."""

    def forward(self, source_noises, images, source_epsilons, target_epsilons):
        return images.new_zeros(len(images), len(target_epsilons), *images.shape[1:])


class Itself(NoiseEstimator):
    """PGD under an estimator's name: its sources are already the noises that were asked for."""

    def more_sources(self, model, images, labels, source_noises, source_epsilons, target_epsilons):
        noises = [pgd(model, images, labels, e, steps=CONFIG.num_steps) - images for e in target_epsilons]
        return torch.stack(noises, 1), target_epsilons

    def forward(self, source_noises, images, source_epsilons, target_epsilons):
        return source_noises


def make_searcher(made=None, world=None, **changes):
    """A searcher with a path and the weights of its initialisation; ``made`` in place of the estimator it asks for."""
    config, world = replace(CONFIG, **changes), world or World()
    data = load_dataset("digits", "data", max_train=config.max_train, seed=0)
    with pytest.MonkeyPatch.context() as context:
        if made is not None:
            context.setattr(search.wsr_nas_parts, "build_estimator", lambda *arguments: made)
        searcher = Searcher(config, data, balanced_split(data.train.labels, 0.5, 0, data.num_classes), world)
    searcher.sample(STEP)
    return searcher


@pytest.fixture(scope="module")
def trained():
    """A searcher that has learnt enough for noise to cost accuracy."""
    searcher = make_searcher(init_channels=4, epsilon=0.03)
    for _ in range(8):
        searcher.train_supernet(STEP)
    searcher.recalibrate(STEP)
    return searcher


def with_estimator(searcher, estimator, monkeypatch, gap=0.0):
    monkeypatch.setattr(searcher, "estimator", estimator)
    monkeypatch.setattr(searcher, "config", replace(searcher.config, max_estimator_gap=gap))
    return searcher.check_estimator(STEP)[0]


def direct(searcher, loader):
    """(maker, loss or correct, strength) means over a set, one strength at a time: C-ANE and PGD.

    In the loader's batches: a rounding error that turns a gradient's sign is not what is tested.
    """
    targets, estimator, rows = torch.tensor(OTHERS), build_estimator("C-ANE"), []
    for images, labels in loader.batches():
        first = pgd(searcher.supernet, images, labels, 0.06, steps=2) - images
        noises, epsilons = estimator.more_sources(searcher.supernet, images, labels, first.unsqueeze(1),
                                                  torch.tensor([0.06]), targets)
        assert noises.shape[1] > 1
        estimated = estimator(noises, images, epsilons, targets).unbind(1)
        attacked = [pgd(searcher.supernet, images, labels, epsilon, steps=2) - images for epsilon in OTHERS]
        with attack_mode(searcher.supernet), torch.no_grad():
            logits = [searcher.supernet(images + noise) for noise in (*estimated, *attacked)]
        rows.append(torch.stack([torch.tensor([F.cross_entropy(column, labels, reduction="sum"),
                                               (column.argmax(1) == labels).sum()]) for column in logits]))
    return (sum(rows) / len(loader.image_set)).reshape(2, len(OTHERS), 2).transpose(1, 2)


# -- the numbers ----------------------------------------------------------------------------------------------------

def test_the_gap_is_positive_where_the_estimate_is_weaker():
    estimated, attacked = torch.tensor([[4.0, 9.0], [8.0, 3.0]]), torch.tensor([[6.0, 8.0], [6.0, 4.0]])
    gap = estimator_gap((0.03, 0.1), estimated, attacked, 10)
    assert gap == {
        "images": 10, "mean_gap": pytest.approx(0.05), "largest_gap": pytest.approx(0.2), "largest_gap_at": 0.03,
        "gap": {"eps_0.03": pytest.approx(0.2), "eps_0.1": pytest.approx(-0.1)},
        "loss_gap": {"eps_0.03": pytest.approx(0.2), "eps_0.1": pytest.approx(-0.1)},
        "estimated_accuracy": {"eps_0.03": pytest.approx(0.8), "eps_0.1": pytest.approx(0.3)},
        "pgd_accuracy": {"eps_0.03": pytest.approx(0.6), "eps_0.1": pytest.approx(0.4)}}
    assert json.loads(json.dumps(gap)) == gap


def test_of_equal_gaps_the_weakest_strength_is_named():
    sums = torch.tensor([[1.0, 1, 1], [5, 7, 7]]), torch.tensor([[1.0, 1, 1], [5, 4, 4]])
    assert estimator_gap((0.1, 0.2, 0.3), *sums, 10)["largest_gap_at"] == 0.2


@pytest.mark.slow
def test_the_check_is_a_direct_computation(trained):
    row, shown = trained.check_estimator(STEP)
    (estimated_loss, estimated), (pgd_loss, attacked) = direct(trained, trained.check_loader).tolist()
    assert row["images"] == 13 and row["attacked"] == [0.06] and "fallback" not in row
    assert row["estimated_accuracy"] == pytest.approx(dict(zip(NAMES, estimated, strict=True)))
    assert row["pgd_accuracy"] == pytest.approx(dict(zip(NAMES, attacked, strict=True)))
    gaps = [a - b for a, b in zip(estimated, attacked, strict=True)]
    assert list(row["gap"].values()) == pytest.approx(gaps, abs=1e-6)
    assert row["mean_gap"] == pytest.approx(sum(gaps) / 4) and row["largest_gap"] == pytest.approx(max(gaps))
    loss_gaps = [b - a for a, b in zip(estimated_loss, pgd_loss, strict=True)]
    assert list(row["loss_gap"].values()) == pytest.approx(loss_gaps, abs=1e-4)
    assert max(map(abs, loss_gaps)) > 1e-3, "nothing to tell apart"
    assert shown["images"].shape == (3, 3, 8, 8)
    assert shown["pgd"].shape == shown["estimated"].shape == (3, 3, 3, 8, 8)
    assert shown["epsilons"] == pytest.approx(OTHERS[:3])


@pytest.mark.slow
def test_validation_uses_the_networks_own_sources(trained):
    measured = trained.validate(STEP)
    expected = direct(trained, trained.validation_loader)
    columns = [1, 3, 4, 5]  # natural first; 0.06, the second strength, is PGD's
    assert measured["losses"][columns].numpy() == pytest.approx(expected[0, 0].numpy(), rel=1e-4)
    assert measured["accuracies"][columns].numpy() == pytest.approx(expected[0, 1].numpy())


@pytest.mark.slow
def test_every_class_is_checked():
    with pytest.raises(InputError, match="check_images is 9; expected 0 or at least one image of each of the 10"):
        make_searcher(max_validation=0, check_images=9)
    searcher = make_searcher(max_validation=0, check_images=10)
    checked, whole = searcher.check_loader.image_set, searcher.validation_loader.image_set
    assert torch.bincount(checked.labels, minlength=10).tolist() == [1] * 10
    pixels = {image.numpy().tobytes() for image in whole.images}
    assert all(image.numpy().tobytes() in pixels for image in checked.images)
    searcher = make_searcher(check_images=1000)
    assert len(searcher.check_loader.image_set) == len(searcher.validation_loader.image_set) == 20


@pytest.mark.slow
def test_the_check_changes_nothing(trained):
    state = {key: value.clone() for key, value in trained.supernet.state_dict().items()}
    before, modes = torch.get_rng_state(), [module.training for module in trained.supernet.modules()]
    first, again = trained.check_estimator(STEP), trained.check_estimator(STEP)
    assert torch.equal(before, torch.get_rng_state()) and first[0] == again[0]
    assert all(np.array_equal(first[1][name], again[1][name]) for name in first[1])
    assert all(torch.equal(value, state[key]) for key, value in trained.supernet.state_dict().items())
    assert modes == [module.training for module in trained.supernet.modules()]
    assert all(parameter.requires_grad for parameter in trained.supernet.parameters())


# -- the decision ---------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_pgd_itself_has_no_gap_and_no_estimate_has_a_large_one(trained, monkeypatch):
    itself = with_estimator(trained, Itself(), monkeypatch, gap=1e-9)
    assert set(itself["gap"].values()) == {0.0} and "fallback" not in itself
    assert max(map(abs, itself["loss_gap"].values())) < 1e-6
    nothing = with_estimator(trained, Nothing(), monkeypatch, gap=1e-9)
    assert len(set(nothing["estimated_accuracy"].values())) == 1  # that of the images as they are
    assert nothing["mean_gap"] > 0.02 and nothing["fallback"] == nothing["largest_gap_at"]
    assert nothing["gap"][f"eps_{nothing['fallback']:.4g}"] == nothing["largest_gap"]
    assert all(gap > 0 for gap in nothing["loss_gap"].values())


@pytest.mark.slow
def test_a_gap_of_the_tolerated_number_of_images_is_not_above_it_and_ties_are_ties():
    for left in range(96):
        sums = torch.tensor([[0.0], [left + 5.0]]), torch.tensor([[0.0], [float(left)]])
        assert estimator_gap((0.1,), *sums, 100)["largest_gap"] == 0.05, left
    two = torch.tensor([[0.0, 0.0], [30.0, 55.0]]), torch.tensor([[0.0, 0.0], [25.0, 50.0]])
    assert estimator_gap((0.1, 0.2), *two, 100)["largest_gap_at"] == 0.1


@pytest.mark.parametrize(("text", "expected"), [("rel:0.6", 0.3 + 0.6 * 0.25), ("0.3", 0.3)])
def test_a_relative_bound_follows_the_vulnerabilities_when_they_are_moved(text, expected):
    bound = Bound.parse(text)
    searcher = SimpleNamespace(
        config=SimpleNamespace(strengths=(0.1, 0.2), bound=lambda: bound, estimator_memory=3), attacked=[0], anchors=(),
        loss_memory=(), bounds=torch.tensor([0.3, 0.3]), predictions=[], estimator_step=0, _divide=lambda indices: None)
    with contextlib.suppress(AttributeError, TypeError):  # the schedule that follows needs a whole search
        Searcher.attack_too(searcher, 0.2, [0.1, 0.25], SimpleNamespace(index=0))
    assert searcher.bounds.tolist() == pytest.approx([0.3, expected])


def test_the_largest_gap_decides_and_zero_only_reports(trained, monkeypatch):
    row = with_estimator(trained, Nothing(), monkeypatch)
    assert row["mean_gap"] < row["largest_gap"]
    cases = [with_estimator(trained, Nothing(), monkeypatch, share * row["largest_gap"]) for share in (0, 1, 0.99)]
    assert ["fallback" in case for case in cases] == [False, False, True]


@pytest.mark.slow
def test_a_fallback_moves_one_strength_to_pgd():
    searcher = make_searcher(estimator="A-ANE", estimator_images=2, estimator_memory=50, estimator_passes=3,
                             estimator_batch_size=2, warmup_architectures=2, iterations=3)
    assert searcher.estimator_total == 3 * sum(2 * n for n in range(1, 6))  # 2 images of 2 tasks more in every round
    searcher.update_estimator_memory(STEP)
    searcher.train_estimator(STEP)
    taken = searcher.estimator_step
    assert len(searcher.estimator_memory) == 4 and taken == 6
    searcher.attack_too(0.25, [0.5], schedule(searcher.config)[2])  # the first of five rounds: four remain
    assert (searcher.attacked, searcher.estimated) == ([1, 4], [0, 2, 3])
    assert searcher.source_epsilons.tolist() == pytest.approx([0.06, 0.25])
    assert searcher.target_epsilons.tolist() == pytest.approx([0.02, 0.1, 0.15])
    assert len(searcher.estimator_memory) == 0 and searcher.estimator_step == taken
    assert searcher.estimator_total == taken + 3 * sum(3 * n for n in range(1, 5))
    searcher.attack_too(0.02, [0.5], STEP)
    assert searcher.attacked == [0, 1, 4] and searcher.source_epsilons.tolist() == pytest.approx([0.02, 0.06, 0.25])
    searcher.update_estimator_memory(STEP)
    assert searcher.estimator_memory["source_noises"].shape[:2] == (8, 3)
    assert searcher.check_estimator(STEP)[0]["attacked"] == [0.02, 0.06, 0.25]


def test_a_fallback_corrects_what_the_loss_memory_holds_of_that_strength():
    searcher = make_searcher()
    losses = torch.arange(6.0)
    for number in range(2):
        searcher.paths = [searcher.supernet.sample(torch.Generator().manual_seed(number))]
        searcher.remember(schedule(searcher.config)[-1], [{"losses": losses + number}])
    assert len(searcher.predictions) == 2
    searcher.attack_too(0.15, [0.25], STEP)
    added = torch.tensor([0, 0, 0, 0, 0.25, 0])  # natural, then 0.02, 0.06, 0.1, 0.15, 0.25
    assert torch.equal(searcher.loss_memory["losses"], torch.stack([losses, losses + 1]) + added)
    assert not searcher.predictions  # they were measured against the weaker estimate


@pytest.mark.slow
def test_all_columns_stay_where_they_are():
    searcher = make_searcher(Itself())
    before = searcher.validate(STEP)
    searcher.attack_too(0.15, [0.0], STEP)
    after = searcher.validate(STEP)  # PGD in another way: the same noise in the same columns
    assert after["losses"].tolist() == pytest.approx(before["losses"].tolist(), abs=1e-4)
    for strength in (0.02, 0.25, 0.1):
        searcher.attack_too(strength, [0.0], STEP)
    assert not searcher.estimated and not searcher.checks and not searcher.learns_to_estimate
    assert searcher.validate(STEP)["losses"].tolist() == pytest.approx(before["losses"].tolist(), abs=1e-4)


@pytest.mark.slow
def test_a_fallback_needs_no_larger_batches(monkeypatch):
    searcher, sizes = make_searcher(), []
    searcher.attack_too(0.15, [0.0], STEP)
    searcher.attack_too(0.25, [0.0], STEP)
    original = search.wsr_nas_searcher.multi_strength_pgd
    monkeypatch.setattr(search.wsr_nas_searcher, "multi_strength_pgd",
                        lambda *a, **k: sizes.append(len(a[1]) * len(a[3])) or original(*a, **k))
    searcher.validate(STEP)
    assert sum(sizes) == 3 * 20 and max(sizes) <= 8  # 20 images in batches of 8 at three strengths


def test_the_state_holds_the_division():
    searcher, other = make_searcher(), make_searcher()
    searcher.attack_too(0.15, [0.0], STEP)
    other.load_state_dict(searcher.state_dict())
    assert (other.attacked, other.estimated) == (searcher.attacked, searcher.estimated) == ([1, 3], [0, 2, 4])
    assert torch.equal(other.target_epsilons, searcher.target_epsilons)
    assert other.estimator_total == searcher.estimator_total


@pytest.mark.slow
def test_an_estimator_without_weights_is_not_trained():
    assert not make_searcher().learns_to_estimate
    assert make_searcher(estimator="A-ANE").learns_to_estimate
    assert make_searcher().checks and not make_searcher(check_images=0).checks


# -- two processes --------------------------------------------------------------------------------------------------

def main(folder):
    world = initialize("cpu")
    torch.manual_seed(world.rank)
    searcher = make_searcher(Nothing(), world, max_estimator_gap=1e-9)
    row, shown = searcher.check_estimator(STEP)
    (folder / f"rank{world.rank}.json").write_text(json.dumps([row, len(shown["images"])]))
    shutdown()


@pytest.mark.slow
def test_two_processes_agree_with_each_other_and_with_one(tmp_path):
    run_twice(main, tmp_path)
    (first, few), (second, _) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second and few == 3
    alone = make_searcher(Nothing(), max_estimator_gap=1e-9).check_estimator(STEP)[0]
    for key in ("images", "attacked", "gap", "pgd_accuracy"):
        assert first[key] == alone[key], key
    assert first["loss_gap"] == pytest.approx(alone["loss_gap"], abs=1e-4)
