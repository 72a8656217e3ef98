"""The figure of accuracy over the strength of the attacks."""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from wsrnas.report.figures.axes import blank, legend, line_look, listed, short, styled
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import INK, MARKERS, SURFACE
from wsrnas.report.reading.attack_names import attack_family, attack_names
from wsrnas.report.reading.networks import Network
from wsrnas.report.reading.whole_curves import WholeCurve, curves_of

MOST_STEPS = 2000  # of a drawn curve; narrower ones are less than a third of a point wide


@styled
def accuracy(networks: Sequence[Network], norm: str = "linf") -> Picture | None:
    """Draw accuracy over strength: one colour for each network, one marker for each attack, whole curves as steps.

    Args:
        networks: The networks.
        norm: Norm of the attacks that are drawn, "linf" or "l2".
    """
    figure = accuracy_figure(networks, norm)
    if figure is None:
        return None
    measured = _measured(networks, norm)
    attacks = attack_names(attack_family(row) for _, row in measured)
    names = [network.title for network in networks]
    rows = [[network.title, "clean", "", 0, network.newest["clean"]["accuracy"], *_interval(network.newest["clean"])]
            for network in networks]
    rows += [[network.title, attacks[attack_family(row)], row.get("norm", "linf"), row["epsilon"], row["accuracy"],
              *_interval(row)] for network, row in measured]
    rows += [[network.title, f"{curve.name}, step", norm, *step] for network in networks
             for curve in curves_of(network, norm)
             for step in zip(curve.places, curve.accuracies, curve.low, curve.high, strict=True)]
    return picture(figure, "accuracy" if norm == "linf" else "accuracy-l2",
                   f"Accuracy of {listed(names)} over the {_kind(norm)} strength; attacks: "
                   f"{listed(list(attacks.values()))}.",
                   "Clean accuracy at ε = 0 and accuracy under attack. One colour for each network, one marker for "
                   "each attack; the line joins the attack with most strengths. A line of steps is a whole curve: it "
                   "goes down at the smallest noise of each image. Bands and bars: 95 % intervals over the test "
                   "images.",
                   ("network", "attack", "norm", "epsilon", "accuracy", "low", "high"), rows)


@styled
def accuracy_figure(networks: Sequence[Network], norm: str = "linf") -> Any:
    """Return the matplotlib figure of ``accuracy``; None where no attack of the norm was measured."""
    measured = _measured(networks, norm)
    if not measured:
        return None
    attacks = attack_names(attack_family(row) for _, row in measured)
    markers = dict(zip(attacks, itertools.cycle(MARKERS), strict=False))
    unit = 255 if norm == "linf" else 1
    figure = blank(9, 4.6)
    axes = figure.subplots()
    lines: list[Any] = []
    points: set[Hashable] = set()
    whole = [curves_of(network, norm) for network in networks]
    for number, (network, curves) in enumerate(zip(networks, whole, strict=True)):
        colour, line = line_look(number).values()
        own = [row for other, row in measured if other is network
               and not any(curve.holds(row) for curve in curves)]
        lines.append(axes.plot([], [], color=colour, linestyle=line)[0])
        for curve in curves:
            _steps(axes, curve, unit, colour, line)
        of = {attack: [row for row in own if attack_family(row) == attack] for attack in attacks}
        main = max(attacks, key=lambda attack: (len(of[attack]), -sum(row["accuracy"] for row in of[attack])))
        for attack in attacks:
            _curve(axes, network.newest["clean"], of[attack], unit, colour, markers[attack],
                   line if attack == main and not curves else "")
        points |= {attack for attack in attacks if of[attack]}
    axes.set(ylabel="accuracy (%)", ylim=(0, 100),
             xlabel=f"{_kind(norm)} strength ε" + " (n/255)" * (norm == "linf"))
    axes.set_xlim(left=0)
    if norm == "linf":
        top = axes.secondary_xaxis("top", functions=(lambda x: x / 255, lambda x: x * 255))
        top.set_xlabel("ε in pixels of [0, 1]")
    kinds = [axes.plot([], [], color=INK, linestyle="", marker=markers[attack])[0] if attack in points else
             axes.plot([], [], color=INK, drawstyle="steps-post")[0] for attack in attacks]
    invisible, = axes.plot([], [], linestyle="")
    titles = [[(line, short(network.title)), *((invisible, curve.short) for curve in curves)]
              for line, network, curves in zip(lines, networks, whole, strict=True)]
    keys, names = zip(*itertools.chain(*titles), strict=True)
    legend(axes, [*keys, *kinds], [*names, *attacks.values()], loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _measured(networks: Sequence[Network], norm: str) -> list[tuple[Network, dict[str, Any]]]:
    """Return the rows of attacks of a norm at a strength, each with its network."""
    return [(network, row) for network in networks for row in network.attacks.values()
            if row.get("norm", "linf") == norm and row["epsilon"]]


def _kind(norm: str) -> str:
    return "L∞" if norm == "linf" else "L2"


def _curve(axes: Any, clean: dict[str, Any], rows: list[dict[str, Any]], unit: float, colour: str, marker: str,
           line: str) -> None:
    """Draw one network under one attack: a line with a band, or without a line points with bars."""
    rows = sorted(rows, key=lambda row: row["epsilon"])
    points = [(0.0, clean), *((unit * row["epsilon"], row) for row in rows)] if line else [
        (unit * row["epsilon"], row) for row in rows]
    x = [place for place, _ in points]
    y = [100 * row["accuracy"] for _, row in points]
    ends = [_interval(row) for _, row in points]
    low, high = ([100 * (row["accuracy"] if (end := pair[i]) is None else end)
                  for pair, (_, row) in zip(ends, points, strict=True)] for i in (0, 1))
    if line:
        axes.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=5, clip_on=False)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    elif rows:
        error = np.maximum([np.subtract(y, low), np.subtract(high, y)], 0)
        axes.errorbar(x, y, yerr=error, color=colour, linestyle="", marker=marker, markersize=5, elinewidth=1,
                      markerfacecolor=SURFACE, clip_on=False)


def _steps(axes: Any, curve: WholeCurve, unit: float, colour: str, line: str) -> None:
    """Draw a whole curve and its band."""
    places, *levels = curve.drawn(MOST_STEPS)
    middle, low, high = (100 * values for values in levels)
    axes.plot(unit * places, middle, color=colour, linestyle=line, drawstyle="steps-post", clip_on=False)
    axes.fill_between(unit * places, low, high, step="post", color=colour, alpha=0.18, linewidth=0)


def _interval(row: dict[str, Any]) -> list[float | None]:
    interval = row.get("interval")
    return list(interval) if isinstance(interval, list) and len(interval) == 2 else [None, None]
