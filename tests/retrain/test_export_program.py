"""The export program from its command line, with bad input too."""

import hashlib
import json
import runpy
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import genotypes
import retrain.publishing.writing
from retrain import export
from retrain.publishing import robustbench
from retrain.publishing.hub import sorted_header
from retrain.publishing.onnx_file import PACKAGES, difference
from retrain.publishing.package import SAFETENSORS, has_safetensors
from retrain.publishing.writing import sha256
from retrain.recipes import BASIC, IMAGENET
from tests.retrain.export_cases import EVERY, NONE, UNCHECKED, attack, evaluation, images, network
from wsrnas.genotype import Genotype
from wsrnas.runtime.config import to_dict
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program
from wsrnas.subjects.opening import open_model

# -- the program -----------------------------------------------------------------------------------------------------

def make_run(folder: Path, dataset: str = "cifar10", genotype: Genotype | str = NONE, large_classes: int = 1000,
             **changes) -> Path:
    """A run directory as retraining leaves it, with a best and another last checkpoint."""
    shape, classes = ((3, 32, 32), large_classes) if dataset == "imagenet" else ((3, 8, 8), 10)
    recipe = IMAGENET if dataset == "imagenet" else replace(BASIC, dataset=dataset)
    config = to_dict(replace(recipe, runs="/secret/runs", data="/secret/data", epochs=9, **changes))
    folder.mkdir(parents=True)
    model, info = network(genotype, dataset, shape, classes)
    torch.save({"step": 9, "network": info, "model": model.state_dict(), "config": config}, folder / "checkpoint.pt")
    model.classifier.bias.data += 1
    best = {"epoch": 5, "clean_accuracy": 0.8, "robust_accuracy": 0.5}
    torch.save({"step": 5, "network": info, "model": model.state_dict(), "best": best, "config": config},
               folder / "best.pt")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "env.json").write_text(json.dumps([{
        "command": ["/secret/retrain/train_cifar.py", "--data", "/secret/data"], "processes": 1, "device": "H200",
        "python": "3.12", "torch": "2.15", "cuda": "13", "git": "abc", "host": "secret"}]))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"step": k, "train": {"seconds": 1800.0}, "peak_memory_gib": 2.0}) + "\n" for k in range(9)))
    (folder / "FINISHED").write_text("done")
    return folder


def store(run: Path, document: dict, file: str = "best.pt") -> None:
    document["model"]["fingerprint"] = open_model(str(run / file)).fingerprint
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / f"{len(list((run / 'eval').iterdir()))}.json").write_text(json.dumps(document))


@pytest.fixture
def hasty(monkeypatch):
    """Without the fresh process and the drawing, which other tests look at."""
    monkeypatch.setattr(retrain.publishing.writing, "check_in_fresh_process", lambda *given: None)
    monkeypatch.setattr(retrain.publishing.writing, "draw_genotype", lambda *given: None)


