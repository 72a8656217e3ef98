"""The figure of search strategies on a table: how far from the best their finds are, query by query."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsrnas.evaluation.intervals import student_reach
from wsrnas.report.figures.axes import blank, legend, line_look, listed, styled
from wsrnas.report.figures.picture import Picture, picture

SMALLEST = 0.03  # regret in points below which the axis is linear, so that 0 has a place


@styled
def regret_over_queries(results: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw the regret of the best measured architecture over the queries, one line for each strategy.

    Where a strategy also gives out an architecture chosen by its prediction, points show the regret of that one at the
    reported numbers of queries.
    """
    if not results:
        return None
    figure = blank(9, 4.4)
    axes = figure.subplots()
    lines, rows = [], []
    for number, result in enumerate(results):
        look: Any = line_look(number)
        means = [mean for mean, _ in result["curve"]]
        reach = student_reach(len(result["seeds"]) - 1)
        widths = [reach * (error or 0.0) for _, error in result["curve"]]
        queries = range(1, len(means) + 1)
        lines += axes.plot(queries, means, **look)
        axes.fill_between(queries, [max(mean - width, 0) for mean, width in zip(means, widths, strict=True)],
                          [mean + width for mean, width in zip(means, widths, strict=True)],
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
                   "architectures.", "Regret of the measured architecture with the best observed objective: "
                   + ("the mean over the seeds, in a band of 95 % (Student's t). " if len(results[0]["seeds"]) > 1
                      else "one seed. ") + "Circles: the measured architecture with the best predicted "
                   "objective (\"verified\"), for strategies that predict.",
                   ("strategy", "output", "queries", "mean", "standard error"), rows)
