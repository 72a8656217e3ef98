"""Work shared by processes: who does what, what a kill or a signal leaves, and whose folder it is."""

import errno
import gc
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.processes import PATIENCE, wait_for
from wsrnas.runtime import folders, locks, same_work, sharing
from wsrnas.runtime.config import option
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.locks import claim
from wsrnas.runtime.same_work import stored_object
from wsrnas.runtime.sharing import Task, alone, open_shared_folder, share


def fork(work) -> int:
    """``work()`` in a process of its own, which ends with 0 if nothing was raised; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def ends(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    assert ends(child) == -signal.SIGKILL


# -- tasks ----------------------------------------------------------------------------------------------------------

class Work:
    """Tasks that note who has done them, and are done when their file is there."""

    def __init__(self, folder):
        self.folder, self.claims = folder, folder / "claims"

    def task(self, name, before=lambda stop: None):
        def work(stop):
            before(stop)
            with open(self.folder / "log", "a") as file:
                file.write(f"{name} {os.getpid()}\n")
            (self.folder / name).touch()
        return Task(name, (self.folder / name).exists, work)

    @property
    def log(self):
        path = self.folder / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def names(self):
        return [name for name, _ in self.log]

    def share(self, *tasks, wait=True):
        return share(tasks, self.claims, "parts", World(), wait)


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


@pytest.fixture
def held(work):
    """A task that another process has begun and will never end, and what kills that process."""
    def hang(stop):
        (work.folder / "begun").touch()
        time.sleep(PATIENCE)

    children = [fork(lambda: work.share(work.task("held", hang)))]
    try:
        wait_for((work.folder / "begun").exists)
        yield work.task("held"), lambda: kill(children.pop())
    finally:
        for child in children:
            kill(child)


def sleeping(monkeypatch, sleep):
    """``sleep`` in place of the pause of a process that waits; a task takes no time by the clock."""
    monkeypatch.setattr(sharing, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch):
    sleeping(monkeypatch, time.sleep)


def no_pause(seconds):
    raise AssertionError("it waits")


def a_moment(seconds):
    assert seconds == sharing.MOMENT_SECONDS, "it waits"


def test_tasks_are_done_once_and_in_order(work):
    assert work.share(*(work.task(name) for name in "cab")) is True
    assert work.share(*(work.task(name) for name in "cdab")) is True
    assert work.names == ["c", "a", "b", "d"]


def test_a_task_that_another_has_done_meanwhile_is_not_done_again_nor_told(work, capsys):
    last = work.task("b")
    assert work.share(work.task("a", lambda stop: last.work(stop)), last)
    assert work.names == ["b", "a"] and capsys.readouterr().out == "parts 2/2: a, 0 s\n"


def failing(error):
    def work(stop):
        raise error
    return work


NAN = InputError("the loss is nan")


def test_a_task_that_fails_does_not_keep_the_others_from_being_done(work, capsys):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    tasks = [work.task("a", failing(NAN)), work.task("b"), work.task("c", failing(full)), work.task("d")]
    with pytest.raises(InputError) as caught:
        work.share(*tasks)
    assert str(caught.value) == ("2 of 4 parts failed; the same command tries them again: a: the loss is nan; c: the "
                                 "GPU is out of memory; choose smaller batches (which may need another "
                                 "--save)")
    shown = capsys.readouterr()
    assert work.names == ["b", "d"] and "parts: a FAILED: the loss is nan" in shown.err and "FAILED" not in shown.out
    assert work.share(*(work.task(name) for name in "abcd"))  # a later start tries again
    assert work.names == ["b", "d", "a", "c"]


def test_a_bug_is_no_failure_to_go_on_from(work):
    with pytest.raises(ZeroDivisionError):
        work.share(work.task("a", failing(ZeroDivisionError())), work.task("b"))
    assert work.names == []


def test_what_failed_in_another_process_meanwhile_is_not_tried_again(work):
    def fail():
        with pytest.raises(InputError):
            work.share(work.task("b", failing(NAN)))

    with pytest.raises(InputError, match=r"1 of 2 parts failed; .*: b: the loss is nan"):
        work.share(work.task("a", lambda stop: ends(fork(fail))), work.task("b"))
    assert work.names == ["a"]


def test_what_others_leave_while_one_is_at_work_is_taken_without_waiting(work, held):
    task, end = held
    assert work.share(task, work.task("mine", lambda stop: end()), wait=False) is True
    assert work.names == ["mine", "held"]


def test_a_file_system_without_locks_is_refused(work, monkeypatch):
    def no_locks(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(locks.fcntl, "lockf", no_locks)
    for share_or_meet in (lambda: work.share(work.task("a")), lambda: alone(work.claims, "a").__enter__()):
        with pytest.raises(InputError, match=r"cannot lock files .no locks available., so processes cannot share"):
            share_or_meet()
    assert work.names == []
    assert locks.claim(work.folder)  # for a run of its own it is enough


def test_one_process_may_hold_a_folder_twice_and_keeps_it_until_both_are_closed(tmp_path):
    """The system has one lock of a process for a file: to close any descriptor once let another process in."""
    def claimed_by_another():
        os._exit(0 if locks.claim(tmp_path) else 7)

    def wins():
        return os.waitstatus_to_exitcode(os.waitpid(fork(claimed_by_another), 0)[1]) == 0

    first, second = locks.hold(tmp_path), locks.hold(tmp_path)
    assert not wins()
    first.close()
    first.close()
    assert not wins()
    del second
    gc.collect()
    assert wins() and locks.claim(tmp_path)


def test_a_lock_file_that_cannot_be_opened_leaves_nothing_behind(tmp_path, monkeypatch, recwarn):
    (tmp_path / ".lock").touch()
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(os, "open", lambda *arguments: (_ for _ in ()).throw(PermissionError("no")))
        locks.claim(tmp_path)
    gc.collect()
    assert not recwarn.list and locks.claim(tmp_path)


@pytest.mark.slow
def test_processes_share_the_tasks_and_return_when_all_are_done(work, monkeypatch):
    monkeypatch.setattr(sharing, "WAIT_SECONDS", 0.02)
    names = [str(number) for number in range(12)]
    begun = work.folder / "begun"
    begun.mkdir()

    def work_on(name):
        (begun / str(os.getpid())).touch()
        wait_for(lambda: len(list(begun.iterdir())) == 2)  # nobody does all before the other has begun
        time.sleep(0.4 if name == "11" else 0.03)

    tasks = [work.task(name, lambda stop, name=name: work_on(name)) for name in names]

    def process():
        wait_for((work.folder / "go").exists)
        assert work.share(*tasks)
        assert all(task.done() for task in tasks)

    children = [fork(process) for _ in range(2)]
    (work.folder / "go").touch()
    assert [ends(child) for child in children] == [0, 0]
    assert sorted(work.names, key=int) == names
    assert {int(process) for _, process in work.log} == set(children)


def test_the_task_of_a_killed_process_is_taken_over(work, held, monkeypatch, capsys):
    task, end = held
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            end()

    sleeping(monkeypatch, sleep)
    assert work.share(task, work.task("other"))
    assert work.names == ["other", "held"] and len(waits) == 3
    assert capsys.readouterr().out == (
        "parts 1/2: other, 0 s\nparts: waiting for other processes (held)\nparts 2/2: held, 0 s\n")  # waiting: once


def test_who_does_not_wait_leaves_what_others_hold(work, held, monkeypatch, capsys):
    sleeping(monkeypatch, a_moment)
    tasks = work.task("a"), held[0], work.task("b")
    assert work.share(*tasks, wait=False) is False
    assert work.names == ["a", "b"]
    assert capsys.readouterr().out == (
        "parts 1/3: a, 0 s\nparts 2/3: b, 0 s\nparts: 1 with other processes (held)\n")
    assert work.share(*tasks, wait=False) is False and work.names == ["a", "b"]
    held[1]()
    assert work.share(*tasks, wait=False) is True
    assert work.names == ["a", "b", "held"]


def test_who_looks_whether_a_task_is_held_takes_it_from_nobody(work, held, monkeypatch):
    """The look holds the task for a moment, also for one that does not wait."""
    sleeping(monkeypatch, lambda seconds: held[1]())
    assert work.share(held[0], wait=False) is True and work.names == ["held"]


def test_a_task_that_failed_while_the_clock_was_ahead_is_tried_again(work):
    with pytest.raises(InputError):
        work.share(work.task("a", failing(NAN)))
    mark = work.claims / "a" / "failed"
    os.utime(mark, (time.time() + 3600, time.time() + 3600))
    work.share(work.task("a"))
    assert work.names == ["a"] and not mark.exists()


def test_a_failure_may_name_any_file(work):
    error = InputError("cannot decode the image caf\udce9.png")
    with pytest.raises(InputError, match="1 of 2 parts failed"):
        work.share(work.task("a", failing(error)), work.task("b"))
    assert work.names == ["b"] and sharing.failures(work.claims) == {"a": "cannot decode the image caf\\udce9.png"}


def test_a_failure_that_another_process_tries_again_is_none(work, monkeypatch):
    with pytest.raises(InputError):
        work.share(work.task("a", failing(NAN)), work.task("b", failing(NAN)))
    original = type(work.folder).glob

    def racing(folder, pattern):
        found = sorted(original(folder, pattern))
        found[0].unlink()
        return found

    monkeypatch.setattr(type(work.folder), "glob", racing)
    assert list(sharing.failures(work.claims)) == ["b"]


def test_who_does_not_wait_is_told_that_all_is_done(work, held, monkeypatch, capsys):
    """Also where the others' last task ends while this process is at one of its own."""
    sleeping(monkeypatch, no_pause)
    tasks = held[0], work.task("a", lambda stop: (work.folder / "held").touch())
    assert work.share(*tasks, wait=False) is True
    assert work.names == ["a"] and capsys.readouterr().out == "parts 2/2: a, 0 s\n"
    assert work.share(*tasks, wait=False) is True and work.share(wait=False) is True
    assert capsys.readouterr().out == ""


