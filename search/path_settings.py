"""The fields of the Wsr-NAS search that say how its supernet is trained: by which paths, and whether at all."""

from dataclasses import dataclass
from typing import Literal

from search.training_paths import PATHS
from wsrnas.runtime.config import option


@dataclass(frozen=True)
class PathConfig:
    """The fields about the training of the supernet."""

    paths: str = option("", "what a training path is; empty: edges in the strategy wsr-paper, cell in wsr",
                        choices=PATHS, added=True, group="supernet's training paths")
    path_every: Literal["epoch", "step"] = option(
        "epoch", "epoch: an epoch trains one path, in an iteration the one that is measured (paper); step: every "
        "training step has a path of its own, fair over operations", added=True)
    paths_per_iteration: int = option(1, "architectures that are proposed and measured after each epoch; more than "
                                      "one need --path_every step, --supernet or --measure short", added=True)
    anchors: int = option(0, "number of the first measured architectures that are measured again in every step, to "
                          "correct what was measured before for the progress of the supernet; 0: no correction",
                          added=True)
    train_only: bool = option(False, "train the supernet in the warm-up alone, its learning rate half a cosine, and "
                              "stop there; other runs search on it by --supernet", added=True)
    few_shot_edge: int = option(-1, "row of A (from 0), an edge: with --train_only and --supernet, train one supernet "
                                "for every operation there, each from the weights of that run for "
                                "--warmup_architectures epochs; -1: one for all", added=True)
    supernet: str = option("", "run directory of a search whose supernet is taken as it is: with its images and its "
                           "split, without any training; empty: train one", added=True)
