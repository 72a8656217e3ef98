"""Read images from one folder per class: ``root/train/<class>/*`` and ``root/test/<class>/*`` (or ``val``)."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wsrnas.data.pictures import EXTENSIONS, ODD, read_image
from wsrnas.data.splits import balanced_subset
from wsrnas.runtime.errors import InputError, first_line, say
from wsrnas.runtime.reading import reason_of, shown_path

OF_SYSTEMS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that systems and archives leave beside pictures; they hold copies, previews or nothing."""
_CHUNK = 128  # files per task of the thread pool
_GIB = 2**30


@dataclass(frozen=True)
class Listing:
    """Hold the files of one part, sorted by class and name."""

    folder: Path
    class_names: tuple[str, ...]
    files: list[str]
    labels: np.ndarray  # (N,) int64

    def subset(self, count: int, seed: int, purpose: str) -> "Listing":
        """Keep a class-balanced choice of ``count`` files; 0: all."""
        chosen = balanced_subset(self.labels, count, seed, purpose, len(self.class_names)).numpy()
        return Listing(self.folder, self.class_names, [self.files[i] for i in chosen], self.labels[chosen])


def data_folder(name: str, root: str | Path | None) -> Path:
    """Return the folder of a data set; "~" is understood.

    Raises:
        InputError: there is none, or "~" means nobody.
    """
    if root is None or not str(root):
        raise InputError(f"the data set {name} needs a folder, expected --data PATH (DATA for the scripts)")
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise InputError(f"{root}: {first_line(error).rstrip('.').lower()}; expected --data PATH") from None


def list_folder(root: Path, test_alone: bool = False,
                test_names: Sequence[str] = ("test", "val")) -> tuple[Listing, Listing]:
    """List the training and the test files below ``root`` without opening any.

    Args:
        root: the folder.
        test_alone: whether ``train`` may be missing; its listing is then empty.
        test_names: names of the folder of test images; the first one with class folders is used.

    Raises:
        InputError: a folder is missing, unreadable or without images, there are fewer than two classes, or the class
            folders of the two parts differ.
    """
    try:
        return _listings(root, test_alone, test_names)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"folders below {root} are nested too deeply; expected {root}/train/<class>/<images>") from None
    except (OSError, ValueError) as error:  # a loop of links; NUL in the name
        place = getattr(error, "filename", None) or root
        raise InputError(f"cannot read {shown_path(place)} ({reason_of(error)}), expected readable files") from None


def _listings(root: Path, test_alone: bool, test_names: Sequence[str]) -> tuple[Listing, Listing]:
    folders = _folders_in(root)
    there = f"; it has {_some(folders)}" if folders else ""
    if "train" not in folders and not test_alone:
        raise InputError(f"{root} has no folder train, expected {root}/train/<class>/<images>, and test beside train"
                         f"{there}")
    found = [name for name in test_names if name in folders]
    held = next(iter(found), None)
    if len(found) > 1:  # ImageNet comes with a folder test that has no classes
        held = next((name for name in found if _folders_in(root / name)), held)
    if held is None:
        advice = (" (move a part of each class there: accuracy is not measured on images of the training)"
                  if "train" in folders else there)
        raise InputError(f"{root} has neither a folder test nor val, expected {root}/test/<class>/<images>{advice}")
    if "train" not in folders:
        classes = _classes_of(root / held)
        _require_two(root / held, classes)
        test = _list_part(root / held, classes)
        return Listing(root / "train", test.class_names, [], test.labels[:0]), test
    names = {part: _classes_of(root / part) for part in ("train", held)}
    if list(names["train"]) != list(names[held]):
        differences = [f"only in {part}: {_some(sorted(set(classes) - set(names[other])))}"
                       for (part, classes), other in zip(names.items(), (held, "train"), strict=True)
                       if set(classes) - set(names[other])]
        raise InputError(f"the class folders of {root}/train and {root / held} differ "
                         f"({'; '.join(differences)}), expected the same names in both")
    _require_two(root / "train", names["train"])
    return _list_part(root / "train", names["train"]), _list_part(root / held, names[held])


def _classes_of(part: Path) -> dict[str, str]:
    """Return the class folders of a part as ``_classes_in`` does, if there are any."""
    if classes := _classes_in(part):
        return classes
    raise InputError(f"{part} has no class folders, expected {part}/<class>/<images>")


def _require_two(part: Path, classes: dict[str, str]) -> None:
    if len(classes) < 2:
        raise InputError(f"{part} has 1 class folder ({next(iter(classes))}), expected at least 2")


def decode(*listings: Listing) -> list[np.ndarray]:
    """Decode every file of every listing to uint8 RGB; one (N, H, W, 3) array per listing.

    Raises:
        InputError: a file cannot be decoded, sizes are mixed, or over half of the free memory is needed.
    """
    first = listings[0].files[0]
    shape = read_image(first).shape
    if shape[:2] == (1, 1):
        raise InputError(f"{first} is 1x1; expected images of more than one pixel")
    _require_memory(sum(len(listing.files) for listing in listings), shape)
    return [_decode_part(listing, first, shape) for listing in listings]


