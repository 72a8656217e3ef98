"""Networks out of files of weights: checkpoints of retraining, and state_dicts of a named architecture."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.architectures.searched import SPACES, Searched, space_of
from wsrnas.models import (
    build_described,
    build_model,
    described_architecture,
    description,
    load_architecture,
    require_description,
    sizes,
)
from wsrnas.runtime import checkpoint
from wsrnas.runtime.errors import InputError, first_line, shown

WRAPPERS = ("_orig_mod.", "module.", "model.", "net.", "network.")  # put before names by compiling, wrapping, classes
LARGE = (256, 60, 25_000)  # width, cells and classes above which a network may be too large for the memory


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint of retraining, as ``network_of``, and its description.

    Raises:
        InputError: The file is missing, truncated, or not such a checkpoint.
    """
    return network_of(checkpoint.read(Path(path)), path)


def network_of(payload: Mapping[str, Any], path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that a checkpoint of retraining holds, on the CPU, in evaluation mode, and its description.

    An auxiliary head, which only training uses, is left out.

    Args:
        payload: The checkpoint as ``checkpoint.read`` returns it.
        path: The file that it was read from, for messages.

    Raises:
        InputError: It is not a checkpoint of retraining, or its weights do not fit its architecture.
    """
    stored = payload.get("network")
    if not isinstance(stored, dict) or "model" not in payload:
        raise InputError(f"{path} is not a checkpoint of retraining: it has no network description")
    weights = payload["model"]
    if not _is_state(weights):
        raise InputError(f"{path} is not a checkpoint of retraining: its model is no dictionary of tensors")
    try:
        if stored.get("auxiliary"):
            weights = without_auxiliary_head(weights)
        require_description(stored)
        _refuse_other_depth(described_architecture(stored), stored["layers"], weights)
        model = _fitting(lambda: build_described(stored), weights, "the stored architecture",
                         (stored["init_channels"], stored["layers"], stored["num_classes"]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} is not a checkpoint of retraining: its network description lacks {error}") from None
    except RuntimeError as error:
        raise InputError(f"{path}: the weights cannot be loaded ({first_line(error)})") from None
    return model.eval(), {key: value for key, value in stored.items() if key != "auxiliary"}


def load_weights(path: str | Path, arch: Searched | str, num_classes: int = 10, init_channels: int | None = None,
                 layers: int | None = None, dataset: str = "cifar10",
                 image_shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of an architecture with the weights of a file, and its description, as ``load_model`` does.

    Args:
        path: A file with a state_dict, or with a dictionary that has one under any name, as ``weights_in`` finds it; an
            auxiliary head is left out.
        arch: The architecture as ``load_architecture`` takes it.
        num_classes: The number of logits.
        init_channels: The width; None: inferred from the weights (a hand-designed network has its published width).
        layers: The number of cells; None: inferred from the weights (a hand-designed network has its own depth).
        dataset: As in ``build_model``.
        image_shape: (C, H, W).

    Raises:
        InputError: The file holds no weights, those of another architecture, or weights that do not fit.
    """
    payload = checkpoint.read(Path(path))
    try:
        weights = weights_in(payload)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if weights is None:
        there = ", ".join(f"{shown(key, 30)}: {type(value).__name__}" for key, value in list(payload.items())[:5])
        raise InputError(f"{path} holds no weights but {{{there}}}; expected a state_dict (names of parameters -> "
                         "tensors), alone or under one name such as \"state_dict\" or \"model\"")
    stored = payload.get("network")
    arch = load_architecture(arch)
    if isinstance(stored, dict) and {"genotype", "arch"} & set(stored) and described_architecture(stored) != arch:
        raise InputError(f"{path} is a checkpoint of another {'network' if isinstance(arch, str) else 'genotype'} "
                         "than the one named")
    space = space_of(arch)
    width, depth = (space or SPACES["darts"]).sizes_of_weights(weights)  # RobNets have the stem of DARTS
    depth = depth if space else None
    if space and space.stages > 1 and width and depth is None and layers is None:
        raise InputError(f"{path}: the cells have no weights that would say how many there are; expected their number "
                         "(--layers)")
    width, depth = sizes(arch, dataset, width if init_channels is None else init_channels,
                         depth if layers is None else layers)
    weights = without_auxiliary_head(weights)
    size = f"{width} channels" + (f", {depth} layers" if depth else "")
    try:
        model = _fitting(lambda: build_model(arch, num_classes, width, depth, dataset, image_shape[0]), weights,
                         f"the network of {size} and {num_classes} classes", (width, depth, num_classes))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return model.eval(), description(arch, num_classes, width, depth, dataset, image_shape)


def _refuse_other_depth(arch: Searched | str, layers: Any, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of another number of cells at once: building a network of very many takes long."""
    space = space_of(arch)
    found = space.sizes_of_weights(weights)[1] if space else None
    if found is not None and type(layers) is int and found != layers:
        raise InputError(f"the weights do not fit the stored architecture: they have {found} cells, and it has "
                         f"{shown(layers)}")


def _fitting(build: Callable[[], nn.Module], weights: dict[str, Tensor], what: str,
             sizes: Sequence[Any]) -> nn.Module:
    """Return a network with these weights.

    Args:
        build: The function that makes it.
        weights: Its state.
        what: Its name, for messages.
        sizes: Its sizes, as the file says them. Where they are large, shapes are compared before memory is allocated.

    Raises:
        InputError: The weights do not fit.
    """
    with torch.device("meta") if _is_large(*sizes) else nullcontext():
        model = build()
    if problem := misfit(model.state_dict(), with_counters(weights, model)):
        raise InputError(f"the weights do not fit {what}: {problem}")
    model = build() if _is_large(*sizes) else model
    model.load_state_dict(with_counters(weights, model))
    return model


def _is_large(width: Any, layers: Any, classes: Any) -> bool:
    return any(isinstance(value, int) and value > most for value, most in zip((width, layers, classes), LARGE,
                                                                             strict=True))


def without_auxiliary_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict without the auxiliary head of DARTS, which serves training alone."""
    return {key: value for key, value in weights.items() if not key.startswith("auxiliary.")}


def _is_state(value: object) -> bool:
    """Return whether a value is a dictionary of names and tensors."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def weights_in(payload: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the state_dict in a file's dictionary: itself, or the one under any name; None if there is none.

    Prefixes that wrappers put before the names are removed, and so is the counter of ``AveragedModel``.

    Raises:
        InputError: There are several.
    """
    found = {str(key): value for key, value in payload.items() if _is_state(value) and value}
    if len(found) > 1:
        raise InputError(f"the file holds several sets of weights ({', '.join(map(shown, found))}), and nothing says "
                         "which is meant; expected one: save the one that is meant alone")
    if not found and not (payload and _is_state(payload)):
        return None
    weights = dict(next(iter(found.values()), payload))
    if any(key.startswith("module.") for key in weights):
        weights.pop("n_averaged", None)
    while prefix := next((prefix for prefix in WRAPPERS if all(key.startswith(prefix) for key in weights)), ""):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def with_counters(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights with the counters of batches, which nothing reads, where an old torch has not stored them."""
    counters = {key: value for key, value in model.state_dict().items() if key.endswith(".num_batches_tracked")}
    return weights if counters.keys() & weights.keys() else weights | counters


def _unusable(tensor: Tensor, floating: bool) -> str:
    """Say what is wrong with the numbers of a tensor: they are absent, sparse, or quantised or complex ones."""
    if tensor.is_meta:
        return "has a shape and no numbers"
    if tensor.layout is not torch.strided:
        return "is sparse, expected a dense tensor"
    wrong = floating and (tensor.is_quantized or not tensor.is_floating_point())
    return f"holds {str(tensor.dtype).removeprefix('torch.')}, expected floating-point numbers" if wrong else ""


def misfit(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """Say in a few words why weights do not fit into a network with the state ``expected``; empty if they do."""
    missing, extra = ([key for key in a if key not in b] for a, b in ((expected, weights), (weights, expected)))
    shapes = [f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
              for key, value in expected.items() if key in weights and weights[key].shape != value.shape]
    kinds = [f"{key} {problem}" for key, value in expected.items()
             if key in weights and (problem := _unusable(weights[key], value.is_floating_point()))]
    problems = []
    for words, found in (("the file lacks", missing), ("the network has no", extra), ("", shapes), ("", kinds)):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            name = found[0] if len(found[0]) <= 150 and found[0].isprintable() else shown(found[0])
            problems.append(f"{words} {name}{more}".strip())
    return "; ".join(problems)
