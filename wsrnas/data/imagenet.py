"""Read folders with more images than fit into memory (ImageNet): list once, decode batch by batch in other processes."""

import hashlib
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.data.image_folder import Listing, data_folder, list_folder
from wsrnas.data.pictures import read_image
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.seeding import derive_seed, generator

SHARED_MEMORY = "/dev/shm"  # where processes on Linux hand each other tensors; 64 MiB in a plain container


@dataclass(frozen=True)
class ImageFiles:
    """Hold the files of one part, sorted by class and name.

    Names and labels are one array each. A list of a million strings would be copied into every forked worker, because
    reading a string writes its reference count to the same memory page.
    """

    root: Path
    names: np.ndarray  # (N,) bytes: paths relative to root
    labels: Tensor  # (N,) int64, CPU
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return the path of image ``index``."""
        return str(self.root / os.fsdecode(self.names[index]))

    def subset(self, indices: Tensor) -> "ImageFiles":
        """Keep the files of these indices, in their order."""
        indices = indices.cpu()
        return ImageFiles(self.root, self.names[indices.numpy()], self.labels[indices], self.class_names)

    def fingerprint(self, sizes: bool = False) -> dict[str, Any]:
        """Return what identifies a set without opening a file: classes, number of images, a hash of all names.

        Args:
            sizes: whether the sizes of the files go into the hash, so that it changes with the images.
        """
        words = [os.fsencode(name) for name in self.class_names] + self.names.tolist()
        if sizes:
            words += [str(os.stat(self.path(index)).st_size).encode() for index in range(len(self))]
        digest = hashlib.blake2b(b"\0".join(words), digest_size=16)
        return {"name": "imagenet", "classes": len(self.class_names), "images": len(self),
                "hash": digest.hexdigest()}


def list_imagenet(root: str | Path | None, max_train: int = 0, max_test: int = 0,
                  seed: int = 0) -> tuple[ImageFiles, ImageFiles]:
    """List ``root/train/<class>/*`` and ``root/val/<class>/*`` (or ``test``) without opening any file.

    Args:
        root: the folder ("~" is understood).
        max_train: number of training images to keep, a class-balanced choice drawn from ``seed``; 0: all.
        max_test: the same number for test images.
        seed: seed of both choices.

    Raises:
        InputError: there is no ``root``, a limit leaves a class out, or ``list_folder`` refuses the folder.
    """
    train, test = list_folder(data_folder("imagenet", root), test_names=("val", "test"))
    return _files(train.subset(max_train, seed, "max_train")), _files(test.subset(max_test, seed, "max_test"))


class ImageFileLoader(BatchLoader):
    """Yield batches of image files that worker processes decode and transform; used like a ``BatchLoader``.

    The order of images is drawn from (seed, purpose, epoch), the augmentation of an image from (seed, purpose, epoch,
    index in ``files``). So a batch is the same for every number of workers and of processes.

    Args:
        files: the images.
        batch_size: images per batch, all processes together.
        seed: seed of all random numbers.
        purpose: name of the stream of random numbers, e.g. "train".
        image_size: height and width S of the batches in pixels.
        shuffle: whether the order is random.
        augment: True for the random crops of training, False for a resize and the central crop.
        color_jitter: whether ``augment`` also changes brightness, contrast, saturation and hue.
        drop_last: whether to leave out an incomplete last batch, as in ``BatchLoader``.
        rank: rank of this process.
        world_size: number of processes.
        workers: number of processes that decode; 0: this process decodes.
        device: device of the batches.

    Raises:
        InputError: ``BatchLoader`` refuses the values, ``workers`` is negative, ``image_size`` is below 32, or the shared
            memory of the machine is too small for the batches of the workers.
    """

    def __init__(self, files: ImageFiles, batch_size: int, seed: int, purpose: str, *, image_size: int = 224,
                 shuffle: bool = False, augment: bool = False, color_jitter: bool = True, drop_last: bool = False,
                 rank: int = 0, world_size: int = 1, workers: int = 4,
                 device: torch.device | str = "cpu") -> None:
        super().__init__(cast(ImageSet, files), batch_size, seed, purpose, shuffle=shuffle, drop_last=drop_last, rank=rank,
                         world_size=world_size)
        if workers < 0:
            raise InputError(f"the number of processes that decode {purpose} images is {workers}, "
                             "expected 0 or more")
        if image_size < 32:
            raise InputError(f"the {purpose} image size is {image_size}, expected at least 32")
        self.files = files
        self._transform = training_transform(image_size, color_jitter) if augment else evaluation_transform(image_size)
        self._workers, self._device = workers, torch.device(device)
        share = -(-batch_size // world_size)
        _require_shared_memory(workers, min(share, len(files)) * 3 * image_size**2)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (b, 3, S, S), float32 in [0, 1], channels_last, and labels (b,) of one epoch.

        ``start`` is the number of batches to skip, without decoding them; the others are the same as without it.

        Raises:
            InputError: a file is not a whole image.
        """
        yield from self._on_device(self._decoded(self._rows(epoch, start), epoch))

    def images_at(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each row of indices its images (b, 3, S, S) and labels (b,), in that order.

        Raises:
            InputError: a file is not a whole image.
        """
        yield from self._on_device(self._decoded((row.tolist() for row in rows), 0))

    def _on_device(self, decoded: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
        # The iterator of the DataLoader has no name: when the consumer stops, it is freed, and its processes end.
        for batch in decoded:
            if isinstance(batch, str):
                raise InputError(batch)
            # Copied on the CPU too: the shared memory of a worker keeps a file open as long as its tensor lives.
            images, labels = (part.to(self._device, non_blocking=True, copy=True) for part in batch)
            pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last) / 255
            yield pixels, labels

    def _decoded(self, rows: Iterable[list[int]], epoch: int) -> DataLoader:
        decoder = _Decoder(self.files, self._transform, (*self._stream, epoch))
        # Forked workers start fast and share the list of files and the loaded torchvision. They never use CUDA.
        method = "fork" if self._workers and sys.platform == "linux" else None
        # Without a generator, the DataLoader would draw a seed, which nothing uses, from the global one.
        return DataLoader(decoder, batch_size=None, sampler=rows, num_workers=self._workers,
                          pin_memory=self._device.type == "cuda", generator=torch.Generator(),
                          multiprocessing_context=method, worker_init_fn=leave_quietly)

    def _rows(self, epoch: int, start: int) -> Iterator[list[int]]:
        """Yield the indices that this process has of every batch."""
        count = len(self.files)
        order = torch.arange(count)
        if self._shuffle:
            order = torch.randperm(count, generator=generator(*self._stream, epoch))
        for number in range(start, len(self)):
            begin = number * self.batch_size
            end = min(begin + self.batch_size, self._visited)
            yield order[begin + self.rank: end: self.world_size].tolist()


def _require_shared_memory(workers: int, batch: int) -> None:
    """Refuse workers whose batches do not fit into the shared memory: a worker that cannot send one is waited for.

    Args:
        workers: number of processes that decode; each works on two batches.
        batch: bytes of a batch.

    Raises:
        InputError: they do not fit.
    """
    if not workers or not os.path.isdir(SHARED_MEMORY):
        return
    needed, free = 2 * workers * batch, shutil.disk_usage(SHARED_MEMORY).free
    require(needed <= free, f"{workers} processes that decode need {needed / 2**20:.0f} MiB of shared memory "
            f"({SHARED_MEMORY}), and {free / 2**20:.0f} MiB are free; give a container more (--ipc=host or --shm-size), "
            "or lower --workers (0 needs none) or the batch size")


def leave_quietly(_worker: int) -> None:
    """Say nothing in this worker process from now on when its program was killed while it took a batch."""
    parent, before = multiprocessing.parent_process(), sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, (EOFError, OSError)) and parent is not None:
            parent.join(1)  # its connection ends a moment before it
            if not parent.is_alive():
                return
        before(kind, error, trace)

    sys.excepthook = hook


@dataclass(frozen=True)
class _Decoder(Dataset):
    """Decode whole batches in a worker. To the DataLoader, each batch is an item of a data set."""

    files: ImageFiles
    transform: Callable[[Image.Image], Image.Image]
    stream: tuple[int | str, ...]  # seed, purpose, epoch

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | str:
        """Return images (b, S, S, 3) uint8 and labels (b,), or the sentence about a file that cannot be read."""
        try:
            images = torch.stack([self._image(index) for index in indices])
        except InputError as error:  # raised, its message would arrive as the traceback of the worker
            return str(error)
        return images, self.files.labels[indices]

    def _image(self, index: int) -> Tensor:
        picture = Image.fromarray(read_image(self.files.path(index)))
        with torch.random.fork_rng(devices=[]):
            # torchvision draws from the global generator of the CPU; torch.manual_seed would also seed that of the GPU.
            torch.default_generator.manual_seed(derive_seed(*self.stream, index))
            return torch.from_numpy(np.array(self.transform(picture)))


def training_transform(image_size: int, color_jitter: bool = True) -> Callable[[Image.Image], Image.Image]:
    """Return the published augmentation: a random part, resized, mirrored half of the time, its colours changed."""
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip()]
    if color_jitter:
        steps.append(v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2))
    return v2.Compose(steps)


def evaluation_transform(image_size: int) -> Callable[[Image.Image], Image.Image]:
    """Return the usual resize, to 256 for 224 pixels, and the central crop."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(image_size * 256 / 224)), v2.CenterCrop(image_size)])


def _files(listing: Listing) -> ImageFiles:
    skipped = len(str(listing.folder))
    names = np.array([os.fsencode(listing.folder.name + file[skipped:]) for file in listing.files], dtype=np.bytes_)
    return ImageFiles(listing.folder.parent, names, torch.from_numpy(listing.labels), listing.class_names)
