"""Kills at awkward moments and damaged small files: the same command mends what can be mended, and names the rest."""

import json
import os
import shutil

import pytest
import torch

from retrain.race.entrants import load_entrants
from retrain.race.register import enter
from tests.library.test_run import Settings, reopened, rows, three_steps
from wsrnas.evaluation.journal import Journal
from wsrnas.report import mend
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory
from wsrnas.runtime.sharing import alone, open_shared_folder, share


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "search" / "name"


@pytest.fixture
def started(path, world):
    """A run of three steps."""
    return three_steps(path, world)


# -- kills ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("left", [[], [".lock"], [".writable"], [".lock", "config.json.tmp"]])
def test_a_kill_before_the_configuration_is_a_beginning(left, path, world):
    path.mkdir(parents=True)
    for name in left:
        (path / name).write_bytes(b"{")
    run = RunDirectory(path, Settings(), world)
    assert not run.finished and json.loads((path / "config.json").read_text())["layers"] == 8


def test_a_kill_before_the_configuration_of_shared_work_is_a_beginning(path):
    (path / "claims" / "opening").mkdir(parents=True)
    open_shared_folder(path, Settings(), {})
    assert (path / "config.json").exists()


def killed_at(monkeypatch, call: int) -> None:
    """Die at the n-th rename, as a kill would: no handler runs."""
    original, count = os.replace, [0]

    def replace(source, target):
        count[0] += 1
        if count[0] > call:
            raise KeyboardInterrupt
        original(source, target)
    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_within_the_last_save_leaves_the_checkpoint_in_its_place(renames, started, path, world, monkeypatch):
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        killed_at(context, renames)
        started.record(3, {"loss": 1.0})
        started.save({"step": 4, "weights": torch.zeros(3)})
    run = reopened(path, world)
    assert run.restore()["step"] == (4 if renames == 2 else 3)
    run.finish("done")  # without another save, where the steps are complete
    assert checkpoint.read(path / "checkpoint.pt")["step"] == (4 if renames == 2 else 3)
    assert not checkpoint.staged(path / "checkpoint.pt").exists() or renames < 2


def test_the_best_state_has_no_previous_one(path, world):
    run = RunDirectory(path, Settings(), world)
    for step in (1, 2):
        run.save({"step": step}, run_files.BEST)
    assert {file.name for file in path.glob("*.pt")} == {"best.pt"}
    assert checkpoint.read(path / "best.pt")["step"] == 2


def test_a_kill_between_the_end_and_its_page_is_mended(started, path, world):
    started.finish("done")
    mend(path, world)
    page = path / "report.html"
    assert page.exists()
    os.utime(page, (0, 0))  # it was written while the run was going on
    mend(path, world)
    assert page.stat().st_mtime > 1
    before = page.stat().st_mtime_ns
    mend(path, world)
    assert page.stat().st_mtime_ns == before


@pytest.mark.parametrize("act", [lambda run: run.log("text"), lambda run: run.record(3, {}), lambda run: run.finish(""),
                                 lambda run: run.save({"step": 4}), lambda run: run.write_json("space.json", {})])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_directory_that_is_deleted_meanwhile_ends_with_a_sentence(act, replaced, path, world):
    started = RunDirectory(path, Settings(), world)
    shutil.rmtree(path)
    if replaced:
        path.mkdir()
        (path / "other").touch()
    with pytest.raises(InputError, match="was deleted or moved while the program was running"):
        act(started)
    assert [file.name for file in path.parent.rglob("*") if file.is_file()] == ["other"] * replaced


def test_locks_and_lists_do_not_bring_back_the_folder_of_a_race(path):
    claims = path / "claims"
    for act in (lambda: alone(claims, "entering").__enter__(), lambda: share([], claims, "jobs", World()),
                lambda: enter(path, load_entrants(("random:1",), 3, 0), 1)):
        with pytest.raises(FileNotFoundError):
            act()
        assert not path.exists()


@pytest.mark.parametrize("error", [InputError("the split cannot be read"), FileNotFoundError(2, "gone", "split.json"),
                                   ValueError("max() arg is an empty sequence"), RuntimeError("no such file")])
