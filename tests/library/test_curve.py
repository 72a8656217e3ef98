"""The curve: closed forms, what is tried after FMN, passes, kills; areas, medians and what other attacks add to it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrain.evaluate_files import file_label
from retrain.evaluate_settings import EvaluateConfig
from tests.killed import Killed, Mortal
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import curve as attack
from wsrnas.evaluation.attack_spec import at_strength, attack_of, parse_attack
from wsrnas.evaluation.curve import MARGIN_STEPS, Curve, below, smallest_noise
from wsrnas.evaluation.curve_results import MeasuredCurve, summary
from wsrnas.evaluation.disagreements import disagreement_lines
from wsrnas.evaluation.intervals import median_interval
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.minimum_norm import SmallestNoise
from wsrnas.evaluation.protocols import CURVE_L2_STRENGTHS, SPECTRUM_STRENGTHS
from wsrnas.evaluation.results import differences, flags_of, measure, scores_by_attack, table
from wsrnas.runtime.errors import InputError

IMAGES = 40
CURVES = {"linf": Curve("linf", (0.004, 0.008, 0.0118), 60), "l2": Curve("l2", (0.02, 0.05, 0.07), 60)}


def pixels() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(100, 156, (IMAGES, 3, 4, 4), generator=draw, dtype=torch.uint8)  # off the box


class Counting(nn.Sequential):
    """It counts the images that it sees: [with a gradient, without]."""

    def forward(self, images: Tensor) -> Tensor:
        seen = vars(self).setdefault("seen", [0, 0])
        seen[not images.requires_grad] += len(images)
        return super().forward(images)


def linear(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    model = Counting(nn.Flatten(), nn.Linear(48, 2)).eval()
    with torch.no_grad():
        model[1].bias -= model(pixels() / 255).mean(0)
        model.seen = [0, 0]
    return model


def labels() -> Tensor:
    return torch.randint(2, (IMAGES,), generator=torch.Generator().manual_seed(5))


def evaluation(model: nn.Module, batch_size: int = 16, **arguments) -> Evaluation:
    loader = BatchLoader(ImageSet(pixels(), labels()), 7, 0, "test")
    return Evaluation(model, loader, 2, batch_size=batch_size, log=lambda line: None, **arguments)


def radii(model: nn.Module, norm: str) -> Tensor:
    """The distance at which each image is lost, 0 for those that are wrong as they are."""
    weight, bias = (p.detach().double() for p in model[1].parameters())
    logits = (pixels().double() / 255).flatten(1) @ weight.T + bias
    rows = torch.arange(IMAGES)
    margin = logits[rows, labels()] - logits[rows, 1 - labels()]
    return (margin / (weight[0] - weight[1]).norm(p=1 if norm == "linf" else 2)).clamp_min(0)


def measured(model: nn.Module, curve: Curve, attacks=(), **arguments) -> dict:
    result = measure(evaluation(model, **arguments), attacks, 30, level="none", curve=curve, spare_fallen=True)
    return json.loads(json.dumps({**result, "image_set": "same"}, allow_nan=False))


@pytest.mark.parametrize("norm", CURVES)
def test_on_a_linear_network_the_curve_is_the_closed_form(norm):
    model, curve = linear(), CURVES[norm]
    exact, top = radii(model, norm), curve.strengths[-1]
    result = measured(model, curve)
    found = np.array(result["curve"]["distances"])
    assert np.allclose(found, exact, rtol=1e-3) and (exact[exact > 0] < top).any() and (exact > top).any()
    for row, strength in zip(result["attacks"], curve.strengths, strict=True):
        assert (row["epsilon"], row["norm"], row["attack"].split()[0]) == (strength, norm, "curve-60")
        assert row["accuracy"] == pytest.approx((exact > strength).double().mean().item())
        assert flags_of(row).tolist() == (found > strength).tolist()
    area = result["area"]
    assert area["value"] == pytest.approx((exact.clamp_max(top) / top).mean().item(), rel=1e-3)
    assert area["interval"][0] < area["value"] < area["interval"][1] and area == result["curve"]["area"]
    assert result["curve"]["median"]["value"] == pytest.approx(exact[exact > 0].sort().values[
        (int((exact > 0).sum()) - 1) // 2].item(), rel=1e-3)
    assert (result["average_robust"] is not None) == (norm == "linf")


@pytest.mark.parametrize("norm", CURVES)
def test_an_image_that_falls_at_a_strength_does_not_withstand_it(norm, monkeypatch):
    """FMN finds nothing here: the steps on the margin try the largest strength, which in float32 may be larger."""
    monkeypatch.setattr(attack, "fmn", lambda model, images, labels, norm, steps: SmallestNoise(
        images, torch.full((len(images),), math.inf)))
    model, curve = linear(), CURVES[norm]
    exact = radii(model, norm)
    images, top = pixels().float() / 255, curve.strengths[-1]
    falls = (exact < 0.99 * top) & (exact > 0.8 * top)
    found, _ = smallest_noise(model, images[falls], labels()[falls], curve)
    assert falls.sum() > 1 and (found.distances <= top).all() and found.distances.dtype == torch.float64
    stands = exact > 1.01 * top
    assert smallest_noise(model, images[stands], labels()[stands], curve)[0].distances.isinf().all()


def test_the_largest_strength_below_the_noise_is_tried_where_it_is_near():
    curve = Curve("linf", (0.1, 0.2, 0.4))
    distances = torch.tensor([0.0, 0.05, 0.1, 0.11, 0.2, 0.21, 0.3, 0.41, 0.5, 0.6, math.inf], dtype=torch.float64)
    assert below(distances, curve).tolist() == [0, 0, 0, 0.1, 0, 0.2, 0, 0.4, 0.4, 0, 0.4]


def test_an_image_that_falls_a_step_earlier_is_tried_once_more(monkeypatch):
    tried = []
    monkeypatch.setattr(attack, "fmn", lambda model, images, labels, norm, steps: SmallestNoise(
        images, torch.full((len(images),), 0.41)))

    def shorter(model, images, labels, start, radii, curve):
        tried.append(radii.tolist())
        return SmallestNoise(start, torch.where(torch.arange(len(radii)) == 0, radii - 0.01, math.inf))

    monkeypatch.setattr(attack, "on_the_margin", shorter)
    found, spent = smallest_noise(linear(), pixels()[:3].float() / 255, labels()[:3], Curve("linf", (0.3, 0.4), 7))
    assert tried == [[0.4] * 3, [0.3]] and found.distances.tolist() == pytest.approx([0.29, 0.41, 0.41])
    assert spent == [7 * 3 + MARGIN_STEPS * 4, 4]


@pytest.mark.parametrize("norm", CURVES)
def test_passes_are_those_that_the_network_saw(norm):
    model = linear()
    result = measured(model, CURVES[norm])
    assert [IMAGES * passes for passes in result["passes"]] == pytest.approx(model.seen)
    right = result["clean"]["accuracy"]
    most = CURVES[norm].passes
    assert 60 * right < result["passes"][0] <= most[0] * right and result["passes"][1] <= 1 + most[1] * right


def test_a_killed_curve_goes_on_where_it_was(tmp_path):
    curve = Curve("linf", (1e-5,), 1)  # little is found
    whole = measured(linear(), curve)
    assert None in whole["curve"]["distances"], "an infinite number must be stored, too"
    mortal = Mortal(tmp_path, {}, chunks=4)
    with pytest.raises(Killed):
        measured(linear(), curve, journal=mortal)
    resumed = linear()
    again = measured(resumed, curve, journal=Journal(tmp_path, {}))
    for key in ("curve", "area", "passes", "average_robust"):
        assert again[key] == whole[key], key
    last = linear()
    measured(last, curve, journal=Journal(tmp_path, {}))
    assert 0 < sum(resumed.seen) < sum(whole["passes"]) * IMAGES and last.seen == [0, 0]
    other = linear()
    measured(other, replace(curve, strengths=(0.01, 0.02)), journal=Journal(tmp_path, {}))
    assert sum(other.seen) > 0, "another curve's noise is not this one's"


def test_a_network_that_is_right_nowhere_has_an_area_of_zero_and_no_median():
    model = linear()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([math.nan, math.nan]))
    result = measured(model, CURVES["linf"])
    assert result["area"]["value"] == 0 and result["area"]["interval"][0] == 0 and result["curve"]["median"] is None
    assert all(row["accuracy"] == 0 for row in result["attacks"])
    assert "none: no image is right without noise" in table({"a": result})


def test_other_attacks_lower_the_curve_and_disagreements_are_listed(monkeypatch):
    """FMN misses; AutoAttack, played by PGD, does not."""
    monkeypatch.setattr(attack, "smallest_noise", None)
    monkeypatch.setattr("wsrnas.evaluation.measurement.smallest_noise", lambda model, images, labels, curve: (
        SmallestNoise(images, torch.full((len(images),), 0.021, dtype=torch.float64)), [0, 0]))
    monkeypatch.setattr("wsrnas.evaluation.measurement.check_classes", lambda *arguments: None)
    strict = at_strength(parse_attack("autoattack"), 0.008)
    model, curve = linear(), CURVES["linf"]
    exact = radii(model, "linf")
    monkeypatch.setattr(Evaluation, "robust", lambda self, attack, among: exact > attack.epsilon)
    monkeypatch.setattr(Evaluation, "cost", lambda self, attack: (1.0, []))
    monkeypatch.setattr(Evaluation, "passes_of", lambda self, attack: (1.0, 0.0))
    result = measured(model, curve, [strict])
    small, middle, large, anchor = result["attacks"]
    assert [row["accuracy"] for row in (small, middle)] == [(exact > bound).double().mean() for bound in (0, 0.008)]
    assert flags_of(middle).tolist() == flags_of(anchor).tolist() and large["accuracy"] == middle["accuracy"]
    lost = ((exact > 0) & (exact <= 0.008)).nonzero().flatten().tolist()
    assert result["disagreements"] == [{"cheaper": str(attack_of(middle)), "reference": str(strict),
                                        "only_to_cheaper": [], "only_to_reference": lost}]
    line, = disagreement_lines(result["disagreements"])
    assert f"fell to the latter alone {len(lost)} (images {lost[0]}, " in line and "former alone 0" in line
    assert result["curve"]["lowered_by"] == [str(strict)]


def test_only_an_attack_that_finds_smaller_noise_lowers_a_curve():
    distances = torch.tensor([0.0, 0.004, 0.02, math.inf], dtype=torch.float64)
    found = MeasuredCurve(CURVES["linf"], distances, 1.0, None)
    tried = [("pgd-20", 0.004, (True, True)), ("fgsm", 0.03, (False, True)), ("autoattack", 0.03, (False, False))]
    attacks = [(at_strength(parse_attack(name), epsilon), torch.tensor([False, False, *rest]))
               for name, epsilon, rest in tried]
    assert summary(found, distances > 0, attacks)["lowered_by"] == [str(attacks[2][0])]


def test_two_curves_are_compared_image_by_image():
    first, second = measured(linear(), CURVES["linf"]), measured(linear(2), CURVES["linf"])
    rows = {row["attack"]: row for row in differences({"a": first, "b": second})}
    assert set(rows) == {"clean", "average robust", "area", *(str(attack_of(row)) for row in first["attacks"])}
    scores = [scores_by_attack(result)["area"] for result in (first, second)]
    assert rows["area"]["difference"] == pytest.approx(second["area"]["value"] - first["area"]["value"])
    assert rows["area"]["difference"] == pytest.approx((scores[1] - scores[0]).mean())


def test_a_median_has_an_exact_interval():
    assert median_interval([]) is None
    assert median_interval([3.0]) == {"value": 3.0, "interval": [3.0, 3.0]}
    hundred = median_interval(np.arange(100.0))
    assert hundred == {"value": 49.0, "interval": [39.0, 60.0]}  # ranks 40 and 61, from any table of the sign test
    assert median_interval([1.0] + [math.inf] * 9) == {"value": None, "interval": [None, None]}


def config(*arguments: str) -> EvaluateConfig:
    from wsrnas.runtime.config import parse_config

    return parse_config(EvaluateConfig, None, ["--model", "x", "--protocol", "curve", *arguments])[0]


def test_strengths_in_any_order_are_sorted_and_it_is_said(capsys):
    sorted_one, given = config("--strengths", "0.1", "0.2"), config("--strengths", "0.2", "0.1", "0.2")
    assert given.curve == sorted_one.curve == Curve("linf", (0.1, 0.2))
    assert not sorted_one.notes and given.notes == ["--strengths are not distinct: each counts once"]
    assert capsys.readouterr().err == "note: --strengths is sorted: 0.1 0.2 0.2\n"
    assert config().curve.strengths == SPECTRUM_STRENGTHS
    assert config("--norm", "l2").curve == Curve("l2", CURVE_L2_STRENGTHS)
    anchored = config("--norm", "l2", "--l2_strengths", "2", "1", "--anchors", "1", "0.5")
    assert anchored.curve == Curve("l2", (1.0, 2.0)) and capsys.readouterr().err.count("is sorted") == 2
    assert [str(one) for one in anchored.chosen("digits")[1]] == ["AutoAttack L2  eps 0.5", "AutoAttack L2  eps 1"]
    files = [file_label(one, *one.chosen("digits"), "digits")
             for one in (sorted_one, config(), config("--norm", "l2"), anchored, config("--anchors", "0.1"))]
    assert len(set(files)) == 5


@pytest.mark.parametrize("arguments, said", [
    (["--norm", "l1"], "norm is 'l1'; expected linf or l2"), (["--strengths", "2"], "strictly inside"),
    (["--norm", "l2", "--strengths", "0.1"], "--strengths are of another norm"),
    (["--l2_strengths", "1"], "--l2_strengths are of another norm"),
    (["--l2_strengths", "0.5"], "--l2_strengths are of another norm"),
    (["--strengths", "0.031372", "8/255"], "two strengths are both shown as curve"),
    (["--anchors", "0.031372", "8/255"], "two strengths are both shown as AutoAttack"),
    (["--attacks", "pgd"], "attack of its own"),
    (["--norm", "l2", "--anchors", "0"], "anchors contains 0; expected a norm above 0"),
    (["--protocol", "paper", "--norm", "l2"], "go with --protocol curve"),
    (["--protocol", "paper", "--anchors", "0.1"], "go with --protocol curve"),
])
def test_what_a_curve_cannot_use_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        config(*arguments)


@pytest.mark.parametrize("arguments", [("l1", (0.1,)), ("linf", ()), ("linf", (0.2, 0.1)), ("l2", (0.0,))])
def test_a_curve_that_means_nothing_is_refused(arguments):
    with pytest.raises(InputError):
        Curve(*arguments)


def test_a_chunk_of_numbers_that_are_none_is_measured_again(tmp_path, capsys):
    journal = Journal(tmp_path, {})
    journal.append("curve", "distances", [0, 1], [0.25, math.inf], 1.0)
    path = tmp_path / "curve.0.jsonl"
    whole = path.read_text()
    assert journal.read("curve", "distances", 3).values.tolist() == [0.25, math.inf, -1]
    for damaged in ("[0.25]", "[0.25, -1]", '[0.25, "1"]', "[true, false]", "0.25"):
        path.write_text(whole.replace("[0.25, null]", damaged))
        assert journal.read("curve", "distances", 3).values.tolist() == [-1] * 3, damaged
    assert "damaged" in capsys.readouterr().err
