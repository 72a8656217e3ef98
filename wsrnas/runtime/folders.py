"""Make the folders that programs write to, and move old ones out of the way."""

import os
from pathlib import Path

from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import reason_of, shown_path


def create(path: Path) -> None:
    """Make a run directory if it does not exist.

    Raises:
        InputError: the folder cannot be written.
    """
    probe = path / run_files.PROBE
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: NUL or half a character in the name
        raise _unwritable(path, reason_of(error)) from None


def refuse_unwritable(path: Path) -> None:
    """Refuse a run directory that could not be made or written, as far as can be known without writing.

    Raises:
        InputError: the folder, or the nearest one above it, cannot be written.
    """
    for place in (path.absolute(), *path.absolute().parents):
        try:
            place.stat()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise _unwritable(path, reason_of(error)) from None
        if not place.is_dir():
            if place == path.absolute():
                return  # a file in its place is other work, or is moved aside
            raise _unwritable(path, "not a directory")
        if not os.access(place, os.W_OK | os.X_OK):
            raise _unwritable(path, "permission denied, or read-only file system")
        return


def _unwritable(path: Path, reason: str) -> InputError:
    return InputError(f"cannot write the run directory {shown_path(path)}: {reason}; expected a place with free space "
                      "where you may write (--runs, --save)")


def overwrite_requested(overwrite: bool) -> bool:
    """Return whether ``--overwrite`` applies: it does not when Slurm starts a job again.

    A requeued job repeats its whole command line, and its folder then holds its own earlier work.
    """
    return overwrite and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"


def move_aside(path: Path) -> None:
    """Rename a folder to the first free of ``NAME.old1``, ``NAME.old2``, ..."""
    number = next(n for n in range(1, 10**6) if not path.with_name(f"{path.name}.old{n}").exists())
    path.rename(path.with_name(f"{path.name}.old{number}"))