@pytest.mark.slow
def test_a_package_has_every_file_that_a_leaderboard_asks_for(tmp_path, capsys):
    run, out = make_run(tmp_path / "run", genotype=genotypes.load("WsrNet_Plus")), tmp_path / "out"
    name = "network_run"
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)))
    export.main(["--model", str(run), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {
        f"{name}.py", f"{name}.pt", f"{name}.json", "README.md", "NEW_MODEL_ISSUE.md", "LICENSE", "hubconf.py",
        "__init__.py", "cells.svg", "cells.png", "config.json", "report.html", *[SAFETENSORS] * has_safetensors()}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    info = json.loads((out / f"{name}.json").read_text())
    assert info["name"] == "Neural Architecture Search for Wide Spectrum Adversarial Robustness"
    assert info["authors"].startswith("Zhi Cheng, ") and info["venue"] == "AAAI 2023" and info["link"]
    assert info["architecture"] == "WsrNet_Plus (C = 4, 4 cells)" and info["autoattack_acc"] == "50.00"
    card = (out / "README.md").read_text()
    for path in out.iterdir():
        line = f"| `{path.name}` | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"
        assert (line in card) is (path.name not in ("README.md", "report.html"))
    assert f'SHA256 = "{sha256(out / f"{name}.pt")}"' in (out / f"{name}.py").read_text()
    for text in ("![Both cells](cells.svg)", "epoch 5 of 9", "`best.pt`", "50.0% (clean: 80.0%)", "4.50 hours", "H200",
                 "L-infinity digital perturbations only", "MIT", "--data DATA", "| `weight_decay` | 0.0005 |",
                 "1,000 images of the training set were held out", "| AUTOATTACK | L-infinity 0.0314 (8/255) |"):
        assert text in card, text
    page = (out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for text in ("81.49 %", "50.00 %", "<h2>How robust it is</h2>", "The whole configuration", "network = load()"):
        assert text in page, text
    issue = (out / "NEW_MODEL_ISSUE.md").read_text()
    for text in (f"[New Model] {name}", "- **Clean accuracy**: 81.49 %", "- **Robust accuracy**: 50.00 %",
                 "- **Threat Model**: Linf", "- **eps**: 8/255", f"'model': {name}.build"):
        assert text in issue, text
    assert not [path for path in out.glob("*.*") if b"secret" in path.read_bytes()]
    assert "Permission is hereby granted" in (out / "LICENSE").read_text()
    said = capsys.readouterr().out
    assert said.startswith(f"package: {out}\nnothing is uploaded; ") and f": hf upload USER/{name} {out}" in said
    assert "not finished" not in card and "not measured" not in said

    network = torch.hub.load(str(out), name, source="local")
    expected = open_model(str(run / "best.pt")).model
    with torch.no_grad():
        assert torch.equal(network(images((3, 8, 8))), expected(images((3, 8, 8)))) and not network.training
        other = torch.hub.load(str(out), name, source="local", pretrained=False)
        assert not torch.equal(other(images((3, 8, 8))), expected(images((3, 8, 8))))


def test_the_checkpoint_is_read_once(tmp_path, monkeypatch):
    run, read, load = make_run(tmp_path / "run"), [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **named: read.append(path) or load(path, **named))
    export.read_package(export.ExportConfig(model=str(run)))
    assert read == [run / "best.pt"]


def test_the_last_weights_have_their_own_numbers(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "some run")
    (run / "FINISHED").unlink()
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)), "best.pt")
    store(run, evaluation(attack("autoattack", 8 / 255, 0.3)) | {"complete": False}, "checkpoint.pt")
    export.main(["--model", str(run), "--weights", "last", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    info = json.loads((tmp_path / "out" / "network_some_run.json").read_text())
    assert info["autoattack_acc"] is None and "other weights" in said
    assert f"\n{run / 'eval' / '1.json'} is left out: the evaluation is still running or was stopped" in said
    assert f"the training in {run} is not finished" in said
    assert f"--model '{run}' --weights last" in said and "--attacks autoattack --strengths 8/255" in said
    assert "--title --authors --venue --link" in said and "pass --name" in said
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("epoch 9 of 9 (`checkpoint.pt`), the last one trained; no epoch was selected. The training was not "
            "finished.") in card
    assert "AUTOATTACK" not in card
    weights = torch.load(tmp_path / "out" / "network_some_run.pt")["state_dict"]
    assert torch.equal(weights["classifier.bias"], torch.load(run / "checkpoint.pt")["model"]["classifier.bias"])


def test_the_advised_command_is_one_of_the_evaluation(tmp_path, hasty, capsys):
    from retrain.evaluate_settings import EvaluateConfig
    from wsrnas.runtime.config import parse_config
    export.main(["--model", str(make_run(tmp_path / "run")), "--out", str(tmp_path / "out")])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("measure with: "))
    words = line.split(";")[0].split()
    assert words[2:5] == ["python", "-m", "retrain.evaluate"]
    protocol, attacks = parse_config(EvaluateConfig, argv=words[5:])[0].chosen("cifar10")
    assert protocol == "custom" and [(a.method, a.norm) for a in attacks] == [("autoattack", "linf")]
    assert attacks[0].epsilon == 8 / 255


def test_a_package_for_imagenet_names_its_preprocessing_and_failed_checks(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run", "imagenet")
    store(run, evaluation(images=500, dataset="imagenet", failed=["gradients are not zero"]))
    paper = ["--name", "Me2026My_Net", "--title", "My title"]
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), *paper])
    issue = (tmp_path / "out" / "NEW_MODEL_ISSUE.md").read_text()
    assert "normalize_model(Me2026My_Net.build(), Me2026My_Net.MEAN, Me2026My_Net.STD)" in issue
    assert "'preprocessing': 'Res37Crop32'" in issue and "- **eps**: 4/255" in issue  # 32 pixels here
    assert "- **Paper Title**: My title" in issue and "- **Paper authors**: TO BE FILLED IN" in issue
    said, card = capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text()
    assert "--strengths 4/255" in said and "a check of the evaluation failed" in said
    assert "**These numbers are unreliable" in card and "**Failed check: gradients are not zero.**" in card
    assert json.loads((tmp_path / "out" / "Me2026My_Net.json").read_text())["unreliable"] is True
    assert "network.normalize = Normalize(MEAN, STD)" in (tmp_path / "out" / "Me2026My_Net.py").read_text()


