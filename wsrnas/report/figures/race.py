"""The figures of a race; an entrant looks the same in all of them."""

import math
from collections.abc import Sequence
from typing import Any

from wsrnas.report.figures.axes import blank, legend, line_look, listed, short, styled
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import MARKERS
from wsrnas.report.reading.races import CLEAN, Entrant, Measure, Race, Score

COSTS = {"parameters": "parameters (millions)", "multiply_adds": "multiply-adds (millions)"}


def look(entrant: Entrant) -> dict[str, Any]:
    """Return colour, line and marker by the place in the file, so that they stay when the standing changes."""
    place = entrant.number - 1
    return {**line_look(place), "marker": MARKERS[place % len(MARKERS)]}


def longest_series(measures: Sequence[Measure]) -> list[Measure]:
    """Return the measures of the attack with most strengths, weakest first; L∞ goes before other norms."""
    series: dict[tuple[str | None, str], list[Measure]] = {}
    for measure in measures:
        if measure.attack and measure.epsilon:
            series.setdefault((measure.norm, measure.attack), []).append(measure)
    chosen = max(series, key=lambda key: (key[0] == "linf", len(series[key])), default=None)
    return sorted(series[chosen], key=lambda measure: measure.epsilon or 0.0) if chosen else []


@styled
def accuracy_over_strength(race: Race) -> Picture | None:
    """Draw one line for each entrant through the means over the seeds, with a band of one standard deviation."""
    series = longest_series(race.measures)
    rows = [(entrant, measure, score) for entrant in race.standing for measure in [Measure(CLEAN, epsilon=0.0), *series]
            if (score := entrant.score(race.weights, measure.name))]
    if not any(measure.attack for _, measure, _ in rows):
        return None
    linf, attack = series[0].norm == "linf", series[0].attack
    figure = blank(9, 4.6)
    axes = figure.subplots()
    entrants = [entrant for entrant in race.standing if any(row[0] is entrant for row in rows)]
    lines = []
    for entrant in entrants:
        points = [((255 if linf else 1) * (measure.epsilon or 0.0), score)
                  for other, measure, score in rows if other is entrant]
        x, (low, middle, high) = [place for place, _ in points], _levels([score for _, score in points])
        lines += axes.plot(x, middle, markersize=5, clip_on=False, **look(entrant))
        axes.fill_between(x, low, high, color=look(entrant)["color"], alpha=0.14, linewidth=0)
    top = max(100 * (score.mean + (score.deviation or 0)) for _, _, score in rows)
    kind = {"linf": "L∞", "l2": "L2"}.get(series[0].norm or "", "")
    axes.set(ylabel="accuracy (%)", xlabel=f"{kind} strength ε".strip() + " (n/255)" * linf,
             ylim=(0, min(100, 1.06 * top) or 1))
    axes.set_xlim(left=0)
    if linf:
        upper = axes.secondary_xaxis("top", functions=(lambda x: x / 255, lambda x: x * 255))
        upper.set_xlabel("ε in pixels of [0, 1]")
    names = [short(entrant.name) for entrant in entrants]
    legend(axes, lines, names, loc="upper left", bbox_to_anchor=(1.01, 1))
    return picture(figure, "accuracy-over-strength",
                   f"Accuracy of {listed(names)} under {attack} over the {f'{kind} strength'.strip()}.",
                   f"Clean accuracy at ε = 0 and accuracy under {attack}, {race.weights} weights: the mean over the "
                   "seeds, in a band of one sample standard deviation to each side.",
                   ("entrant", "attack", "norm", "epsilon", "mean", "deviation", "seeds"),
                   [[entrant.name, measure.attack or CLEAN, measure.norm, measure.epsilon, score.mean,
                     score.deviation, len(score.values)] for entrant, measure, score in rows])


def _levels(scores: Sequence[Score]) -> tuple[list[float], list[float], list[float]]:
    """Return mean minus one deviation, mean, and mean plus one deviation, in percent."""
    low, middle, high = ([100 * (score.mean + sign * (score.deviation or 0)) for score in scores]
                         for sign in (-1, 0, 1))
    return low, middle, high


@styled
def accuracy_over_cost(race: Race) -> Picture | None:
    """Draw robust and clean accuracy over parameters and multiply-adds, with bars of one standard deviation."""
    measures = [name for name in dict.fromkeys((race.ranking, CLEAN)) if name and any(
        entrant.score(race.weights, name) for entrant in race.entrants)]
    points = [(entrant, name, score) for entrant in race.standing for name in measures
              if (score := entrant.score(race.weights, name))]
    costs = [key for key in COSTS if any(entrant.quantity(key) is not None for entrant, _, _ in points)]
    if not costs:
        return None
    figure = blank(9.4, 0.8 + 2.4 * len(measures))
    panels = figure.subplots(len(measures), len(costs), squeeze=False, sharex="col", sharey="row")
    shown = {}
    for entrant, name, score in points:
        for key, axes in zip(costs, panels[measures.index(name)], strict=True):
            cost = entrant.quantity(key)
            bars = axes.errorbar([math.nan if cost is None else cost / 1e6], [100 * score.mean],
                                 yerr=None if score.deviation is None else [100 * score.deviation], capsize=3,
                                 elinewidth=1, markersize=7, **look(entrant) | {"linestyle": ""})
            shown[entrant.number] = bars.lines[0], short(entrant.name)
    for name, row in zip(measures, panels, strict=True):
        row[0].set_ylabel(f"{' '.join(name.split())} (%)")
    for key, axes in zip(costs, panels[-1], strict=True):
        axes.set_xlabel(COSTS[key])
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.xaxis.get_major_locator().set_params(nbins=5)  # labels of entrants of nearly one size are long
        axes.margins(x=0.12)
    markers, names = zip(*shown.values(), strict=True)
    legend(panels[0, -1], markers, names, loc="upper left", bbox_to_anchor=(1.01, 1))
    return picture(figure, "accuracy-over-cost",
                   f"Accuracy of {listed(names)} over their cost: {listed([COSTS[key] for key in costs])}.",
                   f"The mean over the seeds, {race.weights} weights; bars: one sample standard deviation to each "
                   "side. The axes do not begin at 0.", ("entrant", "measure", *costs, "mean", "deviation"),
                   [[entrant.name, name, *map(entrant.quantity, costs), score.mean, score.deviation]
                    for entrant, name, score in points])
