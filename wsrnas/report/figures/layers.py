"""The figure of one number for each layer, with one curve for each network."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsrnas.report.figures.axes import blank, short
from wsrnas.report.figures.style import LINES, PALETTE, STYLE
from wsrnas.report.figures.svg import plain, save_figure


def draw_layers(curves: Mapping[str, Sequence[float | None]], path: Path, label: str, notes: Sequence[str],
                ticks: Sequence[str] = ()) -> Path:
    """Draw one curve for each network over its layers, on a logarithmic axis; None and numbers up to 0 leave gaps.

    Args:
        curves: Values of the layers, in order, by the network's name.
        path: Path without a suffix.
        label: Label of the y axis.
        notes: Text below each name in the legend.
        ticks: Names of the layers; without them, layers are numbered from 1.

    Returns:
        The path of the PNG; an SVG is in the same folder.
    """
    from matplotlib import rc_context
    with rc_context(STYLE):
        figure = blank(9, 4.2)
        axes = figure.subplots()
        styles = itertools.cycle(itertools.product(LINES, zip(PALETTE, "os^DvP", strict=True)))
        for (name, values), note, (line, (colour, marker)) in zip(curves.items(), notes, styles, strict=False):
            heights = [math.nan if value is None or value <= 0 else value for value in values]
            axes.plot(range(1, len(values) + 1), heights, color=colour, linestyle=line, marker=marker, markersize=5,
                      label=f"{plain(short(name))}\n{plain(note)}")
        _layer_axes(axes, [value for values in curves.values() for value in values if value and value > 0],
                    max(map(len, curves.values()), default=1), ticks)
        axes.set_ylabel(label)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", labelspacing=0.9)
        return save_figure(figure, path)


def _layer_axes(axes: Any, drawn: Sequence[float], count: int, ticks: Sequence[str]) -> None:
    """Put whole layers on the x axis and readable numbers on the y axis, whether it spans decades or less than one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    axes.set_xlim(0.6, count + 0.4)
    if ticks:
        long = max(map(len, ticks)) * count > 80
        axes.set_xticks(range(1, count + 1), [plain(tick) for tick in ticks], rotation=40 if long else 0,
                        ha="right" if long else "center", rotation_mode="anchor")
    else:
        axes.set_xticks(range(1, count + 1, 1 + count // 25))
    axes.set_xlabel("layer" if ticks else "number of the layer")
    if not drawn:
        return
    axes.set_yscale("log")
    decades = math.log10(max(drawn) / min(drawn))
    if decades < 0.6:  # at least a factor of four, in which there are numbers to label
        middle = math.sqrt(max(drawn) * min(drawn))
        axes.set_ylim(middle / 2, middle * 2)
    marks = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if decades < 2:
        axes.grid(which="minor", linewidth=0.3)
