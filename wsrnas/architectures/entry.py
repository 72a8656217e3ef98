"""The entry of one architecture in the catalogue.

"Wsr-NAS" is Cheng et al., AAAI 2023: Tables 1 and 2 (CIFAR-10), 3 (search times), 4 (ImageNet). "RNAS" is the ICLR 2022
submission: Tables 1 and 2 (CIFAR-10), 3 (CIFAR-100), 4 (SVHN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from torch import nn

    from wsrnas.genotype import Genotype

# The DARTS conventions, for cells whose papers give no other size: (init_channels, layers).
CIFAR_SIZE, IMAGENET_SIZE = (36, 20), (48, 14)


@dataclass(frozen=True)
class Reported:
    """What a paper reports about an architecture.

    Args:
        paper: "Wsr-NAS" or "RNAS".
        tables: Numbers of the tables that list it.
        millions: Parameters in millions, as printed; empty where the tables print none.
        imagenet: Whether ``millions`` is of the network for ImageNet.
    """

    paper: str
    tables: str
    millions: str = ""
    imagenet: bool = False

    @property
    def place(self) -> str:
        """The paper and its tables, such as ``Wsr-NAS 1, 2``."""
        return f"{self.paper} {self.tables}"


def in_wsr(millions: str, tables: str = "1, 2") -> Reported:
    """Return what Wsr-NAS reports of a network for CIFAR-10."""
    return Reported("Wsr-NAS", tables, millions)


def in_wsr_imagenet(millions: str) -> Reported:
    """Return what Wsr-NAS reports of a network for ImageNet."""
    return Reported("Wsr-NAS", "4", millions, imagenet=True)


def in_rnas(millions: str, tables: str) -> Reported:
    """Return what RNAS reports of a network."""
    return Reported("RNAS", tables, millions)


@dataclass(frozen=True)
class Entry:
    """One architecture: either a cell or a network with a design of its own.

    Args:
        name: The name that ``models.build_model`` takes.
        family: "Wsr-NAS", "RNAS", "robust NAS", "NAS" or "hand-designed".
        source: Repository, file, commit and symbol of a cell; the paper of another network.
        reported: Tables of the papers that list it, and the parameters printed there.
        size: (init_channels, layers) of the published network for small images; layers is None where the network has a
            depth of its own.
        imagenet_size: The same for ImageNet.
        note: What a reader of the numbers needs to know.
        aliases: Other names of the same architecture.
        cell: The arguments of its ``Genotype``; None for a network with a design of its own.
        build: Constructor (num_classes, width, channels, imagenet) of a network with a design of its own.
        compiles: Whether ``torch.compile`` can compile its training.
        module: The module of the function of its name, which builds a network with a design of its own.
    """

    name: str
    family: str
    source: str
    reported: tuple[Reported, ...] = ()
    size: tuple[int, int | None] = CIFAR_SIZE
    imagenet_size: tuple[int, int | None] = IMAGENET_SIZE
    note: str = ""
    aliases: tuple[str, ...] = ()
    cell: Mapping[str, Any] | None = None
    build: Callable[[int, int, int, bool], nn.Module] | None = None
    compiles: bool = True
    module: str = ""

    @cached_property
    def genotype(self) -> Genotype | None:
        """The cell, checked; None for a network with a design of its own."""
        return None if self.cell is None else Genotype(**self.cell)

    def size_for(self, large: bool) -> tuple[int, int | None]:
        """Return (init_channels, layers) of the published network for small or for large images."""
        return self.imagenet_size if large else self.size


@dataclass(frozen=True)
class Unavailable:
    """An architecture of the papers' tables that cannot be built.

    Args:
        name: Its name in the tables.
        reported: Tables of the papers that list it, and the parameters printed there.
        reason: Why it cannot be built.
        aliases: Other names of it.
    """

    name: str
    reported: tuple[Reported, ...]
    reason: str
    aliases: tuple[str, ...] = ()
