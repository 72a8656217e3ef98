"""Refuse a folder that holds other work than the program was asked for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsrnas.runtime import run_files
from wsrnas.runtime.config import identity_differences, require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.folders import overwrite_requested, refuse_unwritable
from wsrnas.runtime.reading import Unreadable, read_json

SAVE = "--save"  # the flag that names a folder, in most programs
_REPAIR = "repair it, or pass --overwrite to move its folder aside"


def _remedy(flag: str) -> str:
    return f"choose another {flag}, or pass --overwrite to move it aside"


def stored_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no file.

    Raises:
        InputError: the file holds something else.
    """
    if not os.path.lexists(path):
        return None
    try:
        stored = read_json(path)
    except Unreadable as error:
        raise InputError(f"{error}; {_REPAIR}") from None
    require(isinstance(stored, dict), f"{path} is not a JSON object; {_REPAIR}")
    return stored


def is_beginning(folder: Path) -> bool:
    """Return whether a folder holds no more than a program leaves that was killed before it had written anything."""
    return all(file.name in run_files.BEFORE_ALL for file in folder.iterdir())


def refuse_foreign_folder(folder: Path, flag: str = SAVE) -> None:
    """Refuse a file, or a folder that has content but no stored configuration.

    Args:
        folder: the folder, which may be missing.
        flag: the program's flag for it.

    Raises:
        InputError: the sentence names the folder.
    """
    # The content first: another process may write its configuration meanwhile, which then is found.
    foreign = os.path.lexists(folder) and (
        not folder.is_dir() or (not is_beginning(folder) and stored_object(folder / run_files.CONFIG) is None))
    require(not foreign, f"{folder} exists and is not a run directory; {_remedy(flag)}")


def refuse_other_configuration(folder: Path, config: Any, flag: str = SAVE, apart: str = "") -> None:
    """Refuse a folder whose stored configuration gives another result than ``config``.

    Args:
        folder: the run directory; one without a stored configuration is accepted.
        config: the dataclass that the program was asked for.
        flag: the program's flag for the folder.
        apart: field that may differ; empty: none.

    Raises:
        InputError: the sentence names the fields that differ.
    """
    stored = stored_object(folder / run_files.CONFIG)
    if stored is not None:
        refuse_differences(config, stored, f"{folder} holds a run of", _remedy(flag), apart)


def refuse_differences(config: Any, stored: Mapping[str, Any], place: str, remedy: str, apart: str = "") -> None:
    """Refuse a stored configuration that gives another result than ``config``.

    Args:
        config: the dataclass that the program was asked for.
        stored: the fields of the stored configuration.
        place: words before "another configuration": where it is stored.
        remedy: what the user can do.
        apart: field that may differ; empty: none.

    Raises:
        InputError: the sentence names the fields that differ.
    """
    differences = [text for text in identity_differences(config, stored) if text.partition(":")[0] != apart]
    require(not differences, f"{place} another configuration ({'; '.join(differences)}); {remedy}")


def refuse_other_inputs(folder: Path, inputs: Mapping[str, Any], flag: str = SAVE) -> None:
    """Refuse a folder whose results come from other inputs.

    Args:
        folder: the run directory; one without stored inputs is accepted.
        inputs: further values that the work depends on, such as the fingerprint of the data set.
        flag: the program's flag for the folder.

    Raises:
        InputError: the sentence names the inputs that differ.
    """
    stored = stored_object(folder / run_files.INPUTS)
    if stored is not None:
        refuse_changed_inputs(folder, stored, inputs, flag)


def refuse_changed_inputs(folder: Path, stored: Mapping[str, Any], inputs: Mapping[str, Any], flag: str = SAVE) -> None:
    """Refuse inputs that are not the stored ones.

    Args:
        folder: the run directory.
        stored: the inputs that its results come from.
        inputs: those of this program.
        flag: the program's flag for the folder.

    Raises:
        InputError: the sentence names the inputs that differ.
    """
    changed = [name for name, value in inputs.items() if stored.get(name) != value]
    require(not changed, f"{folder} was made from other inputs ({', '.join(changed)}); {_remedy(flag)}")


def refuse_other_work(folder: Path, config: Any, inputs: Mapping[str, Any], flag: str = SAVE, apart: str = "",
                      begun: bool = True) -> None:
    """Refuse a folder that holds something else than this work, or a beginning of it.

    Args:
        folder: the run directory, which may be missing.
        config: the dataclass that the program was asked for.
        inputs: further values that the work depends on.
        flag: the program's flag for the folder.
        apart: field that may differ; empty: none.
        begun: whether there is anything that a change could spoil.

    Raises:
        InputError: the sentence names what differs.
    """
    refuse_foreign_folder(folder, flag)
    if begun:
        refuse_other_configuration(folder, config, flag, apart)
        refuse_other_inputs(folder, inputs, flag)


def refuse_to_begin(folder: Path, config: Any, inputs: Mapping[str, Any], overwrite: bool, flag: str = SAVE,
                    apart: str = "", begun: bool = True) -> None:
    """Refuse what a run would refuse when it opens its folder, and write nothing: for ``--dry_run``.

    Args:
        folder: the run directory, which may be missing.
        config: the dataclass that the program was asked for.
        inputs: further values that the work depends on.
        overwrite: whether an existing folder would be moved aside.
        flag: the program's flag for the folder.
        apart: field that may differ; empty: none.
        begun: whether there is anything that a change could spoil.

    Raises:
        InputError: it holds other work, or cannot be written.
    """
    refuse_unwritable(folder)
    if not overwrite_requested(overwrite):
        refuse_other_work(folder, config, inputs, flag, apart, begun)
