"""The ten small networks of the studies of attacks, and the study of whole curves: what is stored is about what."""

import json
from types import SimpleNamespace

import pytest
import torch

from studies import ten_networks, whole_curve
from wsrnas.data.datasets import load_dataset
from wsrnas.runtime.errors import InputError

NAME = "digits, PGD 16/255"


@pytest.fixture
def few(monkeypatch):
    """A quick training: twenty digits, of a folder that the data's path names by a seed."""
    monkeypatch.setattr(ten_networks, "EPOCHS", 1)
    monkeypatch.setattr(ten_networks, "load_dataset", lambda name, data, max_train=0, max_test=0, seed=0: load_dataset(
        "digits", max_train=20, max_test=20, seed=int(data)))
    monkeypatch.setattr(ten_networks, "networks_of", lambda seed: {NAME: ten_networks.NETWORKS[NAME]})


def test_a_network_is_that_of_its_images(few, tmp_path):
    first = ten_networks.network(NAME, "0", tmp_path).state_dict()
    stored = ten_networks.network(NAME, "0", tmp_path).state_dict()
    assert all(torch.equal(first[name], stored[name]) for name in first)
    with pytest.raises(InputError, match=r"0\.pt is no network that was trained on the images of 1"):
        ten_networks.network(NAME, "1", tmp_path)


@pytest.mark.parametrize("damage", [b"abc", b""])
def test_a_damaged_network_is_one_sentence(damage, few, tmp_path):
    (tmp_path / "0.pt").write_bytes(damage)
    with pytest.raises(InputError, match=r"0\.pt"):
        ten_networks.network(NAME, "0", tmp_path)


def test_images_that_are_not_those_of_cifar_are_refused(monkeypatch):
    monkeypatch.setattr(ten_networks, "load_dataset", lambda *given, **named: SimpleNamespace(
        image_shape=(3, 16, 16), num_classes=10))
    with pytest.raises(InputError, match=r"DATA holds 10 classes of images \(3, 16, 16\); expected CIFAR-10"):
        ten_networks.images_of(ten_networks.NETWORKS["plain, no noise"], "DATA", 20)


def test_stored_results_are_shown_for_their_network_and_images_alone(few, tmp_path, monkeypatch, capsys):
    measured = []

    def compare(judge, norm):
        measured.append(norm)
        return {"accuracies": [50.0, 40.0], "passes": [1, 2]}

    monkeypatch.setattr(whole_curve, "networks_of", ten_networks.networks_of)
    monkeypatch.setattr(whole_curve, "compare_fixed", compare)

    def start(data):
        monkeypatch.setattr("sys.argv", ["whole_curve", "--data", data, "--networks", str(tmp_path / f"networks{data}"),
                                         "--out", str(tmp_path / "out"), "--images", "20", "--fixed"])
        whole_curve.main()
        return capsys.readouterr().out

    assert start("0") == start("0") and measured == ["linf", "l2"]
    with pytest.raises(InputError, match=r"fixed-0-linf-20\.json is about another network or other images"):
        start("1")
    files = list((tmp_path / "out").glob("*.json"))
    assert len(files) == 2 and all(json.loads(file.read_text())["of"]["network"] == NAME for file in files)


def test_rows_say_accuracies_and_passes():
    found = {"a, linf": {"accuracies": [50.0, 40.25], "passes": [1, 2]}}
    assert whole_curve.lines(found) == ["| a, linf | 50.00 | 40.25 | 1 | 2 |"]
    assert whole_curve.smallest_strengths([{"epsilon": e, "robust": r} for e, r in ((0.1, "110"), (0.2, "010"))]
                                          ).tolist() == [0.2, float("inf"), 0.1]
    curve, clean = SimpleNamespace(strengths=(0.1, 0.2)), torch.tensor([True, True, False])
    entry = whole_curve.entry(torch.tensor([0.15, float("inf"), 0.3]).double(), clean, 7, curve)
    assert entry == {"area": pytest.approx(100 * (0.75 + 1 + 0) / 3), "right": [2, 1], "passes": 7}
