"""What a package says of a training, and from where: nothing private, nothing that was not recorded."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import wsrnas
from retrain import export
from retrain.evaluate_files import result_file
from retrain.publishing import onnx_file
from retrain.publishing.fresh_process import check_in_fresh_process
from retrain.publishing.robustbench import numbers
from retrain.publishing.training_record import command, metrics, training_record
from tests.retrain.export_cases import attack, evaluation
from tests.retrain.test_export_program import hasty, make_run, store  # noqa: F401 - a fixture
from wsrnas import build_model, own_data, save_model
from wsrnas.report.texts import command_text
from wsrnas.runtime import locks
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.markdown import markdown_table, plain_words


def exported(run: Path, out: Path, *flags: str) -> str:
    export.main(["--model", str(run), "--out", str(out), *flags])
    return (out / "README.md").read_text()


def saved(path: Path, **settings) -> Path:
    data = own_data((torch.rand(20, 3, 8, 8), torch.arange(20) % 4))
    model = build_model("WsrNet_Basic", 4, init_channels=4, layers=3).eval()
    return save_model(model, path, "WsrNet_Basic", data, 4, 3, **settings)


# -- whose records ----------------------------------------------------------------------------------------------------

def test_what_lies_beside_a_file_of_weights_is_not_published(tmp_path, hasty):  # noqa: F811
    path = saved(tmp_path / "digits.pt")
    (tmp_path / "config.json").write_text('{"wandb_api_key": "0123456789abcdef", "max_train": 100}')
    (tmp_path / "env.json").write_text('[{"command": ["/home/me/retrain/train_cifar.py"], "device": "secret"}]')
    card = exported(path, tmp_path / "out")
    assert "0123456789abcdef" not in card and "secret" not in card and "Only 100" not in card
    assert "not finished" not in card
    assert "How long the weights (`digits.pt`) were trained is not recorded." in card


def test_only_what_is_recorded_is_claimed(tmp_path, hasty):  # noqa: F811
    card = exported(saved(tmp_path / "a.pt"), tmp_path / "out")
    assert "adversarial noise:" not in card and "no additional data" not in card
    assert json.loads(next((tmp_path / "out").glob("network_*.json")).read_text())["additional_data"] is None
    card = exported(saved(tmp_path / "b.pt", loss="standard", epochs=3), tmp_path / "out2")
    assert "without adversarial noise:" in card and "after epoch 3 of 3 (`b.pt`)" in card
    assert "with adversarial noise:" in exported(make_run(tmp_path / "run"), tmp_path / "out3")


def test_weights_of_the_middle_of_an_epoch_say_so(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "FINISHED").unlink()
    record = training_record(run / "checkpoint.pt", {"step": 2, "epoch": {"batches": 35}, "config": {"epochs": 9}})
    assert "after 35 steps of epoch 3 of 9 (`checkpoint.pt`), where the training was stopped" in record.selection


@pytest.mark.parametrize(("words", "expected"), [
    ([""], ""), (["-c"], ""), (["/home/me/mine.py", "--a"], ""), (["/x/ipykernel_launcher.py", "-f", "k.json"], ""),
    (["/x/retrain/train_cifar.py", "--arch", "RACL"], "python -m retrain.train_cifar --arch RACL"),
    (["/x/retrain/train_cifar.py", 3], "python -m retrain.train_cifar 3"),
    (["/x/retrain/train_cifar.py", "--init_weights", "../../alice/secret/best.pt"],
     "python -m retrain.train_cifar --init_weights secret/best.pt"),
    (["/x/retrain/train_cifar.py", "--epsilon", "8/255", "--strengths", ".5"],
     "python -m retrain.train_cifar --epsilon 8/255 --strengths .5")])
def test_a_command_is_that_of_a_program_and_names_no_folders(words, expected):
    assert command({"command": words, "processes": "two"}) == expected


@pytest.mark.parametrize("words", [[""], ["-c"], ["x.py"], ["."]])
def test_every_start_has_a_text_on_a_page(words):
    assert isinstance(command_text([*words, "--a"]), str)


def test_a_run_from_python_keeps_the_command_that_repeats_it(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.argv", ["/notebook"])
    import retrain.export as program
    monkeypatch.setattr(program, "main", lambda arguments: seen.append(list(__import__("sys").argv)))
    wsrnas.run("export", "--model", "x")
    assert seen[0][0].endswith("export.py") and seen[0][1:] == ["--model", "x"]
    assert __import__("sys").argv == ["/notebook"]


def test_damaged_records_are_left_out(tmp_path, hasty):  # noqa: F811
    run = make_run(tmp_path / "run")
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole[:30] + b"\xe6" + whole[31:])
    assert len(metrics(run)) == 8
    rows = [{"step": 0, "train": {"seconds": 9.0}, "peak_memory_gib": None}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "env.json").write_text(json.dumps([{"command": "text"}, {"command": [3, 4], "processes": "two"}]))
    assert "hours of training" in exported(run, tmp_path / "out")


# -- numbers ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("outcomes", "chance", "unreliable"), [
    ([True, True], None, False), ([True, None], None, False), ([True, None, None], None, None), ([None], None, None),
    ([True, True], 0.815, None), ([True, True], 0.1, False), ([True, False, None, None], None, True)])
def test_numbers_are_called_reliable_where_most_checks_ran(outcomes, chance, unreliable):
    document = evaluation(attack("autoattack", 8 / 255, 0.5)) | {"chance": chance}
    document["checks"] = [{"check": f"c{number}", "passed": passed} for number, passed in enumerate(outcomes)]
    assert numbers([document], "cifar10").unreliable is unreliable


def test_a_named_data_set_is_the_users_word_for_its_test_images(tmp_path, hasty, capsys):  # noqa: F811
    run = make_run(tmp_path / "run", "folder")
    for images in ("a", "b"):
        store(run, evaluation(attack("autoattack", 8 / 255, 0.5), dataset="folder") | {"image_set": images})
    monkeyed = ["--model", str(run), "--out", str(tmp_path / "out")]
    export.main(monkeyed)
    assert "the evaluations are on different sets of images" in capsys.readouterr().out


def test_results_on_other_images_of_one_name_stay(tmp_path):
    first = result_file(tmp_path, "pgd-folder-best", "1234567890")
    assert first.name == "pgd-folder-best.json"
    first.write_text(json.dumps({"image_set": "1234567890"}))
    assert result_file(tmp_path, "pgd-folder-best", "1234567890") == first
    assert result_file(tmp_path, "pgd-folder-best", "abcdefghij").name == "pgd-folder-best-abcdef.json"
    first.write_text("{")
    assert result_file(tmp_path, "pgd-folder-best", "abcdefghij") == first


# -- where it goes ----------------------------------------------------------------------------------------------------

def test_hidden_folders_of_the_user_stay(tmp_path):
    precious = tmp_path / ".notes.backup" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    with export.staged_beside(tmp_path / "notes"):
        pass
    assert precious.read_text() == "precious"


def test_what_a_killed_export_left_is_deleted_and_what_one_at_work_has_is_not(tmp_path, monkeypatch):
    with export.staged_beside(tmp_path / "out") as folder:
        left = folder.parent.with_name(".out.wsrnas-export-old")
        shutil.copytree(folder.parent, left)
        with export.staged_beside(tmp_path / "out"):
            assert not left.exists()
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()

    def cannot(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", cannot)
    with export.staged_beside(tmp_path / "out") as folder, export.staged_beside(tmp_path / "out"):
        assert folder.is_dir()


def test_a_job_that_is_started_again_may_move_a_package_aside(tmp_path, hasty, monkeypatch):  # noqa: F811
    exported(make_run(tmp_path / "one"), tmp_path / "out", "--name", "Doe2026Robust")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    exported(make_run(tmp_path / "two", **{"batch_size": 32}), tmp_path / "out", "--name", "Doe2026Robuster",
             "--overwrite")
    assert (tmp_path / "out.old1" / "Doe2026Robust.py").is_file()


@pytest.mark.parametrize("name", ["__init__", "_network", "numpy", "dependencies", "__main__", "Config"])
def test_names_that_the_package_or_its_imports_have_are_refused(name):
    with pytest.raises(InputError, match="which is taken by Python or by a file of the package"):
        export.ExportConfig(name=name)


def test_places_that_cannot_be_are_refused_before_the_work(tmp_path, hasty, monkeypatch):  # noqa: F811
    run = make_run(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a directory"):
        export.main(["--model", str(run), "--out", str(tmp_path / "file" / "x"), "--dry_run"])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="is the folder that the program was started in"):
        export.main(["--model", str(run), "--out", "."])
    (tmp_path / "link").symlink_to(tmp_path / "here2")
    exported(run, tmp_path / "link")
    assert (tmp_path / "here2" / "README.md").is_file() and (tmp_path / "link").is_symlink()


# -- files ------------------------------------------------------------------------------------------------------------

def test_words_of_others_are_words_on_a_card(tmp_path, hasty):  # noqa: F811
    run = make_run(tmp_path / "run", "folder")
    names = ["x\n\n## Evil\n\n**95 % robust**", "<script>", *map(str, range(8))]
    (run / "inputs.json").write_text(json.dumps({"data set": {"classes": names}}))
    card = exported(run, tmp_path / "out", "--title", "A [b](c) **d**")
    assert "\n## Evil" not in card and "**95" not in card and "<script>" not in card and "**d**" not in card
    assert "| `__init__.py` |" in card
    assert plain_words("a *b*\n_c_") == r"a \*b\* \_c\_"
    assert markdown_table(("a",), [("two\nlines | bar",)]).splitlines()[-1] == r"| two lines \| bar |"


def test_large_logits_may_differ_by_more_and_zeros_by_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_file.torch.onnx, "export", lambda *given, **more: None)
    for found, passes in (((1.1e-5, 5e-7), True), ((1e-6, 1e-3), True), ((1e-3, 1e-4), False)):
        monkeypatch.setattr(onnx_file, "difference", lambda *given, found=found: found)
        if passes:
            assert onnx_file.write_onnx(torch.nn.Identity(), (3, 8, 8), tmp_path / "x", 18) == found
        else:
            with pytest.raises(InputError, match=r"differ from PyTorch's by 0\.001, 0\.0001 of the largest"):
                onnx_file.write_onnx(torch.nn.Identity(), (3, 8, 8), tmp_path / "x", 18)


def test_this_project_is_out_of_reach_in_the_fresh_process_wherever_it_lies(tmp_path):
    text = "def load():\n    import {0}\n    return lambda images: images.flatten(1)[:, :2]\n"
    for name in ("wsrnas", "retrain", "search", "genotypes"):
        (tmp_path / "a.py").write_text(text.format(name))
        with pytest.raises(InputError, match=f"import of {name} halted"):
            check_in_fresh_process(tmp_path / "a.py", torch.nn.Identity(), (3, 8, 8))
    (tmp_path / "a.py").write_text("def load():\n    return lambda images: images.flatten(1) * float('nan')\n")
    with pytest.raises(InputError, match="the network's logits are NaN or infinite"):
        check_in_fresh_process(tmp_path / "a.py", _NaN(), (3, 8, 8))
    assert os.path.isdir(tmp_path)


class _NaN(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) * float("nan")
