"""The mode of stored programs: whether they were exported for training, and whether they can change to it."""

from typing import Any

import torch
from torch import nn

from wsrnas.operations import BATCH_NORM
from wsrnas.subjects.stored_program import ExportedNetwork


def trained_operation(program: torch.fx.GraphModule) -> str:
    """Return the first operation that a program's graph holds in training mode; empty if there is none."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        if schema is None or getattr(node.target, "_overloadname", "") == "no_stats":
            continue
        given = {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}
        given |= node.kwargs
        # BatchNorm that keeps no statistics takes the batch's in either mode.
        if given.get("training", given.get("train")) is True and given.get("running_mean", True) is not None:
            return schema.name.split("::")[-1]
    return ""


def is_program(module: nn.Module) -> bool:
    """Return whether a module is what ``torch.export`` makes of a network: its mode is in its graph, not in a flag."""
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def trained_in_script(module: torch.jit.ScriptModule) -> str:
    """Return the first operation that a traced program holds in training mode; empty if there is none.

    Scripted layers ask their flag, which ``eval()`` sets; traced ones have a constant in its place.
    """
    graph: Any = module.inlined_graph  # its nodes live as long as it does
    for operation, training, statistics in (("batch_norm", 5, 3), ("dropout", 2, None)):
        for node in graph.findAllNodes(f"aten::{operation}", recurse=True):
            inputs = list(node.inputs())
            keeps = statistics is None or inputs[statistics].type().kind() != "NoneType"
            if keeps and inputs[training].toIValue() is True:
                return operation
    return ""


def uses_batch_norm(model: nn.Module) -> bool:
    """Return whether a network has BatchNorm, as a layer or as an operation of a stored program.

    BatchNorm that an export has folded into a convolution does not count, and BatchNorm that a Python function calls
    is not found.
    """
    return any(isinstance(module, BATCH_NORM) or _script_has_batch_norm(module)
               or (isinstance(module, torch.fx.GraphModule) and _graph_has_batch_norm(module))
               for module in model.modules())


def can_train(model: nn.Module) -> bool:
    """Return whether ``train()`` gives the network its training mode.

    A program of torch.export, and the BatchNorm of TorchScript that was traced or frozen, keep the mode in which they
    were stored.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return not _script_has_batch_norm(model) or 'name="training"' in str(model.inlined_graph)
    return not isinstance(model, ExportedNetwork) and not is_program(model) and all(map(can_train, model.children()))


def _script_has_batch_norm(module: nn.Module) -> bool:
    # A list of layers has no graph.
    return isinstance(module, torch.jit.ScriptModule) and "batch_norm(" in str(getattr(module, "inlined_graph", ""))


def _graph_has_batch_norm(program: torch.fx.GraphModule) -> bool:
    # aten.batch_norm and, decomposed, aten._native_batch_norm_legit_no_training
    return any(node.op == "call_function" and "batch_norm" in str(node.target) for node in program.graph.nodes)
