"""Networks out of files of weights: checkpoints of retraining, and state_dicts of a named architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wsrnas.architectures.searched import SPACES, Searched, space_of
from wsrnas.models import build_described, build_model, described_architecture, description, load_architecture, sizes
from wsrnas.runtime import checkpoint
from wsrnas.runtime.errors import InputError


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
    try:
        model = build_described(stored)
        model.load_state_dict(without_auxiliary_head(payload["model"]) if stored.get("auxiliary") else
                              payload["model"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} is not a checkpoint of retraining: its network description lacks {error}") from None
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the stored architecture "
                         f"({str(error).splitlines()[0]})") from None
    return model.eval(), {key: value for key, value in stored.items() if key != "auxiliary"}


def load_weights(path: str | Path, arch: Searched | str, num_classes: int = 10, init_channels: int | None = None,
                 layers: int | None = None, dataset: str = "cifar10",
                 image_shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of an architecture with the weights of a file, and its description, as ``load_model`` does.

    Args:
        path: A file with a state_dict, or with a dictionary that has one as ``state_dict`` or ``model``. Prefixes that
            DataParallel and torch.compile put before the keys are removed; so is an auxiliary head.
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
    weights = weights_in(payload)
    if weights is None:
        raise InputError(f"{path} holds no weights; expected a state_dict (names of parameters -> tensors), or one "
                         "under \"state_dict\" or \"model\"")
    stored = payload.get("network")
    arch = load_architecture(arch)
    if isinstance(stored, dict) and {"genotype", "arch"} & set(stored) and described_architecture(stored) != arch:
        raise InputError(f"{path} is a checkpoint of another {'network' if isinstance(arch, str) else 'genotype'} "
                         "than the one named")
    space = space_of(arch)
    width, depth = (space or SPACES["darts"]).sizes_of_weights(weights)  # RobNets have the stem of DARTS
    depth = depth if space else None
    width, depth = sizes(arch, dataset, width if init_channels is None else init_channels,
                         depth if layers is None else layers)
    weights = without_auxiliary_head(weights)
    model = build_model(arch, num_classes, width, depth, dataset, image_shape[0])
    if problem := _misfit(model.state_dict(), weights):
        size = f"{width} channels" + (f", {depth} layers" if depth else "")
        raise InputError(f"{path}: the weights do not fit the network of {size} and {num_classes} classes: {problem}")
    model.load_state_dict(weights)
    return model.eval(), description(arch, num_classes, width, depth, dataset, image_shape)


def without_auxiliary_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict without the auxiliary head of DARTS, which serves training alone."""
    return {key: value for key, value in weights.items() if not key.startswith("auxiliary.")}


def weights_in(payload: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the state_dict in a file's dictionary: itself, or its entry ``state_dict`` or ``model``; None if none."""
    for candidate in (payload.get("state_dict"), payload.get("model"), payload):
        if isinstance(candidate, dict) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            weights = dict(candidate)
            for prefix in ("_orig_mod.", "module.", "_orig_mod."):  # compiled, parallel, or one in the other
                if all(key.startswith(prefix) for key in weights):
                    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
            return weights
    return None


def _misfit(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """Say in a few words why weights do not fit into a network with the state ``expected``; empty if they do."""
    missing, extra = ([key for key in a if key not in b] for a, b in ((expected, weights), (weights, expected)))
    shapes = [f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
              for key, value in expected.items() if key in weights and weights[key].shape != value.shape]
    problems = []
    for words, found in (("the file lacks", missing), ("the network has no", extra), ("", shapes)):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            problems.append(f"{words} {found[0]}{more}".strip())
    return "; ".join(problems)
