"""Make the folders that programs write to, and move old ones out of the way."""

import os
from pathlib import Path

from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.place import Place, watch, watched_above
from wsrnas.runtime.reading import reason_of, shown_path


def make(folder: Path) -> None:
    """Make a folder and those above it, as far as they do not exist.

    A watched folder that it is inside of is never made: it was there, so it was deleted or moved meanwhile.

    Raises:
        InputError: A watched folder is gone.
        OSError: The folder cannot be made.
    """
    place = watched_above(folder)
    if place is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    place.require()
    levels = len(folder.absolute().parts) - len(place.absolute.parts)
    try:
        for each in reversed([folder, *folder.parents][:levels]):
            each.mkdir(exist_ok=True)
    except FileNotFoundError:
        place.require()
        raise


def create(path: Path) -> Place:
    """Make a run directory if it does not exist, and watch it from now on.

    Raises:
        InputError: The folder cannot be written, or it or the run that it is inside of was deleted or moved meanwhile.
    """
    probe, place = path / run_files.PROBE, None
    try:
        make(path)
        place = watch(path)
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: NUL or half a character in the name
        if place:
            place.require()
        raise _unwritable(path, reason_of(error)) from None
    return place


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
    """Rename a folder to the first free of ``NAME.old1``, ``NAME.old2``, ...

    Raises:
        InputError: it is the folder that the program works in, or one above it.
    """
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{shown_path(path)} is the folder that the program was started in, or one above it; it "
                         "cannot be moved aside, choose another one")
    number = next(n for n in range(1, 10**6) if not path.with_name(f"{path.name}.old{n}").exists())
    path.rename(path.with_name(f"{path.name}.old{number}"))
