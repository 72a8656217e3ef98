"""The figures of a report, each with the numbers that it draws."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from wsrnas.genotype import Genotype
from wsrnas.report.data import column, names_under
from wsrnas.report.html import Picture, picture
from wsrnas.report.networks import Network, attack_family, attack_names
from wsrnas.report.plotting import COLOURS, INK, LINES, MUTED, STYLE, SURFACE, cell_figure, plain

PALETTE = COLOURS[:6]  # without black, which is ink
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def styled(draw: Callable[..., Picture | None]) -> Callable[..., Picture | None]:
    """Run a figure's function under the pages' style, which leaves matplotlib's own settings alone."""
    @functools.wraps(draw)
    def inner(*arguments: Any, **named: Any) -> Picture | None:
        from matplotlib import rc_context
        with rc_context(STYLE):
            return draw(*arguments, **named)
    return inner


def blank(width: float, height: float):
    from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def numbers(values: Sequence[float | None]) -> list[float]:
    """For matplotlib, which leaves gaps where a number is not finite."""
    return [math.nan if value is None else value for value in values]


def marker_of(count: int) -> str | None:
    return "o" if count <= 25 else None  # a line of one point is invisible


def whole_ticks(*panels: Any) -> None:
    """No half steps on the x axis."""
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)


def positive_axis(axes, values: Iterable[float | None]) -> None:
    """A y axis from 0; where what is above 0 spans more than a decade, a logarithmic one, on which 0 leaves a gap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    above = [value for value in values if value is not None and 0 < value < math.inf]
    if not above or max(above) <= 10 * min(above):
        axes.set_ylim(0, 1.06 * max(above) if above else None)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(above) < 100 * min(above) else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(axes, lines: Sequence[Any], names: Sequence[str], **where: Any) -> None:
    axes.legend(lines, [plain(name) for name in names], **where)


# -- evaluation -------------------------------------------------------------------------------------------------------

@styled
def accuracy(networks: Sequence[Network], norm: str = "linf") -> Picture | None:
    """Accuracy over strength: a colour a network, a marker an attack; the attack with most strengths has the line."""
    measured = [(network, row) for network in networks for row in network.attacks.values()
                if row.get("norm", "linf") == norm and row["epsilon"]]
    if not measured:
        return None
    attacks = attack_names(attack_family(row) for _, row in measured)
    markers = dict(zip(attacks, itertools.cycle(MARKERS), strict=False))
    unit = 255 if norm == "linf" else 1
    figure = blank(9, 4.6)
    axes = figure.subplots()
    lines = []
    styles = itertools.cycle(itertools.product(LINES, PALETTE))
    for network, (line, colour) in zip(networks, styles, strict=False):
        own = [row for other, row in measured if other is network]
        lines.append(axes.plot([], [], color=colour, linestyle=line)[0])
        of = {attack: [row for row in own if attack_family(row) == attack] for attack in attacks}
        main = max(attacks, key=lambda attack: (len(of[attack]), -sum(row["accuracy"] for row in of[attack])))
        for attack in attacks:
            _curve(axes, network.newest["clean"], of[attack], unit, colour, markers[attack],
                   line if attack == main else "")
    kind = "L∞" if norm == "linf" else "L2"
    axes.set(ylabel="accuracy (%)", ylim=(0, 100), xlabel=f"{kind} strength ε" + " (n/255)" * (norm == "linf"))
    axes.set_xlim(left=0)
    if norm == "linf":
        top = axes.secondary_xaxis("top", functions=(lambda x: x / 255, lambda x: x * 255))
        top.set_xlabel("ε in pixels of [0, 1]")
    kinds = [axes.plot([], [], color=INK, linestyle="", marker=markers[attack])[0] for attack in attacks]
    names = [network.title for network in networks]
    legend(axes, [*lines, *kinds], [*names, *attacks.values()], loc="upper left", bbox_to_anchor=(1.01, 1))
    rows = [[network.title, "clean", "", 0, network.newest["clean"]["accuracy"], *_interval(network.newest["clean"])]
            for network in networks]
    rows += [[network.title, attacks[attack_family(row)], row.get("norm", "linf"), row["epsilon"], row["accuracy"],
              *_interval(row)] for network, row in measured]
    return picture(figure, "accuracy" if norm == "linf" else "accuracy-l2",
                   f"Accuracy of {listed(names)} over the {kind} strength; attacks: {listed(list(attacks.values()))}.",
                   "Clean accuracy at ε = 0 and accuracy under attack. One colour a network, one marker an attack; the "
                   "line joins the attack with most strengths. Bands and bars: 95 % intervals over the test images.",
                   ("network", "attack", "norm", "epsilon", "accuracy", "low", "high"), rows)


def _curve(axes, clean: dict[str, Any], rows: list[dict[str, Any]], unit: float, colour: str, marker: str,
           line: str) -> None:
    """One network under one attack; without a line, bars in place of a band."""
    rows = sorted(rows, key=lambda row: row["epsilon"])
    points = [(0.0, clean), *((unit * row["epsilon"], row) for row in rows)] if line else [
        (unit * row["epsilon"], row) for row in rows]
    x = [place for place, _ in points]
    y = [100 * row["accuracy"] for _, row in points]
    ends = [_interval(row) for _, row in points]
    low, high = ([100 * (pair[i] if pair[i] is not None else row["accuracy"]) for pair, (_, row)
                  in zip(ends, points, strict=True)] for i in (0, 1))
    if line:
        axes.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=5, clip_on=False)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    elif rows:
        error = np.maximum([np.subtract(y, low), np.subtract(high, y)], 0)
        axes.errorbar(x, y, yerr=error, color=colour, linestyle="", marker=marker, markersize=5, elinewidth=1,
                      markerfacecolor=SURFACE, clip_on=False)


def _interval(row: dict[str, Any]) -> list[float | None]:
    interval = row.get("interval")
    return list(interval) if isinstance(interval, list) and len(interval) == 2 else [None, None]


def listed(names: Sequence[str]) -> str:
    return ", ".join(names)


# -- cells ------------------------------------------------------------------------------------------------------------

@styled
def cells(genotype: Genotype) -> Picture:
    """Both cells of a genotype."""
    rows = [[kind, node, operation, source] for kind in ("normal", "reduce")
            for node, edges in enumerate(genotype.nodes(kind), start=2) for operation, source in edges]
    return picture(cell_figure(genotype), "cells", "The normal and the reduction cell as graphs: inputs on the left, "
                   "output on the right, every edge labelled with its operation.",
                   "Inputs cₖ₋₂ and cₖ₋₁ are the outputs of the two cells before; a node adds its edges; dotted: what "
                   "the output concatenates.", ("cell", "node", "operation", "input"), rows)


# -- training and time ------------------------------------------------------------------------------------------------

CURVES = {"train clean": ("train", "clean_accuracy"), "train robust": ("train", "adversarial_accuracy"),
          "held-out clean": ("held_out", "clean_accuracy"), "held-out robust": ("held_out", "robust_accuracy"),
          "probe (PGD)": ("probe", "accuracy")}


@styled
def training(rows: Sequence[dict[str, Any]], unit: str) -> Picture | None:
    """Loss, accuracies and, where rows hold them, the upper loss of a search and the learning rate."""
    kept = [row for row in rows if isinstance(row.get("train"), dict)]
    if not kept:
        return None
    x = [row["step"] + 1 for row in kept]
    loss, rate = column(kept, "train", "loss"), column(kept, "learning_rate")
    curves = {name: column(kept, *keys) for name, keys in CURVES.items()}
    curves = {name: values for name, values in curves.items() if any(value is not None for value in values)}
    upper = {f"D_v {name}": column(kept, "upper_loss", name) for name in ("clean", "adversarial")}
    upper = {name: values for name, values in upper.items() if any(values)}  # one without weight is all zeros
    has_rate = any(value is not None for value in rate)
    figure = blank(9.8, 3.4)
    panels = figure.subplots(1, 2 + has_rate, width_ratios=[1, 1.25, 1][:2 + has_rate])
    trained, = panels[0].plot(x, numbers(loss), color=INK, marker=marker_of(len(x)), markersize=3)
    searched = [panels[0].plot(x, numbers(values), color=colour, marker=marker_of(len(x)), markersize=3)[0]
                for values, colour in zip(upper.values(), COLOURS, strict=False)]
    panels[0].set(title="loss" if upper else "training loss", xlabel=unit)
    if upper:
        legend(panels[0], [trained, *searched], ["training", *upper], loc="upper center", bbox_to_anchor=(0.5, -0.2),
               ncols=3)
    lines = []
    for name, values in curves.items():
        points = [(step, 100 * value) for step, value in zip(x, values, strict=True) if value is not None]
        colour = {"clean": COLOURS[0], "robust": COLOURS[1]}.get(name.split()[-1], COLOURS[2])
        lines += panels[1].plot(*zip(*points, strict=True), color=colour, marker=marker_of(len(points)), markersize=3,
                                linestyle="--" if name.startswith("train") else "-")
    panels[1].set(title="accuracy (%)", xlabel=unit, ylim=(0, 100))
    if lines:
        legend(panels[1], lines, list(curves), loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    if has_rate:
        panels[2].plot(x, numbers(rate), color=INK, marker=marker_of(len(x)), markersize=3)
        panels[2].set(title="learning rate", xlabel=unit, ylim=(0, None))
    whole_ticks(*panels)
    table = [[step, *values] for step, *values in zip(x, loss, *upper.values(), *curves.values(), rate, strict=True)]
    searching = " Losses on D_v: what the architecture descends, in the mean over an epoch." * bool(upper)
    return picture(figure, "training", f"Training loss and {listed(list(curves))} accuracy over {len(x)} {unit}s.",
                   "Accuracies while training are those of the training forward passes, under the training attack; "
                   f"held-out images are training images kept out for selection.{searching}",
                   (unit, "loss", *upper, *curves, "learning rate"), table)


@styled
def phases(rows: Sequence[dict[str, Any]], unit: str) -> Picture | None:
    """Seconds of every step or epoch by phase, stacked."""
    kept = [row for row in rows if isinstance(row.get("seconds"), dict)]
    names = names_under(kept, "seconds")
    if not names:
        return None
    figure = blank(9.4, 3)
    axes = figure.subplots()
    x = [row["step"] + 1 for row in kept]
    columns = {name: [value or 0.0 for value in column(kept, "seconds", name)] for name in names}
    bars = axes.stackplot(x, *columns.values(), colors=[*PALETTE, INK, MUTED], step="mid") if len(x) > 40 else [
        axes.bar(x, values, bottom=np.sum([columns[other] for other in names[:i]], axis=0) if i else 0, width=0.8,
                 color=[*PALETTE, INK, MUTED][i % 8]) for i, (name, values) in enumerate(columns.items())]
    legend(axes, list(bars), [name.replace("_", " ") for name in names], loc="upper left", bbox_to_anchor=(1.01, 1))
    axes.set(xlabel=unit, ylabel="seconds")
    axes.margins(x=0.01, y=0.06)
    whole_ticks(axes)
    return picture(figure, "time", f"Seconds of {len(x)} {unit}s by phase: {listed(names)}.",
                   f"Measured time of every {unit} by phase.", ("step", *names),
                   [[row["step"], *(row["seconds"].get(name) for name in names)] for row in kept])


def total_seconds(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds by phase over all rows; of a training, its epochs."""
    names = names_under(rows, "seconds")
    if names:
        return {name: sum(value or 0.0 for value in column(rows, "seconds", name)) for name in names}
    trained = [value for value in column(rows, "train", "seconds") if value is not None]
    return {"train": sum(trained)} if trained else {}