def _decode_part(listing: Listing, first: str, shape: tuple[int, ...]) -> np.ndarray:
    images = np.empty((len(listing.files), *shape), dtype=np.uint8)
    odd: dict[str, list[str]] = {kind: [] for kind in ODD}

    def decode_chunk(start: int) -> int:
        chunk = listing.files[start: start + _CHUNK]
        for row, path in enumerate(chunk, start):
            image = read_image(path, odd)
            if image.shape != shape:
                raise InputError(f"images of mixed size: {first} is {_size(shape)}, {path} is "
                                 f"{_size(image.shape)}; expected one size (height x width) for the data set: crop and "
                                 "resize the pictures first (docs/RETRAIN.md, Pictures of your own)")
            images[row] = image
        return len(chunk)

    label = f"decode {listing.folder.name}"
    bar = tqdm(total=len(images), desc=label, unit="image", disable=None, leave=False)
    pool = ThreadPoolExecutor(_usable_cores())
    try:
        for done in pool.map(decode_chunk, range(0, len(listing.files), _CHUNK)):
            bar.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    for kind, files in odd.items():
        if files:
            says, used = ODD[kind]
            say(f"note: {len(files)} images of {listing.folder} {says}, such as {min(files)}; they are used {used}")
    return images


def _list_part(folder: Path, classes: dict[str, str]) -> Listing:
    """List the images of classes.

    Args:
        folder: folder of the part.
        classes: name of each class, and of its folder.
    """
    files: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for label, name in enumerate(classes.values()):
        found = sorted(_images_below(folder / name, others))
        if not found:
            raise InputError(f"the class folder {folder / name} has no images, "
                             f"expected files ending in {', '.join(EXTENSIONS)}")
        files += found
        labels += [label] * len(found)
    if strange := [path for path in others if os.path.exists(path) and not os.path.isfile(path)]:
        say(f"note: {len(strange)} pipes or devices below {folder} are left out, such as {min(strange)}")
    others = sorted(path for path in others if path not in strange)
    if loose := sorted(entry.path for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != "."
                       and entry.name.lower().endswith(EXTENSIONS)):
        say(f"note: images in {folder} itself, in no class, are left out ({len(loose)}, such as {loose[0]})")
    if others:
        endings = Counter(Path(path).suffix.lower() or "no ending" for path in others)
        kinds = ", ".join(f"{count} of {ending}" for ending, count in endings.most_common(5))
        say(f"note: {len(others)} files below {folder} are no images of {', '.join(EXTENSIONS)} and are left out "
            f"({kinds}), such as {min(others)}")
    return Listing(folder, tuple(classes), files, np.array(labels, dtype=np.int64))


def _images_below(folder: Path, others: list[str], parents: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """Return every visible image file in a class folder and its sub-folders.

    Args:
        folder: the folder.
        others: receives the other files.
        parents: identities of the folders above it: a link to one of them would be followed for ever.
    """
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    if own in parents:
        raise InputError(f"{folder} is a link to a folder above it; expected folders without loops")
    found: list[str] = []
    for entry in _entries(folder):
        if entry.is_dir():
            found += _images_below(Path(entry.path), others, (*parents, own))
        elif entry.name.lower().endswith(EXTENSIONS) and (entry.is_file() or not os.path.exists(entry.path)):
            found.append(entry.path)
        else:
            others.append(entry.path)
    return found


def is_shown(name: str) -> bool:
    """Return whether every document can show a name: it has no control characters or foreign bytes, and is not empty."""
    return bool(name.strip()) and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


def _classes_in(folder: Path) -> dict[str, str]:
    """Return the class folders in the order of their names: the name, composed as Unicode says (NFC), and the folder.

    Systems store an accented letter as one character or as two, which look alike.

    Raises:
        InputError: two folders have the same name, or a name has characters that no document can show.
    """
    found: dict[str, str] = {}
    for name in _folders_in(folder):
        if not is_shown(name):
            raise InputError(f"{folder} has a class folder {name!a}, whose name has line breaks, control characters or "
                             "bytes that are not UTF-8; rename it")
        composed = unicodedata.normalize("NFC", name)
        if composed in found:
            raise InputError(f"{folder} has two folders {composed!r} that differ only in how Unicode writes their "
                             "letters; expected one")
        found[composed] = name
    return dict(sorted(found.items()))


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder without hidden ones and those of systems."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        if skipped := sorted(entry.name for entry in shown if entry.name in OF_SYSTEMS):
            say(f"note: {folder} has {', '.join(skipped)}, which systems leave beside pictures; it is left out")
        return [entry for entry in shown if entry.name not in OF_SYSTEMS]
    except FileNotFoundError as error:
        raise InputError(f"the data folder {folder} does not exist, "
                         "expected a folder with train/ and test/ or val/ in it") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read {folder} ({reason}), expected a readable folder") from error


def _require_memory(count: int, shape: tuple[int, ...]) -> None:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # set by torchrun; each process holds the whole set
    needed, available = processes * count * int(np.prod(shape)), available_memory()
    if available is not None and needed > available / 2:
        raise InputError(f"{count:,} images of {_size(shape)} need {needed / _GIB:.1f} GiB of memory, "
                         f"expected at most half of the {available / _GIB:.1f} GiB available: "
                         "use smaller images, --max_train or --max_test")


def available_memory() -> int | None:
    """Return the bytes of free memory on this machine, or None if the system does not report it."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
