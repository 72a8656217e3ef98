"""The package of an exported network: its numbers and its model card."""

import inspect
import itertools
import json

import pytest
from torch import nn

from retrain.publishing import robustbench
from retrain.publishing.evaluation_table import evaluation_table, parameters
from retrain.publishing.evaluations import stored_evaluations
from retrain.publishing.training_record import command, machine, metrics
from tests.retrain.export_cases import UNCHECKED, attack, evaluation
from wsrnas.attacks import mim
from wsrnas.evaluation.attack_spec import at_strength, parse_attack
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.carlini_wagner import carlini_wagner

# -- numbers ---------------------------------------------------------------------------------------------------------

def listed(*documents: dict, dataset: str = "cifar10") -> dict:
    measured = robustbench.numbers(list(documents), dataset)
    return robustbench.model_info(robustbench.Publication(), measured, dataset, "a")


def test_a_complete_evaluation_is_listed_as_it_is():
    info = listed(evaluation(attack("pgd", 8 / 255, 0.55), attack("autoattack", 8 / 255, 0.51234),
                             attack("autoattack", 16 / 255, 0.2)))
    assert info == {
        "link": None, "name": None, "authors": None, "additional_data": False, "number_forward_passes": 1,
        "dataset": "cifar10", "venue": None, "architecture": "a", "eps": "8/255", "clean_acc": "81.49",
        "reported": "51.23", "autoattack_acc": "51.23", "footnote": None, "unreliable": False}
    assert robustbench.numbers([evaluation(attack("autoattack", 8 / 255, 0.5))], "cifar10").missing == ()


