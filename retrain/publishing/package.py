"""What a package is made of: the network, and what is known about it."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from retrain.publishing.robustbench import LEADERBOARDS, Numbers, Publication
from retrain.publishing.training_record import Training
from wsrnas.architectures import searched
from wsrnas.architectures.searched import Searched


@dataclass(frozen=True)
class Package:
    """What is exported, and what is known about it.

    Args:
        name: The name of the Python file, the weights and the description, without suffix.
        model: Images in [0, 1] -> logits; on the CPU, in evaluation mode.
        description: The architecture as ``models.description`` writes it.
        cell: Name of the cell.
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
    def genotype(self) -> Searched:
        """The searched architecture."""
        return searched.read(self.description["genotype"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        channels, height, width = self.description["image_shape"]
        return channels, height, width

    @property
    def architecture(self) -> str:
        """One line for leaderboards: ``WsrNet_Basic (C = 45, 20 cells)``."""
        return f"{self.cell} (C = {self.description['init_channels']}, {self.description['layers']} cells)"


def file_names(package: Package, onnx: bool) -> list[str]:
    """Return the names of the files in a package."""
    own = [f"{package.name}{suffix}" for suffix in (".py", ".pt", ".json", *[".onnx"] * onnx)]
    issue = ["NEW_MODEL_ISSUE.md"] * (package.description["dataset"] in LEADERBOARDS)
    return [*own, "MODEL_CARD.md", *issue, "LICENSE", "hubconf.py", "cells.svg", "cells.png"]
