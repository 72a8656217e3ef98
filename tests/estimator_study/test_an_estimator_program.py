"""The AN-Estimator study as a program: its networks, and the whole of it at the smallest size."""

import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

import genotypes
from studies import noise_paths
from test_AN_estimator import benchmark as program
from test_AN_estimator import networks
from test_AN_estimator.networks import NetworkSpec, load_network, network_specs, train_network, training_tasks
from test_AN_estimator.noises import Noises
from test_AN_estimator.settings import PRESETS
from test_AN_estimator.study import check
from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.estimators import build_estimator
from wsrnas.models import build_model
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import STOPPED, InputError, Preempted
from wsrnas.runtime.program import run_program

pytestmark = [pytest.mark.usefixtures("quick_pages"), pytest.mark.filterwarnings("ignore::FutureWarning")]

# -- networks -------------------------------------------------------------------------------------------------------

CONFIG = replace(PRESETS["tiny"], device="cpu", networks=("cna_r:2:2",), layers=1, train_steps=1, network_batch_size=8)

REWRITTEN = {"report.md", "summary.json", "report.html"}  # by every start


def specs_of(*given):
    return network_specs(replace(CONFIG, networks=given))


@pytest.fixture(scope="module")
def data(quick_pages):
    """24 digits of 8x8 pixels to train, 10 to test."""
    digits = load_dataset("digits", max_train=30, max_test=10)
    return replace(digits, train=digits.train.subset(torch.arange(24)))


def test_networks_to_train_are_named_by_cell_channels_and_epochs(tmp_path):
    genotypes.load("cna_m").save(tmp_path / "my cell.json")
    specs = specs_of("cna_r:45:40", "WsrNet_Basic:4:1:natural", f"{tmp_path}/my cell.json:6:3", "cna_r:45:40")
    cells = [genotypes.load(name) for name in ("cna_r", "cna_r", "cna_m", "cna_r")]
    assert specs == [
        NetworkSpec("1-cna_r-45-40", "cna_r:45:40", cells[0], 45, 40),
        NetworkSpec("2-WsrNet_Basic-4-1-natural", "WsrNet_Basic:4:1:natural", cells[1], 4, 1, True),
        NetworkSpec("3-my-cell-json-6-3", f"{tmp_path}/my cell.json:6:3", cells[2], 6, 3),
        NetworkSpec("4-cna_r-45-40", "cna_r:45:40", cells[3], 45, 40)]


def test_networks_trained_before_are_named_by_their_place(tmp_path):
    (tmp_path / "wsr net").mkdir()
    (tmp_path / "user.py").touch()
    specs = specs_of(f"{tmp_path}/wsr net", f"{tmp_path}/user.py:network", f"{tmp_path}/user.py")
    assert [(spec.name, spec.genotype) for spec in specs] == [
        ("1-wsr-net", None), ("2-user-py-network", None), ("3-user-py", None)]


