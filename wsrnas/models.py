"""One door to every network: by genotype or name, with new or stored weights, or from a checkpoint of retraining."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wsrnas import checkpoint, hand_designed
from wsrnas.errors import InputError
from wsrnas.genotype import Genotype
from wsrnas.hand_designed import names, published_width
from wsrnas.network import IMAGENET_MEAN, NetworkCIFAR, NetworkImageNet, Normalize
from wsrnas.robnet import ROBNETS

# The DARTS conventions for cells whose papers give no width: (init_channels, layers). RobNet-large's width on ImageNet
# is the same.
DEFAULT_SIZES = {"cifar": (36, 20), "imagenet": (48, 14)}


def build_model(arch: Genotype | str, num_classes: int = 10, init_channels: int | None = None,
                layers: int | None = None, dataset: str = "cifar10", channels: int = 3) -> nn.Module:
    """A network of cells, or one by name: images (B, channels, H, W) in [0, 1] -> logits (B, num_classes).

    Args:
        arch: a genotype, or one of ``names()``.
        init_channels, layers: width and depth; None takes the DARTS convention, 36 and 20 (ImageNet: 48 and 14). Of a
            network by name the width as in ``wsrnas.hand_designed``, None for the published one, and no depth.
        dataset: ``"imagenet"`` gives the network for large images, anything else the one for small images. A
            hand-designed network is the same for both, behind ImageNet's normalisation for the former; a RobNet has
            the stem of cells for large images.
        channels: of the images.

    Raises:
        InputError: ``arch`` is neither, a size is below 1, or a network by name is given a depth.
    """
    if isinstance(arch, Genotype):
        network = NetworkImageNet if dataset == "imagenet" else NetworkCIFAR
        return network(arch, *_sizes(arch, dataset, init_channels, layers), num_classes, channels)
    name = _name_of(arch)
    if layers is not None:
        kind = "a RobNet" if name in ROBNETS else "hand-designed"
        raise InputError(f"layers is {layers}, but {name} is {kind} and has a depth of its own; expected none")
    if dataset == "imagenet" and channels != len(IMAGENET_MEAN):
        raise InputError(f"channels is {channels}; expected {len(IMAGENET_MEAN)} for imagenet")
    width = _width(name, dataset) if init_channels is None else init_channels
    if dataset == "imagenet" and name in ROBNETS:
        return ROBNETS[name](num_classes, width, channels, imagenet=True)
    model = hand_designed.build(name, num_classes, width, channels)
    if dataset == "imagenet":
        model.normalize = Normalize()
    return model


def _name_of(arch: Any) -> str:
    """The one of ``names()`` that is meant."""
    if name := hand_designed.find(str(arch)):
        return name
    closest = hand_designed.closest(str(arch))
    hint = f" (did you mean {' or '.join(closest)}?)" if closest else ""
    raise InputError(f"there is no network {arch!r}{hint}; expected one of {', '.join(names())}, or a Genotype, "
                     f"such as genotypes.load({str(arch)!r})")


def _width(name: str, dataset: str) -> int:
    """``init_channels`` of the published network."""
    return DEFAULT_SIZES["imagenet"][0] if dataset == "imagenet" and name in ROBNETS else published_width(name)


def _sizes(arch: Genotype | str, dataset: str, init_channels: int | None,
           layers: int | None) -> tuple[int, int | None]:
    if not isinstance(arch, Genotype):
        return _width(_name_of(arch), dataset) if init_channels is None else init_channels, layers
    default_channels, default_layers = DEFAULT_SIZES["imagenet" if dataset == "imagenet" else "cifar"]
    return default_channels if init_channels is None else init_channels, default_layers if layers is None else layers


def description(arch: Genotype | str, num_classes: int, init_channels: int, layers: int | None, dataset: str,
                image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What a checkpoint stores beside the weights, so that ``load_model`` needs nothing else.

    That is a genotype as JSON under "genotype", or one of ``names()`` under "arch", with its sizes.
    """
    named = {"genotype": arch.to_json()} if isinstance(arch, Genotype) else {"arch": _name_of(arch)}
    return named | {"num_classes": num_classes, "init_channels": init_channels, "layers": layers, "dataset": dataset,
                    "image_shape": list(image_shape)}


def _described_arch(network: dict[str, Any]) -> Genotype | str:
    """What ``description`` was told."""
    return network["arch"] if "arch" in network else Genotype.from_json(network["genotype"])


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
        model = build_model(_described_arch(network), network["num_classes"], network["init_channels"],
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


def load_weights(path: str | Path, arch: Genotype | str, num_classes: int = 10, init_channels: int | None = None,
                 layers: int | None = None, dataset: str = "cifar10",
                 image_shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a genotype, or one by name, with the weights of a file, as ``load_model`` gives it.

    Args:
        path: a state_dict, or a dictionary with one as ``state_dict`` or ``model``; what DataParallel and torch.compile
            put before its keys is removed.
        init_channels, layers: None reads them off the weights; a hand-designed network has its published width then,
            and a network by name a depth of its own.

    Raises:
        InputError: the file holds no weights, those of another architecture, or weights that do not fit.
    """
    payload = checkpoint.read(Path(path))
    weights = weights_in(payload)
    if weights is None:
        raise InputError(f"{path} holds no weights; expected a state_dict (names of parameters -> tensors), or one "
                         "under \"state_dict\" or \"model\"")
    stored = payload.get("network")
    arch = arch if isinstance(arch, Genotype) else _name_of(arch)
    if isinstance(stored, dict) and {"genotype", "arch"} & set(stored) and _described_arch(stored) != arch:
        raise InputError(f"{path} is a checkpoint of another {'genotype' if isinstance(arch, Genotype) else 'network'} "
                         "than the one named")
    width, depth = _sizes_of_weights(weights)
    depth = depth if isinstance(arch, Genotype) else None
    width, depth = _sizes(arch, dataset, width if init_channels is None else init_channels,
                          depth if layers is None else layers)
    model = build_model(arch, num_classes, width, depth, dataset, image_shape[0])
    if problem := _misfit(model.state_dict(), weights):
        sizes = f"{width} channels" + (f", {depth} layers" if depth else "")
        raise InputError(f"{path}: the weights do not fit the network of {sizes} and {num_classes} classes: {problem}")
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
