"""The configuration fields of programs on trained networks: which networks, on which data, where."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wsrnas.data.settings import download_help
from wsrnas.runtime.config import option, require


def unread_weights(networks: Sequence[str]) -> dict[str, str]:
    """Return why nothing reads ``--weights`` where all networks are files; only run directories have two weights."""
    are_files = all(os.path.isfile(given) or os.path.isfile(given.rpartition(":")[0]) for given in networks)
    return {"weights": f"{', '.join(networks)} is no run directory; expected one"} if are_files else {}


@dataclass(frozen=True)
class NetworksConfig:
    """Hold the fields that choose trained networks and the test images for them."""

    model: tuple[str, ...] = option((), "networks: run directories or checkpoints of a retraining, or FILE.py:FUNCTION "
                                    "without arguments", group="networks")
    weights: Literal["best", "last"] = option("best", "which checkpoint of a run directory")
    names: tuple[str, ...] = option((), "names of the networks in tables and figures; empty: their run directories")
    data: str = option("data", "folder of the data set", identity=False, group="data")
    download: bool = option(False, download_help, identity=False)
    max_test: int = option(0, "test images used, a class-balanced seeded choice; 0: all")
    seed: int = option(0, "seed of the choice of images and of random starts", group="run and machine")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU if there is one, else the CPU", identity=False)
    runs: str = option("runs", "folder of all run directories", identity=False)

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        return unread_weights(self.model)

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed is {self.seed}; expected at least 0")
        require(not self.names or len(self.names) == len(self.model),
                f"{len(self.names)} names for {len(self.model)} networks; expected one each")