@pytest.mark.parametrize(("given", "words"), [
    ("cna_r", "'cna_r' is neither"), ("cna_r:4", "'cna_r:4' is neither"), ("cna_r:0:4", "is neither"),
    ("cna_r:4:0", "is neither"), ("cna_r:4:1:robust", "is neither"), ("cna_r:4:-1", "is neither"),
    (":4:1", "is neither"),
    ("no/such/run", "'no/such/run' is neither"), ("nobody.py:network", "is neither"), ("cna_x:4:1", "cna_x"),
    ("cna_r:4:1:2", "cna_r:4"),
])
def test_what_is_no_network_is_refused(given, words):
    with pytest.raises(InputError) as caught:
        specs_of("cna_r:4:1", given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def content(folder):
    """A trained network's folder without clocks: the checkpoint as plain values, tensors as bytes, and the metrics."""
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items() if key not in ("seconds", "images_per_second")}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return (value.dtype, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value
    rows = [plain(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return plain(checkpoint.read(folder / "checkpoint.pt")), rows, (folder / "FINISHED").read_text()


def train(folder, data, spec="cna_r:2:2", stop=lambda: False, number=0, **changes):
    """The folder's content after training, whatever torch's own generator is at."""
    torch.manual_seed(time.perf_counter_ns() % 1000)
    config = replace(CONFIG, networks=(spec,) * (number + 1), **changes)
    train_network(config, network_specs(config)[number], data, folder, World(), stop)
    return content(folder)


def weights(trained):
    return trained[0]["model"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """The content of a network trained without a stop: two epochs of three steps."""
    return train(tmp_path_factory.mktemp("whole"), data)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1, 2), (3, 1, 3), (6,)])
def test_a_network_stopped_anywhere_is_the_one_never_stopped(stops, data, whole, tmp_path):
    """``stops``: after how many of its steps each start is stopped; the third ends an epoch, which is not yet saved."""
    for steps in stops:
        answers = iter([False] * (steps - 1) + [True])
        with pytest.raises(Preempted, match=r"1-cna_r-2-2: stopped after epoch \d/2"):
            train(tmp_path, data, stop=lambda: next(answers))  # noqa: B023 - called here
        assert not (tmp_path / "FINISHED").exists()
    assert train(tmp_path, data) == whole
    assert [row["step"] for row in whole[1]] == [0, 1] and whole[0]["trainer"]["steps"] == 6


@pytest.mark.slow
def test_the_networks_learning_rate_ends_near_zero(whole):
    assert whole[0]["trainer"]["optimizer"]["param_groups"][0]["lr"] < 0.1 * CONFIG.learning_rate
    assert whole[0]["trainer"]["optimizer"]["param_groups"][0]["momentum"] == CONFIG.momentum


@pytest.mark.slow
def test_a_network_belongs_to_its_place_and_the_seed(data, whole, tmp_path):
    other, fellow = train(tmp_path / "seed", data, seed=1), train(tmp_path / "fellow", data, number=1)
    assert weights(other) != weights(whole) != weights(fellow)
    assert weights(train(tmp_path / "same", data, max_test=20)) == weights(whole)


def test_fellows_of_the_same_cell_begin_with_other_weights_and_batches(data):
    begins = []
    for spec in (*specs_of("cna_r:2:2", "cna_r:2:2"), *specs_of("cna_r:2:2")):
        trainer, loader = networks.make_trainer(CONFIG, spec, data, World())
        begins.append((torch.cat([p.flatten() for p in trainer.network.parameters()]), next(loader.batches())[0]))
    for one, fellow, again in zip(*begins, strict=True):
        assert torch.equal(one, again) and not torch.equal(one, fellow)


@pytest.mark.slow
def test_a_natural_network_is_trained_without_attacks(data, whole, tmp_path):
    natural = [train(tmp_path / str(epsilon), data, "cna_r:2:2:natural", epsilon=epsilon) for epsilon in (0.1, 0.3)]
    assert weights(natural[0]) == weights(natural[1])
    assert "clean_accuracy" in natural[0][1][0]["train"] and "adversarial_accuracy" not in natural[0][1][0]["train"]
    assert weights(train(tmp_path / "robust", data, epsilon=0.3)) != weights(whole)
    assert "adversarial_accuracy" in whole[1][0]["train"]


def test_the_longest_training_is_first(data, tmp_path):
    (tmp_path / "before").touch()
    given = ("cna_r:2:5", "cna_r:8:1", f"{tmp_path}/before", "cna_m:3:4:natural")
    tasks = training_tasks(CONFIG, specs_of(*given), data, tmp_path, World())
    names = [task.name for task in tasks]
    assert names == ["network-4-cna_m-3-4-natural", "network-1-cna_r-2-5", "network-2-cna_r-8-1"]
    (tmp_path / "1-cna_r-2-5").mkdir()
    (tmp_path / "1-cna_r-2-5" / "FINISHED").touch()
    assert [task.done() for task in tasks] == [False, True, False]


USER = """
import torch
from torch import nn

def network(classes=10):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.Flatten(), nn.LazyLinear(classes)).eval()

def small():
    model = network({classes})
    model(torch.zeros(1, 3, {size}, {size}))
    return model
"""


@pytest.mark.slow
def test_networks_from_every_place_are_loaded_ready_for_attacks(data, tmp_path):
    train(tmp_path / "1-cna_r-2-2", data)
    stored = checkpoint.read(tmp_path / "1-cna_r-2-2" / "checkpoint.pt")
    reference = build_model(genotypes.load("cna_r"), 10, 2, 1, "digits", 3)
    reference.load_state_dict(stored["model"])
    reference.eval()
    toy = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
    torch.jit.trace(toy, torch.rand(2, 3, 8, 8)).save(tmp_path / "toy.pt")
    (tmp_path / "user.py").write_text(USER.format(classes=10, size=8))
    spec = importlib.util.spec_from_file_location("user", tmp_path / "user.py")
    user = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(user)
    images, labels = data.test.images.float() / 255, data.test.labels
    for spec, expected in zip(specs_of("cna_r:2:2", f"{tmp_path}/1-cna_r-2-2", f"{tmp_path}/1-cna_r-2-2/checkpoint.pt",
                                       f"{tmp_path}/toy.pt", f"{tmp_path}/user.py:small"),
                              [reference] * 3 + [toy, user.small()], strict=True):
        model = load_network(spec, tmp_path, data, torch.device("cpu"))
        assert not any(module.training for module in model.modules())
        torch.testing.assert_close(model(images), expected(images))
        torch.testing.assert_close(pgd(model, images, labels, 0.1, 1), pgd(expected, images, labels, 0.1, 1))


def test_a_network_of_other_classes_is_refused_by_its_name(data, tmp_path):
    (tmp_path / "user.py").write_text(USER.format(classes=7, size=8))
    spec, = specs_of(f"{tmp_path}/user.py:small")
    with pytest.raises(InputError, match=r"user\.py:small: the network has logits for 7 classes") as caught:
        load_network(spec, tmp_path, data, torch.device("cpu"))
    assert "\n" not in str(caught.value)


ODD = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, behind):
        super().__init__()
        self.layers, self.last, self.behind = nn.Conv2d(3, 4, 3, stride=3), nn.Linear(16, 10), behind

    def forward(self, images):
        features = self.layers(images)
        return self.behind(self.last(features.view(len(features), -1)))

