"""The supernet of a search, as its run directory holds it: configuration, data, split, weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.spaces.supernet import Supernet
from search.supernet_training import build_supernet
from search.wsr_nas_settings import SearchConfig
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet
from wsrnas.data.splits import load_split
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import restore
from wsrnas.runtime.config import from_dict, require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.same_work import stored_object
from wsrnas.runtime.seeding import seeded_weights


@dataclass(frozen=True)
class TrainedSupernet:
    """Hold what a search has left behind.

    Args:
        path: run directory.
        config: its configuration.
        data: the data set that it was trained on.
        split: indices of D_t and D_v in the training set.
        steps: completed steps.
        weights: state of the supernet after them.
    """

    path: Path
    config: SearchConfig
    data: DataSet
    split: tuple[Tensor, Tensor]
    steps: int
    weights: Mapping[str, Any]

    def build(self, trained: bool, device: torch.device) -> Supernet:
        """Return the supernet, with its trained weights or with those that it began with."""
        with seeded_weights(self.config.seed):
            supernet = build_supernet(self.config, self.data.num_classes)
        if trained:
            try:
                supernet.load_state_dict(self.weights)
            except RuntimeError as error:
                raise InputError(f"the checkpoint of {self.path} belongs to another configuration: "
                                 f"{str(error).strip().splitlines()[0]}") from None
        return supernet.to(device).to(memory_format=torch.channels_last)

    def fingerprint(self) -> str:
        """Return a checksum of the weights."""
        digest = hashlib.blake2b(digest_size=8)
        for name, values in self.weights.items():
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
    stored = stored_object(path / run_files.CONFIG) or {}
    require({"space", "strengths"} <= stored.keys(),
            f"{path} is not a run directory of search.wsr_nas; expected one with a supernet (--run)")
    config = from_dict(SearchConfig, stored, str(path / run_files.CONFIG))
    state, _ = restore(path / run_files.CHECKPOINT, print)
    if state is None:
        raise InputError(f"{path} has no checkpoint yet; expected a search with at least one completed step")
    data = load_dataset(config.dataset, folder or config.data, max_train=config.max_train, seed=config.seed)
    known = (stored_object(path / run_files.INPUTS) or {}).get("data set")
    require(known in (None, data.fingerprint()), f"the data set in {folder or config.data} is not the one that {path} "
            "was trained on; expected the same images (--data)")
    split = load_split(path / run_files.SPLIT, len(data.train))
    return TrainedSupernet(path, config, data, split, state["step"], state["searcher"]["supernet"])
