"""Names of networks in tables, and of the files that belong to them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.subjects.model_source import ModelSource

# File names that say nothing about the network in the file: the folder's name does.
GENERIC = ("model", *(Path(name).stem for name in (run_files.BEST, run_files.CHECKPOINT, run_files.GENOTYPE)))


def short_name(path: Path) -> str:
    """Return the name of a network that is stored at ``path``: that of the file, or of the folder if more specific."""
    return path.absolute().parent.name if path.stem in GENERIC and len(path.parts) > 1 else path.stem


def display_names(networks: Sequence[ModelSource], asked: Sequence[str] = ()) -> list[str]:
    """Return the names of networks in tables and figures, all different.

    Args:
        networks: The networks that are measured together.
        asked: The names that the user chose, one for each network; empty: the networks' own.

    Raises:
        InputError: A network or a name is given twice.
    """
    sources = [network.source for network in networks]
    require(all(asked), "a name of --names is empty; expected a name for each network")
    for given, what in ((list(asked), "names"), (list(map(os.path.abspath, sources)), "networks")):
        twice = next((name for name in given if given.count(name) > 1), None)
        require(twice is None, f"{twice} is among the {what} twice; expected different ones")
    names = list(asked) or [network.name for network in networks]
    return names if len(set(names)) == len(names) else sources


def file_name(name: str) -> str:
    """Return a network's name without the characters that a file name may not have."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:100]


def place_hash(network: ModelSource) -> str:
    """Return six letters that differ for networks of the same name from different files or functions."""
    return hashlib.blake2b(os.path.abspath(network.source).encode(), digest_size=3).hexdigest()


def weights_label(network: ModelSource) -> str:
    """Return ``best`` or ``checkpoint`` in a run directory, else the network's name and the hash of its place."""
    return Path(network.source).stem if network.folder else f"{file_name(network.name)}-{place_hash(network)}"
