"""Load data sets by name. Each is one function and one entry of ``DATASETS``, with all facts about it.

A new data set is a function that returns its ``Parts`` and an entry here. The choices and help of every program, what can
be downloaded, and the messages about a missing folder follow from the entry.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsrnas.data.image_cache import decode_once
from wsrnas.data.image_folder import data_folder, list_folder
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet, image_set
from wsrnas.data.own import read_arrays
from wsrnas.data.splits import balanced_subset
from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.errors import InputError


@dataclass(frozen=True)
class Request:
    """Describe what the function that loads a data set should return.

    Args:
        name: name of the data set.
        root: folder with its files.
        download: whether to fetch them where they are missing.
        max_train: number of training images that will be kept (0: all). A function may return more.
        max_test: the same number for test images.
        seed: seed of the choice of images.
        test_alone: whether the training images are not used: they may be missing from files of the user's own.
    """

    name: str
    root: Path
    download: bool
    max_train: int
    max_test: int
    seed: int
    test_alone: bool = False


class Parts(NamedTuple):
    """Hold the two parts of a data set and the names of its classes, in the order of the labels."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Describe a data set: an entry of ``DATASETS``.

    Args:
        load: function that reads the images into memory; None: they are too many, ``wsrnas.data.imagenet`` reads them.
        help: explanation in one line, for ``--help``.
        augmentation: augmentation of training images; None: mirroring, and crops after padding by 1/8 of the height.
        downloads: whether ``load`` can fetch the files.
        needs_folder: whether there are files at all.
        large: whether networks have the stem and the normalisation for large images.
        classes: number of classes of the networks that ``wsrnas.models --list`` shows for it; 0: it shows none.
        image_shape: (channels, height, width) of the images of these networks.
        test_images: number of test images; 0: unknown.
        leaderboard: L-inf strength of its leaderboard, as RobustBench spells it; empty: there is none.
        protocol: list of attacks that evaluates it by default.
        hub: its name on the Hugging Face hub; empty: unknown.
    """

    load: Callable[[Request], Parts] | None
    help: str
    augmentation: Augmentation | None = None
    downloads: bool = False
    needs_folder: bool = True
    large: bool = False
    classes: int = 0
    image_shape: tuple[int, int, int] = (3, 32, 32)
    test_images: int = 0
    leaderboard: str = ""
    protocol: str = "paper"
    hub: str = ""


def source_of(name: str) -> Source:
    """Return the entry of a data set; for any other name one that knows nothing, as for a user's small images."""
    return DATASETS.get(name, UNKNOWN_LARGE if name == LARGE_FOLDER else UNKNOWN)


def in_memory() -> dict[str, Source]:
    """Return the data sets that ``load_dataset`` reads."""
    return {name: source for name, source in DATASETS.items() if source.load}


