"""Spaces of searched architectures: their classes, networks, sizes and files.

A new space is one class with the methods of ``Searched`` and one entry of ``SPACES``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wsrnas.architectures import nas_bench_201
from wsrnas.architectures.entry import CIFAR_SIZE, IMAGENET_SIZE
from wsrnas.architectures.nas_bench_201 import STAGES, CellGraph
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.reading import parse_json, read_as

with deferred_imports():
    from torch import Tensor, nn

    from wsrnas.architectures.nas_bench_201.network import NetworkNB201
    from wsrnas.genotype import Diagram, Genotype
    from wsrnas.network import NetworkCIFAR, NetworkImageNet

Sizes = tuple[int | None, int | None]  # width and number of cells; None where they are unknown


class Searched(Protocol):
    """What the architectures of all spaces can do; they are frozen dataclasses, equal if their cells are."""

    def to_json(self) -> str:
        """Return the architecture as JSON text; that of all spaces but the first has the entry ``space``."""
        ...

    def save(self, path: str | Path, meta: dict[str, Any] | None = None) -> None:
        """Write the architecture, and ``meta`` (JSON values) beside it, to ``path``, wholly or not at all."""
        ...

    def diagrams(self) -> tuple[Diagram, ...]:
        """Return its cells as they are drawn."""
        ...


@dataclass(frozen=True)
class Space:
    """A space of searched architectures.

    Args:
        kind: The class of its architectures, with the class methods ``from_json(text)`` and ``load(path)``.
        build: Constructor (architecture, init_channels, layers, num_classes, channels of the images, whether they are
            large, whether there is an auxiliary head); it refuses what there is not.
        size: (init_channels, layers) of the usual network for small images.
        imagenet_size: The same for large images.
        sizes_of_weights: Function from a state_dict to the sizes of the network that it belongs to.
        modules: The modules that define its networks; later ones use earlier ones, and may define a name again that
            only they use.
        call: Function from the sizes of a network (``num_classes``, ``init_channels``, ``layers``, ``channels``) and
            whether its images are large to the Python expression that builds it from ``GENOTYPE``.
        stages: The number of cells of a network is a multiple of it.
        spelled: Function from a text to the architecture that it spells out; None if it spells none.
        short_name: Function from an architecture to a name that a file may have; empty if it has none.
    """

    kind: Any
    build: Callable[[Any, int, int, int, int, bool, bool], nn.Module]
    size: tuple[int, int]
    imagenet_size: tuple[int, int]
    sizes_of_weights: Callable[[Mapping[str, Tensor]], Sizes]
    modules: tuple[str, ...]
    call: Callable[[Mapping[str, int], bool], str]
    stages: int = 1
    spelled: Callable[[str], Any] = lambda text: None
    short_name: Callable[[Any], str] = lambda architecture: ""

    def size_for(self, large: bool) -> tuple[int, int]:
        """Return (init_channels, layers) of the usual network for small or for large images."""
        return self.imagenet_size if large else self.size


# -- DARTS ------------------------------------------------------------------------------------------------------------

def _darts(genotype: Genotype, init_channels: int, layers: int, num_classes: int, channels: int, large: bool,
           auxiliary: bool) -> nn.Module:
    network = NetworkImageNet if large else NetworkCIFAR
    return network(genotype, init_channels, layers, num_classes, channels, auxiliary=auxiliary)


def _cells_in(weights: Mapping[str, Tensor]) -> int | None:
    """Return the number of cells that a state_dict has weights of; None if there are none."""
    numbers = [int(found[1]) for key in weights if (found := re.match(r"cells\.(\d{1,9})\.", key))]
    return max(numbers) + 1 if numbers else None


def _width(weights: Mapping[str, Tensor], key: str, times: int = 1) -> int | None:
    """Return the output channels of a convolution, divided by ``times``; None if it is not there."""
    weight = weights.get(key)
    return None if weight is None else weight.shape[:1].numel() // times


def _sizes_darts(weights: Mapping[str, Tensor]) -> Sizes:
    return _width(weights, "stem.conv.weight", 3) or _width(weights, "stem.first.3.weight"), _cells_in(weights)


def _call_darts(sizes: Mapping[str, int], large: bool) -> str:
    return f"{'NetworkImageNet' if large else 'NetworkCIFAR'}(GENOTYPE, {_arguments(sizes)})"


def _arguments(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={sizes[name]}" for name in ("init_channels", "layers", "num_classes", "channels"))


# -- NAS-Bench-201 ----------------------------------------------------------------------------------------------------

def _nas_bench_201(graph: CellGraph, init_channels: int, layers: int, num_classes: int, channels: int, large: bool,
                   auxiliary: bool) -> nn.Module:
    if auxiliary:
        raise InputError("networks of NAS-Bench-201 have no auxiliary head; expected a network of two cells")
    if layers % STAGES or layers < STAGES:
        raise InputError(f"layers is {layers}; networks of NAS-Bench-201 have a multiple of {STAGES} cells")
    return NetworkNB201(graph, init_channels, layers // STAGES, num_classes, channels, large)


def _sizes_nas_bench_201(weights: Mapping[str, Tensor]) -> Sizes:
    # Graphs without a convolution have no weights in their cells; the number of cells is then the usual one.
    return _width(weights, "stem.0.weight") or _width(weights, "stem.first.3.weight"), _cells_in(weights)


def _call_nas_bench_201(sizes: Mapping[str, int], large: bool) -> str:
    return (f"NetworkNB201(GENOTYPE, init_channels={sizes['init_channels']}, "
            f"cells_per_stage={sizes['layers'] // STAGES}, num_classes={sizes['num_classes']}, "
            f"channels={sizes['channels']}{', imagenet=True' * large})")


LAYERS = ("wsrnas.quick.states", "wsrnas.quick.gradients", "wsrnas.quick.strided", "wsrnas.operations",
          "wsrnas.network")

SPACES: dict[str, Space] = {
    "darts": Space(Genotype, _darts, CIFAR_SIZE, IMAGENET_SIZE, _sizes_darts,
                   ("wsrnas.genotype", *LAYERS), _call_darts),
    nas_bench_201.SPACE: Space(
        CellGraph, _nas_bench_201, (16, 15), (16, 15), _sizes_nas_bench_201,
        (*LAYERS, "wsrnas.architectures.nas_bench_201.graph",
         "wsrnas.architectures.nas_bench_201.network"), _call_nas_bench_201, STAGES,
        lambda text: CellGraph.from_string(text) if nas_bench_201.is_graph(text) else None, lambda graph: graph.name),
}
"""All spaces by name. Files of the first do not name it, because they are older than the others."""


# -- reading ----------------------------------------------------------------------------------------------------------

def space_of(architecture: object) -> Space | None:
    """Return the space of an architecture; None for anything else, such as a name."""
    return next((space for space in SPACES.values() if isinstance(architecture, space.kind)), None)


def spelled(text: str) -> Any:
    """Return the architecture that a text spells out, such as a graph of NAS-Bench-201; None if it spells none.

    Raises:
        InputError: The text can only be meant so, but is malformed.
    """
    return next((found for space in SPACES.values() if (found := space.spelled(text)) is not None), None)


def short_name(text: str) -> str:
    """Return the name, for files and tables, of the architecture that a text spells out; empty if it spells none."""
    return name_of(spelled(text))


def name_of(architecture: object) -> str:
    """Return the name, for files and tables, of a searched architecture; empty if its space has no such names."""
    space = space_of(architecture)
    return "" if space is None else space.short_name(architecture)


def read(text: str) -> Any:
    """Return the architecture of a JSON text that ``to_json`` or ``save`` wrote, of whichever space.

    Raises:
        InputError: It is not JSON, of an unknown space, or malformed.
    """
    return _kind_in(text).from_json(text)


def load(path: str | os.PathLike) -> Any:
    """Return the architecture of a file, of whichever space.

    Raises:
        InputError: The file cannot be read or holds no architecture; the sentence names the file.
    """
    return read_as(read, Path(path), "the genotype file")


def _kind_in(text: str) -> Any:
    """Return the class of the architecture in a JSON text; that of the first space where none is named."""
    try:
        document = parse_json(text)
    except (ValueError, RecursionError):
        return Genotype
    if not isinstance(document, dict) or "space" not in document:
        return Genotype
    space = document["space"]
    named = list(SPACES)[1:]
    if space not in named:
        raise InputError(f"the genotype is of the space {shown(space)}; expected {' or '.join(named)}, or no entry "
                         "space for two cells")
    return SPACES[space].kind
