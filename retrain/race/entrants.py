"""Entrants of a race: architectures by name, by file or drawn at random, each at the width of the budget."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from retrain.construction import require_path
from retrain.settings import spoken_name
from wsrnas.architectures.catalogue import ENTRIES, find
from wsrnas.architectures.searched import Searched
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.genotype import Genotype, random_genotype
from wsrnas.models import build_model, load_architecture, sizes
from wsrnas.runtime.budget import QUANTITIES, Budget
from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError, shown
from wsrnas.runtime.seeding import generator

# For a budget that all entrants can reach: search widths within 20 % of the nearest one, at least 8.
NEIGHBOURHOOD, NEIGHBOURS = 0.2, 8
DRAWS = 1000  # of a random network of one cell, until a width brings it to the budget; of 20 cells 50, in 45 seconds
MOST_RANDOM = 10_000
RANDOM = "random"  # the family of random cells


@dataclass(frozen=True)
class Entrant:
    """An architecture in a race.

    Args:
        name: name, unique in the race and usable as that of a folder.
        arch: searched architecture, or name of a network with a design of its own, as ``models.load_architecture``
            returns it.
        source: publication, or what the user gave: the file of an architecture, or a graph of NAS-Bench-201.
        family: family in the catalogue; ``searched`` for a file or graph, ``random`` for a random cell.
        layers: number of cells; None for a network with a depth of its own.
        init_channels: width; 0 before ``widen``.
        parameters: number of parameters; 0 before ``widen``.
        multiply_adds: multiply-adds for one image; 0 before ``widen``.
    """

    name: str
    arch: Searched | str
    source: str
    family: str
    layers: int | None
    init_channels: int = 0
    parameters: int = 0
    multiply_adds: int = 0

    @property
    def drawn(self) -> bool:
        """Whether it is a random cell."""
        return self.family == RANDOM


def load_entrants(specs: Sequence[str], layers: int, seed: int) -> list[Entrant]:
    """Return the entrants that ``--archs`` names, in its order.

    Args:
        specs: names, files, and ``random:N``, separated by commas.
        layers: number of cells of the entrants made of DARTS cells; graphs of NAS-Bench-201 have their 15.
        seed: seed of the random cells; the cells of ``random:3`` are the first three of ``random:5``. ``widen`` draws
            those again that no width brings to the budget.

    Raises:
        InputError: an architecture is unknown (the message names the closest ones), a file is malformed, a graph gives
            every image the same answer, or a name appears twice.
    """
    entrants: list[Entrant] = []
    drawn = 0
    for spec in (part.strip() for text in specs for part in text.split(",") if part.strip()):
        if found := re.fullmatch(r"random:(\d+)", spec):
            require(0 < float(found[1]) <= MOST_RANDOM, f"archs contains {shown(spec)}; expected 1 to {MOST_RANDOM} "
                    "random cells")
            drawn += 1
            entrants += [Entrant(f"{RANDOM}_{number}", _random_cell(seed, number), f"drawn with seed {seed}", RANDOM,
                                 layers) for number in range(1, int(found[1]) + 1)]
        else:
            mistyped = re.fullmatch(rf"{RANDOM}(:.*)?", spec, re.IGNORECASE) and not os.path.exists(spec)
            require(not mistyped, f"archs contains {spec}; expected random:N with the number of random cells, such as "
                    "random:12")
            entrants.append(_entrant(spec, layers))
    require(drawn <= 1, f"archs asks {drawn} times for random cells; expected one random:N with all of them")
    names = [entrant.name.lower() for entrant in entrants]  # not every file system tells the two cases apart
    twice = next((entrant.name for entrant in entrants if names.count(entrant.name.lower()) > 1), None)
    require(twice is None, f"{twice} is among the entrants twice; expected different ones (NAME=PATH names a file)")
    return entrants


def _random_cell(seed: int, number: int, *again: int) -> Genotype:
    return random_genotype(generator(seed, "random cell", number, *again))


def _entrant(spec: str, layers: int) -> Entrant:
    named = None if os.path.exists(spec) else re.fullmatch(r"([\w.-]+)=(.+)", spec)
    given, spec = named.groups() if named else ("", spec)
    arch = load_architecture(spec)
    require_path(arch)
    depth = layers if isinstance(arch, Genotype) else sizes(spec, "cifar10")[1]
    if name := find(spec):
        return Entrant(given or name, arch, ENTRIES[name].source, ENTRIES[name].family, depth)
    return Entrant(given or re.sub(r"[^0-9A-Za-z_.]+", "-", spoken_name(spec)), arch, spec, "searched", depth)


def widen(entrants: Sequence[Entrant], budget: Budget, tolerance: float, num_classes: int,
          image_shape: tuple[int, int, int], dataset: str, seed: int) -> list[Entrant]:
    """Return the entrants at the widths whose cost is nearest to the budget.

    A random cell that no width brings to the budget is drawn again: random cells of a race are drawn from the cells
    that meet its budget. Other entrants were asked for, so a miss of theirs is an error.

    Args:
        entrants: entrants of any width.
        budget: cost that all should have.
        tolerance: largest allowed difference from the budget, as a fraction.
        num_classes: number of classes.
        image_shape: shape (C, H, W) of an image.
        dataset: name of the data set.
        seed: seed of the random cells.

    Raises:
        InputError: no width of some entrant meets the budget; the message gives the nearest width, and a budget that
            all entrants meet.
    """
    def at_the_budget(entrant: Entrant) -> tuple[Entrant, Callable[[int], int], int]:
        cost = cost_of(entrant, budget.quantity, num_classes, image_shape, dataset)
        return entrant, cost, nearest_width(cost, budget.value, sizes(entrant.arch, dataset)[0])

    def misses(cost: Callable[[int], int], width: int) -> bool:
        return abs(cost(width) - budget.value) > tolerance * budget.value

    def fitted(entrant: Entrant, draws: int) -> tuple[Entrant, Callable[[int], int], int]:
        first = found = at_the_budget(entrant)
        for draw in range(1, draws // (entrant.layers or 1) if entrant.drawn else 1):
            if not misses(*found[1:]):
                break
            number = int(entrant.name.removeprefix(f"{RANDOM}_"))
            found = at_the_budget(replace(entrant, arch=_random_cell(seed, number, draw)))
        return first if misses(*found[1:]) else found

    fits: list[tuple[Entrant, Callable[[int], int], int]] = []
    for entrant in entrants:  # after one that misses, the race is refused, whatever is drawn
        fits.append(fitted(entrant, 1 if any(misses(*fit[1:]) for fit in fits) else DRAWS))
    entrants, costs, widths = zip(*fits, strict=True) if fits else ((), (), ())
    missed = [f"{entrant.name} comes nearest with {readable(cost(width))} ({cost(width) / budget.value - 1:+.1%}, "
              f"init_channels {width})" for entrant, cost, width in zip(entrants, costs, widths, strict=True)
              if misses(cost, width)]
    if missed:
        common = common_budget(costs, widths, budget.value, tolerance)
        advice = (f"all entrants meet {budget.quantity}={readable(common)}" if common else
                  "no budget near it is met by all entrants")
        worst = max(abs(cost(width) / budget.value - 1) for cost, width in zip(costs, widths, strict=True))
        admits = math.ceil(1000 * worst) / 1000
        advice += f", and --tolerance {admits:g} admits all" if admits < 1 else ""
        raise InputError(f"no width meets the budget {budget.text} ({QUANTITIES[budget.quantity]}) within "
                         f"{tolerance:.3g} of it: {'; '.join(missed)}; {advice}")
    widened = []
    for entrant, width in zip(entrants, widths, strict=True):
        network = shapes_of(entrant, width, num_classes, image_shape, dataset)
        widened.append(replace(entrant, init_channels=width, parameters=count_parameters(network),
                               multiply_adds=multiply_adds(network, image_shape)))
    return widened


def shapes_of(entrant: Entrant, width: int, num_classes: int, image_shape: tuple[int, int, int],
              dataset: str) -> torch.nn.Module:
    """Return the entrant's network on the device ``meta``, to count its parameters and operations."""
    with torch.device("meta"):
        return build_model(entrant.arch, num_classes, width, entrant.layers, dataset, image_shape[0])


