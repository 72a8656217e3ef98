"""Read files of others: what cannot be read becomes one sentence, and nothing is waited for.

A pipe, a device, a folder, a loop of links or a name that no file can have is refused before it is opened.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wsrnas.runtime.errors import InputError, first_line, shown

Parsed = TypeVar("Parsed")
LARGEST_TEXT = 2**28  # bytes; the largest tables of benchmarks have a quarter of it
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device",
         stat.S_ISSOCK: "a socket"}


class Unreadable(InputError):
    """Signal a file that cannot be read, or that holds something else than it should."""


def require_file(path: str | Path, what: str = "") -> None:
    """Refuse a path that is not a regular file which may be read.

    Args:
        path: The path.
        what: The words before it in messages.

    Raises:
        Unreadable: The sentence says what it is instead.
    """
    named = f"{what} {shown_path(path)}".strip()
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise Unreadable(f"{named} does not exist") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long; NUL or a lone surrogate in a name
        raise Unreadable(f"{named} cannot be read: {reason_of(error)}") from None
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in KINDS.items() if test(mode)), "no regular file")
        raise Unreadable(f"{named} is {kind}; expected a file")


def read_text(path: str | Path, what: str = "") -> str:
    """Return the text of a UTF-8 file, without the byte-order mark that some editors put before it.

    Args:
        path: The file.
        what: The words before it in messages.

    Raises:
        Unreadable: It is no such file; the sentence names it and says why.
    """
    require_file(path, what)
    named = f"{what} {shown_path(path)}".strip()
    try:
        if (size := os.stat(path).st_size) > LARGEST_TEXT:
            raise Unreadable(f"{named} has {size} bytes; expected at most {LARGEST_TEXT}")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unreadable(f"{named} cannot be read: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{named} is not UTF-8 text") from None


def read_as(parse: Callable[[str], Parsed], path: str | Path, what: str = "") -> Parsed:
    """Return what ``parse`` makes of the text of a file.

    Args:
        parse: Function of the text; it raises InputError.
        path: The file.
        what: The words before it in messages.

    Raises:
        Unreadable: It is no such file; the sentence names it and says why.
        InputError: ``parse`` refuses the text; the sentence names the file.
    """
    text = read_text(path, what)
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{shown_path(path)}: {error}") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON, has a number of too many digits, or is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: str | Path, what: str = "") -> Any:
    """Return the value in a JSON file.

    Args:
        path: The file.
        what: The words before it in messages.

    Raises:
        Unreadable: It is no such file; the sentence names it and says why.
    """
    try:
        return parse_json(read_text(path, what))
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"{what} {shown_path(path)}".strip() + f" is not JSON ({first_line(error)})") from None


def json_kind(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")


FOREIGN = (  # how files begin that people mistake for weights or arrays, and what they are
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself (git lfs pull fetches it)"),
    (b"<!doctype html", "a web page, not the file that was to be downloaded"),
    (b"<html", "a web page, not the file that was to be downloaded"),
    (b"\x1f\x8b", "packed by gzip"), (b"\x89hdf\r\n", "an HDF5 file"), (b"\x93numpy", "an array of NumPy"),
    *((b"\x80" + bytes([protocol]), "a pickle, and reading it could run any code") for protocol in (3, 4, 5)))


def foreign_kind(path: Path) -> str:
    """Return what a file is by its first bytes, if it is none of torch and no archive; empty where that is unknown."""
    try:
        with open(path, "rb") as file:
            begin = file.read(40).lower()
    except OSError:
        return ""
    return next((f"it is {kind}" for mark, kind in FOREIGN if begin.startswith(mark)), "")


def reason_of(error: OSError | ValueError) -> str:
    """Return why the system refuses a path, in small letters."""
    return (getattr(error, "strerror", None) or first_line(error)).lower()


def shown_path(path: str | Path) -> str:
    """Return a path as a sentence quotes it: cut where it is long, with escapes for what is not printable."""
    text = str(path)
    if len(text) <= 200 and text.isprintable():
        return text
    return shown(text, 100)
