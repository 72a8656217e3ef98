"""Where an evaluation's results and chunks are stored: different results get different file names."""

import hashlib
from pathlib import Path
from typing import Any

from retrain.evaluate_settings import EvaluateConfig
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.folders import make
from wsrnas.runtime.reading import read_json
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.naming import file_name, place_hash


def result_folder(config: EvaluateConfig, network: ModelSource, name: str) -> Path:
    """Return what ``--out`` says, else the run directory of the network, or a folder of its own."""
    own = f"{file_name(name)}-{place_hash(network)}"
    if config.out:
        return Path(config.out) if len(config.model) == 1 else Path(config.out) / own
    return network.folder or Path(config.runs) / "evaluate" / own


def comparison_folder(config: EvaluateConfig, names: list[str]) -> Path:
    """Return the folder of the page of several networks."""
    return Path(config.out) if config.out else Path(config.runs) / "evaluate" / file_name("-".join(names))


def store(path: Path, result: dict[str, Any]) -> None:
    """Write a result file, and its folder if there is none."""
    make(path.parent)
    write_json(path, result)


def result_file(folder: Path, label: str, image_set: str) -> Path:
    """Return the file of a result; where other images of a data set of this name have it, one with a hash of these.

    Args:
        folder: folder of results.
        label: what the name says of attacks, data set and network.
        image_set: fingerprint of the images.
    """
    path = folder / f"{label}.json"
    try:
        is_other = read_json(path)["image_set"] != image_set
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        is_other = False
    return path.with_name(f"{label}-{image_set[:6]}.json") if is_other else path


def is_complete(path: Path, network: ModelSource) -> bool:
    """Return whether a complete result of this very network is stored at ``path``."""
    try:
        result = read_json(path)
        return result["complete"] is True and result["model"]["fingerprint"] == network.fingerprint
    except (OSError, ValueError, TypeError, KeyError):
        return False


def images_label(config: EvaluateConfig, dataset: str) -> str:
    """Return the part of a file name that names the data set and the evaluated images."""
    return "-".join([dataset] + [f"{config.max_test}images"] * bool(config.max_test)
                    + [f"seed{config.seed}"] * bool(config.seed))


def file_label(config: EvaluateConfig, protocol: str, attacks: tuple[Attack, ...], dataset: str) -> str:
    """Return the part of a result's file name that differs where the results do, whatever the network is."""
    if protocol == "custom":
        kinds = "-".join(dict.fromkeys(attack.label.lower().replace(" ", "_").replace("&", "") for attack in attacks))
        strengths = "_".join(dict.fromkeys(f"{attack.epsilon:.4g}" for attack in attacks if attack.epsilon))
        keys = " ".join(attack.key for attack in attacks)
        protocol = f"{kinds[:60]}-{strengths[:60]}-{hashlib.blake2b(keys.encode(), digest_size=3).hexdigest()}"
    if curve := config.curve:
        anchors = "_".join(f"{attack.epsilon:.4g}" for attack in attacks)
        protocol = "-".join([curve.key.replace("_", "-"), *([f"anchors-{anchors}"] if anchors else [])])
    return f"{protocol}-{images_label(config, dataset)}"
