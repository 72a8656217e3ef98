"""Writing of a package: its files one after the other, each checked."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrain.publishing.fresh_process import check_in_fresh_process
from retrain.publishing.hub import hub_config, write_safetensors
from retrain.publishing.model_card import Card
from retrain.publishing.onnx_file import write_onnx
from retrain.publishing.package import CARD, INIT, Package, has_safetensors
from retrain.publishing.python_file import LICENCE, python_source
from retrain.publishing.robustbench import LEADERBOARDS, model_info, new_model_issue
from wsrnas.complexity import count_parameters, readable
from wsrnas.report.figures.cells import draw_genotype
from wsrnas.report.markdown_page import write_text_page
from wsrnas.report.tiles import Tile
from wsrnas.runtime.config import require

HUBCONF = '''\
"""For torch.hub: ``torch.hub.load(FOLDER, "{name}", source="local")``, or of a GitHub repository of these files."""

import {name} as _network

dependencies = ["torch"]


def {name}(pretrained: bool = True):
    """The network, with its trained weights unless ``pretrained`` is False."""
    return _network.load() if pretrained else _network.build().eval()
'''


INIT_TEXT = '''\
"""Lets this folder be imported from beside it."""

from .{name} import build, load

__all__ = ["build", "load"]
'''


def write_package(folder: Path, package: Package, opset: int = 0) -> None:
    """Write all files; model card and page, which hold the others' hashes, come last.

    Args:
        folder: An empty folder.
        package: The network to export and all about it.
        opset: The operator set of the ONNX file; 0 writes none.

    Raises:
        InputError: An exported file does not give the network's logits.
    """
    name, weights = package.name, folder / f"{package.name}.pt"
    tensors = write_weights(weights, package)
    if has_safetensors():
        write_safetensors(folder, tensors, package)
    info = model_info(package.publication, package.measured, package.dataset, package.architecture)
    if package.training.config.get("init_weights", True):
        info["additional_data"] = None  # what those weights, or a training without a record, have seen is not known
    (folder / f"{name}.py").write_text(python_source(package, info["eps"], sha256(weights)), "utf-8")
    check_in_fresh_process(folder / f"{name}.py", package.model, package.image_shape)
    (folder / f"{name}.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "config.json").write_text(json.dumps(hub_config(package), indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "hubconf.py").write_text(HUBCONF.format(name=name), "utf-8")
    (folder / INIT).write_text(INIT_TEXT.format(name=name), "utf-8")
    if package.dataset in LEADERBOARDS:
        (folder / "NEW_MODEL_ISSUE.md").write_text(new_model_issue(name, info, package.preprocessing), "utf-8")
    shutil.copyfile(LICENCE, folder / "LICENSE")
    if not isinstance(package.searched, str):
        draw_genotype(package.searched, folder / "cells", package.cell)
    onnx = write_onnx_file(folder / f"{name}.onnx", package, opset) if opset else ""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    card = Card(package, info, hashes, onnx).text()
    (folder / CARD).write_text(card, "utf-8")
    write_text_page(folder, name, "exported network", card, tiles(package, info))


def tiles(package: Package, info: dict[str, Any]) -> list[Tile]:
    """Return the key numbers of a package for its page."""
    found = [Tile("parameters", readable(count_parameters(package.model)), package.architecture)]
    measured = (("clean accuracy", info["clean_acc"], "test images without noise"),
                ("AutoAttack", info["autoattack_acc"], f"accuracy at {info['eps']}"),
                ("lowest accuracy", info["reported"], f"under any attack measured at {info['eps']}"))
    return found + [Tile(what, f"{value} %" if value else "not measured", remark) for what, value, remark in measured]


def write_weights(path: Path, package: Package) -> dict[str, Tensor]:
    """Write and return the weights as RobustBench reads them; for ImageNet, without the normalisation, which it adds.

    Raises:
        InputError: RobustBench would change the name of a weight.
    """
    weights = {key: value.detach().clone() for key, value in package.model.state_dict().items()
               if not key.startswith("normalize.")}
    for key in weights:
        require("model." not in key and "module." not in key,
                f"the weights' name {key} contains 'model.' or 'module.'; expected another, because RobustBench cuts "
                "these off")
    config = {key: value for key, value in package.description.items() if key != "genotype"}
    config |= {"preprocessing": package.preprocessing, "training": package.training.config}
    buffer = io.BytesIO()  # through memory: torch.save to a full disk raises a RuntimeError that hides the reason
    cells = {} if isinstance(package.searched, str) else {"genotype": json.loads(package.searched.to_json())}
    torch.save({"state_dict": weights, **cells, "config": config}, buffer)
    path.write_bytes(buffer.getvalue())
    return weights


def write_onnx_file(path: Path, package: Package, opset: int) -> str:
    """Write the ONNX file, and return what the model card says about it."""
    absolute, relative = write_onnx(package.model, package.image_shape, path, opset)
    print(f"ONNX opset {opset}: logits differ from PyTorch's by at most {absolute:.1e} ({relative:.1e} of the largest)")
    return (f"`{path.name}` (opset {opset}) takes the input `images`, float32 in [0,1], any number of them, and gives "
            f"`logits`. ONNX Runtime's logits differ from PyTorch's by at most {absolute:.1e}, {relative:.1e} of the "
            "largest.")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
