"""Where an evaluation's results and chunks are stored: names that differ where the results do."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from retrain.evaluate_settings import EvaluateConfig
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.runtime.checkpoint import write_json
from wsrnas.subjects.model_source import ModelSource


def result_folder(config: EvaluateConfig, network: ModelSource, name: str) -> Path:
    """What ``--out`` says, else the run directory that the network belongs to, or a folder of its own."""
    own = f"{file_name(name)}-{place_hash(network)}"
    if config.out:
        return Path(config.out) if len(config.model) == 1 else Path(config.out) / own
    return network.folder or Path(config.runs) / "evaluate" / own


def comparison_folder(config: EvaluateConfig, names: list[str]) -> Path:
    """Where the page of several networks goes."""
    return Path(config.out) if config.out else Path(config.runs) / "evaluate" / file_name("-".join(names))


def file_name(name: str) -> str:
    """A network's name with nothing that a file's may not have."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:100]


def place_hash(network: ModelSource) -> str:
    """Six letters that differ for networks of the same name from different files or functions."""
    return hashlib.blake2b(os.path.abspath(network.source).encode(), digest_size=3).hexdigest()


def weights_label(network: ModelSource) -> str:
    """best or checkpoint in a run directory, else the network's name and where it is from."""
    return Path(network.source).stem if network.folder else f"{file_name(network.name)}-{place_hash(network)}"


def store(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)


def is_complete(path: Path, network: ModelSource) -> bool:
    """Whether a whole result of this very network is stored there."""
    try:
        result = json.loads(path.read_text())
        return result["complete"] is True and result["model"]["fingerprint"] == network.fingerprint
    except (OSError, ValueError, TypeError, KeyError):
        return False


def images_label(config: EvaluateConfig, dataset: str) -> str:
    """Which images of which data set."""
    return "-".join([dataset] + [f"{config.max_test}images"] * bool(config.max_test)
                    + [f"seed{config.seed}"] * bool(config.seed))


def file_label(config: EvaluateConfig, protocol: str, attacks: tuple[Attack, ...], dataset: str) -> str:
    """A file name that differs where the results do."""
    if protocol == "custom":
        kinds = "-".join(dict.fromkeys(attack.label.lower().replace(" ", "_").replace("&", "") for attack in attacks))
        strengths = "_".join(dict.fromkeys(f"{attack.epsilon:.4g}" for attack in attacks if attack.epsilon))
        keys = " ".join(attack.key for attack in attacks)
        protocol = f"{kinds[:60]}-{strengths[:60]}-{hashlib.blake2b(keys.encode(), digest_size=3).hexdigest()}"
    return f"{protocol}-{images_label(config, dataset)}"
