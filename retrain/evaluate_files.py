"""Where an evaluation's results and chunks are stored: different results get different file names."""

import hashlib
from pathlib import Path
from typing import Any

from retrain.evaluate_settings import EvaluateConfig
from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.check_levels import FULL, QUICK, was_checked
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.folders import make
from wsrnas.runtime.reading import read_json
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.naming import file_name, place_hash, weights_label

CHECKED = ("check_level", "checks", "failed_checks")


def result_folder(config: EvaluateConfig, network: ModelSource, name: str) -> Path:
    """Return what ``--out`` says, else the run directory of the network, or a folder of its own."""
    own = f"{file_name(name)}-{place_hash(network)}"
    if config.out:
        return Path(config.out) if len(config.model) == 1 else Path(config.out) / own
    return network.folder or Path(config.runs) / "evaluate" / own


def comparison_folder(config: EvaluateConfig, names: list[str]) -> Path:
    """Return the folder of the page of several networks."""
    return Path(config.out) if config.out else Path(config.runs) / "evaluate" / file_name("-".join(names))


def subject_label(config: EvaluateConfig, network: ModelSource) -> str:
    """Return the part of a file name that names the network: a folder of ``--out`` may get several runs' results."""
    shared = config.out and len(config.model) == 1 and network.folder
    return f"{weights_label(network)}-{place_hash(network)}" if shared else weights_label(network)


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


def checks_kept(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the honesty checks that a stored one of the same numbers had more of."""
    try:
        stored = read_json(path)
        same = all(stored[name] == result[name] for name in ("protocol", "seed", "image_set", "clean")) and (
            stored["complete"] is True and stored["model"]["fingerprint"] == result["model"]["fingerprint"]
            and [row["robust"] for row in stored["attacks"]] == [row["robust"] for row in result["attacks"]])
        more = any(was_checked(stored, level) and not was_checked(result, level) for level in (QUICK, FULL))
        return {**result, **{name: stored[name] for name in CHECKED}} if same and more else result
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        return result


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
        anchors = "_".join(f"{attack.epsilon:.4g}" for attack in attacks)[:60]
        keys = hashlib.blake2b(" ".join(attack.key for attack in attacks).encode(), digest_size=3).hexdigest()
        protocol = "-".join([curve.key.replace("_", "-"), *([f"anchors-{anchors}-{keys}"] if anchors else [])])
    return f"{protocol}-{images_label(config, dataset)}"
