"""Attacks at several strengths that spare the images that fell at a smaller one: the same answers, fewer passes."""

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

from tests.killed import Killed, Mortal
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import PROTOCOLS, custom_attacks
from wsrnas.evaluation.results import flags_of, measure, passes_line

IMAGES, CLASSES = 40, 5
STRENGTHS = (0.006, 0.02, 0.04)
SPARING = [name for name, entry in ATTACKS.items() if entry.spares_the_fallen]


@pytest.fixture(autouse=True)
def no_checks(monkeypatch):
    monkeypatch.setattr("wsrnas.evaluation.results.honesty_checks", lambda *arguments: [])


class Counting(nn.Module):
    """It counts every image that it sees: [with a gradient, without]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES), head)
        self.seen = [0, 0]

    def forward(self, images: Tensor) -> Tensor:
        self.seen[not images.requires_grad] += len(images)
        return self.model(images)


class Waves(nn.Module):
    """Logits that come and go."""

    def forward(self, logits: Tensor) -> Tensor:
        return (30 * logits).sin()


def evaluation(batch_size: int = 16, head: nn.Module | None = None, **arguments) -> Evaluation:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(60, 196, (IMAGES, 3, 4, 4), generator=draw, dtype=torch.uint8)
    model = Counting(head or nn.Identity()).eval()
    with torch.no_grad():
        model.model[-2].bias -= model.model(pixels / 255).mean(0)
        labels = model.model(pixels / 255).argmax(1)
    labels[::9] = (labels[::9] + 1) % CLASSES  # some are wrong without noise
    return Evaluation(model, BatchLoader(ImageSet(pixels, labels), 7, 0, "test"), CLASSES, batch_size=batch_size,
                      log=lambda line: None, **arguments)


def everywhere(name: str) -> tuple[Attack, ...]:
    """The attack at several strengths in each of its norms; steps of the whole strength overshoot."""
    forms = [name + norm for norm in ("", "-l2")[:len(ATTACKS[name].norms)]]
    short = [form + ("-3" if ATTACKS[name].steps else "") for form in forms]
    return custom_attacks(short, STRENGTHS, [4 * strength for strength in STRENGTHS], 1.0)


def measured(attacks, measured_by: Evaluation, spare_fallen: bool = True) -> dict:
    return measure(measured_by, attacks, 30, spare_fallen=spare_fallen)


@pytest.mark.parametrize("name", SPARING)
def test_flags_are_those_of_all_images_where_a_fallen_image_stays_fallen(name):
    attacks = everywhere(name)
    every, spared = measured(attacks, evaluation(), False), measured(attacks, evaluation())
    count = len(STRENGTHS)
    for begin in range(0, len(attacks), count):
        flags = [flags_of(row) for row in every["attacks"][begin:begin + count]]
        clean = flags_of(every["clean"])
        standing = clean
        for row, independent in zip(spared["attacks"][begin:begin + count], flags, strict=True):
            attacked = standing.sum() / IMAGES
            more = 10 * (name == "curve")  # how many steps follow FMN's depends on what it finds
            assert 3 * attacked - 1e-9 <= row["passes"][0] <= (3 + more) * attacked + 1e-9, "a fallen image"
            assert attacked - 1e-9 <= row["passes"][1] <= (1 + more / 5) * attacked + 1e-9
            standing = standing & independent
            assert flags_of(row).tolist() == standing.tolist()
        assert standing.sum() < flags[0].sum() < clean.sum()
    assert sum(spared["passes"]) < sum(every["passes"])


def test_a_fallen_image_stays_fallen_where_a_stronger_attack_overshoots():
    attacks = custom_attacks(["pgd-1"], [0.02, 0.1, 0.3], [], 1.0)
    flags = [flags_of(row) for row in measured(attacks, evaluation(head=Waves()), False)["attacks"]]
    assert any((large > small).any() for small, large in itertools.pairwise(flags)), "nothing to see here"
    spared = [flags_of(row) for row in measured(attacks, evaluation(head=Waves()))["attacks"]]
    assert all((large <= small).all() for small, large in itertools.pairwise(spared))


@pytest.mark.parametrize("name", ["fgsm", "noise-2", "square-20"])
def test_attacks_that_do_not_allow_it_see_every_image_at_every_strength(name):
    attacks = custom_attacks([name], STRENGTHS, STRENGTHS)
    every, spared = measured(attacks, evaluation(), False), measured(attacks, evaluation())
    assert [row["robust"] for row in every["attacks"]] == [row["robust"] for row in spared["attacks"]]
    assert every["passes"] == spared["passes"]


def test_another_attack_or_norm_does_not_spare_an_image():
    attacks = custom_attacks(["pgd-3", "pgd-2", "pgd-l2-3", "cw-linf-3"], STRENGTHS[:1], STRENGTHS[:1])
    assert measured(attacks, evaluation())["passes"] == measured(attacks, evaluation(), False)["passes"]


def test_the_protocols_of_the_papers_attack_every_image_at_every_strength():
    assert {name for name, protocol in PROTOCOLS.items() if protocol.spares_the_fallen} == {
        "curve", "spectrum", "custom"}


@pytest.mark.parametrize("name", ["pgd-3x2", "mim-2", "noise-3", "square-30", "apgd-ce", "fgsm"])
def test_passes_are_those_that_the_network_saw(name):
    judge = evaluation()
    result = measured(custom_attacks([name], STRENGTHS[1:2], [0.1]), judge)
    assert [IMAGES * passes for passes in result["passes"]] == pytest.approx(judge.model.seen)
    assert f"{result['passes'][0]:.1f} forward with backward" in passes_line(result)


def test_a_killed_evaluation_of_survivors_goes_on_where_it_was(tmp_path):
    def plain(result: dict) -> list:
        return [(row["robust"], row["passes"]) for row in result["attacks"]] + [result["passes"]]

    attacks = everywhere("pgd")
    whole = plain(measured(attacks, evaluation(journal=Journal(tmp_path / "whole", {}))))
    for kill in (3, 5, 8, 11):
        mortal = Mortal(tmp_path / str(kill), {}, chunks=kill)
        with pytest.raises(Killed):
            measured(attacks, evaluation(journal=mortal))
        assert plain(measured(attacks, evaluation(journal=Journal(tmp_path / str(kill), {})))) == whole
        files = {path.name for path in (tmp_path / "whole").iterdir()}
        lines = [sum(len((tmp_path / folder / name).read_text().splitlines()) for name in files)
                 for folder in ("whole", str(kill))]
        assert lines[0] == lines[1], "a chunk was measured twice"


def test_a_protocol_that_attacks_everything_first_saves_the_other_one_all_passes(tmp_path):
    attacks = everywhere("pgd")
    measured(attacks, evaluation(journal=Journal(tmp_path, {})), False)
    again = evaluation(journal=Journal(tmp_path, {}))
    result = measured(attacks, again)
    assert again.model.seen == [0, 0]
    fresh = measured(attacks, evaluation())
    assert [row["robust"] for row in result["attacks"]] == [row["robust"] for row in fresh["attacks"]]
    assert result["passes"] == pytest.approx(fresh["passes"]), "passes are those of the images that were asked for"


def test_chunks_that_do_not_say_their_passes_leave_them_unknown(tmp_path):
    attack, = custom_attacks(["pgd-3"], [0.03], [])
    judge = evaluation(journal=Journal(tmp_path, {}))
    measured([attack], judge)
    for path in tmp_path.glob("pgd*"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "passes"}) + "\n" for row in rows))
    result = measured([attack], evaluation(journal=Journal(tmp_path, {})))
    assert result["passes"] is None and result["attacks"][0]["passes"] is None and "not known" in passes_line(result)
