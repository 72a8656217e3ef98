"""A table of measured architectures: what each lost, in points of accuracy."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from search.spaces.space import ImageShape, Space
from search.strategy.size import Sizes
from wsrnas.runtime.config import require


@dataclass(frozen=True, eq=False)
class Table:
    """Hold architectures of one space with their losses; isomorphic ones share a row of results.

    Args:
        name: short name for titles and folders.
        source: where the numbers come from, in a sentence.
        space: the search space.
        choices: architectures (n, R), integers, each once.
        row: index (n,) of each architecture's results.
        losses: results (m, L) in points, 100 * (1 - accuracy), so that smaller is better.
        columns: names of the L columns, accuracy on clean images first.
        network: width C, number of cells, number of classes and image shape of the networks, which give their sizes.
        synthetic: whether the project made the numbers up.
        in_file: number (n,) of each architecture in the list of the file, from 0; None: that of ``choices``.
    """

    name: str
    source: str
    space: Space
    choices: Tensor
    row: Tensor
    losses: Tensor
    columns: tuple[str, ...]
    network: tuple[int, int, int, ImageShape]
    synthetic: bool = False
    in_file: Tensor | None = None
    _odd: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = self.choices.shape[1]
        odd = torch.randint(2**62, (rows,), generator=torch.Generator().manual_seed(0)) * 2 + 1
        object.__setattr__(self, "_odd", odd)

    @cached_property
    def sizes(self) -> Sizes:
        """Standardised log parameters and multiply-adds of this table's networks."""
        return Sizes(self.space, *self.network)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Codes of the architectures in ascending order, and their places in ``choices``."""
        codes, places = self._codes(self.choices).sort()
        assert (codes.diff() != 0).all(), "two architectures have one code"
        return codes, places

    def _codes(self, choices: Tensor) -> Tensor:
        """Return one integer (n,) for each of choices (n, R); overflow wraps around."""
        return (choices * self._odd).sum(-1)

    def find(self, choices: Tensor) -> Tensor:
        """Return the places (n,) of choices (n, R) in the table; -1 for those that are not in it."""
        codes, places = self._sorted
        found = places[torch.searchsorted(codes, self._codes(choices)).clamp_max(len(codes) - 1)]
        return torch.where((self.choices[found] == choices).all(-1), found, -1)

    def lookup(self, choices: Tensor) -> Tensor:
        """Return the losses (n, L) of choices (n, R), all of which are in the table."""
        return self.losses[self.row[self.find(choices)]]

    def numbers(self, places: Tensor) -> list[int]:
        """Return the numbers in the file, from 0, of the architectures at places (n,)."""
        return (places if self.in_file is None else self.in_file[places]).tolist()

    def fingerprint(self) -> str:
        """Return a checksum of the architectures and their losses."""
        digest = hashlib.blake2b(digest_size=8)
        for values in (self.choices, self.row, self.losses):
            digest.update(values.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def restricted(self, columns: tuple[str, ...]) -> "Table":
        """Return the table with these columns, in this order.

        Raises:
            InputError: the table lacks one, or one is named twice.
        """
        for name in columns:
            require(name in self.columns, f"the table {self.name} has no column {name!r}; expected some of "
                    f"{', '.join(self.columns)}")
            require(columns.count(name) == 1, f"columns names {name} twice; expected each once")
        chosen = [self.columns.index(name) for name in columns]
        return Table(self.name, self.source, self.space, self.choices, self.row, self.losses[:, chosen], columns,
                     self.network, self.synthetic, self.in_file)
