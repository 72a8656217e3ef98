"""The files of an exported package, and the check of what was written."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrain.publishing.model_card import Card
from retrain.publishing.onnx_file import write_onnx
from retrain.publishing.robustbench import LEADERBOARDS, Numbers, Publication, model_info, new_model_issue
from retrain.publishing.standalone import LINE, standalone_source
from retrain.publishing.training_record import Training
from wsrnas.complexity import count_parameters, multiply_adds
from wsrnas.genotype import Genotype
from wsrnas.report.plotting import draw_genotype
from wsrnas.runtime.config import require
from wsrnas.runtime.seeding import generator

LOGITS_TOLERANCE = 1e-6
CHECK_IMAGES = 4
LICENCE = Path(__file__).parents[2] / "LICENSE"


@dataclass(frozen=True)
class Package:
    """What is exported, and what is known of it.

    Args:
        name: of the Python file, the weights and the description.
        model: images in [0, 1] -> logits; on the CPU, in evaluation mode.
        description: of the architecture (``models.description``).
        cell: what the cell is called.
        preprocessing: of pictures of other sizes than the network's; None for data sets of one size.
        evaluations: stored ones of these weights; ``measured`` is what leaderboards take from them.
    """

    name: str
    model: nn.Module
    description: dict[str, Any]
    cell: str
    preprocessing: str | None
    training: Training
    publication: Publication
    evaluations: list[dict[str, Any]]
    measured: Numbers

    @property
    def genotype(self) -> Genotype:
        return Genotype.from_json(self.description["genotype"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self.description["image_shape"])

    @property
    def architecture(self) -> str:
        """One line for leaderboards: ``WsrNet_Basic (C = 45, 20 cells)``."""
        return f"{self.cell} (C = {self.description['init_channels']}, {self.description['layers']} cells)"


def file_names(package: Package, onnx: bool) -> list[str]:
    """What a package consists of."""
    own = [f"{package.name}{suffix}" for suffix in (".py", ".pt", ".json", *[".onnx"] * onnx)]
    issue = ["NEW_MODEL_ISSUE.md"] * (package.description["dataset"] in LEADERBOARDS)
    return [*own, "MODEL_CARD.md", *issue, "LICENSE", "hubconf.py", "cells.svg", "cells.png"]


def write_package(folder: Path, package: Package, opset: int = 0) -> None:
    """Write all files into ``folder``; the card, which holds the others' hashes, comes last.

    Args:
        opset: of the ONNX file; 0 writes none.

    Raises:
        InputError: an exported file does not give the network's logits.
    """
    name, weights = package.name, folder / f"{package.name}.pt"
    write_weights(weights, package)
    info = model_info(package.publication, package.measured, package.description["dataset"], package.architecture)
    (folder / f"{name}.py").write_text(python_source(package, info["eps"], sha256(weights)), "utf-8")
    check_in_fresh_process(folder / f"{name}.py", package.model, package.image_shape)
    (folder / f"{name}.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "hubconf.py").write_text(HUBCONF.format(name=name), "utf-8")
    if package.description["dataset"] in LEADERBOARDS:
        (folder / "NEW_MODEL_ISSUE.md").write_text(new_model_issue(name, info, package.preprocessing), "utf-8")
    shutil.copyfile(LICENCE, folder / "LICENSE")
    draw_genotype(package.genotype, folder / "cells", package.cell)
    onnx = write_onnx_file(folder / f"{name}.onnx", package, opset) if opset else ""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    card = Card(name, package.cell, package.genotype, package.description, count_parameters(package.model),
                multiply_adds(package.model, package.image_shape), package.preprocessing, package.training,
                package.publication, package.evaluations, info, package.measured.missing, hashes, onnx)
    (folder / "MODEL_CARD.md").write_text(card.text(), "utf-8")


def write_weights(path: Path, package: Package) -> None:
    """The weights as RobustBench reads them; of ImageNet, without the normalisation, which it adds itself."""
    weights = {key: value.detach().clone() for key, value in package.model.state_dict().items()
               if not key.startswith("normalize.")}
    for key in weights:
        require("model." not in key and "module." not in key,
                f"the weights' name {key} contains 'model.' or 'module.'; expected another, because RobustBench cuts "
                "these off")
    config = {key: value for key, value in package.description.items() if key != "genotype"}
    config |= {"preprocessing": package.preprocessing, "training": package.training.config}
    buffer = io.BytesIO()  # through memory: torch.save to a full disk raises a RuntimeError that hides the reason
    torch.save({"state_dict": weights, "genotype": json.loads(package.description["genotype"]), "config": config},
               buffer)
    path.write_bytes(buffer.getbuffer())


def python_source(package: Package, eps: str, digest: str) -> str:
    """The self-contained Python file.

    Args:
        eps: strength of the threat model, as RobustBench spells it.
        digest: sha256 of the weights' file.
    """
    stored = package.description
    large = stored["dataset"] == "imagenet"
    channels, height, width = package.image_shape
    kind = "NetworkImageNet" if large else "NetworkCIFAR"
    call = (f"{kind}(GENOTYPE, init_channels={stored['init_channels']}, layers={stored['layers']}, "
            f"num_classes={stored['num_classes']}, channels={channels})")
    ending = ((BUILD_LARGE if large else BUILD_SMALL) + MAIN).format(
        name=package.name, digest=digest, classes=stored["num_classes"], channels=channels, height=height, width=width,
        network=call)
    return standalone_source(header(package, eps), package.genotype, kind, ending)


def header(package: Package, eps: str) -> str:
    """The docstring of the Python file."""
    stored, paper = package.description, package.publication
    shape = ", ".join(map(str, package.image_shape))
    loss = package.training.config.get("adv_loss")
    known = [part for part in (paper.authors, paper.title, paper.venue, paper.link) if part]
    holder = next(line for line in LICENCE.read_text(encoding="utf-8").splitlines() if line.startswith("Copyright"))
    method = textwrap.fill(f"Method: {'. '.join(known) or 'unpublished'}.", LINE, break_on_hyphens=False)
    return f"""\
{package.name}