def test_a_signal_stops_after_the_task_at_hand_and_keeps_what_is_done(work):
    def asked(stop):
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()

    tasks = [work.task("a"), work.task("b", asked), work.task("c")]
    with pytest.raises(Preempted, match="stopped before c"):
        work.share(*tasks)
    assert work.names == ["a", "b"]
    work.share(*tasks)
    assert work.names == ["a", "b", "c"]


def test_a_signal_ends_waiting(work, held, monkeypatch):
    sleeping(monkeypatch, lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="parts: stopped while waiting"):
        work.share(held[0])


def test_a_task_that_fails_is_free_again(work):
    def fail(stop):
        raise InputError("no")

    with pytest.raises(InputError):
        work.share(work.task("a", fail))
    assert ends(fork(lambda: work.share(work.task("a")))) == 0
    assert work.names == ["a"]


@pytest.mark.slow
def test_alone_means_one_after_the_other(work, monkeypatch):
    monkeypatch.setattr(sharing, "MOMENT_SECONDS", 0.01)

    def process():
        with alone(work.claims, "report"):
            (work.folder / "there").touch(exist_ok=False)
            time.sleep(0.1)
            (work.folder / "there").unlink()

    assert [ends(child) for child in [fork(process) for _ in range(3)]] == [0, 0, 0]


