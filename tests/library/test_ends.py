"""How programs end where their surroundings fail: variables of launchers, readers that leave, Ctrl-C, lost partners."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsrnas.runtime import distributed, interrupts, place
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

ROOT = Path(__file__).parents[2]
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def ended(main, capsys):
    """Exit code and error output of a program."""
    with pytest.raises(SystemExit) as end:
        run_program(main)
    return end.value.code, capsys.readouterr().err


def raising(error):
    return lambda: (_ for _ in ()).throw(error)


# -- variables of launchers -------------------------------------------------------------------------------------------

@pytest.fixture
def variables(monkeypatch):
    def given(**values):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    return given


@pytest.mark.parametrize("values", [{}, {"WORLD_SIZE": ""}, {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": ""},
                                    {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_without_partners_a_process_is_alone(values, variables):
    variables(**values)
    assert initialize("cpu") == World()


@pytest.mark.parametrize(("values", "words"), [
    ({"WORLD_SIZE": "2"}, "RANK is ''"), ({"RANK": "0"}, "WORLD_SIZE is ''"),
    ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"), ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
    ({"RANK": "0", "WORLD_SIZE": "9" * 400}, "WORLD_SIZE is '999"), ({"RANK": "\u0663", "WORLD_SIZE": "4"}, "RANK is"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "expected a smaller rank"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is missing"),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is missing"),
    ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "y"}, "LOCAL_RANK is 'y'"),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "has not met the others"),
])
def test_half_of_a_launch_is_refused(values, words, variables):
    variables(**values)
    with pytest.raises(InputError, match=words) as caught:
        initialize("cpu")
    assert len(str(caught.value)) < 500


@pytest.mark.slow
def test_partners_that_never_come_are_waited_for_aloud_and_not_for_ever(variables, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "MEETING_MINUTES", 0.01)
    variables(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    with pytest.raises(InputError, match="process 0 of 2 has not met the others at"):
        initialize("cpu")
    assert "process 0 waits for the other 1 at 127.0.0.1" in capsys.readouterr().err


# -- the end of a program ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("error", [None, ImportError("half"), AttributeError("half"), RuntimeError("half"), OSError(9)])
@pytest.mark.parametrize("saves", [True, False])
def test_ctrl_c_is_heard_whatever_it_turns_into(error, saves, capsys, tmp_path):
    # A background job ignores it: the tests may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def main():
        if saves:
            place.watch(tmp_path)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            if error is None:
                raise
            raise error from None
    try:
        words = "interrupted" + "; the same command resumes from what is saved" * saves
        assert ended(main, capsys) == (130, f"{words}\n")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_during_the_imports_is_one_sentence():
    code = ("import os, signal, sys, types; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "sys.modules['__main__'].__spec__ = types.SimpleNamespace(name='search.x'); "
            "import wsrnas; os.kill(os.getpid(), signal.SIGINT)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (-2, 130)
    assert done.stderr == "interrupted before anything began; the same command begins\n"


def test_other_errors_during_the_imports_keep_their_traceback(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["-m"])
    interrupts.hear_during_imports()
    sys.excepthook(ValueError, ValueError("x"), None)
    assert "ValueError: x" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["notebook"])
    monkeypatch.setattr(sys, "excepthook", None)
    interrupts.hear_during_imports()
    assert sys.excepthook is None  # a library changes nothing for others


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_program_quietly():
    code = ("from wsrnas.runtime.program import run_program\n"
            "run_program(lambda: [print('x' * 1000, flush=True) for _ in range(10000)])")
    program = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.read(10)
    program.stdout.close()
    assert program.wait() == 141 and program.stderr.read() == b""
    program.stderr.close()


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    run_program(lambda: print("\u03b5 \u00b1 \udce4"))
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u03b5 \\xb1 \\udce4\n"


@pytest.mark.parametrize("text", ["[1.2.3] Connection closed by peer [127.0.0.1]:1", "Connection reset by peer"])
def test_a_process_whose_partner_died_says_so(text, monkeypatch, capsys):
    left = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    # private: the end of a process that others wait for
    monkeypatch.setattr(os, "_exit", lambda code: left.append(code) or sys.exit(code))
    code, said = ended(raising(RuntimeError(text)), capsys)
    assert code == 71 and left == [71] and "another process of this run has ended" in said
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(RuntimeError):
        run_program(raising(RuntimeError(text)))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate "
                                                               "memory: you tried to allocate 4 bytes.")])
def test_too_little_memory_is_one_sentence(error, capsys):
    code, said = ended(raising(error), capsys)
    assert code == 2 and said.count("\n") == 1
    assert said.startswith("error: the memory of this machine is not sufficient")


@pytest.mark.parametrize("text", ["DataLoader worker (pid(s) 29086) exited unexpectedly",
                                  "DataLoader worker (pid 29086) is killed by signal: Killed. "])
def test_a_killed_process_that_decoded_images_is_one_sentence(text, capsys):
    code, said = ended(raising(RuntimeError(text)), capsys)
    assert code == 71 and said.count("\n") == 1 and "lower --workers" in said


def test_another_error_in_such_a_process_keeps_its_traceback():
    text = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  stack"
    with pytest.raises(RuntimeError, match="Original Traceback"):
        run_program(raising(RuntimeError(text)))


@pytest.mark.parametrize(("number", "words"), [(errno.EAGAIN, "starts no further process"), (errno.ENOMEM, "memory")])
def test_a_process_that_cannot_be_started_is_one_sentence(number, words, capsys):
    code, said = ended(raising(OSError(number, os.strerror(number))), capsys)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1 and words in said


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_none(closed, tmp_path):
    code = ("import sys; from wsrnas.runtime.program import run_program; from tqdm import tqdm; "
            f"run_program(lambda: (print('x', flush=True), list(tqdm([1])), open('{tmp_path}/done', 'w').close()))")
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT)
    assert done.returncode == 0 and (tmp_path / "done").exists()