A network trained on {stored["dataset"]}: with the weights beside this file, this file is all of it.

    from {package.name} import load
    network = load()  # images (B, {shape}) in [0,1] -> logits (B, {stored["num_classes"]})

Run as a program, it prints the number of parameters and whether the weights are the published ones.

Architecture: {package.architecture}{f", trained with the loss {loss}" if loss else ""}.
Threat model: L-infinity noise of at most {eps} in pixels of [0,1]. How robust it is: MODEL_CARD.md.
{method}

Needs Python 3.10 and PyTorch 2.4, or newer, and nothing else. Written by wsrnas.

SPDX-License-Identifier: MIT
{holder}"""


def write_onnx_file(path: Path, package: Package, opset: int) -> str:
    """Write the ONNX file; what the card says of it."""
    absolute, relative = write_onnx(package.model, package.image_shape, path, opset)
    print(f"ONNX opset {opset}: logits differ from PyTorch's by at most {absolute:.1e} ({relative:.1e} of the largest)")
    return (f"`{path.name}` (opset {opset}) takes the input `images`, float32 in [0,1], any number of them, and gives "
            f"`logits`. ONNX Runtime's logits differ from PyTorch's by at most {absolute:.1e}, {relative:.1e} of the "
            "largest.")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


BUILD_SMALL = '''
WEIGHTS = Path(__file__).with_name("{name}.pt")
SHA256 = "{digest}"  # of that file


def build() -> nn.Module:
    """The network with random weights: images (B, {channels}, {height}, {width}) in [0,1] -> logits (B, {classes})."""
    return {network}


def load(path: str | Path = WEIGHTS) -> nn.Module:
    """The trained network on the CPU, in evaluation mode."""
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    return network.eval()
'''

BUILD_LARGE = '''
WEIGHTS = Path(__file__).with_name("{name}.pt")
SHA256 = "{digest}"  # of that file
MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


def build() -> nn.Module:
    """The network with random weights, behind the normalisation: it takes (images - MEAN) / STD."""
    network = {network}
    network.normalize = nn.Identity()
    return network


def load(path: str | Path = WEIGHTS) -> nn.Module:
    """The trained network: images (B, {channels}, {height}, {width}) in [0,1] -> logits (B, {classes}).

    It normalises the images itself, is on the CPU, and in evaluation mode.
    """
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    network.normalize = Normalize(MEAN, STD)
    return network.eval()
'''

MAIN = '''

if __name__ == "__main__":
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    print(f"{{sum(parameter.numel() for parameter in load().parameters())}} parameters")
    print(f"sha256 of {{WEIGHTS.name}}: {{digest}}, " + ("as published" if digest == SHA256 else f"NOT {{SHA256}}"))
    raise SystemExit(digest != SHA256)
'''

HUBCONF = '''\
"""For torch.hub: ``torch.hub.load(FOLDER, "{name}", source="local")``, or of a GitHub repository of these files."""

import {name} as _network

dependencies = ["torch"]


def {name}(pretrained: bool = True):
    """The network, with its trained weights unless ``pretrained`` is False."""
    return _network.load() if pretrained else _network.build().eval()
'''


# ---- the check -----------------------------------------------------------------------------------------------------

IN_FRESH_PROCESS = """
import sys
file, images, logits, threads, *folders = sys.argv[1:]
sys.path += folders
sys.modules["wsrnas"] = sys.modules["genotypes"] = None  # importing either fails
import importlib.util
import torch
torch.set_num_threads(int(threads))
spec = importlib.util.spec_from_file_location("exported", file)
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
with torch.no_grad():
    torch.save(exported.load()(torch.load(images, weights_only=True)), logits)
"""


@torch.no_grad()
def check_in_fresh_process(file: Path, model: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Load the exported file in a new Python process that cannot import this project, and compare logits.

    Raises:
        InputError: it fails there, or gives other logits.
    """
    images = torch.rand(CHECK_IMAGES, *image_shape, generator=generator(0, "export"))
    folders = [folder for folder in sys.path if folder and not (Path(folder) / "wsrnas").is_dir()]
    with tempfile.TemporaryDirectory() as elsewhere:
        paths = [str(Path(elsewhere, name)) for name in ("images.pt", "logits.pt")]
        torch.save(images, paths[0])
        done = subprocess.run([sys.executable, "-I", "-B", "-c", IN_FRESH_PROCESS, str(file), *paths,
                               str(torch.get_num_threads()), *folders], cwd=elsewhere, capture_output=True, text=True)
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        require(done.returncode == 0, f"{file.name} does not load in a fresh Python process ({said}); expected the "
                                      "network's logits; nothing was written")
        logits = torch.load(paths[1], weights_only=True)
    require_same(logits, model(images), file.name)


def require_same(logits: Tensor, expected: Tensor, name: str) -> None:
    """Refuse logits that are not the network's."""
    same = logits.shape == expected.shape and torch.allclose(logits, expected, rtol=0, atol=LOGITS_TOLERANCE)
    require(same, f"{name} gives other logits than the network in a fresh Python process; expected a difference of at "
                  f"most {LOGITS_TOLERANCE:g}; nothing was written")
