"""Checkpoints that survive a kill: written aside and renamed, the previous one kept, read without pickle."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsrnas.runtime.errors import InputError


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


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, as ``write_atomic`` writes."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def previous(path: Path) -> Path:
    """Where ``save`` keeps the checkpoint that ``path`` replaced."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def staged(path: Path) -> Path:
    """Where ``save`` writes before it renames: whole, and newer than ``path`` if a kill left it there."""
    return path.with_name(path.name + ".new")


def save(path: Path, payload: dict[str, Any], keep_replaced: bool = True) -> None:
    """Store tensors and plain containers; the checkpoint that was at ``path`` is kept as ``previous(path)``.

    Args:
        keep_replaced: False when the file at ``path`` is damaged and ``previous(path)`` is the good one.

    Raises:
        OSError: as ``write_atomic``.
    """
    buffer = io.BytesIO()  # through memory: torch.save to a full disk raises a RuntimeError that hides the reason
    torch.save(payload, buffer)
    write_atomic(staged(path), buffer.getbuffer())
    if keep_replaced and path.exists():
        os.replace(path, previous(path))
    os.replace(staged(path), path)


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


def restore(path: Path, log: Callable[[str], None]) -> tuple[dict[str, Any] | None, bool]:
    """The newest readable checkpoint of a run: ``path``, else one beside it (said through ``log``), else None.

    Returns:
        The payload, and whether it comes from beside ``path``.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    found = [candidate for candidate in (path, staged(path), previous(path)) if candidate.exists()]
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
        return payload, candidate != path
    if problems:
        raise InputError(f"{'; '.join(problems)}; begin anew with --overwrite (the old directory is kept)")
    return None, False
