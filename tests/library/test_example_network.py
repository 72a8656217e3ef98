"""The study of the example network of pyautoattack: a finished file of results stays as it is."""

import json
from types import SimpleNamespace

import pytest
import torch

import studies.example_network as study
from wsrnas.runtime.errors import InputError


class Judge(SimpleNamespace):
    """An evaluation of images that all withstand."""

    def robust(self, attack, rows):
        return torch.ones(self.images, dtype=torch.bool)


def test_results_of_all_images_are_resumed_and_not_appended_to(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "BATCH", 10)
    monkeypatch.setattr(study, "directly", lambda model, images, labels: torch.zeros(len(labels), dtype=torch.bool))
    loader = SimpleNamespace(images_at=lambda parts: [(torch.zeros(len(rows), 3, 8, 8), rows) for rows in parts])
    file, judge = tmp_path / "flags.json", Judge(images=25, loader=loader)
    found = [study.both(judge, torch.nn.Identity(), file, "these", lambda: False) for _ in range(2)]
    assert [len(flags) for flags in found[1]] == [25, 25] and found[0] == found[1]
    assert json.loads(file.read_text()) == {"image_set": "these", "withstand": found[0]}
    assert study.different(found[0]) == list(range(25))
    others = study.both(Judge(images=15, loader=loader), torch.nn.Identity(), file, "others", lambda: False)
    assert [len(flags) for flags in others] == [15, 15]
    assert json.loads(file.read_text())["image_set"] == "others"


def test_images_that_are_not_those_of_cifar_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "example", torch.nn.Identity)
    monkeypatch.setattr(study, "load_dataset", lambda *given, **named: SimpleNamespace(
        image_shape=(3, 8, 8), num_classes=10))
    monkeypatch.setattr("sys.argv", ["example_network", "--data", "DATA", "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"10 classes of images \(3, 8, 8\); expected CIFAR-10, 10 classes of"):
        study.main()
