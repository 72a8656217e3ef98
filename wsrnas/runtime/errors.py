"""Bad input, said in one sentence; the only exceptions that programs show to their users."""

import os
import sys
import time
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
    say(f"error: {message}")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # The others may be in a collective, which an orderly exit would wait for: torchrun ends them.
        sys.stdout.flush()
        os._exit(BAD_INPUT)
    sys.exit(BAD_INPUT)


def say(message: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(message, file=sys.stderr, flush=True)
