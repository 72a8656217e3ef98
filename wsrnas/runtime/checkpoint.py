"""Write checkpoints that survive a kill, and read them without pickle.

A checkpoint is written to another name and then renamed; the one before it is kept. It is an archive as ``torch.save``
writes it, whose comment is a checksum of all other bytes, so that damage is noticed. Archives of others have a checksum
for each entry. Torch reads past both.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import os
import re
import struct
import uuid
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, first_line, say
from wsrnas.runtime.reading import Unreadable, foreign_kind, reason_of, require_file, shown_path

with deferred_imports():
    import numpy as np
    import torch

MARK = b"wsrnas sha256 "
SEAL = len(MARK) + 64  # bytes of the comment
CHUNK = 2**22
LARGEST_RATIO = 8  # of unpacked to packed bytes; weights hardly shrink
SPARE_BYTES = 2**26


def write_atomic(path: Path, data: bytes, writers: bool = False) -> None:
    """Write ``data`` so that ``path`` is at any moment either the old file or the whole new one.

    Args:
        path: the file.
        data: its content.
        writers: whether several processes may write the file at a time. Each then has a temporary file of its own,
            and what a kill leaves of it stays; otherwise the next writer overwrites that.

    Raises:
        OSError: the folder is read-only or full. The old file is untouched and no partial file remains.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp" if writers else f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; see ``write_atomic``."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def previous(path: Path) -> Path:
    """Return where ``save`` keeps the checkpoint that was at ``path`` before."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def staged(path: Path) -> Path:
    """Return where ``save`` writes before it renames. A file left there by a kill is whole and newer."""
    return path.with_name(path.name + ".new")


def save(path: Path, payload: dict[str, Any], keep_replaced: bool = True) -> None:
    """Store a checkpoint and keep the one that was at ``path`` as ``previous(path)``.

    Args:
        path: file of the checkpoint.
        payload: dictionary of tensors and plain containers.
        keep_replaced: False when the file at ``path`` is damaged and ``previous(path)`` is the good one.

    Raises:
        OSError: the folder is read-only or full.
    """
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises a RuntimeError that hides the reason
    torch.save(payload, buffer)
    seal(buffer)
    write_atomic(staged(path), buffer.getvalue())
    if keep_replaced and path.exists():
        os.replace(path, previous(path))
    os.replace(staged(path), path)


def complete_save(path: Path) -> None:
    """Do the last rename of a save that a kill has cut off: the checkpoint is there, under its other name."""
    if not os.path.lexists(path) and staged(path).is_file():
        os.replace(staged(path), path)


def seal(archive: io.BytesIO) -> None:
    """Add the checksum of a zip archive without a comment as its comment."""
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    archive.seek(-2, os.SEEK_END)
    archive.write(struct.pack("<H", SEAL) + MARK + digest.encode())


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain containers to the CPU.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint, or holds pickled objects.
    """
    named = f"checkpoint {shown_path(path)}"
    try:
        require_file(path, "checkpoint")
    except Unreadable as error:
        raise InputError(f"no checkpoint at {shown_path(path)}" if not os.path.lexists(path) else str(error)) from None
    try:
        checked = refuse_damage(path)
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocols
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged as damage:
        raise InputError(f"{named} cannot be read ({damage}); it is damaged or not a checkpoint") from None
    except Exception as error:  # damaged bytes make torch raise half a dozen types, IndexError among them
        reason = _reason(error, path)
        remedy = ("expected tensors and plain containers alone" if pickled_object(error) else
                  "it is truncated or not a checkpoint")
        raise InputError(f"{named} cannot be read ({reason}); {remedy}") from error
    if not isinstance(payload, dict):
        raise InputError(f"{shown_path(path)} is not a checkpoint of this project: expected a dictionary of states")
    if not checked:
        say(f"note: {shown_path(path)} has no checksum, so damage to its numbers would not be noticed")
    return payload