def half():
    return Odd(lambda logits: logits.half()).eval()

def detached():
    return Odd(lambda logits: logits.detach()).eval()

def squeezed():
    return Odd(lambda logits: logits.squeeze()).eval()
"""


def test_networks_pass_the_door_of_every_evaluation(data, tmp_path, capsys):
    (tmp_path / "odd.py").write_text(ODD)
    specs = specs_of(*(f"{tmp_path}/odd.py:{name}" for name in ("half", "detached", "squeezed")))
    images = (data.test.images.float() / 255).to(memory_format=torch.channels_last)
    assert load_network(specs[0], tmp_path, data, torch.device("cpu"))(images).dtype == torch.float32
    check(CONFIG, specs[:1], data, World())
    said = capsys.readouterr().out
    assert "(NCHW), and gets them so" in said and "its logits are float16, and become float32" in said
    for spec, words in ((specs[1], "odd.py:detached has no gradient for its images"), (specs[2], r"\.squeeze\(\)")):
        with pytest.raises(InputError, match=words):
            check(CONFIG, [spec], data, World())


# -- the whole program ----------------------------------------------------------------------------------------------

CELLS = ("cna_r:2:1", "cna_m:2:1:natural")
SETTINGS = ("leave-one-out", "spectrum-2", "spectrum-1")
SMALL = ["--preset", "tiny", "--device", "cpu", "--layers", "1", "--max_train", "40", "--max_test", "10",
         "--train_steps", "1", "--network_batch_size", "20", "--num_steps", "1", "--max_estimator_train", "16",
         "--batch_size", "4", "--rotation", "2", "--eval_batch_size", "6", "--sources", "0.1", "0.2",
         "--single_source", "0.1", "--spectrum", "0.05", "0.1", "0.25", "--save", "study"]
CLOCKS = ("milliseconds", "pgd_milliseconds", "share_of_pgd")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The smallest study: a cell trained with attacks, one without, and a network of the user's."""
    file = tmp_path_factory.mktemp("user") / "user.py"
    file.write_text(USER.format(classes=10, size=8))
    return [*SMALL, "--networks", *CELLS, f"{file}:small"]


