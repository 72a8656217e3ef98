"""Networks stored as programs, TorchScript and torch.export: recognised by their contents, and loaded."""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.runtime.errors import InputError, named_line
from wsrnas.subjects.archives import entry_names, verified_script
from wsrnas.subjects.verified_export import verified_export


def kind_of_file(path: Path) -> str:
    """Return the kind of a file by its contents: ``"TorchScript"``, ``"torch.export"``, else ``"checkpoint"``.

    Raises:
        InputError: The file is a compiled package.
    """
    names = entry_names(path)
    if any(name.endswith("constants.pkl") for name in names):
        return "TorchScript"
    if any(re.search(r"(^|/)models/[^/]+\.json$|^serialized_exported_program\.json$", name) for name in names):
        return "torch.export"
    if any("aotinductor" in name for name in names):
        raise InputError(f"{path} is a compiled package of AOTInductor, which has no gradient to attack with; expected "
                         "the program that was compiled, as torch.export.save writes it")
    return "checkpoint"


def load_script(path: Path, data: bytes) -> nn.Module:
    """Return the network of a TorchScript file, on the CPU.

    Args:
        path: The file, for messages.
        data: Its contents.

    Raises:
        InputError: torch cannot load it, or it reads or writes files.
    """
    verified = verified_script(data, f"the TorchScript file {path}")
    know_operations(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript, yet the files are there
            return torch.jit.load(verified, map_location="cpu")
    except Exception as error:  # torch raises half a dozen types
        raise InputError(f"the TorchScript file {path} cannot be loaded ({named_line(error)})") from None


def load_exported(path: Path, data: bytes) -> nn.Module:
    """Return the network of a torch.export file.

    Args:
        path: The file, for messages.
        data: Its contents.

    Raises:
        InputError: torch cannot load it, it would execute something else than torch's operations, or it takes other
            inputs than images alone.
    """
    know_operations(data)
    verified = verified_export(data, f"the torch.export file {path}")
    try:
        program = torch.export.load(verified)
        inputs = program.graph_signature.user_inputs
        if len(inputs) == 1:
            rows = next(node.meta["val"] for node in program.graph.nodes if node.name == inputs[0]).shape[0]
            return ExportedNetwork(program.module(), *_batch_bounds(rows, program.range_constraints))
    except Exception as error:  # another version's format, a missing custom operation, a bare number as input
        raise InputError(f"the torch.export file {path} cannot be loaded ({named_line(error)})") from None
    raise InputError(f"the torch.export file {path} takes {len(inputs)} inputs; expected images alone")


def know_operations(data: bytes) -> None:
    """Import torchvision, which brings operations of its own, for a program that may call them."""
    if b"torchvision" in data:
        import torchvision  # noqa: F401


def _batch_bounds(rows: int | torch.SymInt, constraints: dict) -> tuple[int, int | None]:
    """Return the fewest and the most images (None: any number) that a program takes at once."""
    if isinstance(rows, int):
        return rows, rows
    bounds = constraints.get(rows.node.expr)
    if bounds is None:  # an expression, such as twice another number; the program refuses what does not fit
        return 0, None
    return int(bounds.lower), int(bounds.upper) if bounds.upper < sys.maxsize else None


class ExportedNetwork(nn.Module):
    """A program of torch.export that takes any number of images, in portions of a size that it accepts.

    The last portion is filled up with zeros. In evaluation mode an image's logits do not depend on its batch, so this
    changes nothing. A program keeps the mode in which it was exported: ``train`` and ``eval`` do nothing.
    """

    def __init__(self, program: nn.Module, least: int, most: int | None) -> None:
        super().__init__()
        self.program, self.least, self.most = program, least, most
        for part in self.modules():
            part.training = False  # torch leaves it True whatever the mode was

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Do nothing."""
        return self

    def forward(self, images: Tensor) -> Any:
        """Return logits (B, K) of images (B, C, H, W), or whatever a program returns instead of a tensor."""
        logits = []
        for portion in images.split(self.most or len(images)):
            missing = self.least - len(portion)
            output = self.program(F.pad(portion, (0, 0) * 3 + (0, missing)) if missing > 0 else portion)
            if not isinstance(output, Tensor):
                return output  # `check_model` refuses it
            logits.append(output[:len(portion)])
        return torch.cat(logits)
