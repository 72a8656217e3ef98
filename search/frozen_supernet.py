"""The trained supernet of an earlier run, on which a search runs without training."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from search.few_shot import FewShot
from search.measure_settings import SUPERNET
from search.spaces import SPACES
from search.supernet_settings import SupernetConfig
from wsrnas.data.image_set import DataSet
from wsrnas.data.splits import load_split
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.same_work import stored_object

SAME = ("space", "init_channels", "layers", "dataset")  # fields that both runs must share
FLAG = "--supernet"


class FrozenSupernet:
    """Read the supernet of a search's run directory, its images and its split.

    Args:
        folder: the run directory.
        flag: the program's flag for it, for messages.

    Raises:
        InputError: it is none, or has no checkpoint yet.
    """

    def __init__(self, folder: str | Path, flag: str = FLAG) -> None:
        self.folder, self.flag = Path(folder), flag
        stored = [stored_object(self.folder / name) for name in (run_files.CONFIG, run_files.INPUTS)]
        self.config, self.inputs = (value or {} for value in stored)
        require((self.folder / run_files.CHECKPOINT).exists() and (self.folder / run_files.SPLIT).exists()
                and set(SAME) <= self.config.keys(), f"{self.flag} is {self.folder}; expected the run directory of a "
                f"search with {run_files.CHECKPOINT} and {run_files.SPLIT}")
        require(self.config.get("measure", SUPERNET) == SUPERNET, f"{self.flag} is {self.folder}, which has trained "
                "every architecture by itself; expected a run with a supernet")

    @property
    def seed(self) -> int:
        """Seed that has chosen the images: that of the run, or of the supernet that it was given.

        Raises:
            InputError: an older run does not hold it, and its supernet is gone.
        """
        stored = (stored_object(self.folder / run_files.SPLIT) or {}).get("seed")
        if isinstance(stored, int):
            return stored
        source = self.config.get("supernet") or ""
        if not source:
            return int(self.config["seed"])
        require((Path(source) / run_files.CONFIG).exists(), f"{self.flag} {self.folder} has the images of the run "
                f"{source}, which is not there any more; expected it in that place")
        return FrozenSupernet(source).seed

    def require_same_network(self, config: SupernetConfig) -> None:
        """Refuse a configuration whose supernet has other weights.

        Raises:
            InputError: the sentence names the fields that differ.
        """
        differences = [f"{name}: {self.config[name]} there, {getattr(config, name)} here" for name in SAME
                       if self.config[name] != getattr(config, name)]
        require(not differences, f"{self.flag} {self.folder} is another supernet ({'; '.join(differences)}); expected "
                "the same values")

    def require_same_images(self, data: DataSet) -> None:
        """Refuse another training set than the run's.

        Raises:
            InputError: the sentence names what differs.
        """
        stored, here = self.inputs.get("data set") or {}, data.fingerprint()
        words = {"name": "data set", "classes": "classes", "images": "number of training images", "hash": "pixels"}
        differences = [words[name] for name, value in here.items() if stored.get(name) != value]
        require(not differences, f"{self.flag} {self.folder} was trained on other images ({', '.join(differences)} "
                "differ); expected the same --dataset, --data and --max_train")

    def split(self, images: int) -> tuple[Tensor, Tensor]:
        """Return the indices of D_t and D_v of the run, which cover ``images`` images."""
        return load_split(self.folder / run_files.SPLIT, images)

    @cached_property
    def state(self) -> dict[str, Any]:
        """The checkpoint.

        Raises:
            InputError: it cannot be read, or belongs to another program.
        """
        state = checkpoint.read(self.folder / run_files.CHECKPOINT)
        require("supernet" in (state.get("searcher") or {}), f"{self.folder / run_files.CHECKPOINT} holds no supernet; "
                "expected that of a search")
        return state

    def require_weights(self) -> None:
        """Refuse a damaged checkpoint before a run begins with it.

        Raises:
            InputError: as ``state``.
        """
        self.weights()

    @property
    def steps(self) -> int:
        """Completed steps of the run."""
        return int(self.state["step"])

    def weights(self) -> dict[str, Tensor]:
        """Return the state of the supernet without its A, which each search begins anew."""
        return {name: value for name, value in self.state["searcher"]["supernet"].items()
                if not name.startswith("alphas_")}

    @property
    def few_shot(self) -> FewShot | None:
        """The few-shot supernets of the run, if it has trained some.

        Raises:
            InputError: it has not trained all of them yet.
        """
        row = self.config.get("few_shot_edge", -1)
        if row < 0:
            return None
        require((self.folder / run_files.FINISHED).exists(), f"{self.flag} is {self.folder}, which has not trained all "
                "of its few-shot supernets yet; the same command goes on with them")
        found = FewShot(SPACES[self.config["space"]], row)
        found.load_state_dict(self.state["searcher"]["few_shot"])
        return found

    def fingerprint(self) -> str:
        """Return a hash of the checkpoint."""
        return hashlib.blake2b((self.folder / run_files.CHECKPOINT).read_bytes(), digest_size=16).hexdigest()
