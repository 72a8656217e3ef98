"""Labelled images, whole in memory as bytes: the embedded digits, CIFAR, SVHN, or a folder of pictures."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsrnas.runtime.distributed import World, barrier
from wsrnas.runtime.errors import InputError
from wsrnas.data.image_folder import decode, list_folder
from wsrnas.data.splits import balanced_subset

DATASETS = ("digits", "cifar10", "cifar100", "svhn", "folder")


@dataclass(frozen=True)
class ImageSet:
    """Images with labels: ``images`` (N, C, H, W) uint8, in channels_last memory; ``labels`` (N,) int64."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images are {self.images.dtype} {tuple(self.images.shape)}, "
                             "expected uint8 (N, C, H, W)")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels are {self.labels.dtype} {tuple(self.labels.shape)}, expected int64 "
                             f"({len(self.images)},)")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Copy the images of these indices, in their order."""
        indices = indices.to(self.labels.device)
        images = self.images[indices].contiguous(memory_format=torch.channels_last)
        return ImageSet(images, self.labels[indices])

    def fingerprint(self) -> str:
        """A hash of pixels and labels, in their order."""
        pixels = self.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return hashlib.blake2b(pixels.tobytes() + self.labels.cpu().numpy().tobytes(), digest_size=16).hexdigest()

    def to(self, device: torch.device | str) -> "ImageSet":
        """Move images and labels to a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Augmentation:
    """A random crop out of a zero border of ``crop_padding`` pixels, then mirrored half of the time, then cutout.

    Args:
        cutout: side in pixels of a square of zeros (DeVries & Taylor 2017); its centre is uniform over the image, so
            it may stick out at the border. 0: none.

    Raises:
        InputError: ``cutout`` is negative.
    """

    crop_padding: int = 0
    horizontal_flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.cutout < 0:
            raise InputError(f"cutout is {self.cutout}, expected at least 0")


@dataclass(frozen=True)
class DataSet:
    """A named data set: its two parts and the augmentation that suits it."""

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    augmentation: Augmentation

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def fingerprint(self) -> dict[str, Any]:
        """What tells one training set from another: classes, number of images, and a hash of pixels and labels."""
        return {"name": self.name, "classes": list(self.class_names), "images": len(self.train),
                "hash": self.train.fingerprint()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load_dataset(name: str, root: str | Path | None = None, download: bool = False, max_train: int = 0,
                 max_test: int = 0, seed: int = 0) -> DataSet:
    """Load a data set into CPU memory.

    Args:
        name: one of ``DATASETS``.
        root: the folder that holds the data ("~" is understood); ``digits`` needs none.
        download: fetch CIFAR or SVHN into ``root`` where it is missing; of several processes, let one do so.
        max_train, max_test: keep a class-balanced choice of so many images, drawn from ``seed``; 0 keeps all.
    Raises:
        InputError: the name, the folder or a file in it cannot be used; the sentence says which and why.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set '{name}', expected one of: {', '.join(DATASETS)}")
    limits = {"max_train": max_train, "max_test": max_test}
    if name == "digits":
        data = _digits()
    else:
        if root is None or not str(root):
            raise InputError(f"the data set {name} needs a folder, expected --data PATH (DATA for the scripts)")
        folder = Path(root).expanduser()
        if name == "folder":
            return _folder(folder, limits, seed)
        data = _published(name, folder, download)
    parts = []
    for part, (purpose, limit) in zip((data.train, data.test), limits.items(), strict=True):
        chosen = balanced_subset(part.labels, limit, seed, purpose, data.num_classes)
        parts.append(part if len(chosen) == len(part) else part.subset(chosen))
    return replace(data, train=parts[0], test=parts[1])


def load_dataset_once(world: World, name: str, root: str | Path | None, download: bool, **limits: int) -> DataSet:
    """``load_dataset`` on several processes: the main one downloads, then all read; ``limits`` as there."""
    if download and world.is_main:
        load_dataset(name, root, download=True)
    barrier(world)
    return load_dataset(name, root, **limits)


def _digits() -> DataSet:
    """1,797 handwritten digits of 8x8 pixels, enlarged to 3x32x32: 1,438 to train, 359 to test."""
    with np.load(Path(__file__).parents[1] / "assets" / "digits.npz") as stored:
        values, labels = stored["images"], stored["labels"].astype(np.int64)
    grey = ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)  # 0..16 to 0..255, in integers: exact
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(large[..., None], 3, axis=3)
    place = np.zeros(len(labels), dtype=np.int64)  # of an image among those of its class
    for label in range(10):
        place[labels == label] = np.arange((labels == label).sum())
    test = place % 5 == 2
    names = tuple(str(digit) for digit in range(10))
    train, test = (_image_set(images[part], labels[part]) for part in (~test, test))
    return DataSet("digits", train, test, names, Augmentation(crop_padding=2))


def _folder(root: Path, limits: dict[str, int], seed: int) -> DataSet:
    train, test = (listing.subset(limit, seed, purpose)
                   for listing, (purpose, limit) in zip(list_folder(root), limits.items(), strict=True))
    train_images, test_images = decode(train, test)
    padding = max(1, train_images.shape[1] // 8)
    return DataSet("folder", _image_set(train_images, train.labels), _image_set(test_images, test.labels),
                   train.class_names, Augmentation(padding, horizontal_flip=True))


def _published(name: str, root: Path, download: bool) -> DataSet:
    """CIFAR and SVHN as torchvision stores them."""
    from torchvision import datasets

    constructor = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "svhn": datasets.SVHN}[name]
    choices: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "svhn":
        choices = [{"split": "train"}, {"split": "test"}]
    try:
        train, test = (constructor(root, download=download, **choice) for choice in choices)
    except (OSError, RuntimeError) as error:
        if download:
            raise InputError(f"cannot download {name} into {root}: {error}") from error
        files = "train_32x32.mat and test_32x32.mat"
        expected = files if name == "svhn" else f"the folder {constructor.base_folder}"
        raise InputError(f"{name} is missing, damaged or unreadable in {root}, expected {expected} in it: "
                         "pass --download, or --data PATH of the folder that has it") from error
    if name == "svhn":
        parts = [_image_set(part.data.transpose(0, 2, 3, 1), part.labels) for part in (train, test)]
        return DataSet(name, *parts, tuple(str(digit) for digit in range(10)), Augmentation(crop_padding=4))
    parts = [_image_set(part.data, np.array(part.targets)) for part in (train, test)]
    return DataSet(name, *parts, tuple(train.classes), Augmentation(crop_padding=4, horizontal_flip=True))


def _image_set(images: np.ndarray, labels: np.ndarray) -> ImageSet:
    """Wrap (N, H, W, C) bytes without a copy where they are in this order already."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return ImageSet(pixels, torch.from_numpy(labels.astype(np.int64)))
