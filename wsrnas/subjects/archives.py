"""Archives of stored programs: every entry is read and checked here, and torch sees a copy with these entries alone.

Torch reads an archive with another reader than Python, which may find other contents under a name. The copy leaves it
nothing else to find.
"""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from wsrnas.runtime.checkpoint import LARGEST_RATIO, SPARE_BYTES
from wsrnas.runtime.errors import InputError


def entry_names(path: Path) -> list[str]:
    """Return the names of the entries of an archive; none where the file is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def read_entries(data: bytes, what: str) -> dict[str, bytes]:
    """Return the contents of an archive by name, each entry checked against its checksum.

    Args:
        data: The archive.
        what: Its name, for messages.

    Raises:
        InputError: It is damaged, has a name twice, or unpacks to far more than it holds.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > LARGEST_RATIO * len(data) + SPARE_BYTES:
                raise InputError(f"{what} would unpack from {len(data)} bytes to {unpacked}; expected weights, which "
                                 "hardly shrink")
            names = archive.namelist()
            if twice := next((name for name, count in Counter(names).items() if count > 1), None):
                raise InputError(f"{what} has the entry {twice!r} twice; expected one of each name")
            return {name: archive.read(name) for name in names}
    except InputError:
        raise
    except Exception as error:  # damaged bytes make zipfile and zlib raise half a dozen types
        raise InputError(f"{what} is damaged ({type(error).__name__}: {error})") from None


def packed(entries: Mapping[str, bytes]) -> io.BytesIO:
    """Return an archive of these entries, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    buffer.seek(0)
    return buffer


# TorchScript cannot run Python, but these operations read and write files or reach other processes. They are looked for
# in the whole source, texts and comments included: a model has no use for the words.
_FILE_OPERATIONS = re.compile(r"\b(save|_save|load|_load|from_file|read_file|write_file|load_tensor|load_library)\b")
_DOT = re.compile(r"\s*\.\s*")
_NAMESPACE = re.compile(r"(?<![.\w])(?:torch\.)?ops\.(\w+)")  # not the package "ops" of a class's name
_CLASSES = re.compile(r"\btorch\s*\.\s*classes\s*\.\s*(\w+)")
_KNOWN_NAMESPACES = {"aten", "prim", "prims", "torchvision", "quantized", "mkldnn"}


def verified_script(data: bytes, what: str) -> io.BytesIO:
    """Return a copy of a TorchScript archive whose source has no operation on files or other processes.

    Loading runs source: a class may have a ``__setstate__``. So this looks at the source before torch does.

    Args:
        data: The archive.
        what: Its name, for messages.

    Raises:
        InputError: There is such an operation, or the archive is damaged.
    """
    entries = read_entries(data, what)
    for name, content in entries.items():
        if not name.lower().endswith(".py"):
            continue
        source = content.decode("latin-1")  # names are ASCII; other bytes stand in texts alone
        if found := _FILE_OPERATIONS.search(source):
            raise InputError(f"{what} calls {found[1]} in {name}, which may read or write files; expected operations "
                             "on tensors alone")
        spaces = [*_NAMESPACE.findall(_DOT.sub(".", source)), *_CLASSES.findall(source)]
        if foreign := next((space for space in spaces if space not in _KNOWN_NAMESPACES), None):
            raise InputError(f"{what} calls operations of {foreign!r} in {name}; expected those of torch and "
                             f"torchvision ({', '.join(sorted(_KNOWN_NAMESPACES))})")
    return packed(entries)
