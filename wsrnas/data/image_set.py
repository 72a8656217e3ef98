"""Hold labelled images in memory as bytes, and describe how to augment them."""

from __future__ import annotations

from wsrnas.runtime.deferred import deferred_imports

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor

@dataclass(frozen=True)
class ImageSet:
    """Hold images (N, C, H, W), uint8 in channels_last memory, and their labels (N,), int64."""

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

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images {tuple(self.images.shape[1:])}, {self.labels.unique().numel()} classes)"

    def subset(self, indices: Tensor) -> "ImageSet":
        """Copy the images of these indices, in their order."""
        indices = indices.to(self.labels.device)
        images = self.images.permute(0, 2, 3, 1).index_select(0, indices)  # in the order in memory: a fifth of the time
        return ImageSet(images.permute(0, 3, 1, 2), self.labels[indices])

    def fingerprint(self) -> str:
        """Return a hash of all pixels and labels, which depends on their order."""
        digest = hashlib.blake2b(self.images.permute(0, 2, 3, 1).contiguous().cpu().numpy().data, digest_size=16)
        digest.update(self.labels.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "ImageSet":
        """Move images and labels to a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Describe a random crop, then mirroring half of the time, then cutout.

    Args:
        crop_padding: width in pixels of the zero border that the crop may reach into.
        horizontal_flip: whether images are mirrored.
        cutout: side in pixels of a square of zeros (DeVries & Taylor 2017), 0: none. Its centre is uniform over the
            image, so it may stick out at the border.

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
    """Hold a named data set: its two parts, its classes, and the augmentation of training images."""

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    augmentation: Augmentation

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the training set: classes, number of images, a hash of pixels and labels."""
        return {"name": self.name, "classes": list(self.class_names), "images": len(self.train),
                "hash": self.train.fingerprint()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def image_set(images: np.ndarray, labels: ArrayLike) -> ImageSet:
    """Wrap images (N, H, W, C) uint8 and labels (N,), without a copy of images that are in this order in memory."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return ImageSet(pixels, torch.from_numpy(np.asarray(labels).astype(np.int64)))
