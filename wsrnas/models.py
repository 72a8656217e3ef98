"""One door to every network: from a genotype, or from a checkpoint that retraining wrote."""

from pathlib import Path
from typing import Any

from torch import nn

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
    large = dataset == "imagenet"
    default_channels, default_layers = DEFAULT_SIZES["imagenet" if large else "cifar"]
    network = NetworkImageNet if large else NetworkCIFAR
    return network(arch, default_channels if init_channels is None else init_channels,
                   default_layers if layers is None else layers, num_classes, channels)


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
