"""Cost of every entrant on this device: activation memory and latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from retrain.race.entrants import Entrant
from retrain.race.jobs import read_object
from wsrnas.complexity import activation_bytes, latencies
from wsrnas.data.image_set import DataSet
from wsrnas.models import build_model
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.device import device_name
from wsrnas.runtime.distributed import World


def known_costs(race: Path) -> dict[str, dict[str, Any]]:
    """Return the costs that ``write_costs`` has measured so far, by entrant."""
    stored = read_object(race / run_files.COSTS)
    return {name: cost for name, cost in stored.items() if isinstance(cost, dict)
            and isinstance(cost.get("latency"), dict)}


def network_of(entrant: Entrant) -> list[int | None]:
    """Return what tells an entrant's network from another one that had its name."""
    return [entrant.parameters, entrant.multiply_adds, entrant.init_channels, entrant.layers]


def is_cost_of(cost: dict[str, Any], entrant: Entrant) -> bool:
    """Return whether a cost is that of an entrant, and not of another network that had its name."""
    return cost.get("network") == network_of(entrant)


def write_costs(race: Path, entrants: Sequence[Entrant], data: DataSet, world: World) -> dict[str, dict[str, Any]]:
    """Measure activation memory and latency of every entrant, and keep them in ``costs.json``.

    If one is missing, is that of another network, or was measured on another device or with another number of threads,
    all are measured again. They are measured in turns, so that other work on the machine slows all of them alike.

    Args:
        race: folder of the race.
        entrants: all entrants.
        data: data set, for the shape of an image and the number of classes.
        world: this process and its device.

    Returns:
        ``activation_bytes`` and ``latency`` by entrant.
    """
    known = known_costs(race)
    here = [device_name(world.device), torch.get_num_threads()]
    if any([known.get(entrant.name, {}).get("latency", {}).get(key) for key in ("device", "threads")] != here
           or not is_cost_of(known[entrant.name], entrant) for entrant in entrants):
        networks = {entrant.name: build_model(
            entrant.arch, data.num_classes, entrant.init_channels, entrant.layers, data.name, data.image_shape[0]
        ).to(world.device).to(memory_format=torch.channels_last) for entrant in entrants}
        measured = latencies(networks, data.image_shape)
        known = {entrant.name: {
            "network": network_of(entrant),
            "activation_bytes": activation_bytes(networks[entrant.name], data.image_shape),
            "latency": measured[entrant.name]} for entrant in entrants}
        write_json(race / run_files.COSTS, known)
    return known
