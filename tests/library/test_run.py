"""The run directory and its checkpoints: begin, resume, finish, refuse; a kill or a full disk loses nothing stored."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import option
from wsrnas.runtime.environment import environment
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.place import watch
from wsrnas.runtime.program import run_program
from wsrnas.runtime.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Settings:
    preset: str = "plain"
    layers: int = option(8, "cells")
    strengths: tuple[float, ...] = option((0.1, 0.2), "radii")
    data: str = option("data", "folder", identity=False)


def steps(run, first, last):
    """Record and save the steps first+1 .. last."""
    for step in range(first, last):
        run.record(step, {"loss": {"natural": 1 / (step + 1)}})
        run.save({"step": step + 1, "weights": torch.full((3,), float(step + 1))})


def three_steps(path, world):
    """Begin a run in a folder, and make three steps."""
    run = RunDirectory(path, Settings(), world)
    assert run.restore() is None
    steps(run, 0, 3)
    return run


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "search" / "name"


@pytest.fixture
def started(path, world):
    """A run of three steps."""
    return three_steps(path, world)


def reopened(path, world, config=None, **arguments):
    return RunDirectory(path, config or Settings(), world, **arguments)


# -- the directory --------------------------------------------------------------------------------------------------

def test_a_fresh_run_stores_what_it_is(path, world):
    run = RunDirectory(path, Settings(), world)
    assert not run.finished and not run.has_checkpoint
    assert json.loads((path / "config.json").read_text()) == {"preset": "plain", "layers": 8, "strengths": [0.1, 0.2],
                                                              "data": "data"}
    start, = json.loads((path / "env.json").read_text())
    assert start["torch"] == torch.__version__ and start["processes"] == 1 and start["command"]
    assert str(path) in run.describe() and "layers" in run.describe()
    assert {p.name for p in path.iterdir()} == {"config.json", "env.json", "inputs.json", ".lock"}


def test_other_data_under_the_same_name_is_refused(path, world):
    run = RunDirectory(path, Settings(), world, inputs={"data set": {"hash": "a"}})
    run.save({"step": 1})
    RunDirectory(path, Settings(), world, inputs={"data set": {"hash": "a"}})
    with pytest.raises(InputError, match=r"was made from other inputs \(data set\)"):
        RunDirectory(path, Settings(), world, inputs={"data set": {"hash": "b"}})
    run.finish("done")
    with pytest.raises(InputError, match=r"was made from other inputs \(data set\)"):
        RunDirectory(path, Settings(), world, inputs={"data set": {"hash": "b"}})


def test_two_processes_do_not_write_one_run(path, world):
    RunDirectory(path, Settings(), world)
    holder = subprocess.Popen([sys.executable, "-c", "import fcntl, sys\n"
                               "file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
                               "print('held', flush=True); sys.stdin.read()", str(path / ".lock")],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is writing"):
            RunDirectory(path, Settings(), world, overwrite=True)
        assert not path.with_name("name.old1").exists()
        with pytest.raises(InputError, match="another process is writing"):
            RunDirectory(path, Settings(), world)
    finally:
        holder.communicate("")
    RunDirectory(path, Settings(), world)


def test_a_damaged_checkpoint_does_not_push_out_the_good_one(path, world):
    run = RunDirectory(path, Settings(), world)
    for step in (1, 2):
        run.save({"step": step})
    (path / "checkpoint.pt").write_bytes(b"damaged")
    again = RunDirectory(path, Settings(), world)
    assert again.restore()["step"] == 1
    again.save({"step": 3})
    assert checkpoint.read(path / "checkpoint.pt")["step"] == 3
    assert checkpoint.read(checkpoint.previous(path / "checkpoint.pt"))["step"] == 1
    again.save({"step": 4})
    assert checkpoint.read(checkpoint.previous(path / "checkpoint.pt"))["step"] == 3


def test_a_kill_between_the_two_renames_loses_nothing(path, world):
    run = RunDirectory(path, Settings(), world)
    for step in (1, 2):
        run.save({"step": step})
    file = path / "checkpoint.pt"
    file.rename(checkpoint.staged(file))  # step 1 is in place as the previous one, step 2 not yet
    assert RunDirectory(path, Settings(), world).restore()["step"] == 2


def test_a_requeued_job_does_not_overwrite_itself(path, world, monkeypatch):
    RunDirectory(path, Settings(), world).save({"step": 1})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert RunDirectory(path, Settings(), world, overwrite=True).has_checkpoint
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert not RunDirectory(path, Settings(), world, overwrite=True).has_checkpoint


def test_the_same_command_resumes(started, path, world):
    run = reopened(path, world, Settings(data="elsewhere"))
    payload = run.restore()
    assert payload["step"] == 3 and payload["weights"].tolist() == [3.0] * 3
    assert "resuming" in (path / "log.txt").read_text()
    assert len(json.loads((path / "env.json").read_text())) == 2
    steps(run, 3, 4)
    assert [row["step"] for row in rows(path)] == [0, 1, 2, 3]
    assert len(list((path / "tb").iterdir())) == 2


def test_a_finished_run_says_so(started, path, world):
    started.finish("all done")
    assert reopened(path, world).finished
    assert (path / "FINISHED").read_text() == "all done\n"
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    reopened(path, world)
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before


def test_a_finished_run_without_its_checkpoint_is_still_that_run(started, path, world):
    """Its user has deleted the large file, and kept the results."""
    started.finish("all done")
    for file in path.glob("checkpoint*"):
        file.unlink()
    assert reopened(path, world).finished
    for attempt in (lambda: reopened(path, world, Settings(layers=9)), lambda: RunDirectory.refuse(
            path, Settings(layers=9), False, {})):
        with pytest.raises(InputError, match="layers: 8 -> 9"):
            attempt()
    with pytest.raises(InputError, match=r"made from other inputs \(data set\)"):
        reopened(path, world, inputs={"data set": "another"})
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    with pytest.raises(InputError, match=r"its checkpoint\.pt is gone, so that it cannot go on"):
        reopened(path, world, Settings(layers=9), growing="layers")
    with pytest.raises(InputError, match="cannot go on"):
        RunDirectory.refuse(path, Settings(layers=9), False, {}, "layers")
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before
    assert not reopened(path, world, Settings(layers=9), growing="layers", overwrite=True).finished


def test_overwrite_moves_aside_and_deletes_nothing(started, path, world):
    started.finish("done")
    before = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    for number in (1, 2):
        run = reopened(path, world, Settings(layers=number), overwrite=True)
        assert not run.finished and run.restore() is None
        assert path.with_name(f"name.old{number}").is_dir()
    old = path.with_name("name.old1")
    assert {p.relative_to(old): p.read_bytes() for p in old.rglob("*") if p.is_file()} == before


def test_a_changed_configuration_is_refused_by_name(started, path, world):
    before = (path / "config.json").read_bytes()
    with pytest.raises(InputError) as caught:
        reopened(path, world, Settings(layers=9, strengths=(0.1, 0.3)))
    assert "layers: 8 -> 9; strengths: [0.1, 0.2] -> [0.1, 0.3]" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert (path / "config.json").read_bytes() == before


def test_a_run_that_never_got_to_a_checkpoint_may_be_corrected(path, world):
    RunDirectory(path, Settings(layers=10**6), world)  # and the program then refuses that many layers
    run = reopened(path, world, Settings(layers=9))
    assert run.restore() is None
    assert json.loads((path / "config.json").read_text())["layers"] == 9


@pytest.mark.parametrize("make", [lambda p: (p.mkdir(parents=True), (p / "thesis.tex").write_text("dear")),
                                  lambda p: (p.parent.mkdir(parents=True), p.write_text("a file"))])
def test_a_foreign_folder_is_refused_and_left_alone(make, path, world):
    make(path)
    before = {p.name: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="is not a run directory"):
        RunDirectory(path, Settings(), world)
    assert {p.name: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before


def test_an_empty_folder_is_taken(path, world):
    path.mkdir(parents=True)
    assert not RunDirectory(path, Settings(), world).finished


@pytest.mark.parametrize("text", ["{", "[1, 2]", "null"])
def test_a_broken_configuration_is_refused(text, started, path, world):
    (path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json is not"):
        reopened(path, world)


def test_a_broken_environment_file_does_not_matter(started, path, world):
    (path / "env.json").write_text("[{")
    reopened(path, world)
    assert len(json.loads((path / "env.json").read_text())) == 1


def test_the_environment_names_what_ran(world):
    assert {"command", "git", "python", "torch", "device", "threads", "processes"} <= set(environment(world))


# -- metrics --------------------------------------------------------------------------------------------------------

def test_rows_after_the_checkpoint_are_dropped(started, path, world):
    started.record(3, {"loss": 0.0})  # the fourth step was recorded, its checkpoint was not
    reopened(path, world).restore()
    assert [row["step"] for row in rows(path)] == [0, 1, 2]


def test_rows_of_a_run_without_a_checkpoint_are_dropped(path, world):
    RunDirectory(path, Settings(), world).record(0, {"loss": 0.0})
    assert reopened(path, world).restore() is None
    assert rows(path) == []


@pytest.mark.slow
def test_a_half_written_last_line_is_survived_wherever_it_ends(started, path, world):
    whole = (path / "metrics.jsonl").read_bytes()
    last = json.dumps({"step": 3, "loss": {"natural": 0.5}, "seconds": {"train": 1.0}}).encode()
    for end in range(1, len(last)):
        (path / "metrics.jsonl").write_bytes(whole + last[:end])
        reopened(path, world).restore()
        assert (path / "metrics.jsonl").read_bytes() == whole


def test_numbers_reach_tensorboard_under_the_names_of_the_metrics(started, path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    started.record(3, {"genotype": "text", "flag": True, "seconds": {"train": 2.5}})
    started.finish("done")  # it closes the file
    events = EventAccumulator(str(path / "tb"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/natural", "seconds/train"}
    assert [event.step for event in events.Scalars("loss/natural")] == [0, 1, 2]


# -- checkpoints ----------------------------------------------------------------------------------------------------

def test_the_previous_checkpoint_is_kept(started, path):
    assert checkpoint.read(path / "checkpoint.pt")["step"] == 3
    assert checkpoint.read(path / "checkpoint.previous.pt")["step"] == 2
    assert not list(path.glob("*.new")) + list(path.glob("*.tmp"))


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.99])
def test_a_truncated_checkpoint_falls_back_and_says_so(keep, started, path, world, capsys):
    data = (path / "checkpoint.pt").read_bytes()
    (path / "checkpoint.pt").write_bytes(data[:int(keep * len(data)) if isinstance(keep, float) else keep])
    payload = reopened(path, world).restore()
    assert payload["step"] == 2
    assert [row["step"] for row in rows(path)] == [0, 1]
    for text in (capsys.readouterr().out, (path / "log.txt").read_text()):
        assert "checkpoint.pt cannot be read" in text
        assert "falling back to the previous checkpoint checkpoint.previous.pt" in text


def test_a_kill_between_the_two_renames_falls_back(started, path, world):
    (path / "checkpoint.pt").unlink()
    assert reopened(path, world).restore()["step"] == 2
    assert "checkpoint.pt is missing; falling back" in (path / "log.txt").read_text()


def test_two_truncated_checkpoints_are_refused_and_kept(started, path, world):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (path / name).write_bytes((path / name).read_bytes()[:100])
    with pytest.raises(InputError) as caught:
        reopened(path, world).restore()
    assert "checkpoint.pt cannot be read" in str(caught.value) and "--overwrite" in str(caught.value)
    assert "checkpoint.previous.pt cannot be read" in str(caught.value)
    assert len(rows(path)) == 3


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x02.", b"\x80\x02e.", bytes(range(256)), b"\x80\x02](e", b"a"])
def test_any_damaged_file_is_an_input_error(data, tmp_path):
    (tmp_path / "c.pt").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.read(tmp_path / "c.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bytes_are_an_input_error_or_nothing(tmp_path):
    path, stream = tmp_path / "c.pt", torch.Generator().manual_seed(0)
    checkpoint.save(path, {"step": 1, "weights": torch.arange(9.0)})
    data = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(data)
        for place in torch.randint(len(data), (5,), generator=stream).tolist():
            damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        try:
            checkpoint.read(path)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A checkpoint with a tensor of four sectors."""
    path = tmp_path_factory.mktemp("sealed") / "c.pt"
    checkpoint.save(path, {"step": 1, "weights": torch.arange(2048.0)})
    return path.read_bytes()


