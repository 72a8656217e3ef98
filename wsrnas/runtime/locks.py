"""Lock a folder against other processes. The lock is released when the process ends, however it ends."""

import errno
import fcntl
import os
from pathlib import Path

from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError

_open: dict[tuple[int, int], "_File"] = {}  # lock files that this process holds, by device and inode


class _File:
    """An open lock file and the number of its holders in this process.

    The system knows one lock of a process for a file, and releases it when the process closes any descriptor of the
    file. So there is one descriptor, which the last holder closes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.holders = descriptor, 0


class Held:
    """Hold an open lock file until it is closed, garbage-collected, or the process ends.

    Several in one process hold it together: until the last one is closed.

    Args:
        path: the lock file; it is made if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.key: tuple[int, int] | None = None
        key = _identity(os.stat(path)) if path.exists() else None
        if key not in _open:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            key = _identity(os.fstat(descriptor))
            _open[key] = _File(descriptor)
        self.key = key
        _open[key].holders += 1

    @property
    def descriptor(self) -> int:
        """The open file; there is none after ``close``."""
        assert self.key is not None
        return _open[self.key].descriptor

    def close(self) -> None:
        """Release the lock, unless another holder in this process has it, too."""
        key, self.key = self.key, None
        if key is None:
            return
        file = _open[key]
        file.holders -= 1
        if not file.holders:
            del _open[key]
            os.close(file.descriptor)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def hold(path: Path, flag: str = "--save") -> Held:
    """Lock a folder for this process. Where the file system cannot lock, do nothing.

    Args:
        path: the folder.
        flag: the program's flag for another one, for the message.

    Returns:
        The lock; it lasts until it is closed or garbage-collected.

    Raises:
        InputError: another process holds the folder.
    """
    file = claim(path)
    if file is None:
        raise InputError(f"another process is writing {path}; wait for it, or choose another {flag}")
    return file


def claim(path: Path, must_lock: bool = False) -> Held | None:
    """Lock a folder for this process like ``hold``, but return None if another process holds it.

    Args:
        path: the folder.
        must_lock: refuse a file system that cannot lock, where several processes would all get the folder.

    Raises:
        InputError: the file system cannot lock.
    """
    file = Held(path / run_files.LOCK)
    try:
        fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
        why = (error.strerror or str(error)).lower()
        require(not must_lock, f"the file system of {path} cannot lock files ({why}), so processes cannot share work; "
                "expected a file system that can (--runs)")
    return file
