"""Where a training begins: with random weights, with those of another network, or where a finished run has ended."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from retrain.settings import AnyTraining
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import shown_path
from wsrnas.runtime.same_work import stored_object
from wsrnas.subjects.checkpoints import misfit, weights_in, with_counters, without_auxiliary_head
from wsrnas.subjects.model_source import weights_hash
from wsrnas.subjects.opening import find_checkpoint, package_weights
from wsrnas.training.schedules import SCHEDULES

HEAD = "classifier."  # of every network of ``build_model``
OWN = ("auxiliary.", "normalize.")  # parts that files of weights may lack: of training alone, or constant


@dataclass(frozen=True)
class Beginning:
    """Describe what a training has begun from.

    Args:
        fingerprint: hash of the weights that it was given; None: it has random ones.
        says: sentences for the log.
    """

    fingerprint: str | None = None
    says: tuple[str, ...] = ()


def begin(network: nn.Module, config: AnyTraining) -> Beginning:
    """Put the weights that ``--init_weights`` names into a network; without the flag, leave it as it is.

    The head is left out where it is for other classes.

    Args:
        network: the network with random weights.
        config: recipe of the training.

    Raises:
        InputError: there are no such weights, or they are of another network; the sentence says in what it differs.
    """
    if not config.init_weights:
        return Beginning()
    path = package_weights(Path(config.init_weights)) or find_checkpoint(config.init_weights)
    own, stored = network.state_dict(), _weights(path)
    given = with_counters(stored, network)
    head = [name for name, value in own.items() if name.startswith(HEAD)
            and (name not in given or given[name].shape != value.shape)]
    taken = {name: value for name, value in given.items() if name not in head}
    optional = {name for name in own if name in head or name.startswith(OWN)} - taken.keys()
    expected = {name: value for name, value in own.items() if name not in optional}
    problem = misfit(expected, taken)
    require(not problem, f"init_weights: the weights in {shown_path(path)} do not fit {config.arch} with "
            f"{config.init_channels} channels and {config.layers or 'its own'} layers: {problem}; expected those of "
            "the same architecture and size, of which the head alone may differ")
    network.load_state_dict(taken, strict=False)
    fingerprint = weights_hash(stored.items())
    says = [f"the training begins with the weights in {shown_path(path)} ({fingerprint})"]
    if head:
        there = tuple(given[head[0]].shape) if head[0] in given else "absent"
        says.append(f"the head is new: {head[0]} is {tuple(own[head[0]].shape)} here and {there} there")
    return Beginning(fingerprint, tuple(says))


def _weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, without an auxiliary head.

    Raises:
        InputError: it holds none, or several sets of which nothing says which is meant.
    """
    payload = checkpoint.read(path)
    try:
        weights = weights_in({"model": payload["model"]} if "network" in payload and "model" in payload else payload)
    except InputError as error:
        raise InputError(f"init_weights: {shown_path(path)}: {error}") from None
    if weights is None:
        raise InputError(f"init_weights: {shown_path(path)} holds no weights; expected a checkpoint or a state_dict")
    return without_auxiliary_head(weights)


# -- the rest of a finished training ----------------------------------------------------------------------------------

def check_extension(folder: Path, config: AnyTraining) -> str:
    """Refuse to lengthen a run that would not become what a run of so many epochs is.

    Args:
        folder: run directory.
        config: recipe of the training with the new number of epochs.

    Returns:
        A remark on what still differs from a run of so many epochs; empty if nothing does.

    Raises:
        InputError: there is no run, or its first epochs depend on how many follow.
    """
    stored = stored_object(folder / run_files.CONFIG) or {}
    before, asked = stored.get("epochs"), config.epochs
    if type(before) is not int:
        raise InputError(f"--extend lengthens a run, but {folder} holds none; leave --extend out, or name the run by "
                         "--save")
    require(asked >= before, f"--extend: epochs is {asked}, but the run in {folder} has {before}; expected more")
    if asked == before:
        return ""
    instead = (f"expected a new training under another --save, from its beginning, or from these weights with a "
               f"schedule of its own: --init_weights {shlex.quote(str(folder))} --epochs {asked - before}")
    require(not SCHEDULES[config.schedule].is_whole, f"--extend: the learning rate of the schedule {config.schedule} "
            f"depends on the number of epochs from the first step on, so {before} epochs are no part of {asked}; "
            f"{instead}")
    require(not config.drop_path, f"--extend: the drop-path rate rises over all epochs, so {before} epochs are no part "
            f"of {asked}; {instead}")
    if config.held_out and before % config.select_every:
        return (f"best.pt was also selected after epoch {before}, the last one then; a training of {asked} epochs "
                f"selects every {config.select_every} epochs")
    return ""
