"""Write checkpoints that survive a kill, and read them without pickle.

A checkpoint is written to another name and then renamed; the one before it is kept.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` is at any moment either the old file or the whole new one.

    Raises:
        OSError: the folder is read-only or full. The old file is untouched and no partial file remains.
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
    write_atomic(staged(path), buffer.getvalue())
    if keep_replaced and path.exists():
        os.replace(path, previous(path))
    os.replace(staged(path), path)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain containers to the CPU.

    Raises:
        InputError: the file is missing, truncated or not a checkpoint.
    """
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except Exception as error:  # damaged bytes make torch raise half a dozen types, IndexError among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"checkpoint {path} cannot be read ({reason}); it is truncated or not a checkpoint") from None
    if not isinstance(payload, dict):
        raise InputError(f"{path} is not a checkpoint of this project: expected a dictionary of states")
    return payload


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
        raise InputError(f"{'; '.join(problems)}; pass --overwrite to start again (the old directory is kept)")
    return None, False