def _numpy_scalars() -> list[Any]:
    """Return what torch needs to read NumPy's numbers, which others keep beside weights; none of it runs code."""
    scalar = np.float64(0).__reduce__()[0]
    integers = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "float16", "bool", *integers)]
    return [(scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")] + [
        np.dtype, *kinds, codecs.encode]


class Damaged(Exception):
    """Say what is wrong with the bytes of a file."""


def refuse_damage(path: Path) -> bool:
    """Compare a file with the checksum of the whole of it, or of each entry of an archive.

    Returns:
        Whether it has a checksum.

    Raises:
        Damaged: they differ, or an archive unpacks to far more than it holds.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - SEAL - 2))
        end = file.read()
        length = struct.pack("<H", SEAL)
        if end.startswith(length + MARK):
            file.seek(0)
            if _digest(file, size - SEAL - 2).encode() != end[-64:]:
                raise Damaged("its contents do not match its checksum")
        elif end[:2] == length or MARK in end:
            raise Damaged("its checksum is damaged")
        elif not is_archive(file):
            return False
        else:
            _refuse_damaged_entries(file, size)
    return True


def is_archive(file: io.BufferedReader) -> bool:
    """Return whether a file is a zip archive.

    Raises:
        Damaged: it was one.
    """
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile as error:
        raise Damaged(f"BadZipFile: {first_line(error)}") from None


def _digest(file: io.BufferedReader, count: int) -> str:
    """Return the checksum of the first bytes of a file, and of the comment's length that they had: 0."""
    digest = hashlib.sha256()
    while count > 0 and (chunk := file.read(min(count, CHUNK))):
        digest.update(chunk)
        count -= len(chunk)
    digest.update(b"\0\0")
    return digest.hexdigest()


def _refuse_damaged_entries(file: io.BufferedReader, size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > LARGEST_RATIO * size + SPARE_BYTES:
                raise Damaged(f"it would unpack from {size} bytes to {unpacked}")
            bad = archive.testzip()
    except Damaged:
        raise
    except Exception as error:  # damaged bytes make zipfile and zlib raise half a dozen types
        raise Damaged(f"{type(error).__name__}: {first_line(error)}") from None
    if bad:
        raise Damaged(f"its entry {bad[:100]!r} does not match its checksum")


def _reason(error: Exception, path: Path) -> str:
    """Return in a few words why torch does not read a file, without its advice to read it unsafely."""
    if name := pickled_object(error):
        return f"it holds a pickled {name}, and reading it could run any code"
    if isinstance(error, OSError):
        return reason_of(error)
    if kind := foreign_kind(path):
        return kind
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            return "it is a zip archive of another program than torch.save"
    if "weights" in str(error).lower() and "only" in str(error):
        return "it holds what is neither a tensor nor a plain container"
    if isinstance(error, (LookupError, EOFError)):  # torch's reader lost its way, and says a byte at most
        return "its bytes are not those of torch.save"
    return first_line(error)[:200]


def pickled_object(error: BaseException | None) -> str:
    """Return what torch refuses to unpickle, neither a tensor nor a plain container; empty for other errors."""
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)", str(error))
    return found[1][:100] if found else ""


def restore(path: Path, log: Callable[[str], None]) -> tuple[dict[str, Any] | None, bool]:
    """Return the newest readable checkpoint of a run.

    Args:
        path: file of the checkpoint. If it cannot be read, ``staged(path)`` and ``previous(path)`` are tried.
        log: prints which other file is used.

    Returns:
        The payload, or None if there is no checkpoint, and whether it comes from another file than ``path``.

    Raises:
        InputError: there are checkpoints, but none can be read.
    """
    found = [candidate for candidate in (path, staged(path), previous(path)) if os.path.lexists(candidate)]
    problems = []
    for candidate in found:
        try:
            payload = read(candidate)
        except InputError as error:
            problems.append(str(error))
            continue
        if not payload:
            problems.append(f"checkpoint {shown_path(candidate)} is empty")
            continue
        if candidate != path:
            log(f"{problems[0] if problems else f'{path.name} is missing'}; "
                f"falling back to the previous checkpoint {candidate.name}")
        return payload, candidate != path
    if problems:
        raise InputError(f"{'; '.join(problems)}; pass --overwrite to start again (the old directory is kept)")
    return None, False
