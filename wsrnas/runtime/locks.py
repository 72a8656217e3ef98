"""Hold a folder against other processes, through a lock that the end of a process releases."""

import errno
import fcntl
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError


def hold(path: Path) -> Any:
    """Hold a folder for this process, where the file system can lock, until what this returns is closed or forgotten.

    Raises:
        InputError: another process holds it.
    """
    file = claim(path)
    if file is None:
        raise InputError(f"another process is writing {path}; wait for it, or choose another --save")
    return file


def claim(path: Path, must_lock: bool = False) -> Any:
    """``hold``, but None where another process holds the folder.

    Args:
        must_lock: refuse a file system that cannot lock, on which several processes would all hold the folder.

    Raises:
        InputError: it cannot.
    """
    file = open(path / run_files.LOCK, "w")  # noqa: SIM115 - open until the process ends
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
        why = (error.strerror or str(error)).lower()
        require(not must_lock, f"the file system of {path} cannot lock files ({why}), by which processes share their "
                "work; expected one that can (--runs)")
    return file
