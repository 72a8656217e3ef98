"""Say which known data set the images of a folder or of arrays are."""

from __future__ import annotations

from collections.abc import Sequence

from wsrnas.data.datasets import DATASETS, LARGE_FOLDER, Source, source_of
from wsrnas.runtime.config import require


def leaderboard_names() -> dict[str, Source]:
    """Return the data sets of small images that have a leaderboard."""
    return {name: source for name, source in DATASETS.items() if source.leaderboard and not source.large}


def published_name(read: str, classes: int) -> str:
    """Return under which name a network's images are published.

    Any folder of large pictures can be read as ImageNet. Those with another number of classes are a user's own.

    Args:
        read: name under which the images are read.
        classes: their number of classes.
    """
    known = source_of(read)
    return LARGE_FOLDER if known.large and classes != known.classes else read


def require_other_name(read: str, name: str) -> None:
    """Refuse a name for images that have another one.

    Args:
        read: name under which the images are read; that of a user's own images may be any but the known ones.
        name: their name on a leaderboard.

    Raises:
        InputError: the images are those of another data set.
    """
    own = read in (name, "folder", "npz") or read not in DATASETS
    require(own, f"dataset_name is {name}, but the images are {read}; expected --dataset folder or npz")


def require_like(name: str, classes: int, image_shape: Sequence[int]) -> None:
    """Refuse the name of a data set that has other images or classes.

    Raises:
        InputError: it has.
    """
    known = source_of(name)
    require((classes, tuple(image_shape)) == (known.classes, known.image_shape), f"dataset_name is {name}, but there are "
            f"{classes} classes of images {tuple(image_shape)}; expected {known.classes} of {known.image_shape}")
