"""Run a program so that errors which users can fix end it with one sentence and an exit code."""

import errno
import gc
import sys
from collections.abc import Callable

from wsrnas.runtime.errors import STOPPED, InputError, Preempted, fail, out_of_memory, say
from wsrnas.runtime.pages import use_large_pages
from wsrnas.runtime.threads import sleep_when_idle

_STORAGE_PROBLEMS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a parent is not a directory",
}


def run_program(main: Callable[[], None]) -> None:
    """Run ``main``, and turn errors that users can fix into one sentence and an exit code.

    The code is 2 for bad input and storage problems, 75 after a signal asked to stop, 130 after Ctrl-C.
    """
    sleep_when_idle()
    use_large_pages()
    try:
        main()
    except Preempted as stop:
        say(f"{stop}; the same command resumes")
        sys.exit(STOPPED)
    except InputError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in _STORAGE_PROBLEMS:
            raise
        fail(f"cannot write {error.filename or 'the run directory'}: {_STORAGE_PROBLEMS[error.errno]}; "
             "what was saved before is intact, and the same command resumes from it")
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        fail("the GPU is out of memory (--dry_run estimates what a batch needs); lower --batch_size or "
             "--eval_batch_size, or raise --accumulation; once there is a checkpoint, a flag that changes the "
             "result needs another --save")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    finally:
        if "torch.distributed" in sys.modules:  # help and configuration errors need no torch
            from wsrnas.runtime.distributed import shutdown
            shutdown()
        gc.freeze()  # the system frees all memory at once; python would spend half a second on torch's objects