@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_is_missed_because_its_run_was_moved_is_not_blamed(error, moved, path, world, capsys):
    def main():
        RunDirectory(path, Settings(), world)
        if moved:
            path.rename(path.with_name("away"))
        raise error

    if not moved and type(error) in (ValueError, RuntimeError):
        with pytest.raises(type(error)):
            run_program(main)
        return
    for _ in range(2):  # a folder that an earlier program has lost does not matter
        with pytest.raises(SystemExit) as caught:
            run_program(main)
        said = capsys.readouterr().err
        assert caught.value.code == 2 and ("was deleted or moved while the program was running" in said) == moved
        if moved:
            shutil.rmtree(path.with_name("away"))


# -- damaged files ----------------------------------------------------------------------------------------------------

DAMAGES = {"empty": b"", "zeros": bytes(512), "cut": b'{"a": [1, 2', "deep": b"[" * 100_000, "bytes": b"\xff\xfe{}",
           "digits": b'{"a": ' + b"9" * 5000 + b"}", "list": b"[]", "null": b"null", "text": b'"x"', "folder": None}


def damaged(file, kind):
    if DAMAGES[kind] is None:
        file.unlink(missing_ok=True)
        file.mkdir()
    else:
        file.write_bytes(DAMAGES[kind])


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "inputs.json"])
def test_a_damaged_description_of_the_work_is_named_and_nothing_else_is_touched(name, kind, started, path, world):
    damaged(path / name, kind)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(InputError) as caught:
        reopened(path, world)
    assert name in str(caught.value) and "--overwrite" in str(caught.value) and len(str(caught.value)) < 500
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind not in ("folder", "list")])
def test_a_damaged_list_of_starts_is_begun_again_aloud(kind, started, path, world, capsys):
    damaged(path / "env.json", kind)
    reopened(path, world)
    assert len(json.loads((path / "env.json").read_text())) == 1
    assert "env.json" in capsys.readouterr().err


@pytest.mark.parametrize("line", [bytes(80), b"\xff\xff", b"[" * 100_000, b"{}", b"[]", b"3", b'{"step": "1"}',
                                  b'{"step": true}', b'{"step": 1'])
def test_a_damaged_row_of_metrics_is_left_out_aloud(line, started, path, world, capsys):
    whole = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "metrics.jsonl").write_bytes(b"".join([whole[0], line + b"\n", whole[2]]))
    reopened(path, world).restore()
    assert [row["step"] for row in rows(path)] == [0, 2]
    assert "metrics.jsonl is damaged: line 2 is no row of numbers and is left out" in capsys.readouterr().out


@pytest.mark.parametrize("payload", [{}, {"step": "3"}, {"step": -1}, {"step": None}, {"step": True}])
def test_a_checkpoint_that_says_nothing_is_refused_and_empties_nothing(payload, started, path, world):
    config = json.loads((path / "config.json").read_text())
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        torch.save(payload | {"config": config} if payload else {}, path / name)
    with pytest.raises(InputError, match=r"is empty|does not say after which step"):
        reopened(path, world).restore()
    assert len(rows(path)) == 3


def test_a_folder_in_the_place_of_a_checkpoint_falls_back(started, path, world, capsys):
    (path / "checkpoint.pt").unlink()
    (path / "checkpoint.pt").mkdir()
    assert reopened(path, world).restore()["step"] == 2
    assert "is a folder; expected a file" in capsys.readouterr().out


@pytest.mark.parametrize("line", [bytes(40), b"{", b"[" * 100_000, b"3", b"{}", b'{"stage": "a", "images": [1]}',
                                  b'{"stage": "a", "images": [-1], "robust": "1", "seconds": 1, "warnings": []}',
                                  b'{"stage": "a", "images": [0, 1], "robust": "1", "seconds": 1, "warnings": []}',
                                  b'{"stage": "a", "images": [0], "robust": "x", "seconds": 1, "warnings": []}'])
def test_a_damaged_line_of_a_journal_is_measured_again(line, tmp_path, capsys):
    journal = Journal(tmp_path, {"network": "a"})
    for images in ([0, 1], [2, 3], [4]):
        journal.append("pgd", "a", images, [True] * len(images), 1.0)
    file = tmp_path / "pgd.0.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*whole[:2], line + b"\n", whole[3]]))
    known = Journal(tmp_path, {"network": "a"}).read("pgd", "a", 5).values
    assert known.tolist()[:2] == [1, 1] and known[4] == 1 and (known[2:4] < 0).all()
    assert "1 damaged lines" in capsys.readouterr().err