def start(runs, flags, *more):
    torch.manual_seed(time.perf_counter_ns() % 1000)  # nothing may depend on torch's own generator
    program.main([*flags, "--runs", str(runs), *more])
    return runs / "test_AN_estimator" / "study"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, flags):
    """The study of two estimators, and what was printed about it."""
    lines = []
    with pytest.MonkeyPatch.context() as context:
        context.setattr(program, "print", lambda text, **_: lines.append(text), raising=False)
        folder = start(tmp_path_factory.mktemp("runs"), flags, "--estimators", "WA-ANE", "A-ANE")
    return folder, "\n".join(lines)


def results(folder):
    """Every result without what a clock measured."""
    found = {}
    for path in folder.glob("*/*/result.json"):
        values = json.loads(path.read_text())
        assert all(values.pop(clock) > 0 for clock in CLOCKS)
        found[path.parent.relative_to(folder).as_posix()] = values
    return found


def files(folder):
    """Bytes and time of every file."""
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


def fails(flags, *more, runs, capsys):
    """What a refused start says; it leaves every file as it was."""
    before = files(runs)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_program(lambda: start(runs, flags, *more))
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    after = {name: value for name, value in files(runs).items() if not name.endswith(".lock")}
    assert after == {name: value for name, value in before.items() if not name.endswith(".lock")}
    return said


@pytest.mark.slow
def test_a_study_ends_with_results_of_every_estimator_and_a_report(finished):
    folder, said = finished
    found = results(folder)
    assert set(found) == {f"{setting}/{name}" for setting in SETTINGS for name in ("WA-ANE", "A-ANE")}
    targets = {"leave-one-out": [0.1, 0.2, None], "spectrum-2": [0.05, 0.25], "spectrum-1": [0.05, 0.25]}
    for place, result in found.items():
        setting, name = place.split("/")
        assert (result["setting"], result["estimator"]) == (setting, name)
        assert result["sources"] == ([0.1] if setting == "spectrum-1" else [0.1, 0.2])
        assert (result["parameters"] > 0) == (name == "A-ANE")
        assert [network["network"] for network in result["networks"]] == [
            "1-cna_r-2-1", "2-cna_m-2-1-natural", "3-user-py-small"]
        for network in result["networks"]:
            assert [target["epsilon"] for target in network["targets"]] == targets[setting]
            assert all(len(target[name]) == len(network["clean"]) == 10 for target in network["targets"]
                       for name in ("estimate", "pgd"))
    assert (folder / "report.md").read_text() and json.loads((folder / "summary.json").read_text())
    assert all(name in said for name in (*SETTINGS, "WA-ANE", "A-ANE"))
    assert not list(folder.glob("networks/3-*"))  # the user's network is not trained


@pytest.mark.slow
def test_networks_and_attacks_are_the_same_for_all_estimators(finished):
    found = results(finished[0])
    for setting in SETTINGS:
        one, other = (found[f"{setting}/{name}"]["networks"] for name in ("WA-ANE", "A-ANE"))
        for a, b in zip(one, other, strict=True):
            assert a["clean"] == b["clean"]
            assert [target["pgd"] for target in a["targets"]] == [target["pgd"] for target in b["targets"]]


