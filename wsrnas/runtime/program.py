"""Run a program so that errors which users can fix end it with one sentence and an exit code."""

import errno
import gc
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from wsrnas.runtime import place
from wsrnas.runtime.errors import (
    BAD_INPUT,
    INTERRUPTED,
    LOST,
    READER_LEFT,
    STOPPED,
    InputError,
    Preempted,
    fail,
    out_of_memory,
    say,
)
from wsrnas.runtime.pages import use_large_pages
from wsrnas.runtime.preemption import Interrupts
from wsrnas.runtime.reading import shown_path
from wsrnas.runtime.threads import sleep_when_idle

_UNWRITTEN = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EFBIG: "the file is too large",
}
SHORT_OF_MEMORY = ("the memory of this machine is not sufficient; choose fewer or smaller images, networks or batches")
_UNSTARTED = {
    errno.EAGAIN: "the system starts no further process or thread for this user; lower --workers, or raise the limit "
                  "(ulimit -u)",
    errno.ENOMEM: SHORT_OF_MEMORY,
}
_UNREACHABLE = {  # the system does not say whether it was to be read or written
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a parent is not a directory",
    errno.EISDIR: "it is a folder, expected a file",
    errno.ENOENT: "it is gone, or its folder is",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its links form a loop",
    errno.ENOTEMPTY: "it is a folder that is not empty",
    errno.EEXIST: "there is a file of that name",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the file server no longer has it",
    errno.ENXIO: "it is a pipe or a device, expected a file",
    errno.EMFILE: "too many files are open",
}

_KILLED_WORKER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)", re.DOTALL)
_PARTNER = re.compile(r"closed by peer|reset by peer|remote process exited|pair closure|Broken pipe|ncclRemoteError")


def run_program(main: Callable[[], None]) -> None:
    """Run ``main``, and turn errors that users can fix into one sentence and an exit code.

    The code is 2 for bad input and storage problems, 71 where another process of the run was killed, 75 after a signal
    asked to stop, 130 after Ctrl-C, 141 where the reader of the output has left.
    """
    sleep_when_idle()
    use_large_pages()
    print_anywhere()
    place.watch_none()
    interrupts = Interrupts()
    try:
        with interrupts, no_words_of_tensorboard():
            main()
    except Preempted as stop:
        say(f"{stop}; the same command resumes")
        sys.exit(STOPPED)
    except InputError as error:
        fail(place.reason() or str(error))
    except BrokenPipeError:
        leave_quietly()
    except OSError as error:
        if interrupts.heard:
            interrupted(interrupts.heard, error)
        if error.errno in _UNSTARTED:
            fail(_UNSTARTED[error.errno])
        if error.errno not in _UNWRITTEN | _UNREACHABLE:
            raise
        fail(place.reason() or storage_problem(error))
    except RuntimeError as error:
        sentence = problem_of_machine(error)
        if interrupts.heard and not (sentence and sentence[1] == LOST):  # torchrun ends the partners by a signal
            interrupted(interrupts.heard, error)
        if not sentence and not place.reason():
            raise
        sentence = sentence or (place.reason(), BAD_INPUT)
        fail(*sentence)
    except MemoryError:
        fail(SHORT_OF_MEMORY)
    except (Exception, KeyboardInterrupt) as error:  # an import that is interrupted fails in its own way
        if not interrupts.heard and not isinstance(error, KeyboardInterrupt):
            if gone := place.reason():  # what a program does without its files is not worth a traceback
                fail(gone)
            raise
        interrupted(interrupts.heard or signal.SIGINT, error)
    finally:
        if "torch.distributed" in sys.modules:  # help and configuration errors need no torch
            with suppress(*[Exception] * bool(interrupts.heard)):  # torch may be imported in half
                from wsrnas.runtime.distributed import shutdown
                shutdown()
        leave_memory_to_the_system()


def leave_memory_to_the_system() -> None:
    """Spare python's last collection, which spends half a second on torch's objects.

    Not where triton is loaded, as torch's optimisers do: its bindings (3.9) print all of their objects that are left.
    """
    if "triton" not in sys.modules:
        gc.freeze()


def print_anywhere() -> None:
    """Print letters that the terminal's encoding lacks as escapes, where python would fail; a closed output is none."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the program runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def no_words_of_tensorboard() -> Iterator[None]:
    """Print no traceback where TensorBoard's thread cannot write: its writer raises the error again."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        module = type(failed.thread).__module__
        if not (issubclass(failed.exc_type, OSError) and module.startswith("tensorboard.")):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def interrupted(number: int = signal.SIGINT, error: BaseException | None = None) -> NoReturn:
    """Say that a signal ended the program, and leave.

    Args:
        number: the signal.
        error: what it was turned into on its way.
    """
    resumes = "; the same command resumes from what is saved" * place.can_go_on()
    if number == signal.SIGINT:
        print(f"interrupted{resumes}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    met = "" if error is None or isinstance(error, KeyboardInterrupt) else f" ({type(error).__name__} on the way)"
    say(f"stopped by {signal.Signals(number).name}{met}{resumes}")
    sys.exit(STOPPED)


def problem_of_machine(error: RuntimeError) -> tuple[str, int] | None:
    """Return the sentence and the exit code for an error that is no fault of the program; None for others."""
    if out_of_memory(error):
        return ("the GPU is out of memory (--dry_run estimates what a batch needs); lower --batch_size or "
                "--eval_batch_size, or raise --accumulation; once there is a checkpoint, a flag that changes the "
                "result needs another --save", BAD_INPUT)
    if "can't allocate memory" in str(error):
        return SHORT_OF_MEMORY, BAD_INPUT
    if _KILLED_WORKER.search(str(error)):
        return ("a process that decodes images was killed, maybe for its memory; lower --workers or the batch size, or "
                "give the job more memory", LOST)
    if os.environ.get("WORLD_SIZE", "") not in ("", "0", "1") and _PARTNER.search(str(error)):
        return ("another process of this run has ended, and this one cannot go on alone; the same command resumes from "
                "what is saved", LOST)
    return None


def storage_problem(error: OSError) -> str:
    """Say which file could not be used, and why."""
    where = shown_path(error.filename) if isinstance(error.filename, str) else "the run directory or the output"
    verb = "write" if error.errno in _UNWRITTEN else "read or write"
    resumes = "; what was saved before is intact, and the same command resumes from it" * place.can_go_on()
    return f"cannot {verb} {where}: {(_UNWRITTEN | _UNREACHABLE)[error.errno or 0]}{resumes}"


def leave_quietly() -> NoReturn:
    """Leave with 141, as a shell reports a program whose reader (such as ``head``) has stopped reading."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or python complains when it flushes at the end
    sys.exit(READER_LEFT)
