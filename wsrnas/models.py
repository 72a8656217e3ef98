"""One door to every network: from a genotype, with new or stored weights, or from a checkpoint of retraining."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wsrnas import checkpoint
from wsrnas.errors import InputError
from wsrnas.genotype import Genotype
from wsrnas.network import NetworkCIFAR, NetworkImageNet

# The DARTS conventions for cells whose papers give no width: (init_channels, layers).
DEFAULT_SIZES = {"cifar": (36, 20), "imagenet": (48, 14)}


def build_model(arch: Genotype, num_classes: int = 10, init_channels: int | None = None, layers: int | None = None,
                dataset: str = "cifar10", channels: int = 3) -> nn.Module:
    """The network of a genotype: images (B, channels, H, W) in [0, 1] -> logits (B, num_classes).

    Args:
        init_channels, layers: width and depth; None takes the DARTS convention, 36 and 20 (ImageNet: 48 and 14).
        dataset: ``"imagenet"`` gives the network for large images, anything else the one for small images.
        channels: of the images.

    Raises:
        InputError: ``arch`` is not a genotype, or a size is below 1.
    """
    if not isinstance(arch, Genotype):
        raise InputError(f"build_model got {arch!r}; expected a Genotype, such as genotypes.load({str(arch)!r})")
    network = NetworkImageNet if dataset == "imagenet" else NetworkCIFAR
    return network(arch, *_sizes(dataset, init_channels, layers), num_classes, channels)


def _sizes(dataset: str, init_channels: int | None, layers: int | None) -> tuple[int, int]:
    default_channels, default_layers = DEFAULT_SIZES["imagenet" if dataset == "imagenet" else "cifar"]
    return default_channels if init_channels is None else init_channels, default_layers if layers is None else layers


def description(arch: Genotype, num_classes: int, init_channels: int, layers: int, dataset: str,
                image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What a checkpoint stores beside the weights, so that ``load_model`` needs nothing else."""
    return {"genotype": arch.to_json(), "num_classes": num_classes, "init_channels": init_channels, "layers": layers,
            "dataset": dataset, "image_shape": list(image_shape)}


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint of retraining, on the CPU, in evaluation mode, and its description.

    Raises:
        InputError: the file is missing, truncated, or not such a checkpoint.
    """
    payload = checkpoint.read(Path(path))
    network = payload.get("network")
    if not isinstance(network, dict) or "model" not in payload:
        raise InputError(f"{path} is not a checkpoint of retraining: it has no network description")
    try:
        model = build_model(Genotype.from_json(network["genotype"]), network["num_classes"], network["init_channels"],
                            network["layers"], network["dataset"], network["image_shape"][0])
        model.load_state_dict(payload["model"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} is not a checkpoint of retraining: its network description lacks {error}") from None
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the stored architecture "
                         f"({str(error).splitlines()[0]})") from None
    return model.eval(), network


def load_weights(path: str | Path, arch: Genotype, num_classes: int = 10, init_channels: int | None = None,
                 layers: int | None = None, dataset: str = "cifar10",
                 image_shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a genotype with the weights of a file, as ``load_model`` gives it.

    Args:
        path: a state_dict, or a dictionary with one as ``state_dict`` or ``model``; what DataParallel and torch.compile
            put before its keys is removed.
        init_channels, layers: None reads them off the weights.

    Raises:
        InputError: the file holds no weights, those of another genotype, or weights that do not fit.
    """
    payload = checkpoint.read(Path(path))
    weights = weights_in(payload)
    if weights is None:
        raise InputError(f"{path} holds no weights; expected a state_dict (names of parameters -> tensors), or one "
                         "under \"state_dict\" or \"model\"")
    stored = payload.get("network")
    if isinstance(stored, dict) and "genotype" in stored and Genotype.from_json(str(stored["genotype"])) != arch:
        raise InputError(f"{path} is a checkpoint of another genotype than the one named")
    width, depth = _sizes_of_weights(weights)
    width, depth = _sizes(dataset, width if init_channels is None else init_channels,
                          depth if layers is None else layers)
    model = build_model(arch, num_classes, width, depth, dataset, image_shape[0])
    if problem := _misfit(model.state_dict(), weights):
        raise InputError(f"{path}: the weights do not fit the network of {width} channels, {depth} layers and "
                         f"{num_classes} classes: {problem}")
    model.load_state_dict(weights)
    return model.eval(), description(arch, num_classes, width, depth, dataset, image_shape)


def weights_in(payload: dict[str, Any]) -> dict[str, Tensor] | None:
    """The state_dict that a file's dictionary is, or holds as ``state_dict`` or ``model``; None if there is none."""
    for candidate in (payload.get("state_dict"), payload.get("model"), payload):
        if isinstance(candidate, dict) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            weights = dict(candidate)
            for prefix in ("_orig_mod.", "module.", "_orig_mod."):  # compiled, parallel, or one in the other
                if all(key.startswith(prefix) for key in weights):
                    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
            return weights
    return None


def _sizes_of_weights(weights: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """Width and depth of the network that the weights are of; None where they do not tell."""
    small, large = weights.get("stem.conv.weight"), weights.get("stem.first.3.weight")
    cells = [int(found[1]) for key in weights if (found := re.match(r"cells\.(\d+)\.", key))]
    width = small.shape[:1].numel() // 3 if small is not None else None if large is None else large.shape[:1].numel()
    return width, max(cells) + 1 if cells else None


def _misfit(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """What keeps the weights out of a network with the state ``expected``, in a few words; empty if nothing does."""
    missing, extra = ([key for key in a if key not in b] for a, b in ((expected, weights), (weights, expected)))
    shapes = [f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
              for key, value in expected.items() if key in weights and weights[key].shape != value.shape]
    problems = []
    for words, found in (("the file lacks", missing), ("the network has no", extra), ("", shapes)):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            problems.append(f"{words} {found[0]}{more}".strip())
    return "; ".join(problems)
