"""Make a data set of your own arrays or torch Datasets, for the functions that take those of ``load_dataset``."""

from __future__ import annotations

import operator
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from wsrnas.data.image_folder import is_shown
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet, image_set
from wsrnas.data.pictures import pixels_of
from wsrnas.data.splits import balanced_split
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, first_line, named_line, type_in_words
from wsrnas.runtime.reading import foreign_kind, reason_of, require_file

with deferred_imports():
    import torch

TEST_SHARE = 0.2  # of the training images, where no test images are given
FEWEST_SIDE = 8  # pixels
MOST_CLASSES = 100_000  # the largest known data set of images has 30,000
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NAMES = "class_names"
ACCEPTED = "expected uint8 pixels, or floats in [0, 1] (normalisation is the network's first layer)"


def own_data(train: Any, test: Any = None, name: str = "own", class_names: Sequence[str] = (),
             augmentation: Augmentation | None = None, seed: int = 0) -> DataSet:
    """Make a data set of your own images, which ``train`` and ``evaluate`` take.

    Pixels are kept as bytes: floats in [0, 1] are rounded to the nearest of the 256 values, which images from files
    have already.

    Args:
        train: training images: a pair (images, labels) of arrays or tensors, or a torch ``Dataset`` of such pairs.
            Images are (N, C, H, W), (N, H, W, C) or (N, H, W), with 1 or 3 channels; labels are (N,) integers from 0.
            A ``Dataset`` may also give pictures of Pillow. Give it without random augmentation: each image is read
            once.
        test: test images in one of these forms; None: a fifth of every class of ``train``, which then is not trained
            on.
        name: name of the data set in results.
        class_names: names of the classes; empty: those of the ``Dataset`` (``classes``), else their numbers, which must
            then all occur in ``train``.
        augmentation: augmentation of training images; None: mirroring, and crops after padding by 1/8 of the height.
        seed: seed of the choice of test images.

    Raises:
        InputError: images or labels cannot be used; the sentence says which and why.
    """
    part = as_image_set(train, "training")
    most = int(part.labels.max())
    if test is not None:
        rest = as_image_set(test, "test")
        require(rest.images.shape[1:] == part.images.shape[1:], f"test images are {_shape(rest)}, training images "
                f"{_shape(part)}; expected one shape")
        most = max(most, int(rest.labels.max()))
    names = checked_names(class_names) or _names_of(train, most) or _numbers(part, most)
    require(most < len(names), f"a label is {most}; expected less than {len(names)}, the number of class names")
    require(len(part.labels.unique()) > 1, f"all training images are of class {most}; expected at least 2 classes")
    if test is None:
        chosen, left = balanced_split(part.labels, TEST_SHARE, seed, len(names), names=names)
        part, rest = part.subset(left), part.subset(chosen)
    return _data_set(name, part, rest, names, augmentation)


