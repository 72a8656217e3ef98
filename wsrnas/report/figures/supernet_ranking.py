"""The figure that shows, over a search, how well its supernet ranks architectures of a table."""

from collections.abc import Sequence
from typing import Any

from wsrnas.report.figures.axes import between, blank, legend, marker_of, numbers, styled, whole_ticks
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import INK, MUTED
from wsrnas.report.reading.rows import is_number

SHOWN = {"objective": INK, "loss, clean": between(0, 2), "loss, mean": between(1, 2), "parameters": MUTED}
SUBSETS = {"all": "all of the sample", "fixed size": "at fixed size"}
END_NAMES = ("", " from", " to")


@styled
def supernet_ranking(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """Draw Kendall's τ of the supernet's scores with the table's mean accuracy, over the iterations.

    Args:
        rows: rows of ``metrics.jsonl``.
    """
    kept = [row for row in rows if isinstance((row.get("ranking") or {}).get("tau"), dict)]
    if not kept:
        return None
    figure = blank(9.4, 3.2)
    steps, marker = [row["step"] + 1 for row in kept], marker_of(len(kept))
    columns: dict[str, Sequence[float | None]] = {}
    lines = {}
    for axes, (subset, title) in zip(figure.subplots(1, 2), SUBSETS.items(), strict=True):
        for name, colour in SHOWN.items():
            if name == "parameters" and subset == "fixed size":
                continue
            ends = list(zip(*(estimate(row["ranking"]["tau"], name, subset) for row in kept), strict=True))
            if all(value is None for value in ends[0]):
                continue
            columns |= {f"{name}, {subset}{end}": values for end, values in zip(END_NAMES, ends, strict=True)}
            value, low, high = map(numbers, ends)
            axes.fill_between(steps, low, high, color=colour, alpha=0.1, linewidth=0)
            lines[name] = axes.plot(steps, value, color=colour, marker=marker, markersize=3,
                                    linestyle=":" if name == "parameters" else "-")[0]
        axes.axhline(0, color=MUTED, linewidth=0.8, linestyle="--")
        axes.set(xlabel="step", ylabel="Kendall's τ", title=title, ylim=(-1, 1))
        whole_ticks(axes)
    legend(axes, list(lines.values()), list(lines), loc="upper left", bbox_to_anchor=(1.01, 1))
    count = kept[-1]["ranking"].get("architectures")
    table = [[row["step"] + 1, *values] for row, *values in zip(kept, *columns.values(), strict=True)]
    return picture(figure, "supernet-ranking", f"Kendall's τ between scores of the supernet and accuracies of a table, "
                   f"over {len(kept)} rankings.", f"{count} architectures that somebody has trained one by one were "
                   "measured as the search measures its paths. Above zero, a low loss in the supernet promises a high "
                   "accuracy in the table (mean of its columns). Bands: 95 % over the choice of architectures. At "
                   "fixed size: what a line over the logarithm of the parameters leaves of both.",
                   ("step", *columns), table)


def estimate(tau: dict[str, Any], name: str, subset: str) -> Sequence[float | None]:
    """Return a correlation and the ends of its interval; None for each where they are missing."""
    values = tau[name].get(subset) if isinstance(tau.get(name), dict) else None
    return values if isinstance(values, list) and len(values) == 3 and all(map(is_number, values)) else (None,) * 3
