"""Signals that ask a training to stop: one process, its children, and two processes (gloo) under torchrun.

Run as a program, this file is one process of a training that takes much too long.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.utils.data import DataLoader

from tests.processes import PATIENCE, copies, wait_for
from wsrnas.runtime import distributed, errors, launcher, place, preemption
from wsrnas.runtime.distributed import World, initialize, shutdown
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import stop_requests, until_asked
from wsrnas.runtime.program import run_program

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])


def main(folder):
    """Steps of a tenth of a second; notes ``rank<n>`` (its process and step) and, when asked to stop, ``saved<n>``."""
    world = initialize("cpu")

    def note(name, text):
        (folder / "new").mkdir(exist_ok=True)
        (folder / "new" / f"{name}{world.rank}").write_text(text)
        (folder / "new" / f"{name}{world.rank}").replace(folder / f"{name}{world.rank}")

    with stop_requests(world) as stop:
        for step, _ in enumerate(DataLoader(range(10 * PATIENCE), num_workers=1, multiprocessing_context="fork")):
            note("rank", f"{os.getpid()} {step}")
            time.sleep(0.1)
            if stop():
                note("saved", str(step))
                raise Preempted(f"stopped after step {step}")


if __name__ == "__main__":
    try:
        run_program(lambda: main(Path(sys.argv[1])))
    finally:
        shutdown()
        sys.stderr.flush()


# -- one process ----------------------------------------------------------------------------------------------------

@pytest.fixture
def heard():
    """Handlers that were there before, and what they have heard; restored after the test."""
    heard = []
    numbers = signal.SIGTERM, signal.SIGUSR1
    before = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in numbers}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_signal_only_asks_and_so_does_a_second_one(number, heard, world):
    with stop_requests(world) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert heard == []
    os.kill(os.getpid(), number)
    assert heard == [number]  # the handlers of before
    with stop_requests(world) as stop:
        assert not stop()  # an old request is none of a new loop


@BOTH
def test_in_a_program_a_request_lasts_until_a_loop_hears_it(number, capsys):
    """It may come after the last question of one loop: the next one stops."""
    done = []

    def main():
        for loop in range(3):
            with stop_requests(World()) as stop:
                for step in range(2):
                    if stop():
                        raise Preempted(f"stopped in loop {loop}")
                    done.append((loop, step))
                    if done[-1] == (0, 1):
                        os.kill(os.getpid(), number)

    for _ in range(2):  # a later program has forgotten it
        done.clear()
        with pytest.raises(SystemExit) as end:
            run_program(main)
        assert end.value.code == errors.STOPPED and done == [(0, 0), (0, 1)]
        assert "stopped in loop 1; the same command resumes" in "".join(capsys.readouterr())


@BOTH
def test_a_request_lasts_as_long_as_the_outermost_loop(number, heard, world):
    with stop_requests(world) as outer:
        with stop_requests(world) as inner:
            assert not inner() and not outer()
        os.kill(os.getpid(), number)  # the inner loop has left the outer one's handlers
        with stop_requests(world) as inner:
            assert inner() and outer()
        assert outer()
    with stop_requests(world) as outer:
        assert not outer()
        with stop_requests(world) as inner:
            assert not inner()
            os.kill(os.getpid(), number)
            assert inner() and outer()
        assert outer()
    assert heard == []


def test_the_handlers_return_after_an_error_too(heard, world):
    with pytest.raises(Preempted), stop_requests(world):
        raise Preempted("stopped after step 1")
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_another_thread_hears_nothing(heard, world):
    seen = []

    def loop():
        with stop_requests(world) as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_for(lambda: heard)
            seen.append(stop())

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [False] and heard == [signal.SIGUSR1]


def in_child(look):
    """The text that ``look()`` gives in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, str(look()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()


@pytest.mark.slow
def test_a_forked_process_dies_of_signals_sent_to_it_and_of_no_others(heard, world):
    def look():
        return [signal.getsignal(n) is signal.SIG_DFL for n in preemption.SIGNALS], os.getpgid(0) == os.getpid()

    assert in_child(look) == "([False, False], False)"
    with stop_requests(world) as stop:
        assert in_child(look) == "([True, True], True)"
        for _ in range(10):  # it may come as early as it likes
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.waitpid(child, 0)[1] == signal.SIGTERM
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()  # the parent's handlers are as they were


# -- the end of a program -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("rank", "said"), [("0", "stopped after step 3; the same command resumes\n"), ("1", "")])
def test_a_stopped_program_says_one_sentence_and_exits_with_75(rank, said, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)

    def stopped():
        raise Preempted("stopped after step 3")

    with pytest.raises(SystemExit) as end:
        run_program(stopped)
    assert end.value.code == errors.STOPPED == 75
    assert capsys.readouterr() == ("", said)


def test_bad_input_still_exits_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        run_program(lambda: (_ for _ in ()).throw(InputError("no")))
    assert end.value.code == 2 and capsys.readouterr().err == "error: no\n"


def test_errors_are_told_without_importing_torch():
    code = "import sys, wsrnas.runtime.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def child_failed(*codes):
    return ChildFailedError("program", {rank: ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="<N/A>")
                                        for rank, code in enumerate(codes)})


