"""A disk that refuses to write from some moment on, in this process."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what is there may still be renamed and deleted
READ_ONLY = (errno.EROFS, errno.EIO)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """Count what is written below a folder; from one of these times on, the system refuses.

    Args:
        root: The folder.
        allowed: How often something may be written.
        code: Number of the error that then comes.
    """

    def __init__(self, root: Path, allowed: int, code: int) -> None:
        self.root, self.left, self.code = str(root.resolve()), allowed, code

    def fail(self) -> None:
        """Let the functions of this process that write fail; there is no way back."""
        for module, name in ((builtins, "open"), (io, "open")):
            self._replace(module, name, lambda path, mode="r", *more, **named: any(x in mode for x in "wax+"))
        self._replace(os, "open", lambda path, flags=0, *more, **named: bool(flags & WRITES))
        for name in ("mkdir", "symlink", "link", "truncate"):
            self._replace(os, name, lambda *given, **named: True)
        for name in ("rename", "replace", "unlink", "rmdir"):
            self._replace(os, name, lambda *given, **named: self.code in READ_ONLY)

    def _replace(self, module: Any, name: str, writes: Callable[..., bool]) -> None:
        original = getattr(module, name)

        def checked(path: Any, *more: Any, **named: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and writes(path, *more, **named) and self._is_inside(path):
                self.left -= 1
                if self.left < 0:
                    raise OSError(self.code, os.strerror(self.code), os.fspath(path))
            return original(path, *more, **named)

        setattr(module, name, checked)

    def _is_inside(self, path: Any) -> bool:
        return os.path.realpath(os.fspath(path)).startswith(self.root + "/")
