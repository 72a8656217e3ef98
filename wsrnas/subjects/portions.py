"""Work on images in portions that fit into memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def in_portions(compute: Callable[[Tensor, Tensor], Any], images: Tensor, labels: Tensor, size: int | None) -> list:
    """Return ``compute(images, labels)`` for each portion of the images.

    Args:
        compute: A function of images (b, C, H, W) and labels (b,).
        images: (B, C, H, W).
        labels: (B,).
        size: The number of images in a portion, None for all; it is halved for as long as memory runs out.

    Raises:
        torch.OutOfMemoryError: A single image is too much.
    """
    results: list[Any] = []
    done, size = 0, min(size or len(images), len(images))
    while done < len(images) or not results:
        try:
            results.append(compute(images[done:done + size], labels[done:done + size]))
            done += size
        except Exception as error:  # TorchScript raises a RuntimeError that quotes what ran out of memory
            if size <= 1 or not (isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)):
                raise
            size //= 2  # and leave: the error holds the tensors of the failed pass
    return results