def test_what_was_not_measured_is_null_and_said():
    assert listed(evaluation() | {"checks": []})["unreliable"] is None  # an evaluation that was stopped before them
    info, measured = listed(), robustbench.numbers([], "cifar10")
    assert {key for key, value in info.items() if value is None} == {
        "link", "name", "authors", "venue", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"}
    assert "AutoAttack at 8/255" in measured.missing[0] and "clean" in measured.missing[0]


@pytest.mark.parametrize("other", [
    attack("autoattack", 0.031, 0.5), attack("autoattack", 8 / 255, 0.5, norm="l2"), attack("apgd-ce", 0.05, 0.5),
    attack("cw-l2", None, 0.1, norm="l2")])
def test_another_threat_model_is_not_listed(other):
    info = listed(evaluation(other))
    assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("81.49", None, None)


def test_a_weaker_attack_is_reported_with_its_name():
    info = listed(evaluation(attack("fgsm", 8 / 255, 0.61), attack("pgd", 8 / 255, 0.55)))
    assert (info["autoattack_acc"], info["reported"]) == (None, "55.00")
    assert "PGD" in info["footnote"] and "10,000 images" in info["footnote"]
    measured = robustbench.numbers([evaluation(attack("pgd", 8 / 255, 0.55))], "cifar10")
    assert measured.missing == ("not measured yet: AutoAttack at 8/255",)


def test_a_part_of_the_test_images_does_not_pass_for_all():
    part = evaluation(attack("autoattack", 8 / 255, 0.4), images=1000, clean=0.7)
    assert listed(part)["footnote"] == "Measured on 1,000 of 10,000 test images."
    assert "1,000 of 10,000" in robustbench.numbers([part], "cifar10").missing[0]
    whole = evaluation(attack("autoattack", 8 / 255, 0.5))
    for documents in itertools.permutations([part, whole]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["footnote"]) == ("81.49", "50.00", None)
    # The clean accuracy stands beside the attack: it is of the same images.
    for documents in itertools.permutations([part, evaluation(attack("pgd", 8 / 255, 0.6))]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("70.00", "40.00", "60.00")
        assert info["footnote"] == ("Clean accuracy and AutoAttack measured on 1,000 of 10,000 test images. The "
                                    "reported robust accuracy is under PGD, on 10,000 images.")
    info = listed(evaluation(), evaluation(attack("pgd", 8 / 255, 0.3), images=500, clean=0.9))
    assert (info["clean_acc"], info["reported"], info["footnote"]) == (
        "81.49", "30.00", "The reported robust accuracy is under PGD, on 500 images.")
    info = listed(evaluation(images=900, clean=0.7), evaluation(attack("pgd", 8 / 255, 0.3), images=500, clean=0.9))
    assert info["clean_acc"] == "70.00" and info["footnote"].startswith("Clean accuracy measured on 900 of 10,000")
    digits = listed(evaluation(images=300, dataset="digits"), dataset="digits")
    assert digits["footnote"] == "Measured on 300 test images."


def test_of_two_measurements_the_lower_one_counts():
    two = [evaluation(attack("autoattack", 8 / 255, a), clean=c) for a, c in ((0.5, 0.8), (0.49, 0.79))]
    for documents in (two, two[::-1]):
        assert (listed(*documents)["autoattack_acc"], listed(*documents)["clean_acc"]) == ("49.00", "79.00")
        assert (listed(*documents)["reported"], listed(*documents)["footnote"]) == ("49.00", None)


def test_the_lowest_accuracy_is_reported_whichever_attack_reached_it():
    standard, fgsm = evaluation(attack("autoattack", 8 / 255, 0.5)), evaluation(attack("fgsm", 8 / 255, 0.6), clean=0.9)
    lower = evaluation(attack("square", 8 / 255, 0.47), attack("pgd", 16 / 255, 0.1), clean=0.7)
    part = evaluation(attack("pgd", 8 / 255, 0.2), images=9_999)
    for documents in itertools.permutations([standard, fgsm, lower, part]):
        info = listed(*documents)
        assert (info["clean_acc"], info["autoattack_acc"], info["reported"]) == ("81.49", "50.00", "47.00")
        assert info["footnote"] == "The reported robust accuracy is under SQUARE, on 10,000 images."
    for documents in itertools.permutations([fgsm, lower, part]):  # the clean accuracy is the lowest attack's
        assert (listed(*documents)["clean_acc"], listed(*documents)["reported"]) == ("70.00", "47.00")
    same = evaluation(attack("pgd", 8 / 255, 0.5), clean=0.7)
    for documents in itertools.permutations([standard, same]):
        assert (listed(*documents)["reported"], listed(*documents)["footnote"]) == ("50.00", None)


def test_imagenet_is_listed_at_its_own_strength_and_never_as_the_official_subset():
    document = evaluation(attack("autoattack", 8 / 255, 0.1), attack("autoattack", 4 / 255, 0.2), images=50_000,
                          dataset="imagenet")
    info = listed(document, dataset="imagenet")
    assert (info["eps"], info["autoattack_acc"]) == ("4/255", "20.00")
    assert "not on RobustBench's list of 5,000" in info["footnote"]


def test_reliability_is_of_the_evaluations_whose_numbers_are_used():
    standard = evaluation(attack("autoattack", 8 / 255, 0.5))
    failed = {"failed": ["more steps are weaker"]}
    for documents in itertools.permutations([standard, evaluation(attack("pgd", 8 / 255, 0.6), clean=0.9, **failed)]):
        info = listed(*documents)
        assert (info["unreliable"], info["footnote"]) == (False, None)
    for used in (attack("autoattack", 8 / 255, 0.4), attack("pgd", 8 / 255, 0.4)):
        for documents in itertools.permutations([standard, evaluation(used, **failed)]):
            info = listed(*documents)
            assert info["unreliable"] is True and "checks of the evaluation: more steps are weaker." in info["footnote"]
    only_row = standard | {"checks": [*UNCHECKED, {"check": "noise is weaker", "passed": False}]}
    assert listed(only_row)["unreliable"] is True and "noise is weaker" in listed(only_row)["footnote"]
    assert "**Failed check: noise is weaker.**" in evaluation_table(only_row)
    both = only_row | {"failed_checks": ["noise is weaker"]}
    assert listed(both)["footnote"].count("noise is weaker") == evaluation_table(both).count("noise is weaker") == 1


@pytest.mark.parametrize("checks", [[], None, UNCHECKED])
def test_reliability_is_open_where_no_check_passed_or_failed(checks):
    unchecked, checked = {"checks": checks}, evaluation(attack("pgd", 8 / 255, 0.6), images=20_000)
    assert listed(evaluation(attack("pgd", 8 / 255, 0.5)) | unchecked)["unreliable"] is None
    standard = evaluation(attack("autoattack", 8 / 255, 0.5)) | unchecked
    for documents in itertools.permutations([standard, checked]):  # both numbers are listed
        assert listed(*documents)["unreliable"] is None
    lowest = evaluation(attack("pgd", 8 / 255, 0.4)) | unchecked
    for documents in itertools.permutations([lowest, evaluation(attack("autoattack", 8 / 255, 0.5))]):
        assert listed(*documents)["unreliable"] is None
    assert listed(standard, evaluation(attack("pgd", 8 / 255, 0.4), failed=["x"]))["unreliable"] is True
    assert listed(standard, evaluation())["unreliable"] is None
    assert listed(evaluation(attack("autoattack", 8 / 255, 0.5)), evaluation() | unchecked)["unreliable"] is False


@pytest.mark.parametrize("text, says", [
    ("{", "not JSON"), ("[]", "format"), ('{"images": 5}', "format"),
    (json.dumps(evaluation() | {"format": 2}), "format"), (json.dumps(evaluation() | {"area": 3}), "lacks"),
    (json.dumps(evaluation() | {"average_robust": {}}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, interval=[0.4]))), "lacks"),
    (json.dumps(evaluation() | {"clean": None}), "lacks"), (json.dumps(evaluation() | {"images": "9"}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 55.0))), "lacks"), (json.dumps(evaluation() | {"model": 1}), "lacks"),
    (json.dumps(evaluation() | {"attacks": [{}]}), "lacks"), (json.dumps(evaluation() | {"failed_checks": 7}), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, steps="20"))), "lacks"),
    (json.dumps(evaluation(attack("pgd", 0.1, 0.5, step_size="a"))), "lacks"),
    (json.dumps(evaluation(attack("transfer", 0.1, 0.5, source=["g"]))), "lacks"),
    (json.dumps(evaluation() | {"checks": [{"check": "a", "passed": 1}]}), "lacks"),
    (json.dumps(evaluation() | {"complete": False}), "still running or was stopped"),
    (json.dumps(evaluation() | {"complete": "yes"}), "still running or was stopped"),
    (json.dumps({key: value for key, value in evaluation().items() if key != "complete"}), "still running or was"),
    (json.dumps(evaluation(fingerprint="g") | {"complete": False}), "other weights"),
    (json.dumps(evaluation(fingerprint="g")), "other weights"), (json.dumps(evaluation(dataset="svhn")), "on svhn")])
