"""The study of the example network of pyautoattack: a finished file of results stays as it is."""

import json
from types import SimpleNamespace

import torch

import studies.example_network as study


class Judge(SimpleNamespace):
    """An evaluation of images that all withstand."""

    def robust(self, attack, rows):
        return torch.ones(self.images, dtype=torch.bool)


def test_results_of_all_images_are_resumed_and_not_appended_to(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "BATCH", 10)
    monkeypatch.setattr(study, "directly", lambda model, images, labels: torch.zeros(len(labels), dtype=torch.bool))
    loader = SimpleNamespace(images_at=lambda parts: [(torch.zeros(len(rows), 3, 8, 8), rows) for rows in parts])
    file, judge = tmp_path / "flags.json", Judge(images=25, loader=loader)
    found = [study.both(judge, torch.nn.Identity(), file, lambda: False) for _ in range(2)]
    assert [len(flags) for flags in found[1]] == [25, 25] and found[0] == found[1] == json.loads(file.read_text())
    assert study.different(found[0]) == list(range(25))
