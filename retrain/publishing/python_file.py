"""The Python file of a package: it builds and loads the network with PyTorch alone."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrain.publishing.package import Package
from retrain.publishing.standalone import LINE, standalone_source
from wsrnas.architectures.searched import Searched, space_of
from wsrnas.data.datasets import source_of

LICENCE = Path(__file__).parents[2] / "LICENSE"

BUILD_SMALL = '''
WEIGHTS = Path(__file__).with_name("{name}.pt")
SHA256 = "{digest}"  # of that file


def build() -> nn.Module:
    """The network with random weights: images (B, {channels}, {height}, {width}) in [0,1] -> logits (B, {classes})."""
    return {network}


def load(weights: str | Path | dict = WEIGHTS) -> nn.Module:
    """The trained network on the CPU, in evaluation mode; ``weights``: a path, or a dictionary of tensors."""
    if not isinstance(weights, dict):
        weights = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network = build()
    network.load_state_dict(weights)
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


def load(weights: str | Path | dict = WEIGHTS) -> nn.Module:
    """The trained network: images (B, {channels}, {height}, {width}) in [0,1] -> logits (B, {classes}).

    It normalises the images itself, is on the CPU, and in evaluation mode. ``weights`` is a path, or a dictionary of
    tensors.
    """
    if not isinstance(weights, dict):
        weights = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network = build()
    network.load_state_dict(weights)
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


def python_source(package: Package, eps: str, digest: str) -> str:
    """Return the source of the self-contained Python file.

    Args:
        package: The network to export and all about it.
        eps: The strength of the threat model, as RobustBench spells it.
        digest: The SHA-256 of the weights' file.
    """
    stored = package.description
    large = source_of(stored["dataset"]).large
    channels, height, width = package.image_shape
    call = constructor(package.searched, {**stored, "channels": channels}, large)
    ending = ((BUILD_LARGE if large else BUILD_SMALL) + MAIN).format(
        name=package.name, digest=digest, classes=stored["num_classes"], channels=channels, height=height, width=width,
        network=call)
    return standalone_source(header(package, eps), package.searched, call.partition("(")[0], ending)


def constructor(architecture: Searched | str, sizes: Mapping[str, Any], large: bool) -> str:
    """Return the expression that builds a network of these sizes."""
    if isinstance(architecture, str):
        return (f"{architecture}({sizes['num_classes']}, {sizes['init_channels']}, channels={sizes['channels']}, "
                f"imagenet={large})")
    space = space_of(architecture)
    assert space is not None
    return space.call(sizes, large)


def header(package: Package, eps: str) -> str:
    """Return the docstring of the Python file."""
    stored, paper = package.description, package.publication
    shape = ", ".join(map(str, package.image_shape))
    loss = package.training.config.get("adv_loss")
    known = [part for part in (paper.authors, paper.title, paper.venue, paper.link) if part]
    holder = next(line for line in LICENCE.read_text(encoding="utf-8").splitlines() if line.startswith("Copyright"))
    about = textwrap.fill(f"A network trained on {package.images}. It needs this file and the weights beside it, and "
                          "nothing else of wsrnas.", LINE)
    method = textwrap.fill(f"Method: {'. '.join(known) or 'unpublished'}.", LINE, break_on_hyphens=False)
    return f"""\
{package.name}

{about}

    from {package.name} import load
    network = load()  # images (B, {shape}) in [0,1] -> logits (B, {stored["num_classes"]})

Run as a program, it prints the number of parameters and whether the weights are the published ones.

Architecture: {package.architecture}{f", trained with the loss {loss}" if loss else ""}.
Threat model: L-infinity noise of at most {eps} in pixels of [0,1]. Its robustness: see README.md.
{method}

Needs Python 3.10 and PyTorch 2.4, or newer, and nothing else. Written by wsrnas.

SPDX-License-Identifier: MIT
{holder}"""
