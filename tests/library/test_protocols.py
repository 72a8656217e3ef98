"""Attacks by their short names, and the parameters that the papers give."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from docs.write_tables import TABLES
from retrain.evaluate_settings import EvaluateConfig
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack, at_strength, attack_of, parse_attack
from wsrnas.evaluation.attack_table import ATTACKS, AttackEntry, AttackTask
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import custom_attacks, protocol_attacks
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.errors import InputError


@pytest.mark.parametrize("text, method, norm, steps, restarts, label", [
    ("fgsm", "fgsm", "linf", 0, 1, "FGSM"), ("fgsm-l2", "fgsm", "l2", 0, 1, "FGSM L2"),
    ("pgd", "pgd", "linf", 20, 1, "PGD-20"), ("PGD-7", "pgd", "linf", 7, 1, "PGD-7"),
    ("pgd-50x10", "pgd", "linf", 50, 10, "PGD-50x10"), ("pgd-l2-40x2", "pgd", "l2", 40, 2, "PGD-40x2 L2"),
    ("mim-10", "mim", "linf", 10, 1, "MIM-10"), ("cw-l2", "cw-l2", "l2", 100, 1, "C&W-100 L2"),
    ("cw-linf-30x5", "cw-linf", "linf", 30, 5, "C&W margin-30x5"),
    ("noise-3", "noise", "linf", 3, 1, "random noise-3"),
    ("transfer", "transfer", "linf", 20, 1, "transfer PGD-20"), ("apgd-ce", "apgd-ce", "linf", 0, 1, "APGD-CE"),
    ("autoattack-l2", "autoattack", "l2", 0, 1, "AutoAttack L2"),
    ("apgd-ce+t-l2", "apgd-ce+t", "l2", 0, 1, "APGD-CE+T L2"), ("fmn-30", "fmn", "linf", 30, 1, "FMN-30"),
    ("curve-l2", "curve", "l2", 55, 1, "curve-55 L2"),
    ("square-100", "square", "linf", 100, 1, "Square-100"),
])
def test_a_short_name_means_an_attack_with_all_its_numbers(text, method, norm, steps, restarts, label):
    attack = parse_attack(text)
    assert (attack.method, attack.norm, attack.steps, attack.restarts) == (method, norm, steps, restarts)
    assert attack.label == label and attack.epsilon is None
    assert attack.random_start == (restarts > 1), "restarts without random starts would all be the same"


@pytest.mark.parametrize("text, said", [
    ("pgdd", "unknown attack .pgdd.*pgd"), ("pdg-20", r"did you mean pgd\?"), ("", "unknown attack ''"),
    ("pdg-20-l2", r"did you mean pgd\?"), ("pgd-20-linf", r"did you mean pgd\?"), ("apdg-ce", r"mean apgd-ce\?"),
    ("autoatack", "did you mean autoattack"),
    ("pgd-0", "at least one step"), ("pgd-20x0", "one start"), ("fgsm-3", "fgsm takes -l2 only"),
    ("mim-20x3", "mim takes steps only"), ("cw-linf-l2", "cw-linf takes steps and restarts only"),
    ("autoattack-100", "takes -l2 only"), ("pgd-20x", "unknown attack"), ("pgd--20", "unknown attack"),
])
def test_other_names_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_attack(text)


def test_every_method_can_be_named():
    assert {parse_attack(name).method for name in ATTACKS} == set(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_text_of_an_attack_means_that_attack(name):
    """With every norm, number of steps and restarts that the table allows."""
    entry = ATTACKS[name]
    for norm in ("", "-l2") if len(entry.norms) > 1 else ("",):
        for steps in ("", "-1", "-7") if entry.steps else ("",):
            for restarts in ("", "x1", "x3") if entry.restarts else ("",):
                attack = parse_attack(name + norm + steps + restarts)
                assert parse_attack(str(attack)) == attack


def test_step_sizes_are_the_published_rules():
    assert at_strength(parse_attack("pgd-20"), 0.1).step_size == pytest.approx(0.0125)  # 2.5 / 20
    assert at_strength(parse_attack("pgd-20"), 0.1, 0.25).step_size == pytest.approx(0.025)
    assert at_strength(parse_attack("mim-10"), 0.1).step_size == pytest.approx(0.01)
    assert at_strength(parse_attack("fgsm"), 0.1, 0.25).step_size == pytest.approx(0.1)
    assert at_strength(parse_attack("autoattack"), 0.1).step_size is None
    assert at_strength(parse_attack("cw-l2"), 0.1) == parse_attack("cw-l2"), "it has no strength"
    assert at_strength(parse_attack("pgd-20"), 0.1, random_start=True).random_start
    assert not at_strength(parse_attack("fgsm"), 0.1, random_start=True).random_start
    for name in ("mim-10", "cw-linf-10", "transfer-10", "pgd-l2-10"):
        chosen = at_strength(parse_attack(name), 0.1, 0.3, random_start=True)
        assert chosen.random_start and chosen.step_size == pytest.approx(0.03)


def described(protocol: str) -> list[tuple]:
    return [(a.label, None if a.epsilon is None else round(a.epsilon, 6),
             None if a.step_size is None else round(a.step_size / a.epsilon, 6)) for a in protocol_attacks(protocol)]


def test_a_protocol_is_its_papers_list_of_attacks():
    paper = (0.03, 0.10, 0.17, 0.25)
    assert described("paper") == [("FGSM", e, 1) for e in paper] + [("PGD-20", e, 0.125) for e in paper]
    assert described("official") == [("PGD-20", e, 0.125) for e in paper]
    assert described("imagenet") == [("PGD-10", e, 0.5) for e in (0.015, 0.03, 0.045, 0.06, 0.075, 0.09)]
    eight = round(8 / 255, 6)
    assert described("rnas") == [("FGSM", eight, 1), ("PGD-20", eight, 0.25), ("C&W-100 L2", None, None),
                                 ("C&W margin-100", eight, 0.025), ("AutoAttack", eight, None)]
    spectrum = described("spectrum")
    assert spectrum[:16] == [("C&W margin-20", round(2 * n / 255, 6), 0.125) for n in range(1, 17)]
    assert spectrum[16:] == [("AutoAttack", round(n / 255, 6), None) for n in (4, 8, 12, 16)]
    assert not any(a.random_start for p in ("paper", "imagenet", "rnas", "spectrum") for a in protocol_attacks(p))


def test_custom_attacks_meet_the_strengths_of_their_norm_once():
    attacks = custom_attacks(["pgd-20", "pgd-l2-20", "cw-l2", "PGD-20"], [0.1, 0.2], [1.0], 0.3)
    assert [(a.label, a.epsilon) for a in attacks] == [("PGD-20", 0.1), ("PGD-20", 0.2), ("PGD-20 L2", 1.0),
                                                       ("C&W-100 L2", None)]
    assert attacks[2].step_size == pytest.approx(0.3)


def test_keys_differ_where_a_parameter_does_and_rows_give_the_attack_back():
    attacks = [a for p in ("paper", "imagenet", "rnas", "spectrum") for a in protocol_attacks(p)]
    attacks += custom_attacks([*ATTACKS, "pgd-7", "pgd-20x2", "pgd-l2-20"], [0.1, 0.3], [0.1, 2.0], random_start=True)
    assert len({a.key for a in attacks}) == len(set(attacks))
    assert all("/" not in a.key and " " not in a.key for a in attacks)
    assert [attack_of({**a.describe(), "accuracy": 1.0}) for a in attacks] == attacks
    one = Attack("pgd", 0.1, "linf", 20, 0.0125, 2, True, "ce")
    others = {"method": "transfer", "epsilon": 0.1001, "norm": "l2", "steps": 21, "step_size": 0.0126, "restarts": 3,
              "random_start": False, "loss": "margin"}
    assert len({one.key, *(replace(one, **{name: value}).key for name, value in others.items())}) == 1 + len(others)


@pytest.mark.parametrize("text, passes", [
    ("fgsm", (1, 1)), ("pgd-20", (20, 1)), ("mim-7", (7, 1)), ("cw-l2-100", (100, 1)), ("cw-linf-30", (30, 1)),
    ("transfer-20", (20, 1)), ("noise-10", (0, 10)), ("square-500", (0, 500)), ("apgd-ce", (100, 0)),
    ("apgd-ce+t", (1010, 1)), ("fmn-30", (30, 1)), ("curve-30", (40, 3)),
])
def test_what_an_attack_costs_an_image(text, passes):
    assert parse_attack(text).passes == passes


def test_restarts_cost_as_often_and_autoattack_nine_targets_twice():
    assert parse_attack("pgd-20x3").passes[0] == 60
    assert parse_attack("autoattack").passes == (100 + 2 * 9 * 100, 3000 + 5000)


def test_an_attack_has_one_stage_for_each_start_or_part():
    assert parse_attack("pgd-20").stages == ("start 1",)
    assert parse_attack("pgd-20x3").stages == ("start 1", "start 2", "start 3")
    assert len(parse_attack("noise-10").stages) == 10
    assert parse_attack("autoattack").stages == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert parse_attack("apgd-ce+t").stages == ("pgd-margin", "apgd-ce", "apgd-t")
    assert Attack("square", 0.1, steps=100).stages == ("square",)


def brighter(task: AttackTask) -> Tensor:
    return (task.images + task.epsilon).clamp(0, 1)


def test_an_attack_is_added_by_one_entry(monkeypatch, capsys):
    monkeypatch.setitem(ATTACKS, "brighter", AttackEntry("Brighter", "every pixel brighter", brighter))
    attack, = custom_attacks(["brighter"], [0.3], [])
    assert (str(attack), parse_attack("Brighter"), attack.passes) == (
        "Brighter  eps 0.3000 (76.5/255)", replace(attack, epsilon=None), (1, 1))
    assert "| `brighter` | Brighter | every pixel brighter |" in TABLES["attacks"]()
    with pytest.raises(SystemExit):
        parse_config(EvaluateConfig, argv=["--help"], prog="evaluate")
    assert "brighter (every pixel brighter)" in " ".join(capsys.readouterr().out.split())
    images = ImageSet(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    dark = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        dark[1].weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
        dark[1].bias.copy_(torch.tensor([1.0, 0.0]))
    evaluation = Evaluation(dark.eval(), BatchLoader(images, 4, 0, "test"), 2, log=lambda line: None)
    assert evaluation.clean().tolist() == [True, True, False, False]
    assert not evaluation.robust(attack, torch.arange(2)).any()
