"""Evaluation from its command line: anyone's network, every protocol, results and pages on disk, kills."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import genotypes
import retrain.evaluate as program
import retrain.evaluate_network as measurement
import retrain.export as export
import retrain.vulnerability.__main__ as vulnerability
from retrain.evaluate_files import file_label
from retrain.evaluate_settings import EvaluateConfig
from retrain.evaluated_images import load_images
from tests.quick import slow_after
from wsrnas.data.datasets import load_dataset
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import robust_accuracy
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.models import build_model, description
from wsrnas.runtime import checkpoint, place
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.subjects import checking
from wsrnas.subjects.checkpoints import load_model
from wsrnas.subjects.fitting import fitted
from wsrnas.subjects.images import EvaluationImages, folder_of_images
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.opening import open_model

pytestmark = pytest.mark.usefixtures("quick_programs")

ROOT = Path(__file__).parents[2]
NETWORK = '''
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)).eval()

def narrow():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 9)).eval()

def negative():
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    return model

def noisy():
    return nn.Sequential(*build(), Noise()).eval()

class Noise(nn.Module):
    def forward(self, logits):
        return logits + torch.rand_like(logits)

def training():
    return build().train()

def twice():
    model = build()
    with torch.no_grad():
        model[2].weight *= 2
        model[2].bias *= 2
    return model

class Detached(nn.Module):
    def forward(self, images):
        return images.detach()

def detached():
    return nn.Sequential(Detached(), *build()).eval()

def nan():
    return nn.Sequential(*build(), nn.Threshold(1e9, float("nan"))).eval()
'''


@pytest.fixture
def run(tmp_path) -> Path:
    """The run directory of a retraining on the digits, as far as evaluation reads it."""
    torch.manual_seed(0)
    genotype = genotypes.load("RACL")
    model = build_model(genotype, 10, 2, 3)
    images = load_dataset("digits").train.images[::10].float() / 255
    model(images)
    folder = tmp_path / "runs" / "retrain" / "small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name in ("best.pt", "checkpoint.pt"):
        network = description(genotype, 10, 2, 3, "digits", images.shape[1:])
        checkpoint.save(folder / name, {"model": model.state_dict(), "step": 1, "network": network})
        model(images)  # the last network is not the best one
    return folder


@pytest.fixture
def network(tmp_path) -> str:
    (tmp_path / "mine.py").write_text(NETWORK)
    return f"{tmp_path / 'mine.py'}:build"


def evaluate(run_or_network, *argv, runs=None):
    argv = ["--model", run_or_network, "--device", "cpu", "--max_test", 20, "--batch_size", 8, *argv]
    program.main([*map(str, argv), *(["--runs", str(runs)] if runs else [])])


def result_of(folder: Path, pattern: str) -> dict:
    """The one result in a folder; a network of no run directory has a folder that begins with its name."""
    folder = folder if folder.exists() else next(folder.parent.glob(f"{folder.name}-*"))
    file, = (folder / "eval").glob(pattern)
    return json.loads(file.read_text())


@pytest.mark.slow
def test_a_retrained_network_is_evaluated_printed_stored_and_drawn(run, capsys):
    evaluate(run, "--strengths", "4/255", "0.1", "--attacks", "pgd-2")
    said = capsys.readouterr().out
    result = result_of(run, "pgd-2-0.01569_0.1-*-digits-20images-best.json")
    assert (result["images"], result["dataset"], result["protocol"]) == (20, "digits", "custom")
    assert result["model"]["source"] == str(run / "best.pt") and result["model"]["genotype"]["format"]
    assert result["complete"] and len(result["checks"]) == 9 and result["environment"]["torch"] == torch.__version__
    assert [(row["epsilon"], row["steps"], row["step_size"]) for row in result["attacks"]] == [
        (4 / 255, 2, pytest.approx(1.25 * 4 / 255)), (0.1, 2, pytest.approx(0.125))]
    for row in [result["clean"], *result["attacks"]]:
        assert row["robust"].count("1") / 20 == row["accuracy"]
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
        assert f"{100 * row['accuracy']:.2f}" in said
    assert "PGD-2  eps 0.0157 (4/255)" in said and "20 test images" in said and "honesty checks" in said
    page = run / "report.html"
    assert f"report: {page}" in said and "</html>" in page.read_text()

    model, _ = load_model(run / "best.pt")
    loader = BatchLoader(load_dataset("digits", max_test=20).test, 20, 0, "test")
    direct = robust_accuracy(model, loader, (4 / 255, 0.1), 2)
    assert direct["clean_accuracy"] == result["clean"]["accuracy"]
    clean = result["clean"]["robust"]
    for row, other in zip(result["attacks"], direct["strengths"], strict=True):
        assert row["accuracy"] <= other["accuracy"]
        assert all(c == "1" for c, r in zip(clean, row["robust"], strict=True) if r == "1")


@pytest.mark.slow
def test_the_papers_protocol_is_the_default(run):
    evaluate(run, "--weights", "last", "--max_test", 10)
    result = result_of(run, "paper-digits-10images-checkpoint.json")
    rows = [(row["attack"], row["epsilon"], row["random_start"]) for row in result["attacks"]]
    strengths = (0.03, 0.1, 0.17, 0.25)
    assert rows == [("FGSM", e, False) for e in strengths] + [("PGD-20", e, False) for e in strengths]
    assert len(result["average_robust"]["over"]) == 4 and all("PGD-20" in name for name in
                                                             result["average_robust"]["over"])
    mean = sum(row["accuracy"] for row in result["attacks"][4:]) / 4
    assert result["average_robust"]["accuracy"] == pytest.approx(mean)


@pytest.mark.parametrize("argv, protocol, count", [
    ([], "paper", 8), (["--protocol", "imagenet"], "imagenet", 6), (["--dataset", "imagenet"], "imagenet", 6),
    (["--protocol", "rnas"], "rnas", 5), (["--protocol", "spectrum"], "spectrum", 20),
    (["--protocol", "official"], "official", 4), (["--protocol", "custom"], "custom", 1),
    (["--strengths", "0.1", "8/10"], "custom", 2),
    (["--attacks", "fgsm", "cw-l2", "--strengths", "0.1", "0.2"], "custom", 3),
    (["--random_start"], "custom", 1), (["--attacks", "pgd-l2-5", "--l2_strengths", "0.5", "2"], "custom", 2),
])
def test_the_protocol_that_applies(argv, protocol, count):
    config = parse_config(EvaluateConfig, None, ["--model", "x", *argv])[0]
    name, attacks = config.chosen(config.dataset)
    assert (name, len(attacks)) == (protocol, count)


def test_different_evaluations_have_different_files():
    labels = []
    for argv in ([], ["--strengths", "0.1"], ["--strengths", "0.2"], ["--attacks", "pgd-10"], ["--random_start"],
                 ["--step_size_ratio", "0.2"], ["--protocol", "rnas"], ["--max_test", "20"], ["--seed", "1"],
                 ["--attacks", "pgd-l2-20"], ["--attacks", "pgd-l2-20", "--l2_strengths", "2"]):
        config = parse_config(EvaluateConfig, None, ["--model", "x", *argv])[0]
        labels.append(file_label(config, *config.chosen("digits"), "digits"))
    assert len(set(labels)) == len(labels) and not any("/" in label or " " in label for label in labels)


@pytest.mark.slow
def test_someone_elses_network_and_its_comparison_with_ours(run, network, capsys, tmp_path):
    runs = tmp_path / "runs"
    program.main(["--model", str(run), network, "--names", "ours", "mine", "--dataset", "digits", "--device", "cpu",
                  "--max_test", "40", "--attacks", "fgsm", "transfer-2", "--strengths", "0.05", "--runs", str(runs)])
    said = capsys.readouterr().out
    ours, mine = result_of(run, "*.json"), result_of(runs / "evaluate" / "mine", "*.json")
    assert ours["image_set"] == mine["image_set"] and mine["model"]["genotype"] is None
    assert ours["transfer_source"].endswith("mine.py:build") and mine["transfer_source"] == str(run / "best.pt")
    difference = 100 * (mine["attacks"][0]["accuracy"] - ours["attacks"][0]["accuracy"])
    assert f"mine - ours  FGSM  eps 0.0500 (12.75/255): {difference:+.2f} points" in said
    assert f"mine: transfer attacks use the images of {run / 'best.pt'}" in said
    assert "mine - ours  transfer" not in said, "each from the other: these are two attacks"
    assert mine["attacks"][1]["source"] == ours["model"]["fingerprint"][:8] != ours["attacks"][1]["source"]
    assert f"report: {runs / 'evaluate' / 'ours-mine' / 'report.html'}" in said
    assert (runs / "evaluate" / "ours-mine" / "report.html").is_file()
    assert len(list((runs / "evaluate").glob("mine-*/report.html"))) == 1


@pytest.mark.slow
def test_everything_goes_where_out_says(run, network, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    few = ["--dataset", "digits", "--device", "cpu", "--max_test", "10", "--attacks", "fgsm", "--runs",
           str(tmp_path / "no")]
    program.main(["--model", str(run), "--out", str(tmp_path / "one"), *few])
    program.main(["--model", str(run), network, "--out", str(tmp_path / "two"), *few])
    assert result_of(tmp_path / "one", "*.json")["images"] == result_of(tmp_path / "two" / "small", "*.json")["images"]
    pages = [list(tmp_path.glob(f"{place}/report.html")) for place in ("one", "two", "two/small-*", "two/mine.build-*")]
    assert all(len(found) == 1 for found in pages)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before and not (tmp_path / "no").exists()


class Stopped(Exception):
    pass


def test_the_command_line_reaches_the_measurement(network, monkeypatch, tmp_path):
    given = []

    def stop(*arguments, spare_fallen, level, curve):
        given.append(arguments)
        assert spare_fallen and level == "quick" and curve is None
        assert not torch.backends.cudnn.allow_tf32
        raise Stopped

    monkeypatch.setattr(measurement, "measure", stop)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(Stopped):
        evaluate(network, "--dataset", "digits", "--seed", 5, "--check_images", 31, "--checks", "quick", "--source",
                 network.replace("build", "negative"), "--attacks",
                 "pgd-3", "--strengths", 0.2, "--random_start", "--step_size_ratio", 0.5, runs=tmp_path)
    (evaluation, (attack,), check_images, _), = given
    assert (evaluation.seed, evaluation.batch_size, evaluation.num_classes, check_images) == (5, 8, 10, 31)
    expected = load_dataset("digits", max_test=20, seed=5).test.fingerprint()
    assert expected != load_dataset("digits", max_test=20).test.fingerprint()
    assert evaluation.loader.image_set.fingerprint() == expected
    assert (attack.label, attack.epsilon, attack.random_start) == ("PGD-3", 0.2, True)
    assert attack.step_size == pytest.approx(0.1)
    assert evaluation.source is not None is not evaluation.source_name and evaluation.source is not evaluation.model
    assert evaluation.journal.header["image_set"] == expected and evaluation.journal.header["seed"] == 5


@pytest.mark.slow
def test_every_network_is_checked_on_images_of_all_classes(run, network, monkeypatch, tmp_path):
    checked = []
    monkeypatch.setattr(checking, "check_model", lambda model, images, labels, classes, range_is_known, **more:
                        checked.append((len(images), len(labels.unique()), classes, range_is_known)))
    evaluate(run, "--attacks", "fgsm", "--source", network)
    assert checked == [(20, 10, 10, True), (20, 10, 10, False)]


def test_a_source_is_named_where_it_does_not_fit(network, tmp_path):
    with pytest.raises(InputError, match=r"mine.py:narrow: .* 9 classes"):
        evaluate(network, "--dataset", "digits", "--source", network.replace("build", "narrow"), runs=tmp_path / "runs")


@pytest.mark.slow
def test_networks_of_one_name_are_told_apart_by_where_they_are_from(network, capsys, tmp_path):
    other = network.replace("mine.py", "b/mine.py")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.py").write_text(NETWORK.replace("manual_seed(0)", "manual_seed(1)"))
    few = ["--dataset", "digits", "--device", "cpu", "--max_test", "10", "--attacks", "fgsm", "--runs", str(tmp_path)]
    program.main(["--model", network, other, *few])
    assert f"{other} - {network}  clean: " in capsys.readouterr().out
    for given in (network, other):
        program.main(["--model", given, *few])
    folders = list((tmp_path / "evaluate").glob("mine.build-*"))
    results = [json.loads(next(folder.glob("eval/*.json")).read_text()) for folder in folders]
    assert {result["model"]["source"] for result in results} == {network, other}


@pytest.mark.parametrize("argv, words", slow_after(1, [
    (["--model", "{net}", "{net}"], "is among the networks twice"),
    (["--model", "{net}", "{other}", "--names", "x", "x"], "x is among the names twice"),
    (["--model", "{net}", "--source", "{net}"], "expected another one"),
]))
def test_what_cannot_be_told_apart_is_refused(argv, words, network, tmp_path):
    given = [text.format(net=network, other=network.replace("build", "negative")) for text in argv]
    with pytest.raises(InputError, match=words):
        program.main([*given, "--dataset", "digits", "--device", "cpu", "--max_test", "10", "--attacks", "fgsm",
                      "--runs", str(tmp_path)])


@pytest.mark.slow
def test_each_source_has_its_own_images(network, tmp_path):
    """Its own images are the end of a linear network, its negative's do it good."""
    found = []
    for source in ("twice", "negative", "twice"):
        evaluate(network, "--dataset", "digits", "--attacks", "transfer-2", "--strengths", 0.5, "--source",
                 network.replace("build", source), runs=tmp_path)
        results = [json.loads(path.read_text()) for path in tmp_path.glob("evaluate/mine.build-*/eval/*.json")]
        result, = (r for r in results if r["transfer_source"].endswith(source))
        assert result["transfer_source"] == network.replace("build", source) and result["clean"]["accuracy"] > 0
        found.append(result["attacks"][0]["accuracy"] / result["clean"]["accuracy"])
    assert found == [0, 1, 0]
    assert len(list((tmp_path / "evaluate").glob("mine.build-*/eval/*.json"))) == 2


