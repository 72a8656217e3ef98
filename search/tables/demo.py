"""A synthetic table that the project makes itself, so that a search can be watched without any file."""

import torch

from search.spaces import SPACES
from search.spaces.space import Space
from search.tables.nas_robbench import NETWORK
from search.tables.table import Table
from wsrnas.runtime.config import require

COLUMNS = ("clean", "pgd_3", "pgd_8")
SPACE = SPACES["nas-bench-201"]
WARNING = ("this table is SYNTHETIC: a seeded formula of the project, not measurements; its numbers say nothing about "
           "networks")
SEED = 205


def demo(columns: tuple[str, ...] = ()) -> Table:
    """Return a table of all graphs of NAS-Bench-201, whose accuracies a seeded law makes up.

    A graph is worth more the more its live operations weigh, with saturation. Every live operation on its edge and
    every pair of them adds a random amount, larger under attack. Graphs of the same function share their results.

    Args:
        columns: the columns to keep; empty: all three.
    """
    for name in columns:
        require(name in COLUMNS, f"the table demo has no column {name!r}; expected some of {', '.join(COLUMNS)}")
    choices = torch.cartesian_prod(*[torch.arange(len(SPACE.operations))] * SPACE.num_rows)
    first: dict[object, int] = {}
    owners = [first.setdefault(key, place) for place, key in enumerate(SPACE.key(choices))]
    kept, row = torch.unique(torch.tensor(owners), return_inverse=True)
    table = Table("demo", WARNING, SPACE, choices, row, _losses(SPACE, choices[kept]), COLUMNS, NETWORK, True)
    return table.restricted(columns or COLUMNS)


def _losses(space: Space, choices: torch.Tensor) -> torch.Tensor:
    """Return the losses (n, 3) of choices (n, R) in points."""
    generator = torch.Generator().manual_seed(SEED)
    live = (space.gates(choices) * space.live(choices).unsqueeze(-1)).flatten(1).double()
    width = live.shape[1]
    worth = 20 * (1 - (space.weight(choices).double() + 1).rsqrt())
    losses = []
    for chance, ceiling, spread in zip((10, 9, 8), (75, 60, 30), (1.5, 1.8, 2.1), strict=True):
        single = torch.randn(width, generator=generator, dtype=torch.float64)
        pairs = torch.randn(width, width, generator=generator, dtype=torch.float64) / 2.5
        value = worth + spread * (live @ single + ((live @ pairs) * live).sum(-1))
        accuracy = chance + ceiling * torch.sigmoid((value - 18) / 8)
        losses.append(100 - torch.where(live.any(-1), accuracy, torch.tensor(float(chance), dtype=torch.float64)))
    return torch.stack(losses, -1)
