"""Bad input, said in one sentence; the only exceptions that programs show to their users."""

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn


class InputError(ValueError):
    """Input that cannot be used. The message names the offending thing and what was expected."""


class Preempted(Exception):
    """A signal asked to stop, and everything is saved. The message names the last completed step."""


ALONE_SECONDS = 5  # after which a process that torchrun has not ended speaks for itself
BAD_INPUT = 2
STOPPED = 75  # EX_TEMPFAIL, the exit code after Preempted: neither success nor failure, start again


def fail(message: str) -> NoReturn:
    """Print one sentence on stderr and leave with exit code 2."""
    if os.environ.get("RANK", "0") != "0":
        # What the main process says, too, ends this one meanwhile; what it alone has met (a broken file) is said here.
        time.sleep(ALONE_SECONDS)
        print(f"error: process {os.environ['RANK']}: {message}", file=sys.stderr, flush=True)
    _say(f"error: {message}")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # The others may be in a collective, which an orderly exit would wait for: torchrun ends them.
        sys.stdout.flush()
        os._exit(BAD_INPUT)
    sys.exit(BAD_INPUT)


def _say(message: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(message, file=sys.stderr, flush=True)


_STORAGE_PROBLEMS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a parent is not a directory",
}


def run_program(main: Callable[[], None]) -> None:
    """Run ``main``; what users can mend ends it with one sentence and an exit code.

    2 for bad input and storage problems, 75 for a training that a signal stopped, 130 for Ctrl-C.
    """
    try:
        main()
    except Preempted as stop:
        _say(f"{stop}; the same command resumes")
        sys.exit(STOPPED)
    except InputError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in _STORAGE_PROBLEMS:
            raise
        fail(f"cannot write {error.filename or 'the run directory'}: {_STORAGE_PROBLEMS[error.errno]}; "
             "what was saved before is intact, and the same command resumes from it")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; this module does not import it
            raise
        fail("the GPU is out of memory (--dry_run estimates what a batch needs); lower --batch_size, "
             "--validation_batch_size or --eval_batch_size, or raise --accumulation; what changes the result needs "
             "another --save once there is a checkpoint")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