def cost_of(entrant: Entrant, quantity: str, num_classes: int, image_shape: tuple[int, int, int],
            dataset: str) -> Callable[[int], int]:
    """Return the function width -> parameters or multiply-adds; it remembers its results."""
    @cache
    def cost(width: int) -> int:
        network = shapes_of(entrant, width, num_classes, image_shape, dataset)
        return count_parameters(network) if quantity == "params" else multiply_adds(network, image_shape)
    return cost


def nearest_width(cost: Callable[[int], int], target: float, start: int) -> int:
    """Return the width, at least 1, whose cost is nearest to ``target``; of several the smallest.

    Args:
        cost: function of the width that does not fall.
        target: wanted cost.
        start: width where the search starts.
    """
    guess = max(1, round(start * (target / cost(start)) ** 0.5))  # costs are about quadratic
    low, high = max(1, guess - 1), guess + 1
    while low > 1 and cost(low) >= target:
        low, high = max(1, low - 2 * (high - low)), low
    while cost(high) < target:
        low, high = high, high + 2 * (high - low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) < target else (low, middle)
    best = low if target - cost(low) <= cost(high) - target else high
    while best > 1 and cost(best - 1) == cost(best):
        best -= 1
    return best


def common_budget(costs: Sequence[Callable[[int], int]], widths: Sequence[int], target: float,
                  tolerance: float) -> float | None:
    """Return the budget nearest to ``target`` that every entrant meets with a width near the given one, or None.

    A cost c meets the budgets from c / (1 + tolerance) to c / (1 - tolerance).

    Args:
        costs: functions width -> cost, one for each entrant.
        widths: widths of the entrants.
        target: wanted budget.
        tolerance: largest allowed difference from the budget, as a fraction.
    """
    met = []
    for cost, width in zip(costs, widths, strict=True):
        reach = max(NEIGHBOURS, round(NEIGHBOURHOOD * width))
        near = {cost(other) for other in range(max(1, width - reach), width + reach + 1)}
        met.append([(count / (1 + tolerance), count / (1 - tolerance)) for count in near])
    # Rounded inwards to four digits, as it will be typed.
    candidates = {float(f"{edge * side:.4g}") for intervals in met for interval in intervals
                  for edge, side in zip(interval, (1.0005, 0.9995), strict=True)}
    common = [value for value in candidates
              if all(any(low <= value <= high for low, high in intervals) for intervals in met)]
    return min(common, key=lambda value: abs(value - target), default=None)
