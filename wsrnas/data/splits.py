"""Choose images so that classes are balanced: D_t and D_v of a search, a held-out part, a smaller set."""

from __future__ import annotations

from wsrnas.runtime.deferred import deferred_imports

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import derive_seed
from wsrnas.runtime.reading import Unreadable, read_json

with deferred_imports():
    import torch
    from torch import Tensor


def balanced_split(labels: Tensor, fraction_or_count: float | int, seed: int,
                   num_classes: int, flag: str = "", names: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Split a labelled set in two class-balanced parts, e.g. D_t and D_v (0.5), or held-out and rest (1000).

    The same seed gives the same parts on every machine.

    Args:
        labels: class numbers (N,).
        fraction_or_count: a float in (0, 1) is the first part's share of every class. Odd classes alternate, so that
            with 0.5 the sizes of the parts differ by at most one. An int is the size of the first part; the shares of
            classes differ by at most one. A class too small for that gives half of its images. Where the halves of all
            are not enough, what is left is shared equally in the same way.
        seed: seed of the choice.
        num_classes: number of classes; every one must have images.
        flag: flag that sets the count, for the message.
        names: names of the classes, for the message; empty: their numbers.

    Returns:
        Two disjoint index tensors (int64, CPU, ascending) that together cover ``range(N)``.

    Raises:
        InputError: a class would be missing from one of the parts, or the share is impossible.
    """
    values = _checked_labels(labels, num_classes)
    sizes = np.bincount(values, minlength=num_classes)
    if (sizes < 2).any():
        worst = int(np.argmax(sizes < 2))
        few = "1 image" if sizes[worst] else "no images"
        raise InputError(f"cannot split: class {_name(worst, names)} has {few}, expected at least 2 in every class")
    if isinstance(fraction_or_count, int):
        shares = _shares_of_count(sizes, fraction_or_count, flag)
    else:
        shares = _shares_of_fraction(sizes, fraction_or_count, names)
    chosen = _choose(values, shares, derive_seed(seed, "split"))
    rest = np.setdiff1d(np.arange(len(values)), chosen, assume_unique=True)
    return torch.from_numpy(chosen), torch.from_numpy(rest)


def balanced_subset(labels: Tensor | np.ndarray, count: int, seed: int, purpose: str,
                    num_classes: int) -> Tensor:
    """Return ascending indices of a choice of images with classes as equal as their sizes allow.

    Args:
        labels: class numbers (N,).
        count: number of images to choose; 0: all.
        seed: seed of the choice.
        purpose: name of the stream of random numbers, and of ``count`` in error messages.
        num_classes: number of classes.

    Raises:
        InputError: ``count`` is negative or smaller than the number of classes.
    """
    values = _checked_labels(labels, num_classes)
    if count == 0 or count >= len(values):
        return torch.arange(len(values))
    if count < num_classes:
        raise InputError(f"{purpose} is {count}, "
                         f"expected 0 (all) or at least {num_classes}, one image for each class")
    shares = _equal_shares(np.bincount(values, minlength=num_classes), count)
    return torch.from_numpy(_choose(values, shares, derive_seed(seed, "subset", purpose)))


def save_split(path: str | Path, first: Tensor, second: Tensor, seed: int | None = None) -> None:
    """Write both index tensors atomically as JSON, and if it is given the seed that has chosen the images."""
    text = json.dumps({"format": 1, "first": first.tolist(), "second": second.tolist(), "seed": seed})
    write_atomic(Path(path), (text + "\n").encode())


def load_split(path: str | Path, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Read a split that ``save_split`` has written.

    Args:
        path: the file.
        size: number of images that the split must cover; None: any.

    Raises:
        InputError: the file is missing or not a split, the parts overlap, or do not cover ``size`` images.
    """
    try:
        stored = read_json(path, "the split")
        first, second = (torch.tensor(stored[part], dtype=torch.int64).reshape(len(stored[part]))
                         for part in ("first", "second"))
    except Unreadable:
        raise
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is not a stored split, "
                         "expected JSON with the index lists first and second") from error
    both = torch.cat((first, second)).sort().values
    if not torch.equal(both, torch.arange(len(both))):
        raise InputError(f"the parts of the split {path} overlap or leave images out, "
                         "expected every index once")
    if size is not None and size != len(both):
        raise InputError(f"the split {path} is for {len(both)} images, expected {size}: "
                         "the training set has changed")
    return first, second


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if names else str(number)


def _checked_labels(labels: Tensor | np.ndarray, num_classes: int) -> np.ndarray:
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels, dtype=np.int64)
    if len(values) and not 0 <= values.min() <= values.max() < num_classes:
        raise InputError(f"labels run from {values.min()} to {values.max()}, expected 0 to {num_classes - 1}")
    return values


def _shares_of_fraction(sizes: np.ndarray, fraction: float, names: Sequence[str]) -> np.ndarray:
    """Return the share of each class; running totals are rounded, so that rounding errors do not add up."""
    if not 0 < fraction < 1:
        raise InputError(f"the split's fraction is {fraction}, expected a number between 0 and 1, "
                         "or a count as an integer")
    exact = Fraction(fraction).limit_denominator(10**6)
    half = Fraction(1, 2)
    totals = [int(exact * int(total) + half) for total in np.cumsum(sizes)]
    shares = np.diff(totals, prepend=0)
    shares = np.where(sizes >= 2, shares.clip(1, np.maximum(sizes - 1, 1)), shares)  # small classes are in both parts
    missing = (shares < 1) | (shares >= sizes)
    if missing.any():
        worst = int(np.argmax(missing))
        raise InputError(f"the split's fraction {fraction} leaves one part without class {_name(worst, names)}, "
                         f"which has {sizes[worst]} images: expected at least 1 in both")
    return shares


def _shares_of_count(sizes: np.ndarray, count: int, flag: str) -> np.ndarray:
    total, least, most = int(sizes.sum()), len(sizes), int((sizes - 1).sum())
    if not least <= count <= most:
        raise InputError(f"cannot split {count} of {total} images off, expected {least} to {most}: "
                         f"both parts need every class{flag and f'; choose another {flag}'}")
    halves = sizes // 2
    if halves.sum() >= count:
        return _equal_shares(halves, count)
    return sizes - _equal_shares(sizes - halves, total - count)


def _equal_shares(room: np.ndarray, count: int) -> np.ndarray:
    """Distribute ``count`` one by one to the classes with the fewest, within the room of each class."""
    low, high = 0, int(room.max())
    while low < high:  # find the largest level to which all classes can be filled, as far as they have room
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(room, middle).sum() <= count else (low, middle - 1)
    shares = np.minimum(room, low)
    shares[np.flatnonzero(room > low)[: count - int(shares.sum())]] += 1
    return shares


def _choose(values: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return the ascending indices of ``shares[k]`` random images of every class k."""
    # The raw stream of a bit generator never changes, unlike the permutations of numpy and torch.
    keys = np.random.PCG64(seed).random_raw(len(values))
    order = np.lexsort((keys, values))
    starts = np.searchsorted(values[order], np.arange(len(shares)))
    return np.sort(np.concatenate([order[s: s + n] for s, n in zip(starts, shares, strict=True)]))
