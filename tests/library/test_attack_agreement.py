"""Our attacks against torchattacks and foolbox on one small network: what studies/attack_agreement.py stored.

Deterministic attacks must give the same images, up to rounding; attacks from random starts the same accuracy, up to
sampling error. Neither library is needed here.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from studies.attack_agreement import DETERMINISTIC, MINIMUM_NORM, RANDOM, images_of_other_classes, main, small_network
from tests.quick import slow_after
from wsrnas.attacks import fgsm, mim, pgd
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.minimum_norm import fmn, noise_norms

PATH = Path(__file__).parents[1] / "reference" / "attack_agreement.npz"
ATTACKS = {"fgsm": fgsm, "pgd": pgd, "mim": mim, "carlini_wagner": carlini_wagner}
# The libraries' images, made in float64, are stored in float32; in float32, ours gather rounding over the steps. Where
# C&W starts, to make atanh finite, differs by up to 5e-7; from foolbox in all pixels, so that the steps differ, too.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-6}
CW_TOLERANCE = {"torchattacks": 1e-6, "foolbox": 4e-6}
# In float32, another machine's rounding may turn the sign of a gradient near zero, or decide a tie at C&W's border.
UNEQUAL_IMAGES = {torch.float64: 0, torch.float32: 2}
DEVIATIONS = 4  # allowed between two accuracies: by chance in one of 16,000 comparisons

with np.load(PATH) as stored:
    ARRAYS = dict(stored)
ABOUT = json.loads(str(ARRAYS["about"]))
CASES = {kind: [case for case in ABOUT["cases"] if case["array"].startswith(kind)]
         for kind in ("adversarial", "right", "smallest")}


def describe(case: dict) -> str:
    numbers = [str(case["arguments"][name]) for name in ("steps", "penalty") if name in case["arguments"]]
    return " ".join([f"{case['library']}.{case['attack']}", *numbers])


def network(dtype: torch.dtype) -> nn.Module:
    model = small_network()
    model.load_state_dict({name.removeprefix("weight_"): torch.from_numpy(array) for name, array in ARRAYS.items()
                           if name.startswith("weight_")})
    return model.to(dtype).eval()


def batch(dtype: torch.dtype, count: int | None = None) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(ARRAYS["images"][:count]).to(dtype) / 16, torch.from_numpy(ARRAYS["labels"][:count]).long()


@torch.no_grad()
def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return model(images).argmax(1) == labels


def squared_distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().sum((1, 2, 3))


def test_the_file_holds_every_case_of_the_script_that_makes_it():
    assert ABOUT["command"] == "python -m studies.attack_agreement"
    assert {"torch", "numpy", "torchattacks", "foolbox", "python"} == set(ABOUT["versions"])
    for kind, script in (("adversarial", DETERMINISTIC), ("right", RANDOM), ("smallest", MINIMUM_NORM)):
        fields = vars(script[0]).keys()
        assert [{name: case[name] for name in fields} for case in CASES[kind]] == [vars(case) for case in script]
    assert {(case["library"], case["attack"]) for case in CASES["adversarial"]} >= {
        *(("torchattacks", name) for name in ("FGSM", "PGD", "PGDL2", "MIFGSM", "CW")),
        *(("foolbox", name) for name in ("LinfFastGradientAttack", "L2FastGradientAttack", "LinfPGD", "L2PGD",
                                         "L2CarliniWagnerAttack"))}
    assert {case["attack"] for case in CASES["smallest"]} == {"LInfFMNAttack", "L2FMNAttack"}
    assert PATH.stat().st_size < 200_000


@pytest.mark.parametrize("dtype", slow_after(1, TOLERANCE), ids=str)
@pytest.mark.parametrize("case", CASES["adversarial"], ids=describe)
def test_a_deterministic_attack_gives_the_same_images(case, dtype):
    theirs = torch.from_numpy(ARRAYS[case["array"]]).to(dtype)
    model, (images, labels) = network(dtype), batch(dtype, len(theirs))
    attack = ATTACKS[case["ours"]]
    if case["attack"] == "CW":  # torchattacks stopped some images early: compare after as many steps
        steps, ours = torch.tensor(case["steps_of_each_image"]), torch.zeros_like(images)
        for count in steps.unique().tolist():
            rows = steps == count
            ours[rows] = attack(model, images[rows], labels[rows], **case["arguments"], steps=count)
    else:
        ours = attack(model, images, labels, **case["arguments"])
    survivors = right(model, theirs, labels)
    assert 0 < survivors.sum() < right(model, images, labels).sum(), "the attack must matter in this test"
    assert (right(model, ours, labels) != survivors).sum() <= UNEQUAL_IMAGES[dtype]
    tolerance = CW_TOLERANCE[case["library"]] if attack is carlini_wagner else TOLERANCE[dtype]
    assert ((ours - theirs).abs().amax((1, 2, 3)) > tolerance).sum() <= UNEQUAL_IMAGES[dtype]


@pytest.mark.parametrize("case", CASES["smallest"], ids=describe)
def test_fmn_finds_the_same_smallest_noise(case):
    theirs, norm = torch.from_numpy(ARRAYS[case["array"]]).double(), case["arguments"]["norm"]
    model, (images, labels) = network(torch.float64), batch(torch.float64, len(theirs))
    begun = images_of_other_classes(model, images, labels) if case["arguments"]["steps"] == 60 else None
    ours = fmn(model, images, labels, **case["arguments"], start=begun)
    found = ours.distances.isfinite()
    distances = noise_norms(theirs, images, norm)
    assert found.sum() > 8 and (distances[~found] == 0).all(), "foolbox returns the image where it found nothing"
    assert torch.allclose(ours.distances[found], distances[found], rtol=1e-5, atol=1e-7)
    same = (ours.adversarial - theirs).abs().amax((1, 2, 3)) < TOLERANCE[torch.float64]
    assert (~same).sum() <= 1, "on the boundary itself, rounding decides what fools the network"


def test_all_steps_of_carlini_and_wagner_only_bring_an_image_closer_than_torchattacks_early_stop():
    case, = (case for case in CASES["adversarial"] if case["attack"] == "CW")
    theirs = torch.from_numpy(ARRAYS[case["array"]]).double()
    model, (images, labels) = network(torch.float64), batch(torch.float64, len(theirs))
    ours = carlini_wagner(model, images, labels)
    fooled = ~right(model, theirs, labels)
    assert not right(model, ours, labels)[fooled].any()
    near, far = squared_distance(ours, images)[fooled], squared_distance(theirs, images)[fooled]
    assert (near <= far + 1e-6).all()
    stopped = torch.tensor(case["steps_of_each_image"])[fooled] < 100
    assert (near < far - 1e-4)[stopped].any(), "an early stop must matter in this test"


@functools.cache
def our_runs(arguments: str) -> np.ndarray:
    """Which images stay right (runs, images) under our PGD with these arguments (JSON)."""
    model, (images, labels) = network(torch.float32), batch(torch.float32)
    return np.stack([right(model, pgd(model, images, labels, **json.loads(arguments),
                                      generator=torch.Generator().manual_seed(run)), labels).numpy()
                     for run in range(ABOUT["runs"])])


def deviations(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Difference of two accuracies (runs, images) in its standard deviations over the random starts.

    An image stays right in a run with a probability of its own, estimated from the runs of both.
    """
    runs = len(ours)
    chance = np.concatenate([ours, theirs]).mean(0)
    variance = (chance * (1 - chance)).sum() * 2 * runs / (2 * runs - 1) * 2 / runs
    return float((ours.sum(1).mean() - theirs.sum(1).mean()) / variance**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES["right"], ids=describe)
def test_an_attack_from_random_starts_gives_the_same_accuracy(case):
    theirs = np.unpackbits(ARRAYS[case["array"]], axis=1, count=len(ARRAYS["labels"])).astype(bool)
    assert theirs.shape == (ABOUT["runs"], len(ARRAYS["labels"])) and 0.2 < theirs.mean() < 0.9
    assert abs(deviations(our_runs(json.dumps(case["arguments"])), theirs)) < DEVIATIONS
    if case["arguments"]["steps"] == 2:  # the comparison would notice a start that is not random
        still = our_runs(json.dumps({**case["arguments"], "random_start": False}))
        assert deviations(still, theirs) > DEVIATIONS


def test_a_missing_library_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["studies.attack_agreement", str(tmp_path / "new.npz")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and "torchattacks is not installed here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