def test_a_folder_of_other_large_pictures_is_not_published_as_imagenet(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run", "imagenet", large_classes=3)
    store(run, evaluation(attack("pgd", 4 / 255, 0.25), images=15, dataset="imagenet"))
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Me2026My_Net"])
    out, said = tmp_path / "out", capsys.readouterr().out
    card, info = (out / "README.md").read_text(), json.loads((out / "Me2026My_Net.json").read_text())
    assert not (out / "NEW_MODEL_ISSUE.md").exists()
    assert "datasets:" not in card and '"dataset": {"type": "large-folder", "name": "large-folder"' in card
    assert "trained on a folder of large pictures" in card and "(3 classes)" in card
    assert (info["dataset"], info["eps"], info["reported"]) == ("large-folder", "4/255", "25.00")
    assert "Measured on 15 validation images." in info["footnote"] and "50,000" not in card + said
    assert "RobustBench has no leaderboard for a folder of large pictures" in said and "pass --name" not in said
    assert "A network trained on a folder of large pictures." in (out / "Me2026My_Net.py").read_text()
    with torch.no_grad():  # the stem and the normalisation for large images
        assert open_model(f"{out}/Me2026My_Net.py:load").model(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_flags_come_before_what_is_known_of_a_published_cell():
    plus = genotypes.load("WsrNet_Plus")
    assert export.cell_name(plus, {}) == export.cell_name(plus, {"config": {"arch": "other.json"}}) == "WsrNet_Plus"
    basic = genotypes.load("WsrNet_Basic")
    assert export.cell_name(basic, {"config": {"arch": "wsrnet-robust"}}) == "WsrNet_Robust"
    assert export.cell_name(NONE, {}) == ""
    assert export.publication(export.ExportConfig(), "WsrNet_Plus") == export.PAPER
    # Half of a flag's paper and half of ours would be one that does not exist.
    assert export.publication(export.ExportConfig(title="Mine"), "WsrNet_Plus") == robustbench.Publication("Mine")
    assert export.publication(export.ExportConfig(venue="X"), "RACL") == robustbench.Publication(venue="X")


def test_data_sets_without_a_leaderboard_get_no_issue(tmp_path, hasty, capsys):
    export.main(["--model", str(make_run(tmp_path / "run", "svhn")), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "NEW_MODEL_ISSUE.md").exists()
    assert "no leaderboard for svhn" in capsys.readouterr().out


def test_the_package_names_the_classes_of_the_logits(tmp_path, hasty):
    run, names = make_run(tmp_path / "run", "folder"), [f"Art {number}" for number in range(10)]
    (run / "inputs.json").write_text(json.dumps({"data set": {"classes": names}}))
    export.main(["--model", str(run), "--out", str(tmp_path / "out")])
    assert f"The classes in the order of the logits: {', '.join(names)}." in (tmp_path / "out/README.md").read_text()
    assert json.loads((tmp_path / "out/config.json").read_text())["class_names"] == names


@pytest.mark.parametrize("place", [".", "network_run"])
def test_a_package_is_loaded_in_its_folder_and_beside_it(place, tmp_path, hasty):
    export.main(["--model", str(make_run(tmp_path / "run")), "--out", str(tmp_path / "network_run")])
    code = "import torch; from network_run import load; print(load()(torch.rand(1, 3, 8, 8)).shape)"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / place, text=True)
    assert said == "torch.Size([1, 10])\n"


def test_a_data_set_of_a_user_s_own_gets_the_name_of_the_leaderboard(tmp_path):
    model, info = network(NONE, "folder", (3, 32, 32), 10)
    torch.save({"step": 9, "network": info, "model": model.state_dict()}, tmp_path / "best.pt")
    store(tmp_path, evaluation(attack("autoattack", 8 / 255, 0.5), dataset="folder"))
    plain, named = (export.read_package(export.ExportConfig(model=str(tmp_path), dataset_name=name))[0]
                    for name in ("", "cifar10"))
    assert (plain.description["dataset"], plain.measured.autoattack) == ("folder", 0.5)
    assert (named.description["dataset"], named.measured.autoattack) == ("cifar10", 0.5)
    assert len(plain.evaluations) == len(named.evaluations) == 1
    torch.save({"step": 9, "network": info | {"dataset_name": "cifar10"}, "model": model.state_dict()},
               tmp_path / "best.pt")  # as its training said
    said, _ = export.read_package(export.ExportConfig(model=str(tmp_path)))
    assert said.description["dataset"] == "cifar10" and len(said.evaluations) == 1


@pytest.mark.parametrize(("trained", "classes", "said"), [
    ("cifar100", 10, "the images are cifar100"), ("folder", 9, "9 classes of images .*; expected 10 of")])
def test_a_leaderboard_s_name_that_is_not_that_of_the_data_set_is_refused(trained, classes, said, tmp_path):
    model, info = network(NONE, trained, (3, 32, 32), classes)
    torch.save({"step": 9, "network": info, "model": model.state_dict()}, tmp_path / "best.pt")
    with pytest.raises(InputError, match=said):
        export.read_package(export.ExportConfig(model=str(tmp_path), dataset_name="cifar10"))


def test_onnx_runtime_agrees(tmp_path, hasty, capsys):
    for name in PACKAGES:
        pytest.importorskip(name)
    import onnx
    import onnxruntime
    run = make_run(tmp_path / "run", genotype=EVERY)
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net", "--onnx"])
    path = tmp_path / "out" / "Net.onnx"
    assert {opset.domain: opset.version for opset in onnx.load(path).opset_import}[""] == 18
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert isinstance(session.get_inputs()[0].shape[0], str) and session.get_inputs()[0].shape[1:] == [3, 8, 8]
    model = open_model(str(run / "best.pt")).model
    for batch in (1, 3, 16):
        pixels = torch.rand(batch, 3, 8, 8)
        logits = torch.from_numpy(session.run(["logits"], {"images": pixels.numpy()})[0])
        with torch.no_grad():
            assert (logits - model(pixels)).abs().max() <= 1e-5
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`Net.onnx` (opset 18)" in card and f"| `Net.onnx` | `{sha256(path)}` |" in card
    assert "opset 18" in capsys.readouterr().out


# -- bad input, and what is in the way -------------------------------------------------------------------------------

def contents(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("flags, says", [
    (["--name", "a-b"], "name is 'a-b'"), (["--name", "9a"], "name is '9a'"), (["--name", "torch"], "name is 'torch'"),
    (["--name", "json"], "name is 'json'"), (["--name", "class"], "name is 'class'"), (["--name", "été"], "name is"),
    (["--name", "cells"], "name is 'cells'"), (["--name", "config"], "name is 'config'"),
    (["--name", "Cheng2023Neural_WsrNet_Plus"], "of the Wsr-NAS paper's authors; expected one of your own"),
    (["--name", "cheng2023_x"], "--paper_name if they are"), (["--opset", "7"], "opset is 7"),
    (["--title", "a\nb"], "title is"),
    (["--weights", "worst"], "invalid choice"), (["--outt", "x"], "did you mean --out"),
    (["--model", ""], "pass --model"), (["--model", "nowhere"], "no checkpoint at nowhere")])
def test_bad_input_is_one_sentence(flags, says, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: export.main(["--model", str(run), "--out", str(tmp_path / "out"), *flags]))
    said = capsys.readouterr()
    assert end.value.code == 2 and said.err.count("\n") == 1 and said.out == ""
    assert says.replace("\n", "\\n") in said.err and contents(tmp_path) == before


def test_other_files_than_checkpoints_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name in ("script.pt", "text.pt"):
        with pytest.raises(InputError, match=name):
            export.main(["--model", str(tmp_path / name), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path, hasty):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    for place, says in ((out, "holds other files"), (run, "holds other files"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=says):
            export.main(["--model", str(run), "--out", str(place), "--overwrite"])
    assert contents(tmp_path) == before


def test_an_earlier_package_is_moved_aside_when_told(tmp_path, hasty):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    out.mkdir()  # an empty one will do
    command = ["--model", str(run), "--out", str(out), "--name", "Net"]
    export.main(command)
    (out / "notes.txt").write_text("mine")
    first = contents(out)
    with pytest.raises(InputError, match=r"earlier package.*--overwrite"):
        export.main(command)
    assert contents(out) == first
    export.main([*command, "--overwrite"])
    export.main([*command, "--overwrite", "--title", "T"])
    assert contents(tmp_path / "out.old1") == first and (tmp_path / "out.old2").is_dir()
    assert json.loads((out / "Net.json").read_text())["name"] == "T" and not (out / "notes.txt").exists()


def test_the_same_command_finds_its_package_also_a_minute_later(tmp_path, hasty, monkeypatch):
    command = ["--model", str(make_run(tmp_path / "run")), "--out", str(tmp_path / "out"), "--name", "Net"]
    monkeypatch.setattr("wsrnas.report.markdown_page.time.strftime", lambda text: "2026-01-01 10:00")
    export.main(command)
    first = contents(tmp_path)
    monkeypatch.setattr("wsrnas.report.markdown_page.time.strftime", lambda text: "2026-01-01 10:01")
    export.main(command)
    assert contents(tmp_path) == first


def test_a_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "require_packages", lambda: None)  # they may be missing here
    before = contents(tmp_path)
    export.main(["--model", str(run), "--onnx", "--dry_run"])
    assert contents(tmp_path) == before
    said = capsys.readouterr().out
    count = sum(p.numel() for p in open_model(str(run / "best.pt")).model.parameters())
    assert f"would write to {tmp_path / 'runs' / 'export' / 'network_run'}: " in said and "network_run.onnx" in said
    assert f"{count / 1000:.4g}k parameters" in said and "not measured yet" in said


@pytest.mark.parametrize("missing", [["onnxscript"], ["onnx", "onnxruntime"]])
def test_missing_onnx_packages_are_named(missing, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in missing else object())
    with pytest.raises(SystemExit) as end:
        run_program(lambda: export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--onnx"]))
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert f"--onnx needs {' and '.join(missing)}, not found" in said.err
    assert "pip install -e '.[export]'" in said.err and not (tmp_path / "out").exists()


def test_the_name_of_the_paper_is_given_to_who_asks_for_it():
    name = "Cheng2023Neural_WsrNet_Plus"
    assert export.ExportConfig(name=name, paper_name=True).name == name


def test_a_network_with_a_design_of_its_own_is_packed_too(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run", genotype="resnet18")
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    out = tmp_path / "out"
    assert json.loads((out / "Net.json").read_text())["architecture"] == "resnet18 (width 4)"
    assert "resnet18 (width 4): He et al., CVPR 2016." in (out / "README.md").read_text()
    assert json.loads((out / "config.json").read_text())["arch"] == "resnet18"
    assert not (out / "cells.svg").exists() and "genotype" not in torch.load(out / "Net.pt", weights_only=True)


# -- what a model hub reads ------------------------------------------------------------------------------------------

def head(card: str) -> dict:
    """The head of a card: each line is a key and a value in JSON, but for bare words."""
    opening, text, _ = card.split("---\n", 2)
    assert opening == ""
    pairs = (line.split(": ", 1) for line in text.splitlines())
    return {key: json.loads(value if value.startswith(("[", "{", '"')) else f'"{value}"') for key, value in pairs}


def test_a_hub_reads_the_numbers_that_were_measured(tmp_path, hasty):
    run = make_run(tmp_path / "run")
    export.main(["--model", str(run), "--out", str(tmp_path / "bare"), "--name", "Net"])
    assert "model-index" not in head((tmp_path / "bare" / "README.md").read_text())
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5), attack("pgd", 8 / 255, 0.45)))
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    read = head((tmp_path / "out" / "README.md").read_text())
    assert (read["license"], read["library_name"], read["datasets"]) == ("mit", "pytorch", ["uoft-cs/cifar10"])
    measured, = read["model-index"][0]["results"]
    assert [(one["name"].split(",")[0], one["value"]) for one in measured["metrics"]] == [
        ("accuracy without noise", 81.49), ("accuracy under AutoAttack", 50.0),
        ("lowest accuracy measured under L-inf noise of 8/255", 45.0)]
    store(run, evaluation(attack("pgd", 8 / 255, 0.3), failed=["gradients are not zero"]))
    export.main(["--model", str(run), "--out", str(tmp_path / "doubtful"), "--name", "Net"])
    assert "model-index" not in head((tmp_path / "doubtful" / "README.md").read_text())


def test_the_card_s_head_is_what_the_hub_s_own_library_reads(tmp_path, hasty):
    cards = pytest.importorskip("huggingface_hub").ModelCard
    run = make_run(tmp_path / "run")
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5), images=500))
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    data = cards.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.eval_results[1].metric_value, data.model_name) == ("mit", 50.0, "Net")
    assert data.eval_results[0].dataset_type == "uoft-cs/cifar10"