@pytest.mark.slow
def test_the_same_command_again_only_reports(finished, flags, monkeypatch, capsys):
    folder, said = finished
    before = files(folder)

    def never(*arguments):
        raise AssertionError("a finished study does no work")

    for module, name in ((networks, "train_network"), (program, "study_estimator"), (program, "load_network")):
        monkeypatch.setattr(module, name, never)
    start(folder.parent.parent, flags, "--estimators", "WA-ANE", "A-ANE")
    after = files(folder)
    assert capsys.readouterr().out.endswith(f"{said}\n")
    kept = {name for name in before if not name.startswith("figures/") and not name.endswith(".lock")}
    assert set(before) <= set(after)
    assert [name for name in kept if after[name][0] != before[name][0]] == []
    assert [name for name in kept - REWRITTEN if after[name] != before[name]] == []  # not written


@pytest.mark.slow
def test_an_estimator_added_later_is_the_only_one_trained(finished, flags, monkeypatch):
    folder, _ = finished
    before = files(folder)
    monkeypatch.setattr(program, "write_report", lambda config, study: ",".join(config.estimators))
    start(folder.parent.parent, flags, "--estimators", "WA-ANE", "C-ANE")
    after = files(folder)
    assert {name.split("/")[1] for name in set(after) - set(before) if not name.startswith("claims")} == {"C-ANE"}
    assert set(results(folder)) >= {f"{setting}/C-ANE" for setting in SETTINGS}
    assert all(after[name] == value for name, value in before.items()
               if not name.endswith(".lock") and name != "config.json")
    assert json.loads((folder / "config.json").read_text())["estimators"] == ["WA-ANE", "C-ANE"]  # the latest wish


@pytest.mark.slow
def test_stopped_again_and_again_equals_never_stopped(finished, flags, monkeypatch, capsys, tmp_path):
    """The same seed in another folder, asked to stop within each kind of work: the same results but for clocks."""
    moments = [("train_network", networks, 1), ("write", sys.modules["test_AN_estimator.noises"], 3),
               ("train_estimator", sys.modules["test_AN_estimator.training"], 2), ("measure", program, 2)]
    for name, module, call in moments:
        original, made = getattr(module, name), []

        def asked(*arguments, original=original, made=made, call=call, **keywords):
            made.append(original)
            if len(made) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments, **keywords)

        with monkeypatch.context() as context:
            context.setattr(module, name, asked)
            with pytest.raises(SystemExit) as end:
                run_program(lambda: start(tmp_path, flags, "--estimators", "WA-ANE", "A-ANE"))
        assert end.value.code == STOPPED == 75 and len(made) == call  # nothing is begun after the signal
        assert "stopped" in capsys.readouterr().err
    monkeypatch.setattr(program, "write_report", lambda *_: "")
    folder = start(tmp_path, flags, "--estimators", "WA-ANE", "A-ANE")
    expected = results(finished[0])
    assert results(folder) == {place: expected[place] for place in results(folder)}
    assert set(results(folder)) == {f"{setting}/{name}" for setting in SETTINGS for name in ("WA-ANE", "A-ANE")}
    for path in folder.glob("noises/*.pt"):
        assert path.read_bytes() == (finished[0] / "noises" / path.name).read_bytes()


@pytest.mark.slow
def test_another_seed_is_another_study(finished, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "estimator_tasks", lambda *_: [])
    monkeypatch.setattr(program, "write_report", lambda *_: "")
    folder = start(tmp_path, flags, "--estimators", "WA-ANE", "--seed", "1")
    for path in folder.glob("noises/*.pt"):
        assert path.read_bytes() != (finished[0] / "noises" / path.name).read_bytes()


@pytest.mark.slow
def test_another_configuration_is_refused_and_nothing_is_lost(finished, flags, capsys):
    changes = ["--num_steps", "2", "--sources", "0.1", "0.15"]
    said = fails(flags, *changes, runs=finished[0].parent.parent, capsys=capsys)
    assert "(num_steps: 1 -> 2; sources: [0.1, 0.2] -> [0.1, 0.15])" in said
    assert "--save" in said and "--overwrite" in said


