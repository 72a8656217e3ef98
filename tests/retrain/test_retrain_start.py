"""How a training begins: on whose images, from whose weights, and as the rest of which earlier training."""


import json

import numpy as np
import pytest
import torch

from retrain import export, train_cifar
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.opening import open_model, package_weights

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--recipe", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "2", "--epochs", "1",
         "--milestones", "1", "--select_steps", "1", "--num_steps", "1", "--batch_size", "8", "--held_out", "20"]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Random pictures in the shape of CIFAR-10."""
    path, draw = tmp_path_factory.mktemp("arrays") / "images.npz", np.random.default_rng(0)
    np.savez(path, x_train=draw.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), y_train=np.arange(60) % 10)
    return path


def start(folder, *flags):
    train_cifar.main([*SMALL, "--runs", str(folder), *flags])


def test_a_network_knows_which_data_set_its_images_are(arrays, tmp_path):
    start(tmp_path, "--dataset", "npz", "--data", str(arrays), "--dataset_name", "cifar10", "--save", "run")
    run = tmp_path / "retrain" / "run"
    for name in ("best.pt", "checkpoint.pt"):
        described = open_model(str(run / name)).description
        assert (described["dataset"], described["dataset_name"]) == ("npz", "cifar10")
    assert json.loads((run / "config.json").read_text())["dataset_name"] == "cifar10"


def test_images_unlike_the_named_data_set_are_refused_before_anything_is_written(arrays, tmp_path):
    with pytest.raises(InputError, match="dataset_name is cifar100, but there are 10 classes"):
        start(tmp_path, "--dataset", "npz", "--data", str(arrays), "--dataset_name", "cifar100")
    assert not list(tmp_path.iterdir())


# -- the weights of another network -----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished training on the digits."""
    folder = tmp_path_factory.mktemp("first")
    start(folder, "--max_train", "61", "--save", "first")
    return folder / "retrain" / "first"


def untrained(folder, monkeypatch, *flags):
    """Return the weights with which a training begins, and what it says."""
    monkeypatch.setattr("retrain.small_images.train_all_epochs", lambda training: seen.append(training.trainer.network))
    seen = []
    start(folder, "--max_train", "61", "--save", "second", *flags)
    return seen[0].state_dict(), (folder / "retrain" / "second" / "log.txt").read_text()


def test_a_training_begins_with_the_weights_of_a_run_or_file(first, tmp_path, monkeypatch):
    weights = torch.load(first / "best.pt", weights_only=True)["model"]
    torch.save({"state_dict": weights}, tmp_path / "mine.pt")
    for number, given in enumerate((first, first / "best.pt", tmp_path / "mine.pt")):
        begun, said = untrained(tmp_path / str(number), monkeypatch, "--init_weights", str(given))
        assert all(torch.equal(begun[name], value) for name, value in weights.items())
        assert "the training begins with the weights in" in said and "the head is new" not in said
    plain, said = untrained(tmp_path / "plain", monkeypatch)
    assert not torch.equal(plain["stem.conv.weight"], weights["stem.conv.weight"]) and "begins with" not in said


def test_a_package_is_named_by_its_folder_and_as_a_network_by_its_function(first, tmp_path, monkeypatch):
    package = tmp_path / "package"
    export.main(["--model", str(first), "--name", "Mine", "--out", str(package)])
    weights = torch.load(first / "best.pt", weights_only=True)["model"]
    begun, said = untrained(tmp_path / "run", monkeypatch, "--init_weights", str(package))
    assert all(torch.equal(begun[name], value) for name, value in weights.items()) and "package/Mine.pt" in said
    with pytest.raises(InputError, match=f"is a package of retrain.export; expected {package}/Mine.py:load"):
        open_model(package)
    assert open_model(f"{package}/Mine.py:load").model is not None
    with pytest.raises(InputError, match=r"a package of retrain\.export; expected a run directory"):
        export.main(["--model", str(package), "--name", "Other", "--out", str(tmp_path / "other")])
    for name in ("", "/", "..", 3):
        (tmp_path / "config.json").write_text(json.dumps({"format": "wsrnas package 1", "python_file": name}))
        assert package_weights(tmp_path) is None
    (package / "Mine.pt").unlink()
    with pytest.raises(InputError, match="no checkpoint at"):
        open_model(package)


def test_a_head_for_other_classes_is_new_and_said(first, tmp_path, monkeypatch):
    weights = torch.load(first / "best.pt", weights_only=True)["model"]
    other = {"classifier.weight": torch.zeros(7, 32), "classifier.bias": torch.zeros(7)}
    torch.save(weights | other, tmp_path / "x.pt")
    begun, said = untrained(tmp_path, monkeypatch, "--init_weights", str(tmp_path / "x.pt"))
    assert all(torch.equal(begun[name], value) for name, value in weights.items() if "classifier" not in name)
    assert "the head is new: classifier.weight is (10, " in said and "and (7, 32) there" in said


@pytest.mark.parametrize(("flags", "said"), [
    (["--init_channels", "4"], r"do not fit WsrNet_Basic with 4 channels and 2 layers: stem\..* has shape"),
    (["--layers", "3"], r"the file lacks cells\..* more\); expected those of the same architecture and size"),
    (["--arch", "resnet18"], "do not fit resnet18"), (["--init_weights", "nowhere"], "no checkpoint at nowhere")])
def test_other_weights_are_refused_in_a_sentence(flags, said, first, tmp_path):
    with pytest.raises(InputError, match=said):
        start(tmp_path, "--max_train", "61", "--init_weights", str(first), *(flags if "resnet18" not in flags else
                                                                            [*flags, "--layers", "0"]))
    assert not list(tmp_path.iterdir())


# -- a longer training ------------------------------------------------------------------------------------------------

def longer(folder, *flags):
    start(folder, "--max_train", "61", "--save", "run", "--schedule", "multi-step", *flags)
    return folder / "retrain" / "run"


def test_a_lengthened_training_is_that_of_so_many_epochs_bit_for_bit(tmp_path, capsys):
    more = ["--epochs", "2", "--milestones", "1"]
    whole, run = longer(tmp_path / "whole", *more), longer(tmp_path / "parts")
    assert (run / "FINISHED").exists()
    longer(tmp_path / "parts", *more, "--extend")
    for name in ("checkpoint.pt", "best.pt"):
        here, there = (torch.load(place / name, weights_only=True) for place in (run, whole))
        assert here["step"] == there["step"]
        assert all(torch.equal(here["model"][key], value) for key, value in there["model"].items())
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2 and (run / "FINISHED").exists()
    capsys.readouterr()
    longer(tmp_path / "parts", *more, "--extend")  # as a job that is started again
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "said"), [
    (["--schedule", "cosine", "--milestones", "4", "5"],  # those of the recipe: given, and not changed
     "learning rate of the schedule cosine depends .* --init_weights .* --epochs 4"),
    (["--drop_path", "0.1"], "the drop-path rate rises"), (["--epochs", "0"], "epochs is 0"),
    (["--learning_rate", "0.2"], "another configuration .learning_rate"),
    (["--save", "other"], "holds none; leave --extend out"), (["--overwrite"], "cannot be given together")])
def test_a_run_that_cannot_be_lengthened_says_why(flags, said, first):
    before = {path: path.read_bytes() for path in first.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=said):
        start(first.parents[1], "--max_train", "61", "--save", "first", "--epochs", "5", "--extend", *flags)
    assert {path: path.read_bytes() for path in first.iterdir() if path.is_file()} == before
