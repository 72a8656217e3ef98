"""The figure of the architecture weights over a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.operations import PRIMITIVES
from wsrnas.report.figures.axes import blank, styled
from wsrnas.report.figures.cells import INPUT_NAMES
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import MUTED, operation_colour

DRAWN_POINTS = 120  # points of each line; the table of the figure has all numbers


@styled
def weights(rows: Sequence[dict[str, Any]], kind: str, unit: str) -> Picture | None:
    """Draw softmax(A) of one cell over the search, in one panel for each edge.

    Args:
        rows: Rows of ``metrics.jsonl``.
        kind: Cell, "normal" or "reduce".
        unit: What a row is about: "epoch" or "step".
    """
    kept = [row for row in rows if kind in (row.get("architecture") or {}).get("alphas", {})
            and row.get("phase", "search") == "search"]  # before, nothing moves
    if len(kept) < 2:
        return None
    from matplotlib.collections import LineCollection
    alphas = np.array([row["architecture"]["alphas"][kind] for row in kept], dtype=float)  # (steps, E, O)
    shares = np.exp(alphas - alphas.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    changed = _changes(kept, kind)
    low, high = 0.95 * shares.min(), 1.05 * shares.max()
    edges = _edges(alphas.shape[1])
    figure = blank(9.4, 1.55 * (edges[-1][0] - 1))
    axes = figure.subplots()
    time = np.linspace(0, 1, len(kept))
    shown = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), DRAWN_POINTS)).round().astype(int))
    for edge, (node, source) in enumerate(edges):
        left, bottom = 1.14 * source, -1.3 * (node - 2)
        frame = [[(left, bottom), (left, bottom + 1)], [(left, bottom), (left + 1, bottom)]]
        marks = [[(left + time[i], bottom), (left + time[i], bottom + 1)] for i in changed[edge]]
        axes.add_collection(LineCollection(frame, colors=MUTED, linewidths=0.7))
        axes.add_collection(LineCollection(marks, colors=MUTED, linewidths=0.7, linestyles=":"))
        curves = [np.stack([left + time[shown], bottom + (shares[shown, edge, o] - low) / (high - low)], -1)
                  for o in range(alphas.shape[2])]
        strongest = shares[-1, edge].argmax()
        axes.add_collection(LineCollection(curves, colors=[operation_colour(name) for name in PRIMITIVES],
                                           linestyles=[_dashes(name) for name in PRIMITIVES],
                                           linewidths=[2.6 if o == strongest else 1.1 for o in range(len(curves))]))
        axes.text(left + 0.02, bottom + 1.02, f"{_state(source)} → {node}", fontsize=8.5, va="bottom")
    handles = [axes.plot([], [], color=operation_colour(name), linestyle=_dashes(name))[0] for name in PRIMITIVES]
    axes.legend(handles, PRIMITIVES, loc="upper right", ncols=2)
    axes.set(xlim=(-0.05, 1.14 * edges[-1][1] + 1.05), ylim=(-1.3 * (edges[-1][0] - 2) - 0.08, 1.28))
    axes.axis("off")
    header = ["step", *(f"{_state(source)}->{node} {name}" for node, source in edges for name in PRIMITIVES)]
    table = [[row["step"], *shares[i].round(4).ravel().tolist()] for i, row in enumerate(kept)]
    first, last = kept[0]["step"] + 1, kept[-1]["step"] + 1
    title = "normal" if kind == "normal" else "reduction"
    return picture(figure, f"weights-{kind}", f"Weights of the operations on the {len(edges)} edges of the {title} "
                   f"cell from {unit} {first} to {last}.", f"{title.capitalize()} cell: softmax of the architecture "
                   f"parameters, one panel for each edge (its input → its node), {unit}s {first} to {last} from left "
                   f"to right, {low:.3f} to {high:.3f} from bottom to top. Thick: the strongest operation at the end. "
                   f"Dotted: {unit}s that change the genotype's operations on this edge.",
                   header, table)


def _dashes(operation: str) -> str:
    """Return the dashes that distinguish an operation from others of its colour."""
    return ":" if operation == "none" else "--" if operation.endswith("5x5") or operation.startswith("avg") else "-"


def _edges(count: int) -> list[tuple[int, int]]:
    """Return (node, input) of every edge, in the order of the architecture parameters' rows."""
    pairs = [(node, source) for node in range(2, 2 + count) for source in range(node)]
    return pairs[:count]


def _state(source: int) -> str:
    return INPUT_NAMES[source] if source < 2 else str(source)


def _changes(rows: Sequence[dict[str, Any]], kind: str) -> list[list[int]]:
    """Return for every edge the rows at which the genotype's operations on it change."""
    edges = _edges(len(rows[0]["architecture"]["alphas"][kind]))
    chosen = []
    for row in rows:
        pairs = row["architecture"]["genotype"][kind]
        chosen.append([sorted(name for name, i in pairs[2 * (node - 2):2 * (node - 1)] if i == source)
                       for node, source in edges])
    return [[i for i in range(1, len(rows)) if chosen[i][edge] != chosen[i - 1][edge]] for edge in range(len(edges))]