@pytest.mark.parametrize("main", [program.main, export.main, vulnerability.main])
def test_the_last_weights_are_those_of_a_run_directory(run, main):
    with pytest.raises(InputError, match=r"--weights is given, but nothing reads it: .*best.pt is no run"):
        main(["--model", str(run / "best.pt"), "--weights", "last"])


def test_what_a_signal_leaves_of_an_evaluation_can_go_on(tmp_path):
    place.watch_none()
    journal = Journal(tmp_path / "eval" / "chunks", {})
    assert not place.can_go_on(), "nothing is saved yet"
    journal.stay()
    assert place.can_go_on()


@pytest.mark.parametrize("damage", ["cut", "NaN", "other"])
def test_a_second_network_that_nobody_asked_for_stops_nothing(run, damage, capsys):
    """Of a run, the checks use the last network beside the best one; it may have diverged, or be damaged."""
    last = run / "checkpoint.pt"
    payload = torch.load(last)
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-500])
    else:
        payload["model"] = {name: value * float("nan") if value.is_floating_point() else value
                            for name, value in payload["model"].items()} if damage == "NaN" else {}
        checkpoint.save(last, payload)
    flags = ["--attacks", "fgsm", "--strengths", "0.03", "--max_test", "20", "--checks", "none", "--device", "cpu"]
    program.main(["--model", str(run), *flags])
    said = capsys.readouterr()
    assert "note: " in said.out + said.err and "FGSM" in said.out
    with pytest.raises(InputError):
        program.main(["--model", str(run), "--weights", "last", *flags])