# -- the folder -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Settings:
    seed: int = option(0, "of the work")
    strengths: tuple[float, ...] = option((0.1, 0.2), "JSON keeps them as a list")
    report_freq: int = option(1, "it changes no result", identity=False)


INPUTS = {"data set": "digits", "networks": ["a", "b"]}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "race" / "one"


def contents(folder):
    """Bytes and time of every file but the locks."""
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def refused(folder, config=Settings(), inputs=INPUTS, **flags):
    """What is said to who opens the folder; every file stays as it was."""
    before = contents(folder)
    with pytest.raises(InputError) as caught:
        open_shared_folder(folder, config, inputs, **flags)
    assert contents(folder) == before and "\n" not in str(caught.value)
    return str(caught.value)


def stored(folder):
    return [json.loads((folder / name).read_text()) for name in ("config.json", "inputs.json")]


def test_a_new_folder_says_what_the_work_is(folder):
    open_shared_folder(folder, Settings(seed=3), INPUTS)
    assert stored(folder) == [{"seed": 3, "strengths": [0.1, 0.2], "report_freq": 1}, INPUTS]
    assert set(contents(folder)) == {"config.json", "inputs.json"}


def test_the_same_work_is_opened_again_and_nothing_is_written(folder):
    open_shared_folder(folder, Settings(), INPUTS)
    (folder / "result").write_text("mine")
    before = contents(folder)
    open_shared_folder(folder, Settings(), INPUTS)
    assert contents(folder) == before