def test_evaluations_of_no_use_are_left_out_aloud(text, says, tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "a.json").write_text(text)
    (tmp_path / "eval" / "b.json").write_text(json.dumps(evaluation()))
    found, remarks = stored_evaluations(tmp_path, "f", "cifar10")
    assert found == [evaluation()]
    assert len(remarks) == 1 and remarks[0].startswith(f"{tmp_path / 'eval' / 'a.json'} is left out: ")
    assert says in remarks[0]


# -- the card --------------------------------------------------------------------------------------------------------

def test_the_table_names_every_attack_with_its_parameters():
    text = evaluation_table(evaluation(
        attack("pgd", 8 / 255, 0.5512), attack("cw-l2", None, 0.1, "l2", steps=100, loss=""),
        attack("autoattack", 0.5, 0.3, "l2", steps=0, step_size=None, loss=""), images=1000,
        failed=["weaker | stronger"]))
    assert "| PGD | L-infinity 0.0314 (8/255) | 20 steps of 0.00375, from the image, cross-entropy loss | 55.12 | " \
           "54.1 to 56.1 |" in text
    assert "| CW-L2 | L2, unbounded | 100 steps" in text
    assert "| AUTOATTACK | L2 0.5 | standard version: APGD-CE," in text
    assert "passed: logits are deterministic." in text and "could not be run: square is weaker." in text
    assert "Warning: zero gradients" in text
    assert "| none |  |  | 81.49 | 81.0 to 82.0 |" in text and "1,000 test images" in text
    assert "41.00 | 40.0 to 42.0" in text and "**Failed check: weaker | stronger.**" in text
    assert "| average over the strengths of PGD-20 |" in text