@pytest.mark.parametrize("size", [512, 4096])
def test_every_zeroed_sector_is_noticed(size, sealed, tmp_path):
    for place in range(0, len(sealed), size):
        damaged = sealed[:place] + bytes(len(sealed[place:place + size])) + sealed[place + size:]
        (tmp_path / "c.pt").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            checkpoint.read(tmp_path / "c.pt")


def test_every_flipped_bit_is_noticed(sealed, tmp_path):
    for place in range(0, len(sealed), 37):
        damaged = bytearray(sealed)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "c.pt").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            checkpoint.read(tmp_path / "c.pt")


def test_damage_to_an_archive_without_a_checksum_of_the_whole_is_noticed(tmp_path):
    weights = torch.arange(4096.0)
    torch.save({"step": 1, "weights": weights}, tmp_path / "c.pt")  # as earlier versions and others write it
    data = (tmp_path / "c.pt").read_bytes()
    assert torch.equal(checkpoint.read(tmp_path / "c.pt")["weights"], weights)
    place = data.index(weights[1000:1010].numpy().tobytes())
    (tmp_path / "c.pt").write_bytes(data[:place] + bytes(512) + data[place + 512:])
    with pytest.raises(InputError, match=r"its entry '.*/data/0' does not match its checksum"):
        checkpoint.read(tmp_path / "c.pt")


