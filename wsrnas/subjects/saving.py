"""Save a network that was trained in Python as a file that the programs open like a retraining's."""

from pathlib import Path
from typing import Any

from torch import nn

from wsrnas.architectures.searched import Searched
from wsrnas.data.image_set import DataSet
from wsrnas.models import build_described, description, load_architecture, sizes
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import type_in_words
from wsrnas.runtime.folders import make
from wsrnas.runtime.reading import shown_path
from wsrnas.subjects.checkpoints import misfit, without_auxiliary_head


def save_model(model: nn.Module, path: str | Path, arch: Searched | str | Path, data: DataSet,
               init_channels: int | None = None, layers: int | None = None, epochs: int = 0,
               **settings: Any) -> Path:
    """Write a network of ``build_model`` with its description.

    ``open_model`` reads the file; so do ``retrain.evaluate --model FILE`` and ``retrain.export --model FILE``.

    Args:
        model: the network.
        path: file to write, usually ``NAME.pt``; a file that is there is kept as ``NAME.previous.pt``.
        arch: what ``build_model`` was given.
        data: data set that it was trained on, which gives the shape of images and the number of classes.
        init_channels: what ``build_model`` was given.
        layers: what ``build_model`` was given.
        epochs: number of epochs that it was trained, for the model card.
        **settings: further settings of its training, for the model card.

    Returns:
        The path.

    Raises:
        InputError: the network is not the one that these arguments describe, a setting is more than numbers and words,
            or the path is a folder.
        OSError: the folder is read-only or full.
    """
    path = Path(path)
    require(path.name != "" and not path.is_dir(), f"{shown_path(path) or '.'} is a folder; expected a file such as "
            "NAME.pt")
    for name, value in settings.items():
        require(_is_plain(value), f"the setting {name} is {type_in_words(value)}; expected numbers, words, or lists "
                "and dictionaries of them, which any program can read")
    width, depth = sizes(arch, data.name, init_channels, layers)
    searched = load_architecture(arch)
    described = description(searched, data.num_classes, width, depth, data.name, data.image_shape)
    weights = without_auxiliary_head({name: value.detach().cpu() for name, value in model.state_dict().items()})
    problem = misfit(build_described(described).state_dict(), weights)
    require(not problem, f"the network is not {arch} with {width} channels, {depth or 'its own'} layers and "
            f"{data.num_classes} classes: {problem}")
    require(getattr(model, "genotype", searched) == searched, f"the network is not {arch}: its cells have other "
            "operations of the same shapes")
    make(path.parent)
    about = {"config": {"epochs": epochs, **settings}} if epochs or settings else {}
    checkpoint.save(path, {"step": epochs, "network": described, "model": weights, **about})
    return path


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of numbers, words, lists and dictionaries alone."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
