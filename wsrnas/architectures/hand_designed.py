"""Networks with a design of their own, by name: hand-designed networks and RobNets."""

from __future__ import annotations

from wsrnas.architectures import catalogue
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    from torch import nn

    from wsrnas import network


def names() -> list[str]:
    """Return the names of all networks with a design of their own."""
    return [name for name, entry in catalogue.ENTRIES.items() if entry.build is not None]


def find(spec: str) -> str | None:
    """Return the name in ``names()`` that is meant, or None; spelled as ``catalogue.find`` takes it."""
    name = catalogue.find(spec)
    return name if name in names() else None


def published_width(name: str) -> int:
    """Return the ``width`` of the published network for small images."""
    return catalogue.ENTRIES[name].size[0]


def build(name: str, num_classes: int = 10, width: int | None = None, channels: int = 3,
          imagenet: bool = False) -> nn.Module:
    """Build a network: images (B, channels, H, W) in [0, 1] -> logits (B, num_classes).

    Args:
        name: A name in ``names()``.
        num_classes: Number K of classes.
        width: Width as the network's own function defines it; None: the published one.
        channels: Channels of the images.
        imagenet: Whether the network is for large images, with ImageNet's normalisation.

    Returns:
        The network with new random weights.

    Raises:
        InputError: There is no such network, a number is below 1, or images of ImageNet do not have three channels.
    """
    entry = catalogue.ENTRIES.get(name)
    if entry is None or entry.build is None:
        raise InputError(f"{name!r} is no hand-designed network or RobNet; expected one of {', '.join(names())}")
    width = published_width(name) if width is None else width
    for number, value in {"init_channels": width, "num_classes": num_classes, "channels": channels}.items():
        if value < 1:
            raise InputError(f"{number} is {value}; expected at least 1")
    if imagenet and channels != len(network.IMAGENET_MEAN):
        raise InputError(f"channels is {channels}; expected {len(network.IMAGENET_MEAN)} for imagenet")
    return entry.build(num_classes, width, channels, imagenet)
