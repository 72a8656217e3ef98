"""Networks stored as programs, TorchScript and torch.export: told apart by their contents, loaded, ready to attack."""

import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsrnas.operations import BATCH_NORM
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.user_function import first_line


def kind_of_file(path: Path) -> str:
    """``"TorchScript"``, ``"torch.export"`` or ``"checkpoint"`` (whatever is none of the others), by what is in it.

    Raises:
        InputError: the file is a compiled package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "checkpoint"
    if any(name.endswith("constants.pkl") for name in names):
        return "TorchScript"
    if any(re.search(r"(^|/)models/[^/]+\.json$|^serialized_exported_program\.json$", name) for name in names):
        return "torch.export"
    if any("aotinductor" in name for name in names):
        raise InputError(f"{path} is a compiled package of AOTInductor, which has no gradient to attack with; expected "
                         "the program that was compiled, as torch.export.save writes it")
    return "checkpoint"


def pickled_object(path: Path) -> str:
    """The first thing in a file that is neither a tensor nor a plain container; empty if that is not the trouble."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        return found[1] if found else ""
    except Exception:  # damaged bytes; checkpoint.read has the words for them
        pass
    return ""


def load_script(path: Path) -> nn.Module:
    """The network of a TorchScript file, on the CPU.

    Raises:
        InputError: torch cannot load it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces TorchScript's end, yet the files are there
            return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # torch raises half a dozen types
        raise InputError(f"the TorchScript file {path} cannot be loaded ({first_line(error)})") from None


def load_exported(path: Path) -> nn.Module:
    """The network of a torch.export file.

    Raises:
        InputError: torch cannot load it, or it takes other inputs than images alone.
    """
    try:
        program = torch.export.load(str(path))
        inputs = program.graph_signature.user_inputs
        if len(inputs) == 1:
            rows = next(node.meta["val"] for node in program.graph.nodes if node.name == inputs[0]).shape[0]
            return ExportedNetwork(program.module(), *_batch_bounds(rows, program.range_constraints))
    except Exception as error:  # another version's format, a missing custom operation, a bare number as input
        raise InputError(f"the torch.export file {path} cannot be loaded ({first_line(error)})") from None
    raise InputError(f"the torch.export file {path} takes {len(inputs)} inputs; expected images alone")


def _batch_bounds(rows: int | torch.SymInt, constraints: dict) -> tuple[int, int | None]:
    """The fewest and the most images (None: any number) that a program takes at once."""
    if isinstance(rows, int):
        return rows, rows
    bounds = constraints.get(rows.node.expr)
    if bounds is None:  # an expression, such as twice another number; the program refuses what does not fit
        return 0, None
    return int(bounds.lower), int(bounds.upper) if bounds.upper < sys.maxsize else None


class ExportedNetwork(nn.Module):
    """A program of torch.export for any number of images: in portions that it takes, the last one filled up.

    In evaluation mode an image's logits do not depend on its batch, so the filling changes nothing. A program has the
    mode that it was exported in: ``train`` and ``eval`` do nothing.
    """

    def __init__(self, program: nn.Module, least: int, most: int | None) -> None:
        super().__init__()
        self.program, self.least, self.most = program, least, most
        for part in self.modules():
            part.training = False  # torch leaves it True whatever the mode was

    def train(self, mode: bool = True) -> "ExportedNetwork":
        return self

    def forward(self, images: Tensor) -> Any:
        logits = []
        for portion in images.split(self.most or len(images)):
            missing = self.least - len(portion)
            output = self.program(F.pad(portion, (0, 0) * 3 + (0, missing)) if missing > 0 else portion)
            if not isinstance(output, Tensor):
                return output  # no network of ours; `check_model` has the words for it
            logits.append(output[:len(portion)])
        return torch.cat(logits)


# -- modes ----------------------------------------------------------------------------------------------------------


def trained_operation(program: torch.fx.GraphModule) -> str:
    """The first operation of a program that its graph holds in training mode; empty if there is none."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        if schema is None:
            continue
        given = {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}
        given |= node.kwargs
        # BatchNorm that keeps no statistics takes the batch's in either mode.
        if given.get("training", given.get("train")) is True and given.get("running_mean", True) is not None:
            return schema.name.split("::")[-1]
    return ""


def uses_batch_norm(model: nn.Module) -> bool:
    """Whether a network has BatchNorm: as a layer, or as an operation of a stored program.

    One that an export has folded into a convolution is none, and one that a Python function calls is not seen.
    """
    return any(isinstance(module, BATCH_NORM) or _script_has_batch_norm(module)
               or (isinstance(module, torch.fx.GraphModule) and _graph_has_batch_norm(module))
               for module in model.modules())


def can_train(model: nn.Module) -> bool:
    """Whether ``train()`` gives the network its training mode.

    A program of torch.export, and the BatchNorm of TorchScript that was traced or frozen, keep the mode that they were
    stored in.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return not _script_has_batch_norm(model) or 'name="training"' in str(model.inlined_graph)
    return not isinstance(model, ExportedNetwork) and all(map(can_train, model.children()))


def _script_has_batch_norm(module: nn.Module) -> bool:
    # A list of layers has no graph.
    return isinstance(module, torch.jit.ScriptModule) and "batch_norm(" in str(getattr(module, "inlined_graph", ""))


def _graph_has_batch_norm(program: torch.fx.GraphModule) -> bool:
    # aten.batch_norm and, decomposed, aten._native_batch_norm_legit_no_training
    return any(node.op == "call_function" and "batch_norm" in str(node.target) for node in program.graph.nodes)
