"""Define the configuration fields that choose a data set; choices and help come from the table of data sets."""

from dataclasses import dataclass

from wsrnas.data.datasets import DATASETS, in_memory
from wsrnas.runtime.config import RunConfig, option


def download_help() -> str:
    """Return the help text of ``--download``."""
    names = [name for name, source in DATASETS.items() if source.downloads]
    return f"fetch the data set into --data when it is missing ({', '.join(names)})"


@dataclass(frozen=True)
class SmallImagesConfig(RunConfig):
    """Hold the fields of programs on data sets that fit into memory."""

    dataset: str = option("cifar10", "data set", choices=in_memory, group="data")
    download: bool = option(False, download_help, identity=False)