def _data_set(name: str, train: ImageSet, test: ImageSet, names: tuple[str, ...],
              augmentation: Augmentation | None = None) -> DataSet:
    height = train.images.shape[-2]
    return DataSet(name, train, test, names, augmentation or Augmentation(max(1, height // 8), horizontal_flip=True))


def _numbers(train: ImageSet, most: int) -> tuple[str, ...]:
    """Return the numbers of the classes up to the largest label as their names.

    Raises:
        InputError: a class has no training images: labels begin at 1, or are no numbers of classes.
    """
    present = set(train.labels.unique().tolist())
    missing = next(number for number in range(most + 2) if number not in present)
    require(missing > most, f"a label is {most}, but no training image is of class {missing}; expected the classes 0, 1, "
            "2 and so on, each with images, or the names of all (class_names)")
    return tuple(map(str, range(most + 1)))


def _names_of(dataset: Any, most: int) -> tuple[str, ...]:
    """Return the names of classes that a data set of torchvision or of a user's knows; empty where it knows none.

    Args:
        dataset: training images as ``own_data`` takes them; a ``Subset`` knows what the whole does.
        most: largest label.
    """
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", ())
    if not isinstance(names, list | tuple) or len(names) <= most:
        return ()
    return tuple(names) if all(isinstance(name, str) for name in names) else ()


def read_arrays(path: Path, name: str, test_alone: bool = False) -> DataSet:
    """Return the data set of an ``.npz`` file with ``x_train``, ``y_train`` and, if there are any, the test images.

    ``class_names``, an array of texts, may name the classes.

    Without test images a fifth of each class is set apart, the same in every program and for every seed: a network is
    never evaluated on images that it was trained on.

    Args:
        path: the file; of a folder, the only file that ends so.
        name: name of the data set.
        test_alone: whether the training images may be missing; then ``train`` is empty.

    Raises:
        InputError: there is no such file, or its arrays cannot be used.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    require(len(files) == 1, f"{path} holds {len(files)} .npz files; expected one, or its path as --data")
    require_file(files[0], "the arrays")
    try:
        with open(files[0], "rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is a single array, as in .npy files")
            arrays = {key: stored[key] for key in ARRAYS if key in stored}
            names = _names_in(stored, files[0])
    except (MemoryError, InputError):
        raise
    except Exception as error:  # NumPy and the decompressors raise a dozen types; all mean that it cannot be read
        raise InputError(f"cannot read the arrays of {files[0]}: {_reason(error, files[0])}; expected an .npz file with "
                         f"{', '.join(ARRAYS)}, the last two if there are test images") from None
    parts = [tuple(arrays[key] for key in ARRAYS[start:start + 2] if key in arrays) for start in (0, 2)]
    without = test_alone and not parts[0]
    complete = len(parts[1]) == 2 if without else len(parts[0]) == 2 and len(parts[1]) in (0, 2)
    require(complete, f"{files[0]} holds {', '.join(arrays) or 'none of the arrays'}; expected {', '.join(ARRAYS)}, or "
            f"the first two alone{', or the last two' * test_alone}")
    train, test = ((part[0], _flat(part[1])) if part else None for part in parts)
    try:
        return _tested(test, name, names) if without else own_data(train, test, name, names)
    except InputError as error:
        raise InputError(f"{files[0]}: {error}") from None


def _names_in(stored: Any, path: Path) -> tuple[str, ...]:
    """Return the names of classes in an open ``.npz`` file; empty where it has none.

    Raises:
        InputError: they are no list of different names.
    """
    if NAMES not in stored:
        return ()
    expected = "expected a list of different names, an array of texts such as np.array(['cat', 'dog'])"
    try:
        names = stored[NAMES]
    except ValueError:
        raise InputError(f"{path}: {NAMES} holds objects of Python; {expected}") from None
    require(names.ndim == 1 and names.dtype.kind == "U", f"{path}: {NAMES} is an array of shape {names.shape} of "
            f"{names.dtype}; {expected}")
    try:
        return checked_names(names.tolist())
    except InputError as error:
        raise InputError(f"{path}: {error}, an array of texts such as np.array(['cat', 'dog'])") from None


def checked_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names of classes, of numbers the digits; empty where there are none.

    Raises:
        InputError: they are no list of different names that a line can show.
    """
    expected = "expected a list of different names"
    require(isinstance(names, Sequence | np.ndarray) and not isinstance(names, str), f"{NAMES} is {names!a}; {expected}")
    texts = tuple(name if isinstance(name, str) else str(name) for name in names)
    bad = [text for text in texts if not is_shown(text)]
    require(not bad, f"{NAMES} has {bad[:1]!a}, a name that is empty or has line breaks, control characters or "
            f"bytes that are not UTF-8; {expected}")
    require(len(set(texts)) == len(texts), f"{NAMES} has a name twice; {expected}")
    return texts


def _tested(given: Any, name: str, names: tuple[str, ...]) -> DataSet:
    """Return test images alone as a data set without training images; some classes may have none."""
    test = as_image_set(given, "test")
    most = int(test.labels.max())
    require(most < MOST_CLASSES, f"a label is {most}; expected the numbers of the classes, from 0")
    require(not names or most < len(names), f"a label is {most}; expected less than {len(names)}, the number of class "
            "names")
    return _data_set(name, test.subset(torch.arange(0)), test, names or tuple(map(str, range(most + 1))))


def _reason(error: Exception, path: Path) -> str:
    """Return why NumPy does not read a file, without its advice to read it unsafely."""
    if isinstance(error, OSError):
        return reason_of(error)
    if "pickle" not in str(error):
        return first_line(error)
    if zipfile.is_zipfile(path):
        return "it holds pickled objects, and reading them could run any code"
    return foreign_kind(path) or "it is no file of NumPy"


def _flat(labels: np.ndarray) -> np.ndarray:
    """Return labels (N, 1), as Keras stores them, as (N,)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def as_image_set(given: Any, part: str = "given") -> ImageSet:
    """Return images and labels in memory as bytes.

    Args:
        given: images and labels as ``own_data`` takes them, or an ``ImageSet``, which is returned unchanged.
        part: name of the images in messages.

    Raises:
        InputError: they cannot be used.
    """
    if isinstance(given, ImageSet):
        return given
    images, labels = given if isinstance(given, tuple | list) and len(given) == 2 else _read(given, part)
    pixels, classes = _channels_last(_bytes(_array(images), part), part), _array(labels)
    require(len(pixels) > 0, f"there are no {part} images; expected at least 1")
    whole = np.issubdtype(classes.dtype, np.integer) and classes.ndim == 1 and len(classes) == len(pixels)
    require(whole, f"{part} labels are {classes.dtype} {classes.shape}; expected {len(pixels)} integers, one for each "
            "image")
    require(int(classes.min()) >= 0, f"a {part} label is {classes.min()}; expected classes from 0")
    # What is given may be a buffer that its owner fills again.
    return image_set(pixels.copy() if np.may_share_memory(pixels, _array(images)) else pixels, classes)


def _read(dataset: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a torch ``Dataset``, or of anything else that gives such pairs."""
    pairs: list[tuple[np.ndarray, int]] = []
    try:
        for item in _items(dataset, part):
            image, label = item
            pairs.append((_array(image), _class(label)))
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_pairs(dataset, part, error) from None
    require(bool(pairs), f"there are no {part} images; expected at least 1")
    shapes = {image.shape for image, _ in pairs}
    require(len(shapes) == 1, f"the {part} images have the shapes {', '.join(map(str, sorted(shapes)[:3]))}; expected "
            "one shape (resize them)")
    return np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs])


def _items(dataset: Any, part: str) -> Iterator[Any]:
    """Yield what a user's object gives; what its code raises on the way names the image.

    Raises:
        InputError: it raised something, or is not of the kind that gives one item after the other.
    """
    if isinstance(dataset, Mapping):
        raise _no_pairs(dataset, part, "the images have no order in it")
    number = 0
    try:
        items = iter(dataset) if not hasattr(dataset, "__len__") else (dataset[i] for i in range(len(dataset)))
        for item in items:
            yield item
            number += 1
    except (TypeError, LookupError, NotImplementedError) as error:
        if number == 0:
            raise _no_pairs(dataset, part, error) from None
        raise _unreadable(number, part, error) from None
    except Exception as error:  # the user's code
        raise _unreadable(number, part, error) from None


def _no_pairs(dataset: Any, part: str, why: object) -> InputError:
    return InputError(f"the {part} images are {type_in_words(dataset)} that gives no pairs of an image and a class "
                      f"({why}); expected (images, labels) or a torch Dataset, not a DataLoader")


def _unreadable(number: int, part: str, error: Exception) -> InputError:
    said = str(error) if isinstance(error, InputError) else named_line(error)
    return InputError(f"image {number} of the {part} images cannot be read ({said})")


def _class(label: Any) -> int:
    """Return a label, also one in an array or a tensor, as an integer; TypeError for a number with a fraction."""
    return operator.index(label.item() if hasattr(label, "item") else label)


def _array(value: Any) -> np.ndarray:
    """Return an array, a tensor of any device, or one or many pictures of Pillow as an array."""
    if isinstance(value, Image):
        return np.asarray(value) if value.mode in ("L", "RGB") else pixels_of(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Image):
        return np.stack([_array(image) for image in value])
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _bytes(images: np.ndarray, part: str) -> np.ndarray:
    """Return images as uint8."""
    if images.dtype == np.uint8:
        return images
    require(np.issubdtype(images.dtype, np.floating), f"{part} images are {images.dtype}; {ACCEPTED}")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    require(np.isfinite(low) and np.isfinite(high), f"{part} images have values that are NaN or infinite; {ACCEPTED}")
    require(0 <= low and high <= 1, f"{part} images have values from {low:.3g} to {high:.3g}; {ACCEPTED}")
    return np.rint(images * 255).astype(np.uint8)


def _channels_last(images: np.ndarray, part: str) -> np.ndarray:
    """Return images as (N, H, W, C)."""
    if images.ndim == 3:
        images = images[..., None]
    usable = images.ndim == 4 and {images.shape[1], images.shape[3]} & {1, 3}
    require(bool(usable), f"{part} images have the shape {images.shape}; expected (N, C, H, W), (N, H, W, C) or "
            "(N, H, W), with 1 or 3 channels")
    last = images if images.shape[3] in (1, 3) else images.transpose(0, 2, 3, 1)
    require(min(last.shape[1:3]) >= FEWEST_SIDE, f"{part} images have {last.shape[1]}x{last.shape[2]} pixels; expected "
            f"at least {FEWEST_SIDE}x{FEWEST_SIDE}")
    return last


def _shape(part: ImageSet) -> str:
    return f"{tuple(part.images.shape[1:])} (channels, height, width)"
