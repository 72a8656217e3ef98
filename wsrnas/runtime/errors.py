"""Exceptions that programs show to their users as one sentence, and exit codes."""

import os
import sys
import time
from typing import NoReturn


class InputError(ValueError):
    """Signal unusable input. The message names it and what was expected."""


def one_line(message: str) -> str:
    """Return a message on one line of bounded length, with escapes for what a terminal would act on or cannot print."""
    line = "".join(letter if letter.isprintable() else " " if letter in "\n\t" else repr(letter)[1:-1]
                   for letter in (message if len(message) <= 4 * LONGEST else
                                  message[:2 * LONGEST] + message[-2 * LONGEST:]))
    if len(line) <= LONGEST:
        return line
    end = LONGEST // 3
    return f"{line[:LONGEST - end - 5]} ... {line[-end:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def named_line(error: BaseException) -> str:
    """Return type and message of an error in one line; TorchScript puts the message last, after its own trace."""
    lines = str(error).strip().splitlines() or [""]
    message = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    name = type(error).__name__
    return f"{name}: {message.removeprefix(f'{name}: ')}" if message else name


def shown(value: object, letters: int = 60) -> str:
    """Return a value as a sentence quotes it: on one line, and cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**letters:
        return f"a number of about {int(value.bit_length() * 0.30103) + 1} digits"
    text = repr(value)
    return text if len(text) <= letters else f"{text[:letters]}... ({len(text)} letters)"


def type_in_words(value: object) -> str:
    """Return the type of a value as a sentence says it: "a list", "an int", "None"."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


class Preempted(Exception):
    """Signal that a run was asked to stop and is saved. The message names the last completed step."""


LONGEST = 490  # letters of a sentence, with "error: " and the end of the line
ALONE_SECONDS = 5  # how long other processes wait before they print their own error
BAD_INPUT = 2
READER_LEFT = 141  # as shells report SIGPIPE: the reader of the output, such as head, has stopped reading
LOST = 71  # EX_OSERR: another process of the same run was killed; start the command again
INTERRUPTED = 130  # as shells report SIGINT
STOPPED = 75  # EX_TEMPFAIL, the exit code after Preempted: neither success nor failure; start the command again


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Print one sentence on stderr and leave with an exit code."""
    message = one_line(message)
    if os.environ.get("RANK", "0") not in ("", "0"):
        # If the main process has the same error, torchrun ends this process while it waits. An error of this process
        # alone (such as a broken file) is printed here.
        time.sleep(ALONE_SECONDS)
        print(f"error: process {os.environ['RANK']}: {message}", file=sys.stderr, flush=True)
    say(f"error: {message}")
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        # An orderly exit would wait for the others, which may be in a collective. torchrun ends them.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def say(message: str) -> None:
    """Print a sentence on stderr, on the main process only."""
    if os.environ.get("RANK", "0") in ("", "0"):
        print(message, file=sys.stderr, flush=True)


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error is torch's about a GPU without free memory; this needs no torch.

    TorchScript raises an error of its own that quotes it.
    """
    return type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in str(error)
