"""Bad input, said in one sentence; the only exceptions that programs show to their users."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class InputError(ValueError):
    """Input that cannot be used. The message names the offending thing and what was expected."""


def fail(message: str) -> NoReturn:
    """Print one sentence on stderr and leave with exit code 2."""
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


_STORAGE_PROBLEMS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a parent is not a directory",
}


def run_program(main: Callable[[], None]) -> None:
    """Run ``main``; bad input and storage problems end it with one sentence and exit code 2, Ctrl-C with 130."""
    try:
        main()
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
        fail("the GPU is out of memory (--dry_run estimates what a batch needs); with a smaller "
             "--validation_batch_size or --eval_batch_size the run resumes, --batch_size needs another --save")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
