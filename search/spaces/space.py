"""The search space that programs, predictors and strategies ask: edges, operations, architectures, costs."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from wsrnas.architectures.searched import load, space_of
from wsrnas.runtime.config import require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import type_in_words

with deferred_imports():
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from search.spaces.fairness import balanced_draws
    from search.spaces.supernet import Supernet
    from wsrnas.complexity import count_parameters, multiply_adds

ImageShape = tuple[int, int, int]
LARGE = 100_000  # architectures of a space whose different ones are not counted


class Space(ABC):
    """Describe a search space: M kinds of cell with E edges each, and O candidate operations for every edge.

    R = M E rows of A decide an architecture. ``choices`` are the operations of the rows, integers (..., R): the edges
    of the first kind of cell in the order of ``edges``, then those of the next. A space has no state.

    Attributes:
        name: its name on the command line.
        help: one line for ``--help``.
        architecture: class of its architectures; ``wsrnas.architectures.searched`` knows their networks and files.
        layers_help: what ``--layers`` must be; empty where any number will do.
        cells: kinds of cell, each with its own rows of A.
        edges: (source, target) of the edges of a cell. States are numbered; the inputs of the cell come first, and a
            source has a smaller number than its target.
        operations: names of the candidates. "none", "skip_connect" and names with "pool" are recognised as such.
        operation_weights: what live operations weigh in ``weight``; others weigh nothing. Empty: the space has no
            such classes of size.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    architecture: ClassVar[type]
    layers_help: ClassVar[str] = ""
    operation_weights: ClassVar[Mapping[str, int]] = {}
    cells: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    # -- what a new space defines ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def operations(self) -> tuple[str, ...]:
        """Names of the candidates; a space may hold them as a plain attribute."""

    @abstractmethod
    def supernet(self, init_channels: int, layers: int, num_classes: int, tau: float, alpha_std: float,
                 generator: torch.Generator | None, channels: int = 3) -> Supernet:
        """Build the supernet for images of so many channels; ``generator`` draws A, torch's own one the weights."""

    @abstractmethod
    def discretize(self, weights: Tensor) -> Any:
        """Return the architecture of weights (M, E, O), such as A or softmax(A)."""

    @abstractmethod
    def encode(self, architecture: Any) -> Tensor:
        """Return the choices (R,) of an architecture.

        Raises:
            InputError: it is none of this space.
        """

    def inputs(self) -> tuple[int, ...]:
        """Return the states that are the inputs of a cell: those that no edge enters, unless a space says otherwise."""
        return tuple(sorted({source for source, _ in self.edges} - {target for _, target in self.edges}))

    def outputs(self) -> tuple[int, ...]:
        """Return the states that make up the output of a cell: those that no edge leaves, unless a space says not."""
        return tuple(sorted({target for _, target in self.edges} - {source for source, _ in self.edges}))

    def unsearched(self, layers: int) -> list[str]:
        """Return sentences about parts of the architecture that a network of so few cells does not have."""
        return []

    def fitting_layers(self, layers: int) -> int:
        """Return ``layers``, or if this space allows no such number of cells, the one that a preset gets instead."""
        return layers

    # -- what follows from it -------------------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        """R, rows of A."""
        return len(self.cells) * len(self.edges)

    @property
    def shape(self) -> tuple[int, int, int]:
        """M, E and O, the shape of A."""
        return len(self.cells), len(self.edges), len(self.operations)

    def check_layers(self, layers: int, name: str = "layers") -> None:
        """Refuse a number of cells that no network of this space has; ``name`` is the field that holds it.

        Raises:
            InputError: the sentence says what was expected.
        """
        require(self.fitting_layers(layers) == layers,
                f"{name} is {layers}; the space {self.name} expects {self.layers_help}")

    @property
    def none(self) -> int:
        """Index of the operation "none"; -1 where the space has none."""
        return self.operations.index("none") if "none" in self.operations else -1

    @property
    def num_choices(self) -> int:
        """Number of decisions that ``differences`` compares."""
        return self.num_rows

    def sample(self, count: int, generator: torch.Generator | np.random.Generator) -> Tensor:
        """Draw choices (count, R) uniformly."""
        size = (count, self.num_rows)
        if isinstance(generator, np.random.Generator):
            return torch.from_numpy(generator.integers(len(self.operations), size=size))
        return torch.randint(len(self.operations), size, generator=generator)

    def fair_sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw choices (count, R), each as ``sample`` does, in which a row has all of its operations equally often.

        In each block of as many draws as a row has operations, counting those alone in which the architecture keeps the
        row, it has every operation once.
        """
        return balanced_draws(count, self.num_rows, len(self.operations), generator)

    def network(self, architecture: Any, init_channels: int, layers: int, num_classes: int,
                channels: int = 3) -> nn.Module:
        """Build the network of one architecture, for images of ``channels`` channels.

        Raises:
            InputError: the library has no network for such architectures, or a number is too small.
        """
        kind = space_of(architecture)
        require(kind is not None, f"{architecture!r} is no architecture that wsrnas.architectures.searched knows")
        return cast(Any, kind).build(architecture, init_channels, layers, num_classes, channels, False, False)

    def load(self, path: str | Path) -> Any:
        """Read the file of one of this space's architectures.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        architecture = load(path)
        require(isinstance(architecture, self.architecture),
                f"{path} holds {type_in_words(architecture)}; expected a {self.architecture.__name__}, as the space "
                f"{self.name} has")
        self.encode(architecture)
        return architecture

    def gates(self, choices: Tensor) -> Tensor:
        """Return choices (..., R) as one-hot gates (..., R, O)."""
        return F.one_hot(choices, len(self.operations)).to(torch.get_default_dtype())

    def decode(self, choices: Tensor) -> Any:
        """Return the architecture of choices (R,)."""
        return self.discretize(self.gates(choices).view(self.shape))

    def path_gates(self, architecture: Any) -> Tensor:
        """Return gates (M, E, O) with which the supernet runs one architecture."""
        return self.gates(self.encode(architecture)).view(self.shape)

    def discrete(self, weights: Tensor) -> Tensor:
        """Return the choices (n, R) of the architectures of weights (n, M, E, O), by the rule of ``discretize``."""
        return weights.flatten(1, 2).argmax(-1)

    def free_rows(self, choices: Tensor) -> Tensor:
        """Return the indices of the rows whose operation in ``choices`` (R,) may change alone."""
        return torch.arange(self.num_rows)

    def neighbours(self, choices: Tensor) -> Tensor:
        """Return all architectures (n, R) that differ from the architecture ``choices`` (R,) in one decision."""
        return self.replaced(choices, range(len(self.operations)))

    def replaced(self, choices: Tensor, operations: Sequence[int]) -> Tensor:
        """Return ``choices`` (R,) with one of the free rows changed to another of these operations, each once."""
        rows = self.free_rows(choices)
        other = torch.tensor(list(operations)).repeat(len(rows))
        rows = rows.repeat_interleave(len(operations))
        changed = choices[rows] != other
        return _assign(choices, rows[changed].unsqueeze(1), other[changed].unsqueeze(1))

    def exchanges(self, choices: Tensor) -> Tensor:
        """Return all architectures (n, R) in which two rows of a cell have exchanged their operations."""
        rows = self.free_rows(choices)
        pairs = torch.combinations(rows)
        first, second = choices[pairs].unbind(1)
        pairs = pairs[(first != second) & (pairs[:, 0] // len(self.edges) == pairs[:, 1] // len(self.edges))]
        return _assign(choices, pairs, choices[pairs.flip(1)])

    def mutations(self, choices: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` architectures (count, R) that are random neighbours of random neighbours of ``choices``."""
        def one_of(near: Tensor) -> Tensor:
            return near[torch.randint(len(near), (1,), generator=generator)]

        near = self.neighbours(choices)
        return torch.cat([choices[:0].view(0, self.num_rows),
                          *(one_of(self.neighbours(one_of(near)[0])) for _ in range(count))])

    def key(self, choices: Tensor | np.ndarray) -> list[Hashable]:
        """Return a value for each of choices (n, R); equal values compute the same function, if the space knows it."""
        return list(map(tuple, choices.tolist()))

    def distinct(self, most: int) -> int:
        """Return the number of architectures with different keys; from ``most`` on, ``most``."""
        operations, keys = len(self.operations), set[Hashable]()
        total = operations**self.num_rows
        if total > LARGE:
            return most
        digits = operations ** np.arange(self.num_rows)
        for first in range(0, total, 1000):  # in numpy, which a refused configuration need not wait for
            keys.update(self.key(np.arange(first, min(first + 1000, total))[:, None] // digits % operations))
            if len(keys) >= most:
                return most
        return len(keys)

    def live(self, choices: Tensor) -> Tensor:
        """Return which rows (n, R) of choices (n, R) the output depends on."""
        return choices != self.none

    def lean(self, choices: Tensor) -> Tensor:
        """Return which (n,) of choices (n, R) have no operation that the output does not depend on."""
        return (self.live(choices) == (choices != self.none)).all(-1)

    def weight(self, choices: Tensor) -> Tensor:
        """Return the sum (n,) of ``operation_weights`` over the live rows of choices (n, R): a coarse size."""
        weights = torch.tensor([self.operation_weights.get(name, 0) for name in self.operations])
        return (weights[choices] * self.live(choices)).sum(-1)

    # -- cost -----------------------------------------------------------------------------------------------------

    def cost(self, choices: Tensor, init_channels: int, layers: int, num_classes: int,
             image_shape: ImageShape) -> Tensor:
        """Return parameters and multiply-adds (n, 2), integers, of the networks of choices (n, R).

        Args:
            choices: operations of the rows.
            init_channels: width C of the networks.
            layers: number of cells.
            num_classes: K.
            image_shape: channels, height and width of an image.
        """
        gates = F.one_hot(choices, len(self.operations)).double()
        return self.expected_cost(gates, init_channels, layers, num_classes, image_shape).round().long()

    def expected_cost(self, gates: Tensor, init_channels: int, layers: int, num_classes: int,
                      image_shape: ImageShape) -> Tensor:
        """Return parameters and multiply-adds (n, 2) of gates (n, R, O); differentiable, ``cost`` at one-hot gates.

        It is linear in the gates of the rows that ``kept`` names.
        """
        fixed, table = self.cost_table(init_channels, layers, num_classes, image_shape)
        kept = gates * self.kept(gates.detach()).unsqueeze(-1)
        return fixed.to(gates) + kept.flatten(1) @ table.to(gates).flatten(0, 1)

    def cost_table(self, init_channels: int, layers: int, num_classes: int,
                   image_shape: ImageShape) -> tuple[Tensor, Tensor]:
        """Return the cost of what all networks share (2,), and of every operation in every row (R, O, 2).

        This is exact where the costs of rows add up; a space in which they do not overrides it or ``cost``.
        """
        return _measured_table(self, init_channels, layers, num_classes, image_shape)

    def kept(self, gates: Tensor) -> Tensor:
        """Return which rows (n, R) the architectures of gates (n, R, O) keep; others cost nothing."""
        return torch.ones(gates.shape[:-1], dtype=torch.bool, device=gates.device)

    # -- records --------------------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Return what a page needs to know to draw a search of this space, as JSON values."""
        return {"name": self.name, "cells": self.cells, "edges": self.edges, "operations": self.operations,
                "choices": self.num_choices}

    def chosen(self, architecture: Any) -> Mapping[str, Sequence[str]]:
        """Return the operations of an architecture, by kind of cell."""
        names = [self.operations[choice] for choice in self.encode(architecture).tolist()]
        size = len(self.edges)
        return {kind: names[k * size:(k + 1) * size] for k, kind in enumerate(self.cells)}

    def row(self, architecture: Any) -> Mapping[str, Sequence[Any]]:
        """Return an architecture for a row of ``metrics.jsonl``: for each kind of cell the operation of every edge."""
        return self.chosen(architecture)

    def differences(self, a: Any, b: Any) -> int:
        """Return the number of decisions, of ``num_choices``, in which ``a`` differs from ``b``."""
        return int((self.encode(a) != self.encode(b)).sum())


def _assign(choices: Tensor, rows: Tensor, operations: Tensor) -> Tensor:
    """Return copies of ``choices`` (R,), in the i-th of which the rows (n, k) have the operations (n, k)."""
    return choices.repeat(len(rows), 1).scatter(1, rows, operations)


def measured_cost(network: nn.Module, image_shape: ImageShape) -> tuple[int, int]:
    """Return parameters and multiply-adds of a network."""
    parameters = count_parameters(network)
    return parameters, multiply_adds(network, image_shape) if parameters else 0


@functools.cache
def _measured_table(space: Space, init_channels: int, layers: int, num_classes: int,
                    image_shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Measure the first architecture, and each that differs from it in one row, as networks without memory."""
    def measure(choices: Tensor) -> Tensor:
        architecture = space.decode(choices)
        with torch.device("meta"):
            network = space.network(architecture, init_channels, layers, num_classes, image_shape[0])
        return torch.tensor(measured_cost(network, image_shape), dtype=torch.float64)

    first = torch.zeros(space.num_rows, dtype=torch.long)
    fixed = measure(first)
    table = torch.zeros(space.num_rows, len(space.operations), 2, dtype=torch.float64)
    for choices in space.neighbours(first):
        row = int(choices.nonzero())
        table[row, choices[row]] = measure(choices) - fixed
    return fixed, table
