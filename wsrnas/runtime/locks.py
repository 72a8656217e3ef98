"""Lock a folder against other processes. The lock is released when the process ends, however it ends."""

import errno
import fcntl
from pathlib import Path
from typing import TextIO

from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError


def hold(path: Path) -> TextIO:
    """Lock a folder for this process. Where the file system cannot lock, do nothing.

    Returns:
        An open file; the lock lasts until it is closed or garbage-collected.

    Raises:
        InputError: another process holds the folder.
    """
    file = claim(path)
    if file is None:
        raise InputError(f"another process is writing {path}; wait for it, or choose another --save")
    return file


def claim(path: Path, must_lock: bool = False) -> TextIO | None:
    """Lock a folder for this process like ``hold``, but return None if another process holds it.

    Args:
        path: the folder.
        must_lock: refuse a file system that cannot lock, where several processes would all get the folder.

    Raises:
        InputError: the file system cannot lock.
    """
    file = open(path / run_files.LOCK, "w")  # noqa: SIM115 - open until the process ends
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
        why = (error.strerror or str(error)).lower()
        require(not must_lock, f"the file system of {path} cannot lock files ({why}), so processes cannot share work; "
                "expected a file system that can (--runs)")
    return file
