"""Keep the decoded images of a folder in a file, so that the next start maps it into memory instead of decoding.

A file of the cache is a numpy array (.npy) followed by the checksum of its bytes. Its name holds the fingerprint of the
picture files, so a changed folder has another one.
"""

import fcntl
import hashlib
import io
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features

from wsrnas.data.image_folder import Listing, decode
from wsrnas.data.pictures import read_image
from wsrnas.runtime.errors import InputError, say

VARIABLE = "WSRNAS_CACHE"  # folder of the cache, or OFF
OFF = "off"
MIN_FILES = 1000  # fewer are decoded in less than a second
VERSION = 2  # of what ``read_image`` makes of a file, and of the file of the cache
_CHECKSUM = np.dtype("<u4")
_CHUNK = 2**24  # bytes hashed at a time
_GIB = 2**30
say_once = cache(say)


def decode_once(*listings: Listing) -> list[np.ndarray]:
    """Return what ``decode`` returns, from the cache if it holds the images of these very files.

    Otherwise the images are decoded and stored. Of several processes that want the same images at once, one decodes
    and the others wait. A cache that cannot be written is done without, and a damaged file is made anew.

    Raises:
        InputError: ``decode`` refuses the files.
    """
    folder = cache_folder()
    if folder is None or sum(len(listing.files) for listing in listings) < MIN_FILES:
        return decode(*listings)
    try:
        before = fingerprint(listings)
        path = folder / f"{listings[0].folder.resolve().parent.name}-{before}.npy"
    except OSError:  # a file has just been deleted
        return decode(*listings)
    images = _stored(path, listings)
    if images is not None:
        return images
    try:
        file = _locked(path)
    except OSError as error:
        _go_on_without(path, error)
        return decode(*listings)
    with file:
        images = _stored(path, listings)  # another process may have written it while this one waited for the lock
        if images is None:
            images = decode(*listings)
            _store_if_unchanged(path, file, images, listings, before)
        else:
            unfinished(path).unlink(missing_ok=True)
    return images


def cache_folder() -> Path | None:
    """Return the folder of decoded images, which may not exist yet; None if the user wants none."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == OFF:
        return None
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "wsrnas"
    try:
        return base.expanduser() / "decoded"
    except RuntimeError:  # there is no home folder
        return None


def fingerprint(listings: Sequence[Listing]) -> str:
    """Return a hash of all that the decoded images depend on, without opening more than one file.

    That is the folder, the names, sizes and modification times of its files in their order, the size of the images, and
    the versions of the decoders.
    """
    versions = [str(VERSION), Image.__version__, *(str(features.version(part)) for part in ("jpg", "zlib", "webp"))]
    words = [*versions, str(read_image(listings[0].files[0]).shape)]
    for listing in listings:
        words.append(str(listing.folder.resolve()))
        skipped = len(str(listing.folder))
        for path in listing.files:
            facts = os.stat(path)
            words.append(f"{path[skipped:]}\0{facts.st_size}\0{facts.st_mtime_ns}")
    return hashlib.blake2b("\0".join(words).encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _stored(path: Path, listings: Sequence[Listing]) -> list[np.ndarray] | None:
    """Map a file of the cache and return its images of each listing, or None if it is missing or damaged."""
    ends = np.cumsum([len(listing.files) for listing in listings])
    try:
        content = np.memmap(path, np.uint8, mode="r")
        if _checksum(content[:-_CHECKSUM.itemsize]).tobytes() == content[-_CHECKSUM.itemsize:].tobytes():
            # A private mapping can be written to, as torch wants it; the file stays as it is.
            images = np.load(path, mmap_mode="c")
            if len(images) == ends[-1]:
                return np.split(images, ends[:-1])
    except OSError:  # there is no file, or none that may be read
        return None
    except ValueError:  # it is empty
        pass
    say_once(f"the decoded images in {path} are damaged: decoding the files again")
    return None


def _locked(path: Path) -> io.FileIO:
    """Open the unfinished file beside ``path`` for this process alone, waiting for one that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(unfinished(path), "ab", buffering=0)  # noqa: SIM115 - the lock lasts until the caller closes it
    try:
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        file.close()
        raise
    return file


def _store_if_unchanged(path: Path, file: io.FileIO, images: Sequence[np.ndarray], listings: Sequence[Listing],
                        before: str) -> None:
    """Store images unless a picture file has changed since the fingerprint in the name of the cache file was made."""
    try:
        same = fingerprint(listings) == before
    except (OSError, InputError):  # a file has just been deleted
        same = False
    if same:
        _store(path, file, images)
    else:
        unfinished(path).unlink(missing_ok=True)
        say_once(f"the pictures in {listings[0].folder.parent} changed while they were decoded; the next start decodes "
                 "them again")


def _store(path: Path, file: io.FileIO, images: Sequence[np.ndarray]) -> None:
    """Write images to the locked file and give it its name once it is whole."""
    shape = (sum(map(len, images)), *images[0].shape[1:])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    parts = [np.frombuffer(header.getvalue(), np.uint8), *(part.reshape(-1) for part in images)]
    try:
        file.truncate(0)  # a process that was killed may have left a part
        for part in [*parts, _checksum(*parts)]:
            while len(part):
                part = part[file.write(part.data):]
        os.fsync(file.fileno())
        os.replace(unfinished(path), path)
    except OSError as error:
        file.truncate(0)
        _go_on_without(path, error)
        return
    own = file.seek(0, io.SEEK_END)
    total = 0
    for other in path.parent.iterdir():
        with suppress(OSError):  # another process has just renamed it
            total += other.stat().st_size
    say_once(f"decoded images are kept for the next start in {path} ({_size(own)}); {path.parent} now holds "
             f"{_size(total)}, which you may delete when no run is using it")


def unfinished(path: Path) -> Path:
    """Return where a file of the cache is written before it has its name."""
    return path.with_name(f"{path.name}.unfinished")


def _checksum(*parts: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of bytes as 4 bytes: against damage it is as good as a hash, and five times as fast."""
    value = 0
    for part in parts:
        for start in range(0, len(part), _CHUNK):  # a mapped file of many gigabytes need not be in memory
            value = zlib.crc32(part[start: start + _CHUNK].data, value)
    return np.array([value], _CHECKSUM).view(np.uint8)


def _go_on_without(path: Path, error: OSError) -> None:
    reason = (error.strerror or str(error)).lower()
    say_once(f"cannot keep the decoded images in {path.parent} ({reason}), so every start decodes them; name another "
              f"folder with {VARIABLE}=FOLDER, or none with {VARIABLE}={OFF}")


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"
