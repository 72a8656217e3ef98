"""The fields of the Wsr-NAS search that say which paths train the supernet."""

from dataclasses import dataclass
from typing import Literal

from search.training_paths import PATHS
from wsrnas.runtime.config import option


@dataclass(frozen=True)
class PathConfig:
    """The fields about training paths."""

    paths: str = option("", "what a training path is; empty: edges in the strategy wsr-paper, cell in wsr",
                        choices=PATHS, added=True)
    path_every: Literal["epoch", "step"] = option(
        "epoch", "epoch: an epoch trains one path, in an iteration the one that is measured (paper); step: every "
        "training step has a path of its own, fair over operations", added=True)
