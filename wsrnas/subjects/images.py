"""The images that networks are evaluated on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wsrnas.data.datasets import source_of
from wsrnas.data.image_set import DataSet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.reading import read_json
from wsrnas.subjects.model_source import ModelSource

DEFAULT_DATA = "data"  # --data where the flag is not given
CHECKED = 256  # images that a network is checked on
SHOWN = 20  # classes whose names are shown, at most


@dataclass(frozen=True)
class EvaluationImages:
    """The images that all networks are evaluated on.

    Args:
        dataset: The name of the data set.
        loader: It reads them.
        num_classes: The number of classes.
        shape: (C, H, W).
        fingerprint: A hash that differs where the images or their order differ.
        class_names: The names of the classes in the order of the logits; empty: they are not known.
    """

    dataset: str
    loader: BatchLoader
    num_classes: int
    shape: tuple[int, int, int]
    fingerprint: str
    class_names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f" ({', '.join(self.class_names)})" if 0 < len(self.class_names) <= SHOWN else ""
        return f"{len(self.loader.image_set)} of {self.dataset}, {self.num_classes} classes{names}, {self.shape}"

    def spread(self) -> tuple[Tensor, Tensor]:
        """Return images and labels as the function of this name does."""
        return spread(self.loader)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes that a training has noted among its inputs; empty where it has noted none."""
    try:
        inputs = read_json(folder / run_files.INPUTS)
    except InputError:
        return ()
    data = inputs.get("data set") if isinstance(inputs, dict) else None
    names = data.get("classes") if isinstance(data, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def require_same_classes(network: ModelSource, images: EvaluationImages) -> None:
    """Refuse images whose classes have other names than those of the training: the labels would mean something else.

    Where one of them has numbers alone, nothing is known.

    Raises:
        InputError: naming the first class that differs.
    """
    trained = class_names(network.folder) if network.folder else ()
    if all(name.isdigit() for name in trained) or all(name.isdigit() for name in images.class_names):
        return
    for number, (then, now) in enumerate(zip(trained, images.class_names, strict=False)):
        require(then == now, f"{network.source} was trained with {shown(then)} as class {number}, and in "
                f"{images.dataset} it is {shown(now)}; expected the same names in the same order (rename classes that "
                "mean the same)")


def spread(loader: BatchLoader) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) and labels (B,) from all over the set, because files are ordered by class."""
    count = len(loader.image_set)
    rows = torch.linspace(0, count - 1, min(count, CHECKED)).long().unique()
    return next(iter(loader.images_at([rows])))


def images_of(data: DataSet, batch_size: int, seed: int, device: torch.device) -> EvaluationImages:
    """Return the test images of a data set in memory, on the device."""
    loader = BatchLoader(data.test.to(device), batch_size, seed, "test")
    return EvaluationImages(data.name, loader, data.num_classes, data.image_shape, data.test.fingerprint(),
                            data.class_names)


def folder_of_images(given: str, networks: Sequence[ModelSource], dataset: str, is_main: bool = True) -> str:
    """Return the folder of the data set: where the default one does not exist, that of a training on the data set.

    Args:
        given: --data.
        networks: the networks that are evaluated.
        dataset: name of the data set.
        is_main: whether to say which folder it is.
    """
    if given != DEFAULT_DATA or os.path.exists(given) or not source_of(dataset).needs_folder:
        return given
    for network in networks:
        config = network.record.get("config")
        known = config.get("data") if isinstance(config, dict) and config.get("dataset") == dataset else None
        if isinstance(known, str) and os.path.exists(known):
            if is_main:
                print(f"images: from {known}, as in the training of {network.source}; --data names another folder")
            return known
    return given


def evaluated_dataset(networks: Sequence[ModelSource], asked: str = "") -> str:
    """Return the data set asked for, or the one that all networks were trained on.

    Raises:
        InputError: They were trained on different ones, or do not say on which, and none was asked for.
    """
    trained = sorted({network.description["dataset"] for network in networks if network.description})
    if not asked and len(trained) > 1:
        raise InputError(f"the networks were trained on different data sets ({', '.join(trained)}); choose one with "
                         "--dataset")
    require(bool(asked or trained), "the data set is not known: no network names one; choose one with --dataset")
    return asked or trained[0]
