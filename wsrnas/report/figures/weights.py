"""The figure of the architecture weights over a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.report.figures.axes import blank, styled
from wsrnas.report.figures.picture import Picture, picture, slug
from wsrnas.report.figures.style import MUTED, operation_colour
from wsrnas.report.reading.space import RecordedSpace, cell_title

DRAWN_POINTS = 120  # points of each line; the table of the figure has all numbers


@styled
def weights(rows: Sequence[dict[str, Any]], kind: str, space: RecordedSpace, unit: str) -> Picture | None:
    """Draw softmax(A) of one cell over the search, in one panel for each edge.

    Args:
        rows: Rows of ``metrics.jsonl``.
        kind: Kind of cell.
        space: The search space.
        unit: What a row is about: "epoch" or "step".
    """
    kept = [row for row in rows if row.get("phase", "search") == "search" and _is_whole(row, kind)]  # before, it rests
    if len(kept) < 2:
        return None
    from matplotlib.collections import LineCollection
    alphas = np.array([row["architecture"]["alphas"][kind] for row in kept], dtype=float)  # (steps, E, O)
    shares = np.exp(alphas - alphas.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    changed = _changes(kept, kind, space)
    low, high = 0.95 * shares.min(), 1.05 * shares.max()
    edges, names = space.edges, space.operations
    first, last_node = min(node for _, node in edges), max(node for _, node in edges)
    figure = blank(9.4, 1.55 * (last_node - first + 1))
    axes = figure.subplots()
    time = np.linspace(0, 1, len(kept))
    shown = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), DRAWN_POINTS)).round().astype(int))
    for edge, (source, node) in enumerate(edges):
        left, bottom = 1.14 * source, -1.3 * (node - first)
        frame = [[(left, bottom), (left, bottom + 1)], [(left, bottom), (left + 1, bottom)]]
        marks = [[(left + time[i], bottom), (left + time[i], bottom + 1)] for i in changed[edge]]
        axes.add_collection(LineCollection(frame, colors=MUTED, linewidths=0.7))
        axes.add_collection(LineCollection(marks, colors=MUTED, linewidths=0.7, linestyles=":"))
        curves = [np.stack([left + time[shown], bottom + (shares[shown, edge, o] - low) / (high - low)], -1)
                  for o in range(alphas.shape[2])]
        strongest = shares[-1, edge].argmax()
        axes.add_collection(LineCollection(curves, colors=[operation_colour(name) for name in names],
                                           linestyles=[_dashes(name) for name in names],
                                           linewidths=[2.6 if o == strongest else 1.1 for o in range(len(curves))]))
        if source == min(of for of, to in edges if to == node):  # the leftmost panel of its row
            for height, share in ((0, low), (1, high)):
                axes.text(left - 0.02, bottom + height, f"{share:.3f}", fontsize=7, ha="right", va="center",
                          color=MUTED)
        if node == last_node:
            for place, row in ((0, kept[0]), (1, kept[-1])):
                axes.text(left + place, bottom - 0.04, str(row["step"] + 1), fontsize=7, va="top", color=MUTED,
                          ha="right" if place else "left")
        axes.text(left + 0.02, bottom + 1.02, f"{space.state(source)} → {node}", fontsize=8.5, va="bottom")
    handles = [axes.plot([], [], color=operation_colour(name), linestyle=_dashes(name))[0] for name in names]
    axes.legend(handles, names, loc="upper right", ncols=2)
    axes.set(xlim=(-0.14, 1.14 * max(source for source, _ in edges) + 1.05),
             ylim=(-1.3 * (last_node - first) - 0.22, 1.28))
    axes.axis("off")
    header = ["step", *(f"{space.state(source)}->{node} {name}" for source, node in edges for name in names)]
    table = [[row["step"] + 1, *shares[i].round(4).ravel().tolist()] for i, row in enumerate(kept)]
    start, end = kept[0]["step"] + 1, kept[-1]["step"] + 1
    return picture(figure, f"weights-{slug(kind)}", f"Weights of the operations on the {len(edges)} edges of the "
                   f"{cell_title(kind)} from {unit} {start} to {end}.", f"{cell_title(kind).capitalize()}: softmax of "
                   f"the architecture parameters, one panel for each edge (its input → its node), {unit}s {start} to "
                   f"{end} from left to right, {low:.3f} to {high:.3f} from bottom to top. Thick: the strongest "
                   f"operation at the end. Dotted: {unit}s that change the genotype's operations on this edge.",
                   header, table)


def _is_whole(row: dict[str, Any], kind: str) -> bool:
    """Return whether a row has A of a kind of cell, in finite numbers."""
    alphas = (row.get("architecture") or {}).get("alphas", {})
    return kind in alphas and bool(np.isfinite(np.array(alphas[kind], dtype=float)).all())


def _dashes(operation: str) -> str:
    """Return the dashes that distinguish an operation from others of its colour."""
    return ":" if operation == "none" else "--" if operation.endswith("5x5") or operation.startswith("avg") else "-"


def _changes(rows: Sequence[dict[str, Any]], kind: str, space: RecordedSpace) -> list[list[int]]:
    """Return for every edge the rows at which the architecture's operations on it change."""
    chosen = [space.operations_of(row, kind) for row in rows]
    return [[i for i in range(1, len(rows)) if chosen[i][edge] != chosen[i - 1][edge]]
            for edge in range(len(space.edges))]