def test_failed_checks_are_said_last_and_stored(network, capsys, tmp_path):
    evaluate(network.replace("build", "noisy"), "--dataset", "digits", "--attacks", "fgsm", runs=tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert "!!! mine.noisy: 1 honesty check(s) FAILED, see above; do not publish these numbers" in said[-2:]
    assert result_of(tmp_path / "evaluate" / "mine.noisy", "*.json")["failed_checks"] == ["logits are deterministic"]


@pytest.mark.slow
def test_a_named_architecture_with_weights(run, tmp_path):
    weights = tmp_path / "weights.pt"
    state = torch.load(run / "best.pt", weights_only=True)["model"]
    torch.save({f"module.{name}": value for name, value in state.items()}, weights)
    program.main(["--model", "RACL", "--state_dict", str(weights), "--layers", "3", "--dataset", "digits", "--device",
                  "cpu", "--max_test", "10", "--attacks", "fgsm", "--runs", str(tmp_path / "runs")])
    evaluate(run, "--max_test", 10, "--attacks", "fgsm")
    named = result_of(tmp_path / "runs" / "evaluate" / "RACL", "*.json")
    assert named["attacks"][0]["robust"] == result_of(run, "*.json")["attacks"][0]["robust"]
    assert named["model"]["parameters"] == result_of(run, "*.json")["model"]["parameters"]


@pytest.mark.slow
def test_the_published_way_stands_beside_the_honest_one(network, capsys, tmp_path):
    evaluate(network, "--dataset", "digits", "--protocol", "official", "--max_test", 10, runs=tmp_path)
    folder, said = tmp_path / "evaluate" / "mine.build", capsys.readouterr().out
    result = result_of(folder, "official-digits-10images*.json")
    assert len(result["official"]) == 4
    assert [row["honest"] for row in result["official"]] == [row["accuracy"] for row in result["attacks"]]
    for row in result["official"]:
        assert f"published way {100 * row['published_way']:.2f} %, honest {100 * row['honest']:.2f} %" in said


def test_the_published_way_is_compared_strength_by_strength(network, monkeypatch, tmp_path):
    measured = measurement.measure

    def robust_at_small_strengths(*arguments, spare_fallen, level, curve):
        assert not spare_fallen, "the published way attacks every image at every strength"
        result = measured(*arguments, spare_fallen=spare_fallen, level=level, curve=curve)
        for row, count in zip(result["attacks"], (9, 6, 3, 1), strict=True):
            row |= {"robust": "1" * count + "0" * (10 - count), "accuracy": count / 10}
        return result

    monkeypatch.setattr(measurement, "measure", robust_at_small_strengths)
    monkeypatch.setattr(measurement, "official_accuracy", lambda *a, **k: torch.ones(4, 10, dtype=torch.bool))
    evaluate(network, "--dataset", "digits", "--protocol", "official", "--max_test", 10, runs=tmp_path)
    rows = result_of(tmp_path / "evaluate" / "mine.build", "*.json")["official"]
    assert [(row["epsilon"], row["honest"], row["published_way"]) for row in rows] == [
        (0.03, 0.9, 1), (0.1, 0.6, 1), (0.17, 0.3, 1), (0.25, 0.1, 1)]


@pytest.mark.slow
def test_what_the_published_way_has_found_is_kept_until_overwrite(network, monkeypatch, tmp_path):
    known, measured = [], measurement.official_accuracy

    def look(*arguments, state, **others):
        known.append(state.exists())
        return measured(*arguments, state=state, **others)

    monkeypatch.setattr(measurement, "official_accuracy", look)
    for more in ([], [], ["--overwrite"]):
        evaluate(network, "--dataset", "digits", "--protocol", "official", "--max_test", 10, *more, runs=tmp_path)
    assert known == [False, True, False]


def test_the_published_way_needs_a_training_mode(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3600, 10)).eval()
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(model, (torch.rand(4, 3, 32, 32),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, tmp_path / "network.pt2")
    with pytest.raises(InputError, match="without a training mode, which the published way"):
        evaluate(tmp_path / "network.pt2", "--dataset", "digits", "--protocol", "official", runs=tmp_path)


@pytest.mark.slow
def test_autoattack_prints_the_two_lines_of_robustbench(network, capsys, tmp_path):
    evaluate(network, "--attacks", "apgd-ce", "autoattack", "--strengths", "0.9", "--dataset", "digits", "--max_test",
             10, runs=tmp_path)
    result = result_of(tmp_path / "evaluate" / "mine.build", "*.json")
    assert (f"mine.build, AutoAttack  eps 0.9000 (229.5/255):\nClean accuracy: {result['clean']['accuracy']:.2%}\n"
            f"Adversarial accuracy: {result['attacks'][1]['accuracy']:.2%}\n") in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_keeps_the_results_of_several_runs(run, tmp_path):
    other = run.with_name("other")
    shutil.copytree(run, other)
    for folder in (run, other, run):
        evaluate(folder, "--attacks", "fgsm", "--strengths", "0.1", "--checks", "none", "--out", tmp_path / "out")
    found = [json.loads(path.read_text()) for path in (tmp_path / "out" / "eval").glob("*.json")]
    assert {result["model"]["source"] for result in found} == {str(run / "best.pt"), str(other / "best.pt")}
    assert len(list((tmp_path / "out" / "eval").glob("chunks-*"))) == 2


@pytest.mark.slow
def test_fewer_checks_of_the_same_numbers_take_none_away(run):
    numbers = ["--attacks", "fgsm", "--strengths", "0.1"]
    evaluate(run, *numbers, "--checks", "quick")
    checked = result_of(run, "fgsm*.json")
    evaluate(run, *numbers, "--checks", "none")
    assert {name: result_of(run, "fgsm*.json")[name] for name in ("check_level", "checks")} == {
        name: checked[name] for name in ("check_level", "checks")}
    evaluate(run, *numbers, "--checks", "full")
    assert result_of(run, "fgsm*.json")["check_level"] == "full"


@pytest.mark.slow
def test_overwrite_keeps_what_other_attacks_have_measured(run):
    evaluate(run, "--attacks", "pgd-2", "--strengths", "0.1", "--checks", "none")
    evaluate(run, "--attacks", "fgsm", "--strengths", "0.1", "--checks", "none", "--overwrite")
    aside = [path.name for path in (run / "eval").glob("chunks-*.old1/*.jsonl")]
    assert any(name.startswith("pgd_") for name in aside) and not any(
        path.name.startswith("pgd_") for path in chunks(run))


def test_a_transfer_attack_without_a_source_of_images_is_refused_by_a_dry_run(network, tmp_path):
    pair = [network, network.replace("build", "detached")]
    for dry in ([], ["--dry_run"]):
        with pytest.raises(InputError, match="needs another network with a gradient to make its images"):
            program.main(["--model", *pair, "--device", "cpu", "--dataset", "digits", "--max_test", "20", "--attacks",
                          "noise-2", "transfer", "--checks", "none", "--runs", str(tmp_path), *dry])


def chunks(run):
    """The files of what was measured, without those that --overwrite has moved aside."""
    return [path for path in (run / "eval").glob("chunks-*/*.jsonl") if ".old" not in path.parent.name]


@pytest.mark.slow
def test_killed_and_started_again_it_says_the_same(run, monkeypatch):
    argv = ["--attacks", "pgd-2x2", "noise-3", "--strengths", "0.05", "0.1"]
    evaluate(run, *argv)
    expected = result_of(run, "*.json")
    evaluate(run, *argv, "--overwrite")
    assert len(list((run / "eval").glob("chunks-*.old1/*.jsonl"))) == len(chunks(run))  # nothing is deleted
    lines = sum(len(path.read_text().splitlines()) for path in chunks(run))
    for path in [*chunks(run), *(run / "eval").glob("*.json")]:
        path.unlink()

    class Killed(BaseException):
        pass

    # private: _in_parts is where an evaluation may be killed, once a batch of images
    original, left = Evaluation._in_parts, iter([0] * 5 + [1] * 99)

    def dying(*arguments):
        if next(left):
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(Evaluation, "_in_parts", dying)  # private: as above
    with pytest.raises(Killed):
        evaluate(run, *argv)
    partial = result_of(run, "*.json")
    assert not partial["complete"] and partial["checks"] == []
    calls = []
    # private: as above
    monkeypatch.setattr(Evaluation, "_in_parts", lambda *a: calls.append(1) or original(*a))
    evaluate(run, *argv)
    again = result_of(run, "*.json")
    for row in [*expected["attacks"], *again["attacks"]]:
        assert row.pop("seconds") >= 0
    assert again["attacks"] == expected["attacks"] and again["clean"] == expected["clean"]
    assert sum(len(path.read_text().splitlines()) for path in chunks(run)) == lines
    done = len(calls)
    evaluate(run, *argv)
    assert len(calls) == done, "a finished evaluation is read, not measured"
    evaluate(run, *argv, "--overwrite")
    assert len(calls) > done
    left = iter([0] * 5 + [1] * 99)
    monkeypatch.setattr(Evaluation, "_in_parts", dying)  # private: as above
    with pytest.raises(Killed):
        evaluate(run, *argv, "--overwrite")
    assert result_of(run, "*.json")["complete"], "the old numbers stay until the new ones are whole"


@pytest.mark.slow
def test_two_evaluations_of_the_same_chunks_do_not_mix(run):
    evaluate(run, "--attacks", "fgsm")
    folder, = (run / "eval").glob("chunks-*")
    code = ("import pathlib, sys, wsrnas.runtime.locks\nheld = wsrnas.runtime.locks.hold(pathlib.Path(sys.argv[1]))\n"
            "print(1, flush=True)\ninput()")
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          cwd=ROOT) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match=r"another process is writing .*chunks"):
            evaluate(run, "--attacks", "fgsm")
        other.communicate(b"\n")
    evaluate(run, "--attacks", "fgsm")


