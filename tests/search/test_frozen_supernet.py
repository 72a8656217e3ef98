"""A supernet is trained once and searched by others: nothing of it changes, and nothing else is searched."""

import json
import math
import os
import signal

import pytest
import torch

from search.frozen_supernet import FrozenSupernet
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, learning_rate, schedule
from tests.killed import Killed
from tests.run_files import assert_equal, read, without_time
from tests.search.small_search import SMALL, start, state_of
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError, Preempted

pytestmark = pytest.mark.usefixtures("quick_programs")

SUPERNET = ["--save", "supernet", "--train_only", "--warmup_architectures", "3", "--path_every", "step",
            "--adv_loss", "fast"]
SEARCH = ["--save", "run", "--iterations", "2", "--seed", "7"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run directory of a supernet that was only trained."""
    return start(tmp_path_factory.mktemp("trained"), *SUPERNET) / "supernet"


@pytest.fixture(scope="module")
def searched(trained, tmp_path_factory):
    """A search on it, with another seed."""
    return start(tmp_path_factory.mktemp("searched"), *SEARCH, "--supernet", str(trained)) / "run"


@pytest.mark.parametrize("moment", ["before a step", "in a measurement"])
def test_a_signal_stops_a_search_that_trains_nothing(trained, searched, tmp_path, monkeypatch, moment):
    asked, original = [], Searcher.recalibrate

    def recalibrate(self, step):
        if step.index == 1 and moment == "in a measurement":
            os.kill(os.getpid(), signal.SIGTERM)
            asked.append(step.index)
        original(self, step)

    def update(self, step, original=Searcher.update_architecture):
        found = original(self, step)
        if step.index == 1 and moment == "before a step":
            os.kill(os.getpid(), signal.SIGTERM)
            asked.append(step.index)
        return found

    with monkeypatch.context() as context:
        context.setattr(Searcher, "recalibrate", recalibrate)
        context.setattr(Searcher, "update_architecture", update)
        with pytest.raises(Preempted, match="the steps before it are saved"):
            start(tmp_path, *SEARCH, "--supernet", str(trained))
    assert asked == [1] and len(read(tmp_path / "search/run")) == (1 if moment == "in a measurement" else 2)
    assert_equal(without_time(read(start(tmp_path, *SEARCH, "--supernet", str(trained)) / "run")),
                 without_time(read(searched)))


def test_only_the_supernet_is_trained(trained):
    rows = read(trained)
    assert [row["phase"] for row in rows] == ["warm-up"] * 3
    assert all(set(row["passes"]) == {"train"} == set(row["seconds"]) for row in rows)
    assert (trained / "FINISHED").read_text() == f"supernet trained; search on it with --supernet {trained}\n"
    assert not (trained / "genotype.json").exists() and (trained / "report.html").exists()
    assert len(state_of(trained)["loss_memory"]) == 0


def test_the_learning_rate_of_a_supernet_alone_is_half_a_cosine_over_its_epochs():
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *SUPERNET, "--warmup_architectures", "4"])
    rates = [learning_rate(config, step) for step in schedule(config)]
    assert rates == [1e-3 + (0.05 - 1e-3) * (1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)]


def test_a_search_leaves_the_weights_of_its_supernet_alone(trained, searched):
    before, after = state_of(trained)["supernet"], state_of(searched)["supernet"]
    weights = [name for name in before if not name.startswith("alphas") and "running" not in name
               and "num_batches" not in name]
    assert weights and all(torch.equal(before[name], after[name]) for name in weights)
    assert not torch.equal(before["alphas_cell"], after["alphas_cell"])
    rows = read(searched)
    assert [row["phase"] for row in rows] == ["population", "search", "search"]
    for row in rows:
        assert "train" not in row and "train" not in row["passes"] and "train" not in row["seconds"]
        assert row["losses"] and row["loss_estimator"]["measured_objective"] > 0
    assert (searched / "split.json").read_bytes() == (trained / "split.json").read_bytes()  # not those of its seed
    assert "| train loss" not in (searched / "log.txt").read_text() and (searched / "genotype.json").exists()


def test_a_search_measures_what_the_supernet_learned(trained, searched, tmp_path):
    """The same search on a supernet of other weights finds other losses; on the same, in another place, the same."""
    other = start(tmp_path, *SUPERNET, "--weight_decay", "0.1")
    (other / "supernet").rename(tmp_path / "other")
    again = start(tmp_path, *SEARCH, "--supernet", str(tmp_path / "other")) / "run"
    assert [row["losses"] for row in read(again)] != [row["losses"] for row in read(searched)]
    trained_elsewhere = tmp_path / "elsewhere"
    trained_elsewhere.symlink_to(trained)
    same = start(tmp_path / "same", *SEARCH, "--supernet", str(trained_elsewhere)) / "run"
    assert without_time(read(same)) == without_time(read(searched))


def test_an_interrupted_search_on_a_supernet_is_the_uninterrupted_one(trained, searched, tmp_path):
    argv = [*SEARCH, "--supernet", str(trained)]
    with pytest.raises(Killed):
        start(tmp_path, *argv, kill=2)
    run = start(tmp_path, *argv) / "run"
    assert_equal(state_of(run), state_of(searched))
    assert without_time(read(run)) == without_time(read(searched))


def test_an_interrupted_training_of_a_supernet_is_the_uninterrupted_one(trained, tmp_path):
    with pytest.raises(Killed):
        start(tmp_path, *SUPERNET, kill=2)
    run = start(tmp_path, *SUPERNET) / "supernet"
    assert_equal(state_of(run), state_of(trained))


def test_a_dry_run_costs_no_training(trained, tmp_path, capsys):
    start(tmp_path, *SEARCH, "--supernet", str(trained), "--dry_run")
    said = capsys.readouterr().out
    assert "steps: 3 measurements (1 population, 2 search) without training" in said
    assert f"training paths: none, the supernet is that of {trained}" in said
    start(tmp_path, *SUPERNET, "--dry_run")
    said = capsys.readouterr().out
    assert "steps: 3 epochs (3 warm-up) of 2 batches" in said and "passes: 180 images forward and backward, 0 " in said


@pytest.mark.parametrize("argv, said", [
    (["--init_channels", "4"], "is another supernet .init_channels: 2 there, 4 here.; expected the same values"),
    (["--space", "darts", "--layers", "6"], "space: nas-bench-201 there, darts here; layers: 3 there, 6 here"),
    (["--max_train", "80"], "was trained on other images .number of training images, pixels differ.; expected the"),
    (["--train_only"], "train_only is set, but so is supernet"),
    (["--supernet", "nowhere"], "--supernet is nowhere; expected the run directory of a search with checkpoint.pt"),
])
def test_what_does_not_fit_the_supernet_is_refused(trained, tmp_path, argv, said):
    with pytest.raises(InputError, match=said):
        start(tmp_path, *SEARCH, "--supernet", str(trained), *argv)
    assert not (tmp_path / "search").exists()


def copied(trained, tmp_path):
    """A copy of a supernet's run directory, without its older checkpoint."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "inputs.json", "split.json", "checkpoint.pt"):
        (copy / name).write_bytes((trained / name).read_bytes())
    return copy


def test_a_run_knows_its_images_also_when_its_supernet_is_gone(trained, tmp_path):
    """A search on a search on a supernet; the middle one has another seed than its images."""
    first = copied(trained, tmp_path)
    middle = start(tmp_path, *SEARCH, "--supernet", str(first)) / "run"
    first.rename(tmp_path / "moved")
    assert FrozenSupernet(middle).seed == FrozenSupernet(trained).seed == 0
    start(tmp_path, *SEARCH, "--seed", "9", "--save", "last", "--supernet", str(middle))
    older = json.loads((middle / "split.json").read_text())
    (middle / "split.json").write_text(json.dumps({name: older[name] for name in ("format", "first", "second")}))
    with pytest.raises(InputError, match=r"has the images of the run .*copy, which is not there any more"):
        start(tmp_path, *SEARCH, "--save", "none", "--supernet", str(middle))
    (tmp_path / "moved").rename(first)
    assert FrozenSupernet(middle).seed == 0


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_a_damaged_supernet_is_refused_before_a_run_directory_is_made(trained, tmp_path, dry):
    copy = copied(trained, tmp_path)
    (copy / "checkpoint.pt").write_bytes((copy / "checkpoint.pt").read_bytes()[:-500])
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        start(tmp_path, *SEARCH, "--supernet", str(copy), *dry)
    assert not (tmp_path / "search").exists()


def test_a_search_is_not_resumed_on_a_supernet_that_has_changed(trained, searched, tmp_path):
    copy = copied(trained, tmp_path)
    with pytest.raises(Killed):
        start(tmp_path, *SEARCH, "--supernet", str(copy), kill=2)
    (copy / "checkpoint.pt").write_bytes((trained / "checkpoint.previous.pt").read_bytes())
    with pytest.raises(InputError, match=r"made from other inputs \(supernet\)"):
        start(tmp_path, *SEARCH, "--supernet", str(copy))
    stored = json.loads((tmp_path / "search" / "run" / "config.json").read_text())
    assert stored["supernet"] == str(copy)
