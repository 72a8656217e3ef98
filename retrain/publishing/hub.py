"""What a model hub reads of a package: the head of its README.md, config.json, and weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retrain.publishing.package import SAFETENSORS, Package
from wsrnas.complexity import count_parameters
from wsrnas.data.datasets import source_of
from wsrnas.subjects.opening import PACKAGE

FORMAT = f"{PACKAGE} 1"
TASK = "image-classification"


def write_safetensors(folder: Path, weights: Mapping[str, Tensor], package: Package) -> None:
    """Write the weights in the format of the package safetensors, which is installed."""
    from safetensors.torch import save

    dataset = package.dataset.encode(errors="replace").decode()
    about = {"format": "pt", "name": package.name, "dataset": dataset}
    content = save({key: value.contiguous() for key, value in weights.items()}, about)
    (folder / SAFETENSORS).write_bytes(sorted_header(content))


def sorted_header(content: bytes) -> bytes:
    """Return a safetensors file whose remarks are sorted; that package writes them in another order every time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers are aligned
    return len(text).to_bytes(8, "little") + text + content[start:]


def hub_config(package: Package) -> dict[str, Any]:
    """Return ``config.json``: what the network is, which images it takes, and which file builds it."""
    described = dict(package.description)
    if "genotype" in described:
        described["genotype"] = json.loads(described["genotype"])
    return {"format": FORMAT, "name": package.name, "architecture": package.architecture,
            "parameters": count_parameters(package.model), "python_file": f"{package.name}.py",
            "input": "images in [0, 1]", "preprocessing": package.preprocessing,
            "class_names": list(package.training.class_names) or None, **described}


def front_matter(package: Package, info: Mapping[str, Any]) -> str:
    """Return the head of README.md that a hub reads; it is YAML, whose lists and texts may be written as JSON.

    Args:
        package: The network and all about it.
        info: Its description for RobustBench, with the numbers.
    """
    dataset = package.dataset
    hub = source_of(dataset).hub
    entries: dict[str, Any] = {
        "license": "mit", "library_name": "pytorch", "pipeline_tag": TASK,
        "tags": ["adversarial-robustness", "neural-architecture-search", "wsrnas"],
        **({"datasets": [hub]} if hub else {}), "metrics": ["accuracy"]}
    if results := _results(package, info):
        entries["model-index"] = [{"name": package.name, "results": [{
            "task": {"type": TASK}, "metrics": results, "dataset": {
                "type": hub or dataset, "name": dataset,
                "split": "validation" if source_of(dataset).large else "test"}}]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---"])


def _results(package: Package, info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the accuracies in percent; none where a check of the evaluation failed, because a list has no warnings."""
    if info["unreliable"]:
        return []
    measured, strength = package.measured, f"L-inf noise of {info['eps']}"
    attack = f"accuracy under AutoAttack, {strength}"
    named = [("accuracy without noise", measured.clean), (attack, measured.autoattack)]
    if measured.reported != measured.autoattack:
        named.append((f"lowest accuracy measured under {strength}", measured.reported))
    remark = {"args": {"remark": info["footnote"]}} if info["footnote"] else {}
    return [{"type": "accuracy", "name": name, "value": round(100 * value, 2), **remark}
            for name, value in named if value is not None]