@pytest.mark.slow
def test_other_images_or_networks_are_refused(finished, flags, capsys, monkeypatch, tmp_path):
    runs = finished[0].parent.parent
    load = program.load_dataset_once

    def changed(part):
        def other(*arguments, **keywords):
            data: DataSet = load(*arguments, **keywords)
            images = getattr(data, part).images.clone()
            images[0, 0, 0, 0] ^= 1
            return replace(data, **{part: ImageSet(images, getattr(data, part).labels)})
        return other

    for part, words in (("train", "(data set)"), ("test", "(test images)")):
        with monkeypatch.context() as context:
            context.setattr(program, "load_dataset_once", changed(part))
            assert words in fails(flags, runs=runs, capsys=capsys)
    other = genotypes.load("RACL")
    monkeypatch.setattr(genotypes, "load", lambda name: other)  # the same name, another cell
    assert "(networks)" in fails(flags, runs=runs, capsys=capsys)


@pytest.mark.parametrize(("more", "words"), [
    (["--estimators", "B-ANE"], "argument --estimators: invalid choice: 'B-ANE' (choose from"),
    (["--sources", "0.2", "0.2"], "sources contains 0.2 twice"),
    (["--networks", "cna_r"], "'cna_r' is neither"),
    (["--batch_size", "17"], "batch_size is 17, but the estimators' epoch has 16 images"),
    (["--network_batch_size", "41"], "network_batch_size is 41; expected at most 40"),
    (["--networks", "cna_r:2:1", "USER"], "the network has logits for 7 classes"),
])
@pytest.mark.parametrize("dry", [[], ["--dry_run"]], ids=["run", "dry run"])
def test_bad_input_is_told_before_anything_is_made(more, words, dry, flags, tmp_path, capsys):
    (tmp_path / "user.py").write_text(USER.format(classes=7, size=8))
    more = [f"{tmp_path}/user.py:small" if word == "USER" else word for word in more]
    assert words in fails(flags, *more, *dry, runs=tmp_path / "runs", capsys=capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_study_is_told(text, flags, tmp_path, capsys):
    folder = tmp_path / "test_AN_estimator" / "study"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    assert "config.json is not " in fails(flags, runs=tmp_path, capsys=capsys)


@pytest.mark.slow
def test_overwriting_moves_the_old_study_aside(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "share", lambda *_: None)
    monkeypatch.setattr(program, "write_report", lambda *_: "")
    folder = start(tmp_path, flags)
    (folder / "mine").touch()
    start(tmp_path, flags, "--num_steps", "2", "--overwrite")
    aside = folder.with_name("study.old1")
    assert (aside / "mine").exists() and not (folder / "mine").exists()
    assert [json.loads((path / "config.json").read_text())["num_steps"] for path in (aside, folder)] == [1, 2]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # a requeued job repeats its command line: the study is its own
    start(tmp_path, flags, "--num_steps", "2", "--overwrite")
    assert not folder.with_name("study.old2").exists()


def test_a_dry_run_writes_nothing_and_counts(flags, tmp_path, capsys):
    start(tmp_path / "runs", flags, "--dry_run")
    said = capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert "40 training and 10 test images" in said and "2-cna_m-2-1-natural" in said and "without attacks" in said
    assert "3-user-py-small: trained before" in said and "estimator C-ANE: 0 parameters" in said
    # Images through the networks: 40 with an attack of one step, 40 without. Attacks of one step: 16 at 4 strengths at
    # once, which share it; 30 at 5, one after the other.
    assert "networks 120 images forward and backward, noises 166 (16 of training images, 150 of test images)" in said
    assert "2 of training images, 6 of test images" in said  # files


# -- the study of how far one noise carries ------------------------------------------------------------------------

def test_noise_scaled_to_its_own_strength_is_the_attack(finished, flags, capsys):
    noise_paths.main([*flags, "--runs", str(finished[0].parents[1])])
    first, second = capsys.readouterr().out.split("\n\n")
    rows = [line.split() for line in first.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0.05", "0.1", "0.25"]
    assert [float(row[1 + place]) for place, row in enumerate(rows)] == [0.0] * 3
    for row in rows:
        gaps = [float(word) for word in row[1:4]]
        assert float(row[4]) == pytest.approx(sum(gaps) / 2, abs=0.06)
    assert second.count("\n") > 7 and "A-ANE, norm not restored" in second
    assert "anchor" not in second  # two targets have none
    assert second.splitlines()[1].split() == ["gap", "0.05", "0.25"]


def attacked(strengths, channels=3):
    """A network without training, and digits with the noises of a step of PGD at each strength."""
    images = load_dataset("digits", max_train=40, max_test=10).test
    torch.manual_seed(0)
    model = build_model("cna_r", 10, 2, 1, channels=channels).eval()
    pixels, epsilons = images.images[:, :channels].float() / 255, torch.tensor(strengths)
    noises = torch.stack([pgd(model, pixels, images.labels, e.item(), 1) - pixels for e in epsilons], 1)
    right = torch.ones(len(images), len(epsilons), dtype=torch.bool)
    return model, Noises(pixels, images.labels, epsilons.expand(len(images), -1), noises, right[:, 0], right)


def test_one_strength_has_no_mean_over_the_others(flags, tmp_path, capsys, monkeypatch):
    config, _ = parse_config(type(CONFIG), PRESETS, [*flags, "--runs", str(tmp_path), "--spectrum", "0.25"])
    monkeypatch.setattr(noise_paths, "networks", lambda *arguments: iter([attacked(config.tested_strengths)]))
    noise_paths.transfer(config, tmp_path, None, torch.device("cpu"))
    assert capsys.readouterr().out.splitlines()[2].split()[2] == "–"


@pytest.mark.parametrize("channels, targets", [(1, 2), (3, 5)])
def test_every_rule_makes_a_noise_for_each_target(channels, targets, flags, tmp_path):
    config, _ = parse_config(type(CONFIG), PRESETS, [*flags, "--runs", str(tmp_path)])
    model, made = attacked(config.tested_strengths, channels)
    checkpoint.save(tmp_path / "a.pt", {"estimator": build_estimator("A-ANE", (channels, 8, 8)).state_dict()})
    rules = noise_paths.make_rules(config, tmp_path / "a.pt", (channels, 8, 8), targets, torch.device("cpu"))
    assert ("FGSM at C-ANE's anchors" in rules) == (targets > 3)
    for rule in rules.values():
        noise = rule(model, made, made.noises[:, :1], torch.tensor([0.05]), torch.linspace(0.06, 0.2, targets))
        assert noise.shape == (10, targets, channels, 8, 8) and noise.isfinite().all()


def test_noise_paths_wants_a_finished_study_and_only_flags_that_it_reads(finished, flags, tmp_path, capsys):
    shutil.copytree(finished[0].parents[1], tmp_path / "runs")
    words = [*flags, "--runs", str(tmp_path / "runs")]
    noise_paths.main([*words, "--dry_run"])
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(InputError, match="unknown argument '--overwrite'"):
        noise_paths.main([*words, "--overwrite"])
    for flag, value in (("--estimators", "E-ANE"), ("--track", "wandb")):
        with pytest.raises(InputError, match=f"{flag} is given, but nothing reads it: .*test_AN_estimator.benchmark"):
            noise_paths.main([*words, flag, value])
    with pytest.raises(InputError, match=r"no study .*gone; expected that of test_AN_estimator.benchmark with these"):
        noise_paths.main([*words, "--save", "gone"])
    (tmp_path / "runs" / "test_AN_estimator" / "study" / "spectrum-1" / "A-ANE" / "FINISHED").unlink()
    with pytest.raises(InputError, match=r"A-ANE holds no finished training; expected that of test_AN_estimator"):
        noise_paths.main(words)
    assert capsys.readouterr().out == ""
