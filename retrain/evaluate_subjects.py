"""What is evaluated: networks with their names, folders and transfer sources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from retrain.evaluate_files import result_folder
from retrain.evaluate_settings import EvaluateConfig
from wsrnas.architectures.searched import Searched
from wsrnas.evaluation.measurement import refuse_gradient_attacks
from wsrnas.evaluation.official import require_training_pass
from wsrnas.evaluation.protocols import PROTOCOLS, in_order
from wsrnas.models import load_architecture
from wsrnas.runtime import run_files
from wsrnas.runtime.config import require
from wsrnas.runtime.distributed import World, all_min, print_on_main
from wsrnas.runtime.errors import InputError, say
from wsrnas.subjects.fitting import fitted
from wsrnas.subjects.images import EvaluationImages
from wsrnas.subjects.model_source import ModelSource
from wsrnas.subjects.naming import display_names
from wsrnas.subjects.opening import open_model
from wsrnas.subjects.program_mode import can_train


@dataclass(frozen=True)
class Subject:
    """A network under evaluation.

    Args:
        name: Name in tables and figures.
        network: The network.
        folder: Where its results go.
        source: The network whose adversarial images its transfer attacks use; None where there is none.
    """

    name: str
    network: ModelSource
    folder: Path
    source: ModelSource | None


def named_architectures(config: EvaluateConfig) -> list[Searched | str]:
    """Return the architectures that ``--model`` names where ``--state_dict`` gives their weights; else none."""
    for given in config.model if config.state_dict else ():
        is_run = (Path(given) / run_files.CHECKPOINT).is_file() and not (Path(given) / run_files.GENOTYPE).is_file()
        require(not is_run, f"--state_dict goes with the name of an architecture, but {given} is a run directory, "
                "which has weights of its own; expected no --state_dict")
    return [load_architecture(given) for given in config.model] if config.state_dict else []


def open_named(config: EvaluateConfig, architectures: Sequence[Searched | str], images: EvaluationImages
               ) -> list[ModelSource]:
    """Open the files of ``--state_dict`` as weights of the architectures that ``--model`` names."""
    return [open_model(given, genotype=architecture, state_dict=weights, num_classes=images.num_classes,
                       init_channels=config.init_channels or None, layers=config.layers or None,
                       dataset=images.dataset, image_shape=images.shape)
            for given, architecture, weights in zip(config.model, architectures, config.state_dict, strict=True)]


def make_subjects(config: EvaluateConfig, networks: list[ModelSource]) -> list[Subject]:
    """Return the networks as subjects; without ``--source``, each takes another network as the source of transfer.

    Raises:
        InputError: Two networks or names are the same, or the source is the network that is attacked.
    """
    given = open_model(config.source, config.weights) if config.source else None
    subjects = []
    for name, network in zip(display_names(networks, config.names), networks, strict=True):
        others = [given] if given else [*networks, *other_weights(config, network)]
        source = next((other for other in others if other.fingerprint != network.fingerprint), None)
        require(bool(source or not given), f"the source {config.source} of transfer attacks is {network.source}, the "
                "network that is attacked; expected another one")
        subjects.append(Subject(name, network, result_folder(config, network, name), source))
    return subjects


def other_weights(config: EvaluateConfig, network: ModelSource) -> list[ModelSource]:
    """Return the run's last network for its best one, and the reverse, where there are two."""
    other = "last" if config.weights == "best" else "best"
    file = run_files.CHECKPOINT if other == "last" else run_files.BEST
    path = network.folder / file if network.folder else Path(network.source)
    if path == Path(network.source) or not path.is_file():
        return []
    try:
        return [open_model(str(network.folder), other)]
    except InputError as error:
        say(f"note: {error}; the checks of {network.source} do without it")
        return []


def fit_subjects(config: EvaluateConfig, subjects: Sequence[Subject], images: EvaluationImages, world: World
                 ) -> list[Subject]:
    """Move all networks and sources to the device, adapt them, and refuse those that cannot be evaluated on the images.

    A source without a gradient cannot make images: unless it was asked for, the checks go on without it.

    Raises:
        InputError: Naming the network and what is wrong with it.
    """
    published_way = bool(config.protocol) and PROTOCOLS[config.protocol].published_way
    involved = [network for subject in subjects for network in (subject.network, subject.source) if network]
    ready: dict[int, ModelSource] = {}
    for network in {id(network): network for network in involved}.values():
        require(not published_way or can_train(network.model), f"{network.source} is an exported program without a "
                f"training mode, which the published way of --protocol {config.protocol} needs")
        try:
            ready[id(network)] = fitted(network, images, world.device)
        except InputError as error:
            if config.source or any(network is subject.network for subject in subjects):
                raise
            print_on_main(world, f"note: {error}; it was not asked for, and the checks do without it")
            continue
        if published_way:
            require_training_pass(ready[id(network)].model, images.loader, network.source)
        if world.is_main:
            print("".join(f"{network.source}: {note}\n" for note in ready[id(network)].notes), end="", flush=True)
    require_same_everywhere([network.fingerprint for network in involved], world)
    found = []
    for subject in subjects:
        network, source = ready[id(subject.network)], ready.get(id(subject.source)) if subject.source else None
        if not network.has_gradient:
            refuse_gradient_attacks(in_order(config.curve, config.chosen(images.dataset)[1]), network.source)
        require(not config.source or source is None or source.has_gradient,
                f"the source {config.source} of transfer attacks has no gradient, and cannot make images")
        source = source if source and source.has_gradient else None
        asking = [attack for attack in config.chosen(images.dataset)[1] if attack.entry.needs_source]
        require(source is not None or not asking, f"the attack {''.join(map(str, asking[:1]))} on {network.source} "
                "needs another network with a gradient to make its images; expected --source")
        found.append(replace(subject, network=network, source=source))
    return found


def require_same_everywhere(fingerprints: Sequence[str], world: World) -> None:
    """Refuse networks that are not the same in all processes, such as one with a random layer.

    Raises:
        InputError: their results would be stored as those of one network.
    """
    numbers = torch.tensor([int(fingerprint[:12], 16) for fingerprint in fingerprints], dtype=torch.float64,
                           device=world.device)
    lowest, highest = all_min(numbers.clone(), world), -all_min(-numbers, world)
    require(torch.equal(lowest, highest), "a network has other weights in each process, so its numbers "
            "would belong to several; expected fixed random numbers (torch.manual_seed) where it is made")
