"""The study of cheaper attacks on D_v: what each attack begins at, what is compared, and that it resumes."""

import argparse
import sys

import numpy as np
import pytest
import torch

import search.wsr_nas as program
from search.rankings.bench import build_bench, use_path
from search.rankings.inherited import inherited
from search.rankings.trained import open_trained
from studies import cheaper_attacks, fewer_images
from studies.cheaper_attacks import Attack, attacked_losses, attacks, compared, measure
from studies.fewer_images import attacked_losses as plain_losses
from studies.supernet_paths import open_bench
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.batch_norm import recalibrate_batch_norm

TINY = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
        "--num_steps", "1", "--max_train", "120", "--batch_size", "15", "--train_only", "--warmup_architectures", "1"]

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The images and the supernet of a tiny search."""
    folder = tmp_path_factory.mktemp("studied")
    program.main([*TINY, "--runs", str(folder), "--save", "run"])
    return build_bench(open_trained(folder / "search/run", ""), 20, (0.05, 0.1), 3, 1, 10, 0, World())


def test_the_reference_comes_first_and_the_others_are_cheaper():
    assert [attack.name for attack in attacks(7)] == [
        "PGD-7", "PGD-5", "PGD-3", "PGD-2", "PGD-1", "PGD-1, random start", "PGD-1, continued", "PGD-2, continued"]
    assert [attack.steps for attack in attacks(3)] == [3, 2, 1, 1, 1, 2]


def test_attacks_begin_where_they_say(bench):
    supernet = bench.trained.build(True, torch.device("cpu"))
    supernet.use(bench.space.gates(bench.space.sample(1, torch.Generator().manual_seed(1))[0]).view(bench.space.shape))
    usual, made = attacked_losses(bench, supernet, Attack(3), None)
    assert torch.equal(usual, plain_losses(bench, supernet))
    from_clean = attacked_losses(bench, supernet, Attack(1, continued=True), None)[0]
    assert torch.equal(from_clean, attacked_losses(bench, supernet, Attack(1), None)[0])
    kept = attacked_losses(bench, supernet, Attack(0, continued=True), made)[1]  # no step leaves the beginning
    assert len(kept) == len(made) and all(map(torch.equal, kept, made))
    # The random start is that of the batch: the same for every architecture.
    twice = [attacked_losses(bench, supernet, Attack(1, random_start=True), None)[0] for _ in range(2)]
    assert torch.equal(*twice) and not torch.equal(twice[0], from_clean)


def test_a_study_resumes_with_the_same_numbers(bench, tmp_path):
    chosen = attacks(3)
    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        folder.mkdir()
    whole = measure(bench, chosen, 3, folders[0])
    assert whole.shape == (3, 6, 20, 3) and len(list(folders[0].glob("*-before-*"))) == 1
    measure(bench, chosen, 2, folders[1])
    np.testing.assert_array_equal(measure(bench, chosen, 3, folders[1]), whole)


def test_rankings_are_compared_with_the_reference():
    order = np.array([0.0, 1.0, 2.0, 3.0])
    losses = np.zeros((4, 3, 10, 2))
    losses[:, 0] = order[:, None, None]
    losses[:, 1] = -order[:, None, None]
    losses[:, 2, :5] = order[:, None, None]  # half of the images rank, the others hinder
    losses[:, 2, 5:] = -0.5 * order[:, None, None]
    rows = compared(losses, [Attack(7), Attack(1), Attack(2, continued=True)], lambda means: means.mean(-1), 2)
    assert [row["tau"] for row in rows] == [1, -1, 1]
    assert [row["tau, other images"] for row in rows] == [1, -1, 0]
    assert [row["passes"] for row in rows] == [13, 1, 4]
    assert rows[0]["loss"] == 1.5


def test_the_program_prints_a_row_for_each_attack(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study", "--run", str(bench.trained.path), "--out", str(tmp_path / "out"),
                                      "--architectures", "3", "--images", "20", "--num_steps", "2"])
    cheaper_attacks.main()
    said = capsys.readouterr().out
    assert "3 architectures, 20 images" in said and said.count("attack PGD-") == 5
    assert (tmp_path / "out/cheaper_attacks.json").exists()


@pytest.mark.parametrize(("words", "said"), [
    (["--architectures", "9"], "architectures is 9; expected at least 10"),
    (["--images", "499"], "images is 499; expected at least 500")])
def test_too_few_to_rank_are_refused(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["study", "--run", "RUN", "--out", str(tmp_path / "out"), *words])
    with pytest.raises(InputError, match=said):
        fewer_images.main()


def test_there_are_at_least_as_many_batches_as_in_the_search(bench, monkeypatch):
    asked = []

    def stop(*given):
        asked.append(given[4])
        raise InputError("enough")

    monkeypatch.setattr("studies.supernet_paths.build_bench", stop)
    arguments = argparse.Namespace(run=bench.trained.path, data="", images=20, num_steps=0)
    usual = bench.trained.config.recalibration_batches
    for count in (0, 1, usual + 30):
        with pytest.raises(InputError, match="enough"):
            open_bench(arguments, count)
    assert asked == [usual, usual, usual + 30]


def opened(run):
    arguments = argparse.Namespace(run=run, data="", images=20, num_steps=0)
    return open_bench(arguments)


@pytest.mark.parametrize(("flags", "words"), [
    (["--objective", "sensitive"], "minimises sensitive, which needs more than losses; expected a run"),
    (["--size_weight", "0.1"], "minimises robust with size_weight, which needs more than losses"),
])
def test_an_objective_of_more_than_losses_is_refused(flags, words, tmp_path):
    program.main([*TINY, *flags, "--runs", str(tmp_path), "--save", "run"])
    with pytest.raises(InputError, match=words):
        opened(tmp_path / "search/run")


def test_a_study_measures_as_the_search_does(tmp_path):
    program.main([*TINY, "--num_steps", "2", "--validation_steps", "1", "--runs", str(tmp_path), "--save", "run"])
    assert opened(tmp_path / "search/run")[0].num_steps == 1


def test_few_shot_supernets_measure_each_path_with_the_weights_of_its_operation(bench, tmp_path):
    program.main([*TINY, "--path_every", "step", "--supernet", str(bench.trained.path), "--few_shot_edge", "0",
                  "--runs", str(tmp_path), "--save", "family"])
    family = build_bench(open_trained(tmp_path / "search/family", ""), 20, (0.05,), 1, 1, 10, 0, World())
    supernet = family.trained.build(True, torch.device("cpu"))
    choices = family.space.sample(1, torch.Generator().manual_seed(1))[0]
    for operation in range(len(family.space.operations)):
        choices[0] = operation
        use_path(family, supernet, choices)
        recalibrate_batch_norm(supernet, iter(family.recalibration), World())
        found = attacked_losses(family, supernet, Attack(1), None)[0].mean(0)
        assert found.tolist() == pytest.approx(inherited(family)(choices, lambda: False)["losses"], rel=1e-5)
