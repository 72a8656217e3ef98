"""The supernet of a search, as its run directory holds it: configuration, data, split, weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from search.few_shot import FewShot
from search.frozen_supernet import FrozenSupernet
from search.spaces.supernet import Supernet
from search.supernet_training import build_supernet
from search.wsr_nas_settings import SearchConfig
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet
from wsrnas.runtime import run_files
from wsrnas.runtime.config import from_dict, require
from wsrnas.runtime.seeding import seeded_weights

FLAG = "--run"


@dataclass(frozen=True)
class TrainedSupernet:
    """Hold what a search has left behind.

    Args:
        path: run directory.
        config: its configuration.
        seed: seed of the run that has trained the supernet: of its images and of its first weights.
        data: the data set that it was trained on.
        split: indices of D_t and D_v in the training set.
        steps: completed steps.
        age: the same in words; of a search on a frozen supernet, which one that is.
        weights: state of the supernet after them, without A.
        few_shot: the few-shot supernets, if the run has trained some.
    """

    path: Path
    config: SearchConfig
    seed: int
    data: DataSet
    split: tuple[Tensor, Tensor]
    steps: int
    age: str
    weights: Mapping[str, Tensor]
    few_shot: FewShot | None = None

    def build(self, trained: bool, device: torch.device) -> Supernet:
        """Return the supernet, with its trained weights or with those that it began with."""
        with seeded_weights(self.seed):
            supernet = build_supernet(self.config, self.data.num_classes, self.data.image_shape[0])
        if trained:
            supernet.load_state_dict({**supernet.state_dict(), **self.weights})
        return supernet.to(device).to(memory_format=torch.channels_last)

    def fingerprint(self) -> str:
        """Return a checksum of the weights."""
        digest = hashlib.blake2b(digest_size=8)
        members = self.few_shot.members.values() if self.few_shot else ()
        for name, values in chain(self.weights.items(), *(weights.items() for weights in members)):
            digest.update(name.encode())
            digest.update(values.contiguous().numpy().tobytes())
        return digest.hexdigest()


def open_trained(path: Path, folder: str) -> TrainedSupernet:
    """Read the newest state of a search.

    Args:
        path: its run directory.
        folder: folder of the data set; empty: the one that the search used.

    Raises:
        InputError: it is no run of ``search.wsr_nas``, has no checkpoint yet, or its data set is another one.
    """
    run = FrozenSupernet(path, FLAG)
    require("strengths" in run.config, f"{FLAG} is {path}, which search.rnas has written; expected the run directory "
            "of search.wsr_nas")
    config = from_dict(SearchConfig, run.config, str(path / run_files.CONFIG))
    data = load_dataset(config.dataset, folder or config.data, max_train=config.max_train, seed=run.seed)
    run.require_same_images(data)
    age = f"after {run.steps} steps" + f" of a search on {config.supernet}" * (not config.trains_supernet)
    return TrainedSupernet(path, config, run.seed, data, run.split(len(data.train)), run.steps, age, run.weights(),
                           run.few_shot)