@pytest.mark.parametrize(("given", "dataset", "expected"), [
    ("data", "folder", "there"), ("elsewhere", "folder", "elsewhere"), ("data", "cifar10", "data")])
def test_images_are_where_the_training_had_them_unless_data_says_otherwise(given, dataset, expected, tmp_path, capsys,
                                                                          monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    trained = ModelSource(nn.Identity(), "x", "x", "x", record={"config": {"data": "there", "dataset": "folder"}})
    assert folder_of_images(given, [trained], dataset) == expected
    assert ("images: from there" in capsys.readouterr().out) is (expected == "there")
    Path("data").mkdir()
    assert folder_of_images("data", [trained], "folder") == "data"


def test_pictures_of_another_size_are_other_images(tmp_path):
    for part in ("train", "val"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / part / name).mkdir(parents=True)
            pixels = np.full((40, 40, 3), 60 + 100 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / name / "0.png")
    config = parse_config(EvaluateConfig, None, ["--model", "x", "--dataset", "imagenet", "--data", str(tmp_path)])[0]

    def fingerprint(size):
        known = ModelSource(nn.Identity(), "x", "x", "x", {"dataset": "imagenet", "image_shape": [3, size, size]})
        return load_images(config, [known], World(), "", 500, 0).fingerprint

    assert fingerprint(32) != fingerprint(64) and fingerprint(32) == fingerprint(32)
    before = fingerprint(32)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
        tmp_path / "val" / "a" / "0.png")
    assert fingerprint(32) != before, "another picture of the same name"