def test_what_may_differ_is_kept_as_it_was_last_given(folder):
    open_shared_folder(folder, Settings(), INPUTS)
    open_shared_folder(folder, Settings(report_freq=7), INPUTS)
    assert stored(folder)[0]["report_freq"] == 7


def test_what_an_interrupted_opening_left_out_is_added(folder):
    open_shared_folder(folder, Settings(), INPUTS)
    (folder / "inputs.json").unlink()
    open_shared_folder(folder, Settings(), INPUTS)
    assert stored(folder)[1] == INPUTS


def test_work_of_another_configuration_is_refused(folder):
    open_shared_folder(folder, Settings(), INPUTS)
    said = refused(folder, Settings(seed=1, strengths=(0.1, 0.3), report_freq=2))
    assert said == (f"{folder} holds a run of another configuration (seed: 0 -> 1; strengths: [0.1, 0.2] "
                    "-> [0.1, 0.3]); choose another --save, or pass --overwrite to move it aside")


@pytest.mark.parametrize(("inputs", "words"), [
    ({"data set": "cifar10", "networks": ["a", "b"]}, "(data set)"),
    ({"data set": "digits", "networks": ["b", "a"]}, "(networks)"),
    ({"data set": "cifar10", "networks": []}, "(data set, networks)"),
    (INPUTS | {"test images": "new"}, "(test images)"),
])
def test_work_on_other_inputs_is_refused(inputs, words, folder):
    open_shared_folder(folder, Settings(), INPUTS)
    assert words in refused(folder, inputs=inputs)


@pytest.mark.parametrize("name", ["config.json", "inputs.json"])
@pytest.mark.parametrize("text", ["{", "", "[1]", "null"])
def test_a_damaged_folder_is_told_and_can_be_moved_aside(text, name, folder):
    open_shared_folder(folder, Settings(), INPUTS)
    (folder / name).write_text(text)
    said = refused(folder)
    assert said.startswith(f"{folder / name} is not ") and "JSON" in said and "--overwrite" in said
    open_shared_folder(folder, Settings(), INPUTS, overwrite=True)
    assert stored(folder)[1] == INPUTS


def test_overwriting_moves_the_old_work_aside(folder):
    open_shared_folder(folder, Settings(), INPUTS, overwrite=True)
    assert [path.name for path in folder.parent.iterdir()] == ["one"]  # nothing was there to move
    for seed in (1, 2):
        (folder / "result").write_text(str(seed - 1))
        open_shared_folder(folder, Settings(seed=seed), {"data set": str(seed)}, overwrite=True)
        assert stored(folder)[0]["seed"] == seed and stored(folder)[1] == {"data set": str(seed)}
        assert not (folder / "result").exists()
    for number in (1, 2):
        aside = folder.with_name(f"one.old{number}")
        assert (aside / "result").read_text() == str(number - 1) and stored(aside)[0]["seed"] == number - 1


