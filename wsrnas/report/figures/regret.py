"""The figure of search strategies on a table: how far from the best their finds are, query by query."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsrnas.report.figures.axes import blank, legend, line_look, listed, styled
from wsrnas.report.figures.picture import Picture, picture

SHOWN = 1.96  # standard errors to each side
SMALLEST = 0.03  # regret in points below which the axis is linear, so that 0 has a place


@styled
def regret_over_queries(results: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw the regret of the best measured architecture over the queries, one line for each strategy.

    Where a strategy gives out something better than that (an architecture chosen by its prediction), points show the
    regret of it at the reported numbers of queries.
    """
    if not results:
        return None
    figure = blank(9, 4.4)
    axes = figure.subplots()
    lines, rows = [], []
    for number, result in enumerate(results):
        look: Any = line_look(number)
        means, errors = zip(*((mean, error or 0.0) for mean, error in result["curve"]), strict=True)
        queries = range(1, len(means) + 1)
        lines += axes.plot(queries, means, **look)
        axes.fill_between(queries, [max(mean - SHOWN * error, 0) for mean, error in zip(means, errors, strict=True)],
                          [mean + SHOWN * error for mean, error in zip(means, errors, strict=True)],
                          color=look["color"], alpha=0.14, linewidth=0)
        rows += [[result["strategy"], "best", query, *estimate]
                 for query, estimate in zip(queries, result["curve"], strict=True)]
        checked = [(int(count), found["verified"]) for count, found in result["regret"].items() if found["verified"]]
        rows += [[result["strategy"], "verified", count, *estimate] for count, estimate in checked]
        axes.plot([count for count, _ in checked], [estimate[0] for _, estimate in checked], "o", markersize=5,
                  color=look["color"], markerfacecolor="none", clip_on=False)
    axes.set_yscale("symlog", linthresh=SMALLEST, linscale=0.4)
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    last = max(len(result["curve"]) for result in results)
    axes.set(xlabel="measured architectures", ylabel="regret (points of the objective)", xlim=(1, last + 0.5))
    axes.set_ylim(bottom=0)
    names = [result["strategy"] for result in results]
    legend(axes, lines, names, loc="upper left", bbox_to_anchor=(1.01, 1))
    return picture(figure, "regret-over-queries", f"Regret of {listed(names)} over the number of measured "
                   "architectures.", "Regret of the measured architecture with the best observed objective: the mean "
                   "over the seeds, in a band of 95 %. Circles: the measured architecture with the best predicted "
                   "objective (\"verified\"), for strategies that predict.",
                   ("strategy", "output", "queries", "mean", "standard error"), rows)