@pytest.mark.slow
def test_a_retrained_run_is_not_given_its_former_numbers(run):
    evaluate(run, "--attacks", "fgsm")
    before = result_of(run, "*.json")["clean"]["robust"]
    (run / "checkpoint.pt").replace(run / "best.pt")
    state = torch.load(run / "best.pt", weights_only=True)
    state["model"]["classifier.bias"] += torch.arange(10.0) * 100
    torch.save(state, run / "best.pt")
    evaluate(run, "--attacks", "fgsm")
    assert result_of(run, "*.json")["clean"]["robust"] != before


def test_a_dry_run_writes_nothing(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in run.parent.parent.rglob("*")}
    evaluate(run, "--dry_run")
    said = capsys.readouterr().out
    for words in ("protocol", "network: ", "multiply-adds per image", "honesty checks (full): on at most 200 images",
                  "attack: PGD-20  eps 0.0300 (7.65/255): at most 400 images forward and backward",
                  "84 forward and backward and 8 forward; images that fell at a smaller strength are attacked again, "
                  "as published"):
        assert words in said, words
    assert {p: p.stat().st_mtime_ns for p in run.parent.parent.rglob("*")} == before


@pytest.mark.parametrize("function, words", [
    ("narrow", "9"), ("training", "in training mode"), ("nan", "not finite|NaN|nan"), ("missing", "missing"),
    ("detached", r"has no gradient .* and FGSM  eps 0.0300 \(7.65/255\) follows one; .* --attacks square noise"),
])
@pytest.mark.parametrize("dry_run", [[], ["--dry_run"]])
def test_a_network_that_cannot_be_evaluated_is_named(function, words, dry_run, network, tmp_path):
    with pytest.raises(InputError, match=words) as caught:
        evaluate(network.replace(":build", f":{function}"), "--dataset", "digits", *dry_run, runs=tmp_path / "runs")
    assert "mine.py" in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_network_without_gradient_has_no_curve(network, tmp_path):
    with pytest.raises(InputError, match=r"has no gradient .* and curve-55 follows one"):
        evaluate(network.replace(":build", ":detached"), "--dataset", "digits", "--protocol", "curve", runs=tmp_path)