@pytest.mark.parametrize(("error", "code"), [
    (child_failed(-15, 75), 75), (SignalException("", signal.SIGTERM), 75), (SignalException("", signal.SIGUSR1), 75),
    (child_failed(1, -15), None), (child_failed(2), 2), (child_failed(-15, 2), 2), (child_failed(2, 1), None),
    (SignalException("", signal.SIGINT), 130), (SignalException("", signal.SIGHUP), 129),
    (SignalException("", signal.SIGQUIT), 131), (ValueError("Unsupported nproc_per_node value: x"), 2),
    (child_failed(-9), 71), (child_failed(-9, 71, -15), 71),
    (child_failed(-11, -15), 71), (child_failed(-9, 1), None), (child_failed(75, -9), 71), (child_failed(75, 2), 2),
    (child_failed(75, 71), 75), (child_failed(75, 1), 75),
])
def test_torchrun_is_quiet_about_a_stop_and_bad_input_and_nothing_else(error, code, monkeypatch):
    def run(argv):
        raise error

    monkeypatch.setattr("torch.distributed.run.main", run)
    with pytest.raises(BaseException) as end:
        launcher.torchrun([])
    assert end.value.code == code if code else end.value is error


# -- several processes ----------------------------------------------------------------------------------------------

def torchrun(argv, said):
    """The project's torchrun; what it prints as an error is in the file ``said``."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(said, "w") as file, contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # of the processes that it starts
        launcher.torchrun(argv)


class Launched:
    """Processes under torchrun; once made, they train."""

    def __init__(self, folder, processes):
        folder.mkdir()
        self.said = folder / "said.txt"
        argv = ["--standalone", f"--nproc_per_node={processes}", __file__, str(folder)]
        self.paths = [folder / f"rank{rank}" for rank in range(processes)]
        self.process = copies().Process(target=torchrun, args=(argv, self.said))
        self.process.start()

    def pid(self, rank):
        wait_for(lambda: self.paths[rank].exists() and self.paths[rank].read_text().split()[1] != "0")
        return int(self.paths[rank].read_text().split()[0])

    def end(self):
        """Exit code, what was printed as an error, and at which steps the processes stopped."""
        self.process.join(PATIENCE)
        paths = [path.with_name(path.name.replace("rank", "saved")) for path in self.paths]
        saved = [path.read_text() if path.exists() else None for path in paths]  # by the time that torchrun ends
        return self.process.exitcode, self.said.read_text(), saved


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """How launches end: one of two processes is asked; torchrun of one process is asked twice; one of two is killed."""
    folder = tmp_path_factory.mktemp("launched")
    # At once: starting takes the time.
    sizes = {"two": 2, "one": 1, "lost": 2}
    two, one, lost = launches = [Launched(folder / name, count) for name, count in sizes.items()]
    try:
        two.pid(0)
        os.killpg(two.pid(1), signal.SIGTERM)  # as torchrun does it: the loader's process is meant, too
        one.pid(0)
        os.kill(one.process.pid, signal.SIGUSR1)
        time.sleep(0.05)
        os.kill(one.process.pid, signal.SIGTERM)
        lost.pid(0)
        os.kill(lost.pid(1), signal.SIGKILL)
        return two.end(), one.end(), lost.end()
    finally:
        for launch in launches:
            launch.process.kill()


@pytest.mark.slow
def test_all_processes_stop_at_the_same_step_when_one_is_asked(ended):
    code, printed, saved = ended[0]
    assert saved[0] is not None and saved[0] == saved[1]
    assert code == 75 and "Traceback" not in printed


@pytest.mark.slow
def test_torchrun_hands_the_signal_on_and_waits_although_there_is_a_second_one(ended):
    code, printed, saved = ended[1]
    assert code == 75 and "Traceback" not in printed
    assert f"stopped after step {saved[0]}; the same command resumes\n" in printed


@pytest.mark.slow
def test_torchrun_says_in_one_sentence_which_process_was_killed(ended):
    code, printed, _ = ended[2]
    assert code == errors.LOST == 71 and "Traceback" not in printed
    assert "error: process 1 was ended by SIGKILL (the system does so when memory is short)" in printed
    assert "the same command resumes from what is saved" in printed


@pytest.mark.parametrize(("device", "backend"), [("cuda", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_processes_on_gpus_have_a_way_over_the_cpu(device, backend, monkeypatch):
    started = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(distributed, "_meet", lambda rank, size: None)  # private: there is nobody to meet
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: started.append(backend))
    address = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **address}.items():
        monkeypatch.setenv(name, value)
    assert initialize(device) == World(1, 2, torch.device("cuda", 1) if device == "cuda" else torch.device("cpu"))
    assert started == [backend]
    assert dist.distributed_c10d.BackendConfig(backend).get_device_backend_map()["cpu"] == "gloo"


def ending(work, number):
    """Exit code of a forked program that gets a signal while it works, and what it printed as an error."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 2)
            sys.stderr = said
            code = 1
            try:
                for name in preemption.SIGNALS:
                    signal.signal(name, signal.SIG_DFL)
                run_program(lambda: work(lambda: os.kill(os.getpid(), number)))
            except SystemExit as end:
                code = end.code
            finally:
                said.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, said.read()


