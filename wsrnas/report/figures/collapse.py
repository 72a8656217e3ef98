"""The figure that shows whether a search collapses: operations without weights, and the entropy of A."""

import math
from collections.abc import Sequence
from typing import Any

from wsrnas.report.figures.axes import blank, legend, marker_of, numbers, styled, whole_ticks
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import INK, MUTED, operation_colour
from wsrnas.report.reading.rows import column, names_under
from wsrnas.report.reading.space import RecordedSpace

SHARES = {"skips found": ("architecture", "shares", "skips"), "pools found": ("architecture", "shares", "pools"),
          "skips measured": ("measured_shares", "skips"), "pools measured": ("measured_shares", "pools")}
OPERATIONS = {"skips": "skip_connect", "pools": "max_pool_3x3"}  # whose colours the lines have


@styled
def collapse(rows: Sequence[dict[str, Any]], space: RecordedSpace, unit: str) -> Picture | None:
    """Draw the shares of skips and pools, and the mean entropy of softmax(A), over a search.

    Args:
        rows: rows of ``metrics.jsonl``.
        space: the search space.
        unit: what a row is about: "epoch" or "step".
    """
    kept = [row for row in rows if row.get("phase", "search") == "search"
            and isinstance((row.get("architecture") or {}).get("shares"), dict)]
    if len(kept) < 2:
        return None
    kinds = names_under([row["architecture"] for row in kept], "alpha_entropy")
    shares = {name: column(kept, *keys) for name, keys in SHARES.items()}
    shares = {name: values for name, values in shares.items() if any(value is not None for value in values)}
    entropies = {kind: column(kept, "architecture", "alpha_entropy", kind) for kind in kinds}
    figure = blank(9.4, 3)
    left, right = figure.subplots(1, 2)
    steps, marker = [row["step"] + 1 for row in kept], marker_of(len(kept))
    lines = [left.plot(steps, [100 * value for value in numbers(values)], marker=marker, markersize=3,
                       color=operation_colour(OPERATIONS[name.split()[0]]), linestyle="-" if "found" in name
                       else ":")[0] for name, values in shares.items()]
    curves = [right.plot(steps, numbers(values), marker=marker, markersize=3, color=INK,
                         linestyle=("-", "--", ":")[number % 3])[0]
              for number, values in enumerate(entropies.values())]
    most = math.log(len(space.operations))
    right.axhline(most, color=MUTED, linewidth=0.8, linestyle="--")
    left.set(xlabel=unit, ylabel="% of the operations", title="operations without weights", ylim=(-3, 103))
    right.set(xlabel=unit, ylabel="nats", title="entropy of softmax(A)", ylim=(0, 1.06 * most))
    whole_ticks(left, right)
    legend(left, lines, list(shares), loc="upper left")
    legend(right, curves, kinds, loc="lower left")
    table = [[step, *values] for step, *values in zip(steps, *shares.values(), *entropies.values(), strict=True)]
    return picture(figure, "collapse", f"Shares of skips and pools, and entropy of softmax(A), over {len(kept)} "
                   f"{unit}s.", "Left: skip connections and pools among the operations of the architecture found, and "
                   "of those measured in a step. A search that ends in them has collapsed. Right: mean entropy of "
                   f"softmax(A) over the edges, by kind of cell; dashed: {most:.2f} nats, where all operations weigh "
                   "the same.", ("step", *shares, *(f"entropy {kind}" for kind in kinds)), table)