def test_a_file_that_cannot_be_checked_says_so(tmp_path, capsys):
    torch.save({"step": 1}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)  # private: torch's old format
    assert checkpoint.read(tmp_path / "c.pt") == {"step": 1}
    assert "c.pt has no checksum, so damage to its numbers would not be noticed" in capsys.readouterr().err


def test_torch_reads_a_checkpoint_with_its_checksum(sealed, tmp_path):
    (tmp_path / "c.pt").write_bytes(sealed)
    for mapped in (False, True):
        assert torch.load(tmp_path / "c.pt", mmap=mapped)["step"] == 1


def test_a_damaged_checkpoint_falls_back_aloud(started, path, world, capsys):
    data = bytearray((path / "checkpoint.pt").read_bytes())
    place = bytes(data).index(torch.full((3,), 3.0).numpy().tobytes())
    data[place:place + 12] = bytes(12)
    (path / "checkpoint.pt").write_bytes(data)
    assert reopened(path, world).restore()["weights"].tolist() == [2.0] * 3
    assert "do not match its checksum" in capsys.readouterr().out


def test_a_checkpoint_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"step": 1, "trap": Trap()}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.read(tmp_path / "c.pt")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_has_to_be_a_dictionary(tmp_path):
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(InputError, match="expected a dictionary"):
        checkpoint.read(tmp_path / "c.pt")
    with pytest.raises(InputError, match="no checkpoint at"):
        checkpoint.read(tmp_path / "missing.pt")


