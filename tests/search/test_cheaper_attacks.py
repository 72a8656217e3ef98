"""The study of cheaper attacks on D_v: what each attack begins at, what is compared, and that it resumes."""

import sys

import numpy as np
import pytest
import torch

import search.wsr_nas as program
from search.rankings.bench import build_bench
from search.rankings.trained import open_trained
from studies import cheaper_attacks
from studies.cheaper_attacks import Attack, attacks, compared, image_losses, measure
from studies.fewer_images import image_losses as plain_losses
from wsrnas.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The images and the supernet of a tiny search."""
    folder = tmp_path_factory.mktemp("studied")
    program.main(["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3",
                  "--init_channels", "2", "--num_steps", "1", "--max_train", "120", "--batch_size", "15",
                  "--train_only", "--warmup_architectures", "1", "--runs", str(folder), "--save", "run"])
    return build_bench(open_trained(folder / "search/run", ""), 20, (0.05, 0.1), 3, 1, 10, 0, World())


def test_the_reference_comes_first_and_the_others_are_cheaper():
    assert [attack.name for attack in attacks(7)] == [
        "PGD-7", "PGD-5", "PGD-3", "PGD-2", "PGD-1", "PGD-1, random start", "PGD-1, continued", "PGD-2, continued"]
    assert [attack.steps for attack in attacks(3)] == [3, 2, 1, 1, 1, 2]


def test_attacks_begin_where_they_say(bench):
    supernet = bench.trained.build(True, torch.device("cpu"))
    supernet.use(bench.space.gates(bench.space.sample(1, torch.Generator().manual_seed(1))[0]).view(bench.space.shape))
    usual, made = image_losses(bench, supernet, Attack(3), None)
    assert torch.equal(usual, plain_losses(bench, supernet))
    from_clean = image_losses(bench, supernet, Attack(1, continued=True), None)[0]
    assert torch.equal(from_clean, image_losses(bench, supernet, Attack(1), None)[0])
    kept = image_losses(bench, supernet, Attack(0, continued=True), made)[1]  # no step leaves the beginning
    assert len(kept) == len(made) and all(map(torch.equal, kept, made))
    # The random start is that of the batch: the same for every architecture.
    twice = [image_losses(bench, supernet, Attack(1, random_start=True), None)[0] for _ in range(2)]
    assert torch.equal(*twice) and not torch.equal(twice[0], from_clean)


def test_a_study_resumes_with_the_same_numbers(bench, tmp_path):
    chosen = attacks(3)
    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        folder.mkdir()
    whole = measure(bench, chosen, 3, folders[0])
    assert whole.shape == (3, 6, 20, 3) and len(list(folders[0].glob("before-*"))) == 1
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