def test_a_network_without_gradient_is_measured_by_attacks_that_need_none(network, capsys, tmp_path):
    detached = network.replace(":build", ":detached")
    evaluate(detached, "--dataset", "digits", "--attacks", "square-2", "noise", "transfer-1", "--source", network,
             "--check_images", 30, "--max_test", 60, runs=tmp_path)
    said = capsys.readouterr().out
    assert f"{detached}: no gradient leads from its logits back to its images" in said
    result = result_of(tmp_path / "evaluate" / "mine.detached", "*.json")
    assert result["model"]["notes"] == ["no gradient leads from its logits back to its images"]
    assert [row["method"] for row in result["attacks"]] == ["square", "noise", "transfer"]
    verdicts = {check["check"]: check["passed"] for check in result["checks"]}
    assert verdicts.pop("logits are deterministic") is True and verdicts.pop("gradients are not zero") is False
    assert set(verdicts.values()) == {None}
    with pytest.raises(InputError, match=r"the source .*:detached of transfer attacks has no gradient"):
        evaluate(network, "--dataset", "digits", "--attacks", "fgsm", "--source", detached, runs=tmp_path)


def test_what_the_data_are_must_be_said_for_a_network_that_does_not_know(network):
    with pytest.raises(InputError, match="the data set is not known: no network names one; choose one with --dataset"):
        evaluate(network)


@pytest.mark.slow
def test_networks_that_do_not_go_together_are_refused(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    state = torch.load(run / "best.pt", weights_only=True)
    state["network"]["dataset"] = "cifar10"
    torch.save(state, other / "best.pt")
    with pytest.raises(InputError, match=r"different data sets \(cifar10, digits\); choose one with --dataset"):
        program.main(["--model", str(run), str(other), "--device", "cpu"])
    images = EvaluationImages("digits", BatchLoader(load_dataset("digits", max_test=10).test, 5, 0, "test"), 7,
                                (3, 32, 32), "")
    with pytest.raises(InputError, match=r"trained on 10 classes of images .* but digits has 7 classes"):
        fitted(open_model(str(run)), images, torch.device("cpu"))
