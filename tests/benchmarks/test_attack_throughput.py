"""The comparison of attacks: how images are compared, and what it refuses; nothing about speed."""

import json

import pytest
import torch

from benchmarks import attack_throughput
from benchmarks.clock import Clock, by_turns, median
from wsrnas.runtime.errors import InputError


def test_images_are_compared_pixel_by_pixel_in_units_of_epsilon():
    ours = torch.zeros(1, 1, 2, 2)
    other = torch.tensor([0.0, 0.02, 0.0, 0.0]).view(1, 1, 2, 2)
    found = attack_throughput.agreement(ours, other, 0.01)
    assert found == {"equal_pixels": 0.75, "largest_difference": pytest.approx(2)}


def test_the_first_turn_is_not_kept():
    calls = []
    clocks = by_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 2, torch.device("cpu"))
    assert calls == list("ababab") and [len(turns) for turns in clocks.values()] == [2, 2]


def test_an_outer_phase_counts_its_inner_ones():
    clock = Clock(torch.device("cpu"))
    with clock("outer"), clock("inner"):
        pass
    assert set(clock.cpu) == set(clock.wall) == {"outer", "outer/inner"}
    assert clock.wall["outer"] >= clock.wall["outer/inner"]
    assert clock.seconds is clock.cpu and median([clock], "outer") == clock.cpu["outer"]


def test_the_comparison_prints_and_writes_every_library(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(attack_throughput, "installed", lambda: [])
    attack_throughput.main(["--arch", "resnet18", "--batch", "2", "--steps", "1", "--turns", "1", "--json",
                            str(tmp_path / "attacks.json")])
    printed = capsys.readouterr().out
    assert "not installed: torchattacks, foolbox" in printed and "| resnet18 | ours |" in printed
    found = json.loads((tmp_path / "attacks.json").read_text())
    assert found["networks"]["resnet18"]["ours"]["equal_pixels"] == 1


@pytest.mark.parametrize("flags", [["--batch", "0"], ["--epsilon", "1"], ["--turns", "0"],
                                   ["--json", "nowhere/attacks.json"]])
def test_wrong_flags_are_refused(flags):
    with pytest.raises(InputError, match=flags[0]):
        attack_throughput.main(flags)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="nothing_like_it"):
        attack_throughput.main(["--arch", "nothing_like_it"])
