"""Every architecture by name: where it was published, at which size, and what the papers' tables report.

A published cell is one entry in ``published_cells``. A network with a design of its own is a function in ``designs``
or ``robnet`` and one entry in ``NETWORKS``.
"""

from __future__ import annotations

from importlib import import_module

from wsrnas.architectures.entry import Entry, Reported, Unavailable, in_rnas, in_wsr, in_wsr_imagenet
from wsrnas.architectures.published_cells import PUBLISHED_CELLS
from wsrnas.runtime.spelling import closest as closest_of
from wsrnas.runtime.spelling import plain

DESIGNS, ROBNETS = "wsrnas.architectures.designs", "wsrnas.architectures.robnet"  # imported when one is built


def _design(name: str, width: int, source: str, reported: tuple[Reported, ...] = (), note: str = "",
            family: str = "hand-designed", imagenet_width: int | None = None, compiles: bool = True,
            module: str = DESIGNS) -> Entry:
    """Return the entry of a network with a depth of its own.

    Args:
        name: Name of the network and of its function.
        width: Published width of the network for small images.
        source: As in ``Entry``.
        reported: As in ``Entry``.
        note: As in ``Entry``.
        family: As in ``Entry``.
        imagenet_width: Published width of the network for ImageNet; None: the same as for small images.
        compiles: As in ``Entry``.
        module: As in ``Entry``.
    """
    return Entry(name, family, source, reported, (width, None), (imagenet_width or width, None), note,
                 build=lambda *sizes: getattr(import_module(module), name)(*sizes), compiles=compiles,
                 module=module)


def _robnet(name: str, width: int, source: str = "gmh14/RobNets architecture_code.py@0fbcb036",
            reported: tuple[Reported, ...] = (), note: str = "") -> Entry:
    """Return the entry of a RobNet; 48 channels on ImageNet are published for RobNet-large."""
    return _design(name, width, source, reported, note, "robust NAS", 48, module=ROBNETS)


NETWORKS = (
    _robnet("robnet_small", 36, "zhicheng2T0/Wsr-NAS search/architecture_code.py@7736f5da", (in_wsr("4.4"),),
            "the only public copy; RobNet's paper says 4.41 M"),
    _robnet("robnet_large_v1", 36, reported=(in_wsr("6.9"), in_rnas("6.9", "1, 3, 4")),
            note="6.94 M if its BatchNorm layers had scale and shift"),
    _robnet("robnet_large_v2", 64),
    _robnet("robnet_free", 36, note="RobNet's paper says 5.49 M"),
    _design("resnet18", 64, "He et al., CVPR 2016", (in_wsr("11.2"), in_rnas("11.2", "1-4"))),
    _design("resnet50", 64, "He et al., CVPR 2016", (in_wsr("23.5"), in_wsr_imagenet("23.5")),
            "Wsr-NAS' figure for ImageNet leaves out the 1000-class layer"),
    _design("wrn_28_10", 160, "Zagoruyko and Komodakis, BMVC 2016"),
    _design("wrn_34_10", 160, "Zagoruyko and Komodakis, BMVC 2016", (in_wsr("46.2"),)),
    _design("vgg16", 64, "Simonyan and Zisserman, ICLR 2015", (in_rnas("14.7", "1, 2, 4"),)),
    _design("vgg16_4096", 64, "Simonyan and Zisserman, ICLR 2015", (in_rnas("34", "3"),),
            "34.0 M for the 100 classes of that table", compiles=False),  # its dropout draws from a generator
    _design("densenet121", 32, "Huang et al., CVPR 2017", (in_rnas("7.0", "1, 2"),)),
    _design("mobilenet_v2", 32, "Sandler et al., CVPR 2018", (in_rnas("2.3", "1-4"),)),
    _design("shufflenet_v2", 116, "Ma et al., ECCV 2018", (in_rnas("1.3", "1-4"),)),
    _design("squeezenet", 96, "Iandola et al., 2016", (in_rnas("0.7", "1"),)),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*PUBLISHED_CELLS, *NETWORKS)}
"""All architectures by name."""

_NOT_NAMED = "the Wsr-NAS repository holds cells without saying which, if any, this is"
UNAVAILABLE: dict[str, Unavailable] = {entry.name: entry for entry in (
    Unavailable("DSRNA", (in_rnas("5.4", "1, 3, 4"),), "published as a drawing (CVPR 2021), without code or text"),
    Unavailable("RobNet_medium", (in_wsr("5.7"),), "RobNet's authors released large, large v2 and free alone",
                aliases=("RobNet-M",)),
    Unavailable("WsrNet_Naive_1", (in_wsr("4.4"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_3", (in_wsr("4.5"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_6", (in_wsr("4.4"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_11", (Reported("Wsr-NAS", "3"),), _NOT_NAMED),
    Unavailable("MetaQNN", (Reported("Wsr-NAS", "3"),), "named for its search time alone"),
)}


def find(spec: str) -> str | None:
    """Return the name in ``ENTRIES`` that is meant, or None.

    Upper and lower case, with or without "-" and "_", are the same; aliases are understood.
    """
    wanted = plain(spec)
    return next((entry.name for entry in ENTRIES.values() if wanted in map(plain, (entry.name, *entry.aliases))), None)


def why_unavailable(spec: str) -> str | None:
    """Return why there is no such architecture, if it is one that was never published."""
    wanted = plain(spec)
    return next((f"{missing.name} cannot be built: {missing.reason}" for missing in UNAVAILABLE.values()
                 if wanted in map(plain, (missing.name, *missing.aliases))), None)


def closest(spec: str) -> list[str]:
    """Return names that ``spec`` may be a misspelling of."""
    known = {name: name for name in ENTRIES} | {alias: name for name, entry in ENTRIES.items()
                                                for alias in entry.aliases}
    return list(dict.fromkeys(known[near] for near in closest_of(spec, list(known))))
