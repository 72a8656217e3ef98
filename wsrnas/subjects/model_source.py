"""A network and its origin."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wsrnas.runtime.errors import InputError, named_line


@dataclass(frozen=True)
class ModelSource:
    """A network and its origin.

    Args:
        model: Images (B, C, H, W) in [0, 1] -> logits (B, K), on the CPU, with frozen parameters, in the mode in which
            it was given (``check_model`` refuses training mode).
        source: The place that it was read from, for a reader of the results.
        name: A short name without a slash.
        fingerprint: A hash that differs where the weights or the architecture differ (for a function in a file: the
            code that ``call_function`` names).
        description: The architecture as ``models.description`` writes it; None for other networks.
        folder: The run directory that it belongs to; None for others.
        takes_unit_range: Whether it certainly expects images in [0, 1], as every checkpoint of retraining does.
        record: The entries of its checkpoint except the weights and the training state; empty for others.
        notes: What ``fitted`` found out about it, and did.
        has_gradient: Whether a gradient leads from its logits to its images, as far as ``fitted`` has looked.
    """

    model: nn.Module
    source: str
    name: str
    fingerprint: str
    description: dict[str, Any] | None = None
    folder: Path | None = None
    takes_unit_range: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_gradient: bool = True


def make_source(model: nn.Module, source: str, name: str, description: dict[str, Any] | None = None,
                code: bytes = b"", **about: Any) -> ModelSource:
    """Move a network to the CPU, freeze its parameters and compute its fingerprint.

    Args:
        model: The network; it is changed in place.
        source: As in ``ModelSource``.
        name: As in ``ModelSource``.
        description: As in ``ModelSource``.
        code: What the fingerprint covers in addition to the weights; empty: the description's architecture.
        **about: Other fields of ``ModelSource``.

    Raises:
        InputError: The weights cannot be read, or a lazy layer has none yet.
    """
    for module in model.modules():
        if not hasattr(module, "training"):  # torch.jit.freeze removes it, and an attack sets and restores it
            object.__setattr__(module, "training", False)
    for weight, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            raise InputError(f"the weights of {source} have no shape yet ({weight} belongs to a lazy layer); expected "
                             "one forward pass on images before the network is returned")
    try:
        model = model.cpu()
        for parameter in model.parameters():  # one by one: a ScriptModule has no requires_grad_
            parameter.requires_grad_(False)
        described = description or {}
        code = code or described.get("genotype", described.get("arch", "")).encode()
        fingerprint = weights_hash([*model.named_parameters(), *model.named_buffers(), *_other_tensors(model)], code)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:  # such as those on the meta device
        raise InputError(f"the weights of {source} cannot be read ({named_line(error)})") from None
    return ModelSource(model, source, name, fingerprint, description, **about)


def _other_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that a network computes with and that are neither parameters nor buffers, with their names.

    They are plain attributes of its modules, and the packed weights of quantised layers.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # its file is in the fingerprint
            continue
        for name, value in vars(module).items():
            if isinstance(value, Tensor | np.ndarray):
                yield f"{path}.{name}", _plain(torch.as_tensor(value))
        unpack = getattr(module, "_weight_bias", None)
        if callable(unpack):
            for name, value in zip(("weight", "bias"), unpack(), strict=True):
                if value is not None:
                    yield f"{path}.packed {name}", _plain(value)


def _plain(value: Tensor) -> Tensor:
    """Return a tensor on the CPU with a number for each entry."""
    value = value.detach().cpu()
    return value.dequantize() if value.is_quantized else value.to_dense() if value.layout != torch.strided else value


def weights_hash(weights: Iterable[tuple[str, Tensor]], code: bytes = b"") -> str:
    """Return a hash over weights with their names, and over ``code``."""
    digest = hashlib.blake2b(code, digest_size=8)
    for name, value in sorted(weights, key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
