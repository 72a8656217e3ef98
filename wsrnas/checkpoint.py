"""Checkpoints that survive a kill: written aside and renamed, the previous one kept, read without pickle."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsrnas.errors import InputError


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` so that ``path`` is at any moment either the old file or the whole new one.

    Raises:
        OSError: the folder is read-only or full; the old file is untouched and nothing partial is left behind.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def previous(path: Path) -> Path:
    """Where ``save`` keeps the checkpoint that ``path`` replaced."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path: Path, payload: dict[str, Any]) -> None:
    """Store tensors and plain containers; the checkpoint that was at ``path`` is kept as ``previous(path)``.

    Raises:
        OSError: as ``write_atomic``.
    """
    buffer = io.BytesIO()  # through memory: torch.save to a full disk raises a RuntimeError that hides the reason
    torch.save(payload, buffer)
    staged = path.with_name(path.name + ".new")
    try:
        write_atomic(staged, buffer.getbuffer())
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    if path.exists():
        os.replace(path, previous(path))
    os.replace(staged, path)


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint to the CPU, tensors and plain containers only.

    Raises:
        InputError: the file is missing, truncated or not a checkpoint.
    """
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except Exception as error:  # on damaged bytes torch's reader raises half a dozen types, IndexError among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"checkpoint {path} cannot be read ({reason}); it is truncated or not a checkpoint") from None
    if not isinstance(payload, dict):
        raise InputError(f"{path} is not a checkpoint of this project: expected a dictionary of states")
    return payload


def restore(path: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest readable checkpoint of a run: ``path``, else the previous one (said through ``log``), else None.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    found = [candidate for candidate in (path, previous(path)) if candidate.exists()]
    problems = []
    for candidate in found:
        try:
            payload = read(candidate)
        except InputError as error:
            problems.append(str(error))
            continue
        if candidate != path:
            log(f"{problems[0] if problems else f'{path.name} is missing'}; "
                f"falling back to the previous checkpoint {candidate.name}")
        return payload
    if problems:
        raise InputError(f"{'; '.join(problems)}; begin anew with --overwrite (the old directory is kept)")
    return None