def in_first_step(tell):
    with stop_requests(World()):
        weakref.ref(set(), lambda _: tell())  # torch's compiler is full of callbacks, which lose exceptions
        time.sleep(PATIENCE)  # it compiles


def after_first_step(tell):
    with stop_requests(World()) as stop:
        assert not stop()
        tell()
        if stop():
            raise Preempted("stopped after step 1")


def outside_of_loops(tell):
    try:
        tell()
    except Exception:  # not even what catches everything, such as the writing of a page, loses it
        time.sleep(PATIENCE)


def in_a_program_that_another_one_has_started(tell):
    run_program(lambda: outside_of_loops(tell))


def where_a_run_can_go_on(tell):
    place.watch(Path(__file__).parent)
    outside_of_loops(tell)


def turned_into_another_error(tell):
    with stop_requests(World()) as stop:
        stop()
        tell()
        place.watch(Path(__file__).parent)
        raise RuntimeError("a compiler was killed")


@BOTH
@pytest.mark.parametrize(("work", "words"), [
    (in_first_step, "stopped by NAME before a step was complete; the same command resumes"),
    (after_first_step, "stopped after step 1; the same command resumes"),
    (outside_of_loops, "stopped by NAME"),
    (in_a_program_that_another_one_has_started, "stopped by NAME"),
    (where_a_run_can_go_on, "stopped by NAME; the same command resumes from what is saved"),
    (turned_into_another_error,
     "stopped by NAME (RuntimeError on the way); the same command resumes from what is saved")])
def test_a_program_is_stopped_wherever_it_is(work, words, number):
    assert ending(work, number) == (75, words.replace("NAME", number.name) + "\n")


def test_items_come_until_a_stop_is_asked_for():
    answers, seen = iter([False, False, True]), []
    with pytest.raises(Preempted, match="stopped in epoch 3"):
        for item in until_asked("abc", lambda: next(answers), "stopped in epoch 3"):
            seen.append(item)
    assert seen == ["a", "b"]
    assert list(until_asked("abc", lambda: False, "")) == ["a", "b", "c"]