def test_a_checkpoint_of_another_configuration_is_refused(started, path, world):
    other = RunDirectory(path.with_name("other"), Settings(layers=12), world)
    steps(other, 0, 1)
    (path / "checkpoint.pt").write_bytes((other.path / "checkpoint.pt").read_bytes())
    with pytest.raises(InputError, match=r"belongs to another configuration \(layers: 12 -> 8\)"):
        reopened(path, world).restore()
    assert len(rows(path)) == 3


def test_a_file_that_is_no_checkpoint_of_a_run_is_refused(started, path, world):
    torch.save({"state_dict": {}}, path / "checkpoint.pt")
    with pytest.raises(InputError, match="belongs to another configuration"):
        reopened(path, world).restore()


# -- storage that fails ---------------------------------------------------------------------------------------------

@pytest.fixture
def full_disk(monkeypatch):
    """Every further write to disk fails as on a full one, after some bytes."""
    def fill():
        def fail(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(os, "fsync", fail)
    return fill


def test_a_full_disk_leaves_the_old_checkpoints(started, path, full_disk):
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    full_disk()
    with pytest.raises(OSError) as caught:
        started.save({"step": 4, "weights": torch.zeros(3)})
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        started.write_json("config.json", {})
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_leaves_the_old_checkpoint(started, path):
    (path / "checkpoint.pt.new.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        started.save({"step": 4, "weights": torch.zeros(3)})
    assert caught.value.errno == errno.ENOSPC
    assert checkpoint.read(path / "checkpoint.pt")["step"] == 3
    assert checkpoint.read(path / "checkpoint.previous.pt")["step"] == 2
    assert not (path / "checkpoint.pt.new.tmp").is_symlink()


def test_a_full_disk_at_the_start_does_not_spoil_the_place(path, world, monkeypatch):
    def fail(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))
    with monkeypatch.context() as context:
        context.setattr(Path, "write_bytes", fail)
        with pytest.raises(InputError, match=r"cannot write the run directory .*: no space left on device"):
            RunDirectory(path, Settings(), world)
    assert not RunDirectory(path, Settings(), world).finished


def test_a_place_below_a_file_is_refused(tmp_path, world):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the run directory .*: not a directory; expected a place"):
        RunDirectory(tmp_path / "file" / "name", Settings(), world)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a /proc")
def test_a_file_system_that_takes_nothing_is_refused(world):
    with pytest.raises(InputError, match="cannot write the run directory /proc/wsrnas/name"):
        RunDirectory(Path("/proc/wsrnas/name"), Settings(), world)


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSPC, "no space left"), (errno.EROFS, "read-only file system"), (errno.EDQUOT, "disk quota exceeded"),
])
@pytest.mark.parametrize("saves", [True, False])
def test_storage_problems_are_one_sentence(number, words, saves, capsys, tmp_path):
    def main():
        if saves:
            watch(tmp_path)
        raise OSError(number, "text", "runs/x/log.txt")
    with pytest.raises(SystemExit) as caught:
        run_program(main)
    kept = "; what was saved before is intact, and the same command resumes from it" * saves
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: cannot write runs/x/log.txt: {words}{kept}\n"


