"""The figures of a ranking: every rank correlation with its interval, and scores against true accuracies."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsrnas.report.figures.axes import between, blank, legend, styled
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import COLOURS, INK
from wsrnas.report.figures.svg import plain
from wsrnas.report.reading.rankings import VULNERABILITY, main_column, name_of

SIZES = ("small", "medium", "large")  # a third of the architectures each, by parameters
COLUMNS = 2  # panels in a row


@styled
def correlations(results: Mapping[str, Any]) -> Picture:
    """Draw Kendall's tau of every score with the main column of the truth, one panel for each subset."""
    column, entries = main_column(results), results["scores"]
    groups = list(dict.fromkeys(entry["group"] for entry in entries))
    figure = blank(10, 1 + 0.19 * len(entries))
    panels = figure.subplots(1, len(results["subsets"]), sharey=True)
    rows = []
    for axes, subset in zip(panels, results["subsets"], strict=True):
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, entry in enumerate(entries):
            value = entry["tau"][subset][column]
            rows.append([entry["group"], entry["score"], subset, *(value or [None] * 3)])
            if value is not None:
                tau, low, high = value
                colour = COLOURS[groups.index(entry["group"]) % len(COLOURS)]
                axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
                axes.plot([tau], [place], "o", color=colour, markersize=4)
        axes.set(title=f"{subset} ({results['counts'][subset]})", xlabel="Kendall's τ")
    panels[0].set_yticks(range(len(entries)), [plain(name_of(entry)) for entry in entries])
    panels[0].set_ylim(len(entries) - 0.5, -0.5)
    return picture(figure, "rank-correlations", f"Kendall's tau of {len(entries)} scores with the true accuracy.",
                   f"Kendall's τ with the accuracy \"{column}\" of the table and its 95 % interval. Right of the line, "
                   "a score ranks well.", ("group", "score", "subset", "tau", "low", "high"), rows)


def drawn_scores(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of the scores that are drawn: clean loss, objective or mean loss, F, parameters."""
    names = [(entry["group"], entry["score"]) for entry in entries]
    objective = ("supernet", "objective")
    wanted = [("supernet", "loss, clean"), objective if objective in names else ("supernet", "loss, mean"),
              *[name for name in names if name[0] == "supernet" and name[1].startswith(VULNERABILITY)][-1:],
              ("size", "parameters")]
    return [names.index(name) for name in wanted if name in names]


@styled
def scores_and_truth(results: Mapping[str, Any]) -> Picture:
    """Draw the main scores of all architectures against their true accuracy; the colour is their size."""
    column, entries, values = main_column(results), results["scores"], results["values"]
    places, truth, parameters = drawn_scores(entries), values["truth"][column], values["parameters"]
    numbers = values.get("in_file", [None] * len(truth))  # results of earlier versions have none
    order = sorted(range(len(parameters)), key=parameters.__getitem__)
    figure = blank(9.4, 3.4 * -(-len(places) // COLUMNS))
    panels = figure.subplots(-(-len(places) // COLUMNS), COLUMNS, squeeze=False, sharey=True)
    points: list[Any] = []
    for axes, place in zip(panels.flat, places, strict=False):
        points = []
        for number in range(len(SIZES)):
            third = order[number * len(order) // len(SIZES):(number + 1) * len(order) // len(SIZES)]
            points += axes.plot([values["scores"][place][one] for one in third], [truth[one] for one in third], "o",
                                markersize=3.5, alpha=0.75, color=between(number, len(SIZES)))
        axes.set_xlabel(plain(f"{name_of(entries[place])} (further right: promises more)"))
    for axes in panels.flat[len(places):]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel(plain(f"true accuracy, {column} (%)"))
    legend(panels[0, 0], points, SIZES, loc="best")
    return picture(figure, "scores-and-truth", f"Scores of {len(truth)} architectures against their true accuracy.",
                   "Each point is an architecture; colour: a third of them by their parameters. Losses and F are drawn "
                   "with a minus sign, F and parameters as logarithms.",
                   ("number in the file", "parameters", f"true {column}",
                    *(name_of(entries[place]) for place in places)),
                   [[numbers[one], parameters[one], truth[one],
                     *(values["scores"][place][one] for place in places)] for one in range(len(truth))])