def test_the_average_is_called_by_the_attack_that_it_is_over():
    document = evaluation(attack("pgd", 8 / 255, 0.5))
    document["average_robust"] = {"accuracy": 0.4, "over": ["curve-55  eps 0.0078 (2/255)"]}
    assert "| average over the strengths of curve-55 |" in evaluation_table(document)


def test_autoattack_is_not_missed_where_there_are_too_few_classes_for_it():
    assert robustbench.numbers([], "folder", 3).missing == ("not measured yet: clean accuracy",)
    assert robustbench.numbers([evaluation(attack("pgd", 8 / 255, 0.5))], "folder", 3).missing == ()
    assert "AutoAttack" in robustbench.numbers([evaluation(attack("pgd", 8 / 255, 0.5))], "folder", 4).missing[0]


GRADIENT = "from the image, cross-entropy loss"


@pytest.mark.parametrize("name, epsilon, row, shown", [
    ("fgsm", 8 / 255, "FGSM | L-infinity 0.0314 (8/255)", f"one step of 0.03137, {GRADIENT}"),
    ("fgsm-l2", 0.5, "FGSM L2 | L2 0.5", f"one step of 0.5, {GRADIENT}"),
    ("pgd-20", 0.03, "PGD-20 | L-infinity 0.0300 (7.65/255)", f"20 steps of 0.00375, {GRADIENT}"),
    ("pgd-1", 0.03, "PGD | L-infinity 0.0300 (7.65/255)", f"one step of 0.075, {GRADIENT}"),
    ("pgd-50x10", 0.02, "PGD-50x10 | L-infinity 0.0200 (5.1/255)",
     "50 steps of 0.001, 10 random starts, cross-entropy loss"),
    ("pgd-l2-20", 0.5, "PGD-20 L2 | L2 0.5", f"20 steps of 0.0625, {GRADIENT}"),
    ("pgd-l2-20x2", 0.5, "PGD-20x2 L2 | L2 0.5", "20 steps of 0.0625, 2 random starts, cross-entropy loss"),
    ("mim-20", 0.02, "MIM-20 | L-infinity 0.0200 (5.1/255)", f"20 steps of 0.001, momentum 1, {GRADIENT}"),
    ("cw-l2", None, "C&W-100 L2 | L2, unbounded",
     "100 steps of Adam (learning rate 0.01), penalty c = 0.5, from the image"),
    ("cw-linf", 0.02, "C&W margin-100 | L-infinity 0.0200 (5.1/255)",
     "100 steps of 0.0005, from the image, margin loss"),
    ("cw-linf-50x3", 0.02, "C&W margin-50x3 | L-infinity 0.0200 (5.1/255)",
     "50 steps of 0.001, 3 random starts, margin loss"),
    ("noise-10", 0.02, "random noise-10 | L-infinity 0.0200 (5.1/255)",
     "the worst of 10 random noises, every pixel up or down by the whole strength"),
    ("noise-1", 0.02, "random noise | L-infinity 0.0200 (5.1/255)",
     "one random noise, every pixel up or down by the whole strength"),
    ("transfer-20", 0.02, "transfer PGD-20 | L-infinity 0.0200 (5.1/255)",
     f"20 steps of 0.0025, made on another network, {GRADIENT}"),
    ("apgd-ce", 0.02, "APGD-CE | L-infinity 0.0200 (5.1/255)",
     "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, cross-entropy loss"),
    ("apgd-ce-l2", 0.5, "APGD-CE L2 | L2 0.5",
     "as in AutoAttack's standard version: 100 steps of adaptive size, a random start, cross-entropy loss"),
    ("autoattack", 0.02, "AutoAttack | L-infinity 0.0200 (5.1/255)",
     "standard version: APGD-CE, APGD-T, FAB-T, Square"),
    ("autoattack-l2", 0.5, "AutoAttack L2 | L2 0.5", "standard version: APGD-CE, APGD-T, FAB-T, Square"),
    ("square", 0.02, "Square-5000 | L-infinity 0.0200 (5.1/255)", "5,000 queries, of logits alone"),
    ("square-l2-1", 0.5, "Square L2 | L2 0.5", "1 query, of logits alone")])