def test_safetensors_hold_the_same_weights(tmp_path, hasty):
    reader = pytest.importorskip("safetensors.torch")
    run = make_run(tmp_path / "run")
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    stored = reader.load_file(tmp_path / "out" / SAFETENSORS)
    expected = torch.load(tmp_path / "out" / "Net.pt", weights_only=True)["state_dict"]
    assert list(sorted(stored)) == sorted(expected) and all(torch.equal(stored[key], expected[key]) for key in expected)
    made, pixels = runpy.run_path(str(tmp_path / "out" / "Net.py")), images((3, 8, 8))
    with torch.no_grad():
        assert torch.equal(made["load"](stored)(pixels), made["load"]()(pixels))


def test_safetensors_are_the_same_bytes_every_time():
    save = pytest.importorskip("safetensors.torch").save
    about = {name: "x" for name in ["format", "name", "dataset", "title"]}
    written = [sorted_header(save({"é": torch.ones(3), "b": torch.zeros(2, 2)}, about)) for _ in range(20)]
    assert len(set(written)) == 1
    read = pytest.importorskip("safetensors.torch").load(written[0])
    assert torch.equal(read["é"], torch.ones(3)) and torch.equal(read["b"], torch.zeros(2, 2))


def test_without_safetensors_the_package_says_what_it_lacks(tmp_path, hasty, capsys, monkeypatch):
    for place in (export, retrain.publishing.writing):
        monkeypatch.setattr(place, "has_safetensors", lambda: False)
    export.main(["--model", str(make_run(tmp_path / "run")), "--out", str(tmp_path / "out"), "--name", "Net"])
    assert not (tmp_path / "out" / SAFETENSORS).exists()
    assert SAFETENSORS not in (tmp_path / "out" / "README.md").read_text()
    assert "model.safetensors is left out: it needs safetensors (pip install -e '.[hub]')" in capsys.readouterr().out


def test_the_extra_holds_what_onnx_needs():
    described = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extra = described["project"]["optional-dependencies"]["export"]
    assert sorted(requirement.partition(">=")[0] for requirement in extra) == sorted(PACKAGES)


def test_a_file_that_onnx_runtime_cannot_read_is_one_sentence(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"ONNX Runtime \d.* cannot read x\.onnx .*--opset$"):
        difference(nn.Flatten(), (3, 8, 8), tmp_path / "x.onnx")


def test_unknown_reliability_is_said(tmp_path, hasty, capsys):
    run = make_run(tmp_path / "run")
    store(run, evaluation(attack("autoattack", 8 / 255, 0.5)) | {"checks": UNCHECKED})
    export.main(["--model", str(run), "--out", str(tmp_path / "out"), "--name", "Net"])
    assert json.loads((tmp_path / "out" / "Net.json").read_text())["unreliable"] is None
    assert "Net.json: no check of the evaluation passed or failed" in capsys.readouterr().out
