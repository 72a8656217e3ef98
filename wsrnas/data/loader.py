"""Batches of a data set that lives on the device as bytes: no workers, exact to repeat and to resume."""

from __future__ import annotations

from wsrnas.runtime.deferred import deferred_imports

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


from wsrnas.data.image_set import Augmentation, ImageSet
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator

with deferred_imports():
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class _Plan:
    """Hold the random numbers of one epoch on the device of the data: one row per image, in the order of visit."""

    order: Tensor  # (N,) int64
    corners: Tensor  # (N, 2) int64: top and left corner of the crop in the padded image
    mirrored: Tensor  # (N,) bool
    centres: Tensor  # (N, 2) int64: row and column of the cutout's centre in the finished image


def require_batches(images: int, batch_size: int, purpose: str, drop_last: bool = False, world_size: int = 1) -> None:
    """Refuse batches that so many images do not give; the arguments are those of ``BatchLoader``.

    Raises:
        InputError: see ``BatchLoader``.
    """
    if batch_size < 1:
        raise InputError(f"the {purpose} batch size is {batch_size}, expected at least 1")
    if not images:
        raise InputError(f"there are no {purpose} images, expected at least 1")
    if drop_last and batch_size > images:
        raise InputError(f"the {purpose} batch size is {batch_size}, expected at most {images}, the number of images")
    if drop_last and batch_size % world_size:
        raise InputError(f"the {purpose} batch size is {batch_size}, expected a multiple of {world_size}, the number "
                         "of processes")


class BatchLoader:
    """Yield batches of an image set in an order drawn from (seed, purpose, epoch).

    The whole epoch is drawn on the CPU at its start, so that a batch is the same on every device and for every number of
    processes. Of its ``batch_size`` images, process ``rank`` yields the rows ``rank::world_size``.

    Args:
        image_set: images on the device of the batches.
        batch_size: images per batch, all processes together.
        seed: seed of all random numbers.
        purpose: name of the stream of random numbers, e.g. "train".
        shuffle: whether the order is random.
        augment: augmentation; None: images stay unchanged.
        drop_last: True for training: all batches are full, on every process alike. False for evaluation: every image
            comes once, the last batch may be smaller, and a process without a row of it skips it.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        InputError: there are no images; with ``drop_last``, the batch is larger than the data or not a multiple of
            ``world_size``.
    """

    def __init__(self, image_set: ImageSet, batch_size: int, seed: int, purpose: str, shuffle: bool = False,
                 augment: Augmentation | None = None, drop_last: bool = False, rank: int = 0,
                 world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        require_batches(len(image_set), batch_size, purpose, drop_last, world_size)
        self.image_set = image_set
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self._stream = (seed, purpose)
        self._shuffle, self._augment = shuffle, augment
        self._visited = len(image_set) - len(image_set) % batch_size if drop_last else len(image_set)

    def __len__(self) -> int:
        """Return the number of batches that this process yields in an epoch."""
        full, tail = divmod(self._visited, self.batch_size)
        # If a batch has fewer images than there are processes, the last processes get nothing.
        if self.batch_size <= self.rank:
            return 0
        return full + (tail > self.rank)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (b, C, H, W), float32 in [0, 1], channels_last, and labels (b,) of one epoch.

        Args:
            epoch: number of the epoch.
            start: number of batches to skip; the others do not change.
        """
        plan = self._draw(epoch)
        for number in range(start, len(self)):
            begin = number * self.batch_size
            rows = slice(begin + self.rank, min(begin + self.batch_size, self._visited), self.world_size)
            index = plan.order[rows]
            images = self.image_set.images
            if self._augment is None:
                pixels = images[index]
            else:
                pixels = crop_and_mirror(images, index, plan.corners[rows], plan.mirrored[rows],
                                         self._augment.crop_padding)
                if self._augment.cutout:
                    pixels = cut_out(pixels, plan.centres[rows], self._augment.cutout)
            pixels = pixels.to(torch.float32, memory_format=torch.channels_last) / 255
            yield pixels, self.image_set.labels[index]

    def images_at(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images (b, C, H, W) and labels (b,) of each row of indices, in that order, without augmentation."""
        for index in rows:
            index = index.to(self.image_set.labels.device)
            pixels = self.image_set.images[index].to(torch.float32, memory_format=torch.channels_last) / 255
            yield pixels, self.image_set.labels[index]

    def _draw(self, epoch: int) -> _Plan:
        count, device = len(self.image_set), self.image_set.images.device
        stream = generator(*self._stream, epoch)
        order = torch.randperm(count, generator=stream) if self._shuffle else torch.arange(count)
        augment = self._augment or Augmentation()
        corners = torch.randint(2 * augment.crop_padding + 1, (count, 2), generator=stream)
        mirrored = torch.randint(2, (count,), generator=stream).bool() & augment.horizontal_flip
        # A new kind of draw must come last, so that the earlier ones do not change.
        centres = torch.stack([torch.randint(size, (count,), generator=stream)
                               for size in self.image_set.images.shape[-2:]], dim=1)
        return _Plan(order.to(device), corners.to(device), mirrored.to(device), centres.to(device))


def crop_and_mirror(images: Tensor, index: Tensor, corners: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Pad the indexed images with zeros, cut the original size out again, and mirror some of them.

    Args:
        images: all images (N, C, H, W).
        index: indices of the images (B,).
        corners: top and left of the cuts (B, 2) in pixels, from 0 to 2 * ``padding``.
        mirrored: which images to mirror (B,), bool.
        padding: width of the border in pixels.

    Returns:
        Images (B, C, H, W) of the same dtype.
    """
    height, width = images.shape[-2:]
    rows = corners[:, :1] - padding + torch.arange(height, device=images.device)
    columns = corners[:, 1:] - padding + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    pixels = images.permute(0, 2, 3, 1)[index[:, None, None], rows.clamp(0, height - 1)[:, :, None],
                                        columns.clamp(0, width - 1)[:, None, :]]
    return (pixels * inside[..., None]).permute(0, 3, 1, 2)


def cut_out(pixels: Tensor, centres: Tensor, side: int) -> Tensor:
    """Set one square of every image to zero, as far as it lies inside the image (DeVries & Taylor 2017).

    Args:
        pixels: images (B, C, H, W).
        centres: row and column of the squares (B, 2). A square of even side reaches one pixel less below and right.
        side: side of the square in pixels.

    Returns:
        Images (B, C, H, W) of the same dtype.
    """
    height, width = pixels.shape[-2:]
    top, left = (centres - side // 2).split(1, dim=1)
    rows = torch.arange(height, device=pixels.device) - top
    columns = torch.arange(width, device=pixels.device) - left
    square = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    # Permuted to the order of the memory, which is eight times as fast on a CPU.
    return (pixels.permute(0, 2, 3, 1) * ~square[..., None]).permute(0, 3, 1, 2)