def load_dataset(name: str, root: str | Path | None = None, download: bool = False, max_train: int = 0,
                 max_test: int = 0, seed: int = 0, test_alone: bool = False) -> DataSet:
    """Load a data set into CPU memory.

    Args:
        name: one of ``in_memory()``.
        root: folder with the data ("~" is understood), for the data sets that need one.
        download: whether to fetch missing data into ``root``, if possible. Of several processes, only one
            may do so.
        max_train: number of training images to keep, a class-balanced choice drawn from ``seed``; 0: all.
        max_test: the same number for test images.
        seed: seed of both choices.
        test_alone: whether a folder or file of your own may lack the training images; then ``train`` is empty.

    Raises:
        InputError: the name, the folder or a file in it cannot be used; the sentence says which and why.
    """
    source = source_of(name)
    if source.load is None:
        raise InputError(f"unknown data set '{name}', expected one of: {', '.join(in_memory())}")
    place = data_folder(name, root) if source.needs_folder else Path()
    parts = _parts_of(source, Request(name, place, download, max_train, max_test, seed, test_alone))
    height = parts.train.images.shape[-2]
    augmentation = source.augmentation or Augmentation(max(1, height // 8), horizontal_flip=True)
    data = DataSet(name, *parts, augmentation)
    return replace(data, train=_limited(data.train, max_train, seed, "max_train", data.num_classes),
                   test=_limited(data.test, max_test, seed, "max_test", data.num_classes))


def _parts_of(source: Source, request: Request) -> Parts:
    """Call the function of a data set, which need not look after files that are missing."""
    assert source.load is not None
    try:
        return source.load(request)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        where = f" of --data {request.root}" if source.needs_folder else ""
        raise InputError(f"cannot read {error.filename} for the data set {request.name} "
                         f"({(error.strerror or str(error)).lower()}); expected the files{where}") from error


def load_dataset_once(world: World, name: str, root: str | Path | None, download: bool, max_train: int = 0,
                      max_test: int = 0, seed: int = 0, test_alone: bool = False) -> DataSet:
    """Load a data set on several processes: the main one downloads, then all read; see ``load_dataset``."""
    if download and world.is_main and source_of(name).downloads:
        load_dataset(name, root, download=True)
    barrier(world)
    return load_dataset(name, root, max_train=max_train, max_test=max_test, seed=seed, test_alone=test_alone)


def _limited(part: ImageSet, limit: int, seed: int, purpose: str, num_classes: int) -> ImageSet:
    chosen = balanced_subset(part.labels, limit, seed, purpose, num_classes)
    return part if len(chosen) == len(part) else part.subset(chosen)


def digits(request: Request) -> Parts:
    """Return 1,797 handwritten digits of 8x8 pixels, enlarged to 3x32x32: 1,438 to train, 359 to test."""
    with np.load(Path(__file__).parents[1] / "assets" / "digits.npz") as stored:
        values, labels = stored["images"], stored["labels"].astype(np.int64)
    grey = ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)  # 0..16 to 0..255, in integers: exact
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(large[..., None], 3, axis=3)
    place = np.zeros(len(labels), dtype=np.int64)  # place of an image among those of its class
    for label in range(10):
        place[labels == label] = np.arange((labels == label).sum())
    test = place % 5 == 2
    return Parts(image_set(images[~test], labels[~test]), image_set(images[test], labels[test]), TEN_DIGITS)


def cifar(request: Request) -> Parts:
    """Return CIFAR-10 or CIFAR-100, by the name of the request, as torchvision stores it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[request.name]
    train, test = _from_torchvision(request, kind, f"the folder {kind.base_folder}", {"train": True}, {"train": False})
    return Parts(image_set(train.data, train.targets), image_set(test.data, test.targets), tuple(train.classes))


def svhn(request: Request) -> Parts:
    """Return SVHN as torchvision stores it."""
    from torchvision.datasets import SVHN

    stored = _from_torchvision(request, SVHN, "train_32x32.mat and test_32x32.mat", {"split": "train"},
                               {"split": "test"})
    train, test = (image_set(part.data.transpose(0, 2, 3, 1), part.labels) for part in stored)
    return Parts(train, test, TEN_DIGITS)


def _from_torchvision(request: Request, kind: Callable[..., Any], expected: str, *parts: dict[str, Any]) -> list[Any]:
    try:
        return [kind(request.root, download=request.download, **part) for part in parts]
    except (OSError, RuntimeError) as error:
        if request.download:
            raise InputError(f"cannot download {request.name} into {request.root}: {error}") from error
        raise InputError(f"{request.name} is missing, damaged or unreadable in {request.root}, expected {expected} in "
                         "it: pass --download, or --data PATH of the folder that has it") from error


def folder(request: Request) -> Parts:
    """Return the pictures of a folder; files beyond the limits of the request are not decoded."""
    train, test = list_folder(request.root, request.test_alone)
    train = train.subset(request.max_train, request.seed, "max_train")
    test = test.subset(request.max_test, request.seed, "max_test")
    *decoded, test_images = decode_once(*[part for part in (train, test) if part.files])
    train_images = decoded[0] if decoded else test_images[:0]
    return Parts(image_set(train_images, train.labels), image_set(test_images, test.labels), train.class_names)


def npz(request: Request) -> Parts:
    """Return the images of an ``.npz`` file; without test images in it, a fifth of each class."""
    data = read_arrays(request.root, request.name, request.test_alone)
    return Parts(data.train, data.test, data.class_names)


TEN_DIGITS = tuple(str(digit) for digit in range(10))

LARGE_FOLDER = "large-folder"  # what is published of a folder that is read as ImageNet and is another one
UNKNOWN, UNKNOWN_LARGE = Source(None, ""), Source(None, "", large=True)
DATASETS = {
    "digits": Source(digits, "handwritten, they come with the code", Augmentation(crop_padding=2),
                     needs_folder=False),
    "cifar10": Source(cifar, "photographs of 10 classes", downloads=True, classes=10, test_images=10_000,
                      leaderboard="8/255", hub="uoft-cs/cifar10"),
    "cifar100": Source(cifar, "photographs of 100 classes", downloads=True, classes=100, test_images=10_000,
                       leaderboard="8/255", hub="uoft-cs/cifar100"),
    "svhn": Source(svhn, "digits of house numbers", Augmentation(crop_padding=4), downloads=True,
                   test_images=26_032, hub="ufldl-stanford/svhn"),
    "folder": Source(folder, "pictures of one size in train/CLASS/ and test/CLASS/ of --data"),
    "npz": Source(npz, "arrays x_train, y_train and, if there are any, x_test, y_test in the file --data"),
    "imagenet": Source(None, "photographs of 1,000 classes in train/CLASS/ and val/CLASS/ of --data", large=True,
                       classes=1000, image_shape=(3, 224, 224), test_images=50_000, leaderboard="4/255",
                       protocol="imagenet", hub="ILSVRC/imagenet-1k"),
}
