"""Every network by its name or genotype: how it is built, and how a checkpoint describes it.

To list all architectures with their source, the papers' parameter counts and ours:

    python -m wsrnas.models --list
    python -m wsrnas.models --list --dataset imagenet
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from wsrnas.architectures import cells, hand_designed, searched
from wsrnas.architectures.catalogue import ENTRIES, UNAVAILABLE, closest, find, why_unavailable
from wsrnas.architectures.entry import Entry, Unavailable
from wsrnas.architectures.searched import Searched, space_of, spelled
from wsrnas.data.datasets import DATASETS, source_of
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.program import run_program
from wsrnas.runtime.reading import shown_path

with deferred_imports():
    import torch
    from torch import nn

    from wsrnas.complexity import count_parameters, multiply_adds


LARGEST = {"init_channels": 4096, "layers": 1000, "num_classes": 10**6}
"""The largest sizes of a network. Larger ones are typing errors or damaged files, and building them would never end."""


def names() -> list[str]:
    """Return the name of every architecture that ``build_model`` knows, without aliases."""
    return list(ENTRIES)


def load_architecture(spec: Searched | str | Path) -> Searched | str:
    """Return a searched architecture as a ``Genotype`` or ``CellGraph``, or the name of a network with its own design.

    Args:
        spec: A name in ``names()`` or an alias of a cell, in any spelling; the path of a genotype's JSON file or of a
            run directory that holds one; a graph of NAS-Bench-201 as the published tables spell it,
            ``|nor_conv_3x3~0|+...``; or a searched architecture, which is returned unchanged.

    Raises:
        InputError: It is none of these. The sentence gives the closest names, or says why the architecture is not
            available.
    """
    if not isinstance(spec, (str, Path)) and space_of(spec):
        return spec
    spec = str(spec)
    if name := find(spec):
        return ENTRIES[name].genotype or name
    if (graph := spelled(spec)) is not None:
        return graph
    if re.search(r"\.py(:[^/:]*)?$", spec):
        raise InputError(f"{shown_path(spec)} builds a network of your own; expected the name or the file of an "
                         "architecture (retrain.evaluate --model takes FILE.py:FUNCTION, which loads its own weights; "
                         "in Python, wsrnas.train trains any network)")
    if os.path.lexists(spec) or cells.is_path(spec):
        return cells.load(spec)
    if reason := why_unavailable(spec):
        raise InputError(reason)
    near = closest(spec)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"unknown architecture {shown(spec)}{hint} (python -m wsrnas.models --list shows all names; the "
                     "path of a genotype JSON or of a run directory is understood, too)")


def build_model(arch: Searched | str | Path, num_classes: int = 10, init_channels: int | None = None,
                layers: int | None = None, dataset: str = "cifar10", channels: int = 3,
                auxiliary: bool = False) -> nn.Module:
    """Return a network with random weights: images (B, channels, H, W) in [0, 1] -> logits (B, num_classes).

    Args:
        arch: Anything that ``load_architecture`` takes.
        num_classes: The number of logits.
        init_channels: The width; None: the published one of a name, the DARTS convention for a genotype, which is 36
            (ImageNet: 48), and 16 for a graph of NAS-Bench-201. ``wsrnas.architectures.catalogue`` says what the width
            of a hand-designed network is.
        layers: The number of cells; None: the published one of a name, the DARTS convention for a genotype, which is
            20 (ImageNet: 14), and 15 for a graph of NAS-Bench-201, whose networks have a multiple of 3. A network with
            a design of its own takes None alone.
        dataset: A name whose entry of ``DATASETS`` is large, such as ``"imagenet"``, for large images, with ImageNet's
            normalisation first; anything else for small images.
        channels: The channels of the images.
        auxiliary: Whether to add DARTS's auxiliary head for training; only networks of two cells can have it.

    Raises:
        InputError: There is no such architecture, a size is below 1, or a network with a design of its own is given a
            depth or an auxiliary head.
    """
    for name, given in (("init_channels", init_channels), ("layers", layers), ("num_classes", num_classes),
                        ("channels", channels)):
        require(given is None or isinstance(given, Integral), f"{name} is {shown(given)}; expected a whole number")
    width, depth = sizes(arch, dataset, init_channels, layers)
    for name, value in (("init_channels", width), ("layers", depth or 1), ("num_classes", num_classes)):
        require(value <= LARGEST[name], f"{name} is {shown(value)}; expected at most {LARGEST[name]}")
    arch, imagenet = load_architecture(arch), source_of(dataset).large
    require(not imagenet or channels == 3, f"channels is {channels}; expected 3 for imagenet")
    if (space := space_of(arch)) is not None:
        return space.build(arch, width, depth or 0, num_classes, channels, imagenet, auxiliary)
    if layers is not None:
        raise InputError(f"layers is {layers}, but {arch} has a depth of its own; expected none")
    if auxiliary:
        raise InputError(f"{arch} has no auxiliary head; expected a network of two cells")
    return hand_designed.build(arch, num_classes, width, channels, imagenet)


def sizes(arch: Searched | str | Path, dataset: str, init_channels: int | None = None,
          layers: int | None = None) -> tuple[int, int | None]:
    """Return (init_channels, layers) of the network that ``build_model`` makes; layers is None for a fixed design.

    Raises:
        InputError: There is no such architecture, or its networks cannot have so many cells.
    """
    require(layers is None or layers >= 1, f"layers is {layers}; expected at least 1")
    name = find(str(arch)) if isinstance(arch, (str, Path)) else None
    large = source_of(dataset).large
    if name:
        width, depth = ENTRIES[name].size_for(large)
    else:
        space = space_of(load_architecture(arch))
        assert space is not None  # a network with a design of its own has a name
        width, depth = space.size_for(large)
        if layers is not None and layers % space.stages:
            raise InputError(f"layers is {layers}, but these networks have {space.stages} stages of equally many "
                             f"cells; expected a multiple of {space.stages}")
    return width if init_channels is None else init_channels, depth if layers is None else layers


def description(arch: Searched | str, num_classes: int, init_channels: int, layers: int | None, dataset: str,
                image_shape: tuple[int, int, int], auxiliary: bool = False) -> dict[str, Any]:
    """Return what a checkpoint stores in addition to the weights, so that ``build_described`` can build the network.

    The dictionary has the genotype as JSON under "genotype", or the name of a network with a design of its own under
    "arch"; and the sizes under the names of the arguments.
    """
    arch = load_architecture(arch)
    named = {"arch": arch} if isinstance(arch, str) else {"genotype": arch.to_json()}
    return named | {"num_classes": num_classes, "init_channels": init_channels, "layers": layers, "dataset": dataset,
                    "image_shape": list(image_shape)} | ({"auxiliary": True} if auxiliary else {})


def described_architecture(stored: dict[str, Any]) -> Searched | str:
    """Return the architecture that ``description`` was given.

    Raises:
        InputError: The stored genotype is not valid.
        KeyError: The dictionary lacks an entry.
    """
    if "arch" not in stored:
        text = stored["genotype"]
        require(isinstance(text, str), f"the stored genotype is {shown(text)}; expected text")
        return searched.read(text)
    arch = stored["arch"]  # a name alone: a file must not make its reader open another one
    if not isinstance(arch, str) or arch not in ENTRIES or ENTRIES[arch].genotype:
        near = closest(arch) if isinstance(arch, str) and len(arch) < 100 else []
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise InputError(f"unknown architecture {shown(arch)}{hint} expected the name of a network with a design of "
                         "its own")
    return arch


def build_described(stored: dict[str, Any]) -> nn.Module:
    """Return a network with random weights by its ``description``, without an auxiliary head.

    Raises:
        InputError: The architecture or a size is not valid.
        KeyError: The dictionary lacks an entry.
    """
    require_description(stored)
    return build_model(described_architecture(stored), stored["num_classes"], stored["init_channels"],
                       stored["layers"], stored["dataset"], stored["image_shape"][0])


def require_description(stored: dict[str, Any]) -> None:
    """Refuse a ``description`` with an entry of a wrong type or of an absurd size.

    Raises:
        InputError: There is such an entry.
        KeyError: The dictionary lacks an entry.
    """
    described_architecture(stored)
    for name, most in LARGEST.items():
        value = stored[name]
        require((type(value) is int and 1 <= value <= most) or (name == "layers" and value is None),
                f"the stored {name} is {shown(value)}; expected an integer from 1 to {most}")
    shape = stored["image_shape"]
    require(isinstance(shape, (list, tuple)) and len(shape) == 3 and all(type(side) is int and 1 <= side <= 2**16
                                                                        for side in shape),
            f"the stored image_shape is {shown(shape)}; expected (channels, height, width)")
    require(isinstance(stored["dataset"], str), f"the stored dataset is {shown(stored['dataset'])}; expected a name")


# -- the list ---------------------------------------------------------------------------------------------------------

LISTED = tuple(name for name, source in DATASETS.items() if source.classes)
COLUMNS = {"name": 18, "family": 13, "C, layers": 9, "parameters": 10, "multiply-adds": 13, "in the papers": 48}


def listing(dataset: str) -> Iterator[str]:
    """Yield the lines of a table of all architectures at their published sizes, each as soon as it is counted.

    Args:
        dataset: One of ``LISTED``.
    """
    images = DATASETS[dataset]
    yield "  ".join([*(title.ljust(width) for title, width in COLUMNS.items()), "source"])
    for entry in ENTRIES.values():
        with torch.device("meta"):  # shapes without numbers: nothing is allocated
            network = build_model(entry.name, images.classes, dataset=dataset)
        width, layers = entry.size_for(images.large)
        row = [entry.name, entry.family, f"{width}, {layers or 'own'}", f"{count_parameters(network) / 1e6:.3f} M",
               f"{multiply_adds(network, images.image_shape) / 1e6:.1f} M", in_the_papers(entry, dataset)]
        source = entry.source + (f" ({entry.note})" if entry.note else "")
        yield "  ".join([*(text.ljust(width) for text, width in zip(row, COLUMNS.values(), strict=True)), source])
    yield ""
    for missing in UNAVAILABLE.values():
        yield f"{missing.name.ljust(COLUMNS['name'])}  not available: {missing.reason} ({in_the_papers(missing)})"
    yield ""
    yield ("A graph of NAS-Bench-201 in the spelling of the published tables, such as '|nor_conv_3x3~0|+|none~0|"
           "nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|', is an architecture, too (C = 16, 15 layers).")
    yield ("Without auxiliary head; multiply-adds of convolutions and linear layers for one image. In the papers: "
           "millions of parameters as printed, and the tables.")


def in_the_papers(entry: Entry | Unavailable, dataset: str = "") -> str:
    """Return the parameter counts in the tables of either paper that are about a data set: ``4.5 (Wsr-NAS 1, 2)``."""
    return "; ".join(f"{said.millions} ({said.place})".strip() for said in entry.reported
                     if not dataset or said.imagenet == source_of(dataset).large) or "-"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the list that the command line asks for."""
    parser = Parser(prog="wsrnas.models", description="Every architecture that --arch and build_model "
                                     "know: where it was published, the papers' parameter counts and ours.")
    parser.add_argument("--list", action="store_true", help="print the table, as is done without this flag, too")
    parser.add_argument("--dataset", choices=LISTED, default="cifar10",
                        help="for 10 or 100 classes of 32x32 pixels, or for ImageNet (default: cifar10)")
    arguments = parser.parse_args(argv)
    try:
        for line in listing(arguments.dataset):
            print(line, flush=True)
    except BrokenPipeError:  # a reader such as head has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run_program(main)
