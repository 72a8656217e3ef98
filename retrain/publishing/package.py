"""What a package is made of: the network, and what is known about it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from retrain.publishing.robustbench import LEADERBOARDS, Numbers, Publication
from retrain.publishing.training_record import Training
from wsrnas.architectures.searched import Searched
from wsrnas.data.datasets import LARGE_FOLDER
from wsrnas.data.names import published_name
from wsrnas.models import described_architecture
from wsrnas.runtime import run_files
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.markdown import plain_words

with deferred_imports():
    from torch import nn

CARD, SAFETENSORS = "README.md", "model.safetensors"  # the names that a model hub looks for
INIT = "__init__.py"


@dataclass(frozen=True)
class Package:
    """What is exported, and what is known about it.

    Args:
        name: The name of the Python file, the weights and the description, without suffix.
        model: Images in [0, 1] -> logits; on the CPU, in evaluation mode.
        description: The architecture as ``models.description`` writes it.
        cell: Name of the cell, or of a network with a design of its own.
        preprocessing: How pictures of other sizes are resized; None for data sets of one size.
        training: Record of the training in the run directory.
        publication: The paper that the network belongs to.
        evaluations: The stored evaluations of these weights.
        measured: The numbers that leaderboards take from them.
    """

    name: str
    model: nn.Module
    description: dict[str, Any]
    cell: str
    preprocessing: str | None
    training: Training
    publication: Publication
    evaluations: list[dict[str, Any]]
    measured: Numbers

    @property
    def searched(self) -> Searched | str:
        """The searched architecture, or the name of a network with a design of its own."""
        return described_architecture(self.description)

    @property
    def dataset(self) -> str:
        """Name of the images that the network was trained on."""
        return published_name(str(self.description["dataset"]), self.description["num_classes"])

    @property
    def images(self) -> str:
        """What the network was trained on, in words."""
        return images_in_words(self.dataset)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        channels, height, width = self.description["image_shape"]
        return channels, height, width

    @property
    def architecture(self) -> str:
        """One line for leaderboards: ``WsrNet_Basic (C = 45, 20 cells)``, ``resnet18 (width 64)``."""
        width, layers = self.description["init_channels"], self.description["layers"]
        return f"{self.cell} (width {width})" if layers is None else f"{self.cell} (C = {width}, {layers} cells)"


def images_in_words(dataset: str) -> str:
    """Return what the images of this name are."""
    own = {"folder": "a folder of pictures", LARGE_FOLDER: "a folder of large pictures", "npz": "arrays of images"}
    return own.get(dataset, plain_words(dataset))


def file_names(package: Package, onnx: bool) -> list[str]:
    """Return the names of the files in a package."""
    own = [f"{package.name}{suffix}" for suffix in (".py", ".pt", ".json", *[".onnx"] * onnx)]
    issue = ["NEW_MODEL_ISSUE.md"] * (package.dataset in LEADERBOARDS)
    drawing = [] if isinstance(package.searched, str) else ["cells.svg", "cells.png"]
    return [*own, *[SAFETENSORS] * has_safetensors(), CARD, "config.json", *issue, "LICENSE", "hubconf.py", INIT,
            *drawing, run_files.REPORT]


def has_safetensors() -> bool:
    """Return whether the optional package is installed that writes the weights in its format."""
    return importlib.util.find_spec("safetensors") is not None