@pytest.mark.parametrize(("number", "words"), [
    (errno.EACCES, "permission denied"), (errno.ENOENT, "it is gone"), (errno.EISDIR, "it is a folder"),
    (errno.ELOOP, "its links form a loop"), (errno.ENAMETOOLONG, "its name is too long"),
])
def test_a_file_that_cannot_be_reached_is_not_said_to_be_written(number, words, capsys):
    with pytest.raises(SystemExit) as caught:
        run_program(lambda: (_ for _ in ()).throw(OSError(number, "text", "runs/x/log.txt")))
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith(f"error: cannot read or write runs/x/log.txt: {words}")


def test_programming_errors_keep_their_traceback_and_ctrl_c_its_code(capsys):
    with pytest.raises(OSError):
        run_program(lambda: (_ for _ in ()).throw(OSError(errno.EBADF, "a bug")))
    with pytest.raises(SystemExit) as caught:
        run_program(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert caught.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_tensorboard_thread_that_cannot_write_leaves_the_sentence_to_its_program(path, world, capsys, monkeypatch):
    def main():
        run = RunDirectory(path, Settings(), world)
        for step in range(2000):
            run.record(step, {"loss": 1.0})
            run._writer.flush()  # private: TensorBoard waits for two minutes
            if not step:
                (path / "tb").rename(path / "away")
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # not pytest's
    with pytest.raises(SystemExit) as caught:
        run_program(main)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith("error: cannot read or write") and said.count("\n") == 1
