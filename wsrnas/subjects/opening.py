"""Open any trained network from a path or name; each file is read once.

A network is a checkpoint of retraining, a function in a Python file, a TorchScript or torch.export file, or the name of
an architecture with a file of weights. The kind of a file is recognised by its contents, not by its name.
"""

import os
import re
from pathlib import Path
from typing import Any

from wsrnas.architectures import searched
from wsrnas.architectures.searched import Searched
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError, type_in_words
from wsrnas.runtime.reading import Unreadable, read_json, shown_path
from wsrnas.subjects.checkpoints import load_weights, network_of, weights_in
from wsrnas.subjects.model_source import ModelSource, make_source
from wsrnas.subjects.naming import short_name
from wsrnas.subjects.stored_program import kind_of_file, load_exported, load_script
from wsrnas.subjects.user_function import call_function

FUNCTION = re.compile(r"(?P<file>.+\.py)(?::(?P<name>[^:/]*))?")
_EXPECTED = ("expected a file, or a run directory of a retraining, or FILE.py:FUNCTION, or the name of an architecture "
             "with its weights as --state_dict")
CHECKPOINT = ("expected a run directory of a retraining, or a checkpoint of one (wsrnas.save_model writes one of your "
              "own network)")
PACKAGE = "wsrnas package"  # the format of a package of retrain.export, without its version
STATES = ("model", "trainer", "network")  # entries of a checkpoint that are large, or kept elsewhere


def open_model(given: str | Path, weights: str = "best", genotype: Searched | str | None = None, state_dict: str = "",
               num_classes: int = 10, init_channels: int | None = None, layers: int | None = None,
               dataset: str = "cifar10", image_shape: tuple[int, int, int] = (3, 32, 32)) -> ModelSource:
    """Open the network that a user names.

    Args:
        given: A run directory of a retraining, a file (a checkpoint of retraining, TorchScript or torch.export),
            ``FILE.py:FUNCTION`` (called without arguments: it returns the network), or the name of ``genotype``.
        weights: ``"best"`` or ``"last"``: which checkpoint of a run directory.
        genotype: A searched architecture, or the name of a network with a design of its own, whose weights are in the
            file ``state_dict``.
        state_dict: The file of weights of ``genotype``.
        num_classes: Number of classes. This and the next arguments are the same as in ``load_weights``; other networks
            ignore them.
        init_channels: See ``num_classes``.
        layers: See ``num_classes``.
        dataset: See ``num_classes``.
        image_shape: See ``num_classes``.

    Raises:
        InputError: There is no such network, or it cannot be read; the sentence says why.
    """
    require(isinstance(given, (str, os.PathLike)), f"the network is {type_in_words(given)}; expected the path of a "
            "run directory or of a file, or the name of an architecture")
    given = os.fspath(given)
    require(weights in run_files.WEIGHTS, f"weights is {weights!r}; expected one of {', '.join(run_files.WEIGHTS)}")
    if genotype is not None:
        if not state_dict:
            raise InputError(f"{given} is an architecture without weights; expected a file of them as state_dict")
        model, description = load_weights(state_dict, genotype, num_classes, init_channels, layers, dataset,
                                          image_shape)
        name = searched.short_name(given) or short_name(Path(given))
        return make_source(model, f"{given} with {state_dict}", name, description)
    if state_dict:
        raise InputError(f"a state_dict ({state_dict}) needs the name of its architecture, but {given} is a network "
                         "of its own")
    if found := FUNCTION.fullmatch(given):
        file, name = Path(found["file"]), found["name"] or ""
        model, code = call_function(file, name)
        return make_source(model, given, f"{file.stem}.{name}", code=code)
    path = find_checkpoint(given, weights, _EXPECTED)
    kind = kind_of_file(path)
    if kind == "checkpoint":
        return _open_checkpoint(path, Path(given).is_dir())
    code = path.read_bytes()
    model = load_script(path, code) if kind == "TorchScript" else load_exported(path, code)
    return make_source(model, str(path), short_name(path), code=code)


def find_checkpoint(given: str, weights: str = "best", expected: str = CHECKPOINT) -> Path:
    """Return a file as given, or the chosen checkpoint of a run directory.

    Args:
        given: The file or the directory.
        weights: ``"best"`` or ``"last"``.
        expected: What the caller takes, for the message.

    Raises:
        InputError: There is none.
    """
    path = Path(given)
    if not os.path.exists(given):  # without an error for a name too long, a loop of links or a zero byte
        raise InputError(f"no checkpoint at {shown_path(given)}; {expected}")
    candidate = path / run_files.WEIGHTS[weights] if path.is_dir() else path
    searched = (path / run_files.GENOTYPE).is_file()  # a search keeps a checkpoint, too
    if not candidate.is_file() and (path / run_files.CHECKPOINT).is_file() and not searched:
        raise InputError(f"{path} has no best.pt, because no epoch was selected; --weights last takes checkpoint.pt")
    if not candidate.is_file() and (weights_file := package_weights(path)):
        function = f"expected {weights_file.with_suffix('.py')}:load as a network"
        raise InputError(f"{shown_path(path)} is a package of retrain.export; "
                         f"{function if expected == _EXPECTED else expected}")
    if not candidate.is_file():
        raise InputError(f"no checkpoint at {shown_path(candidate)}; {expected}")
    return candidate


def package_weights(folder: Path) -> Path | None:
    """Return the file of weights of a package of ``retrain.export``; None if the folder is none."""
    try:
        described = read_json(folder / run_files.CONFIG)
    except Unreadable:
        return None
    name = described.get("python_file") if isinstance(described, dict) else None
    if not isinstance(name, str) or not Path(name).name or not str(described.get("format")).startswith(PACKAGE):
        return None
    file = folder / Path(Path(name).name).with_suffix(".pt")
    return file if file.is_file() else None


def _open_checkpoint(path: Path, is_given_as_folder: bool) -> ModelSource:
    payload = _read_checkpoint(path)
    model, description = network_of(payload, path)
    of_a_run = is_given_as_folder or (path.parent / run_files.CONFIG).is_file()
    return make_source(model, str(path), path.absolute().parent.name if of_a_run else short_name(path), description,
                       folder=path.parent if of_a_run else None, takes_unit_range=True,
                       record={key: value for key, value in payload.items() if key not in STATES})


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of retraining.

    Raises:
        InputError: It cannot be read, or is a file of another kind.
    """
    try:
        payload = checkpoint.read(path)
    except InputError as error:
        if name := checkpoint.pickled_object(error.__cause__):
            raise InputError(f"{path} holds a pickled {name}, and reading it could run any code; expected a "
                             "state_dict with the name of its architecture, FILE.py:FUNCTION, or a TorchScript or "
                             "torch.export file") from None
        raise
    if "network" not in payload and weights_in(payload):
        raise InputError(f"{path} holds weights without their architecture; expected the name of the architecture as "
                         "the model and this file as its state_dict, or FILE.py:FUNCTION that builds the network")
    return payload