def test_a_requeued_job_overwrites_nothing(folder, monkeypatch):
    """It repeats its whole command line: the work is its own."""
    open_shared_folder(folder, Settings(), INPUTS)
    (folder / "result").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    open_shared_folder(folder, Settings(), INPUTS, overwrite=True)
    assert (folder / "result").exists()
    assert "seed: 0 -> 1" in refused(folder, Settings(seed=1), overwrite=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    open_shared_folder(folder, Settings(seed=1), INPUTS, overwrite=True)
    assert not (folder / "result").exists()


def test_work_is_not_moved_from_under_those_who_are_at_it(folder, tmp_path):
    open_shared_folder(folder, Settings(), INPUTS)
    for name in ("done-before", "network-3"):
        (folder / "claims" / name).mkdir()

    def at_work():
        with claim(folder / "claims" / "network-3"):
            (tmp_path / "begun").touch()
            time.sleep(PATIENCE)

    child = fork(at_work)
    try:
        wait_for((tmp_path / "begun").exists)
        assert refused(folder, overwrite=True) == (f"another process is at work in {folder} (network-3); wait for it, "
                                                   "or choose another --save")
        open_shared_folder(folder, Settings(), INPUTS)  # to join is allowed
    finally:
        kill(child)
    open_shared_folder(folder, Settings(seed=1), INPUTS, overwrite=True)
    assert folder.with_name("one.old1").exists()


@pytest.mark.parametrize("place", [".", "..", "../one"])
def test_the_folder_that_the_program_works_in_is_not_moved_aside(place, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with pytest.raises(InputError, match="the program was started in, or one above it"):
        folders.move_aside(Path(place))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(InputError, match="cannot write the run directory"):
        open_shared_folder(tmp_path / "runs" / "one", Settings(), INPUTS)


def opened_at_once(folder, seeds, monkeypatch):
    """Exit codes of processes of these seeds that open the folder at once, each slow to write."""
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(0.1), fsync(file)))
    go = folder.parent.parent / "go"

    def process(seed):
        wait_for(go.exists)
        try:
            open_shared_folder(folder, Settings(seed=seed), INPUTS)
        except InputError as error:
            os._exit(2 if "holds a run of another configuration" in str(error) else 1)

    children = [fork(lambda seed=seed: process(seed)) for seed in seeds]
    go.parent.mkdir()
    go.touch()
    return [ends(child) for child in children]


@pytest.mark.slow
def test_processes_that_open_a_folder_at_once_agree(folder, monkeypatch):
    assert opened_at_once(folder, (4, 4, 4), monkeypatch) == [0, 0, 0]
    assert stored(folder) == [{"seed": 4, "strengths": [0.1, 0.2], "report_freq": 1}, INPUTS]


@pytest.mark.slow
def test_of_different_work_in_one_folder_only_the_first_is_opened(folder, monkeypatch):
    codes = opened_at_once(folder, (0, 1, 2), monkeypatch)
    assert sorted(codes) == [0, 2, 2] and stored(folder)[0]["seed"] == codes.index(0)


def test_a_configuration_that_another_process_writes_meanwhile_is_not_foreign(tmp_path, monkeypatch):
    def read_too_early(path):
        found = stored_object(path)
        (tmp_path / "config.json").write_text("{}")
        return found

    monkeypatch.setattr(same_work, "stored_object", read_too_early)
    same_work.refuse_foreign_folder(tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(InputError, match="exists and is not a run directory"):
        same_work.refuse_foreign_folder(tmp_path)