def test_every_attack_reads_as_it_was_made(name, epsilon, row, shown):
    stored = at_strength(parse_attack(name), epsilon).describe() | {"accuracy": 0.5}
    assert f"\n| {row} | {shown} | 50.00 |  |" in evaluation_table(evaluation(stored))


def test_attacks_that_differ_read_differently():
    pgd, random = (at_strength(parse_attack("pgd-20"), 0.03, random_start=flag).describe() for flag in (False, True))
    assert parameters(random) == "20 steps of 0.00375, a random start, cross-entropy loss"
    assert parameters(pgd | {"loss": "mine"}).endswith("from the image, mine loss")
    transfer = at_strength(parse_attack("transfer-20"), 0.02).describe() | {"source": "0f3a"}
    assert "made on another network (`0f3a`)" in parameters(transfer)
    assert parameters({"method": "pgd", "steps": 7}) == "7 steps, from the image"  # a row with little in it
    every = {parameters(at_strength(parse_attack(name), 0.02).describe()) for name in ATTACKS}
    assert len(every) == len(ATTACKS)


def test_the_card_knows_what_the_rows_do_not_hold():
    """The attacks' own defaults, and the original AutoAttack's."""
    from pyautoattack import AutoAttack
    default = {**inspect.signature(carlini_wagner).parameters, **inspect.signature(mim).parameters}
    assert [default[name].default for name in ("learning_rate", "penalty", "momentum")] == [0.01, 0.5, 1.0]
    for norm in ("Linf", "L2"):
        apgd = AutoAttack(nn.Flatten(), norm=norm, eps=0.1, device="cpu").apgd
        assert (apgd.n_iter, apgd.n_restarts, apgd.loss) == (100, 1, "ce")


def test_the_command_is_without_the_machines_paths():
    argv = ["/home/me/wsrnas/retrain/train_cifar.py", "--recipe", "strong", "--data=/scratch/cifar", "--runs", "/big",
            "--arch", "/home/me/runs/search/x/genotype.json", "--save", "my run"]
    assert command({"command": argv, "processes": 1}) == (
        "python -m retrain.train_cifar --recipe strong --data=DATA --runs RUNS --arch x/genotype.json --save 'my run'")
    assert command({"command": argv[:3], "processes": 8}) == (
        "torchrun --standalone --nproc_per_node=8 -m retrain.train_cifar --recipe strong")


@pytest.mark.parametrize(("counts", "words"), [
    ((1,), "H200, 1 process"), ((2, 2), "H200, 2 processes"), ((), None),
    ((2, 2, 1, 2), "H200, 2, then 1, then 2 processes")])
def test_the_card_names_the_processes_of_every_start(counts, words):
    said = machine([{"device": "H200", "processes": count} for count in counts], [])
    assert (said[0] if said else None) == words


def test_epochs_are_counted_once_and_torn_lines_left_out(tmp_path):
    assert metrics(tmp_path) == []
    rows = [{"step": step, "train": {"seconds": seconds}} for step, seconds in ((0, 5), (1, 9), (1, 7))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n[]\n{"step": 2, "tra')
    assert [row["train"]["seconds"] for row in metrics(tmp_path)] == [5, 7]
