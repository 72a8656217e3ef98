"""What a query of a table shows: the true losses, with noise, or the losses of a graph of about the same rank."""

import torch
from torch import Tensor

from search.tables.task import TableTask
from wsrnas.runtime.seeding import generator


class Queries:
    """Answer the queries of one seed; all strategies see the same noise and the same proxy.

    Args:
        task: table and truth.
        seed: seed of noise and proxy.
        count: number of queries.
        noise: standard deviation in points of one normal number that all columns of a query share; a query of the same
            architecture gets another one.
        proxy: normal-score correlation between the objective that an architecture shows and the true one; 0: none.
    """

    def __init__(self, task: TableTask, seed: int, count: int, noise: float = 0.0, proxy: float = 0.0) -> None:
        self.task = task
        draws = torch.randn(count, generator=generator(seed, "table noise"), dtype=torch.float64)
        self.noise = noise * draws
        shown = torch.arange(len(task.table.losses))
        self.shown = pretended(task, proxy, generator(seed, "table proxy")) if proxy else shown

    def __call__(self, choices: Tensor, query: int) -> Tensor:
        """Return the losses (L,) that the query of this number, counted from 0, shows of an architecture (R,)."""
        table = self.task.table
        row = table.row[table.find(choices.unsqueeze(0))]
        return table.losses[self.shown[row]].squeeze(0) + self.noise[query]


def pretended(task: TableTask, correlation: float, random: torch.Generator) -> Tensor:
    """Return the row (m,) of results that each row of the table shows.

    The allowed rows are ranked by the true objective. Their normal scores z become r z + sqrt(1 - r²) e with normal
    numbers e; a row shows the results of the row whose true rank is the rank of its new score. A second query of the
    same architecture shows the same, and so do isomorphic ones, which share a row.

    Args:
        task: table and truth.
        correlation: r, the correlation of the scores.
        random: source of e.
    """
    places = task.distinct
    rows = task.table.row[places]
    order = task.truth[places].sort(stable=True).indices  # of the rows, the best first
    scores = torch.empty(len(rows), dtype=torch.float64)
    scores[order] = torch.special.ndtri((torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows))
    noise = torch.randn(len(rows), generator=random, dtype=torch.float64)
    new = correlation * scores + (1 - correlation**2) ** 0.5 * noise
    shown = torch.arange(len(task.table.losses))
    shown[rows[new.sort(stable=True).indices]] = rows[order]
    return shown
