"""Helpers for figures: style, empty figures, axes, legends, colours."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from wsrnas.report.figures.style import LINES, PALETTE, STYLE
from wsrnas.report.figures.svg import plain
from wsrnas.runtime.config import format_epsilon

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Make a drawing function use the pages' style without a change to matplotlib's own settings."""
    @functools.wraps(draw)
    def inner(*arguments: Arguments.args, **named: Arguments.kwargs) -> Drawn:
        from matplotlib import rc_context
        with rc_context(STYLE):
            return draw(*arguments, **named)
    return inner


def blank(width: float, height: float) -> Any:
    """Return an empty matplotlib figure; sizes are in inches."""
    from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def numbers(values: Sequence[float | None]) -> list[float]:
    """Return values for matplotlib: None becomes NaN, which leaves a gap."""
    return [math.nan if value is None else value for value in values]


def marker_of(count: int) -> str | None:
    """Return the marker of a line's points; a long line has none."""
    return "o" if count <= 25 else None  # a line of one point is invisible


def whole_ticks(*panels: Any) -> None:
    """Keep the ticks of x axes at whole numbers, also where there is one point alone."""
    for axes in panels:
        low, high = axes.get_xlim()
        if high - low < 1:
            axes.set_xlim(round((low + high) / 2) - 1, round((low + high) / 2) + 1)
        axes.xaxis.get_major_locator().set_params(integer=True)


def positive_axis(axes: Any, values: Iterable[float | None]) -> None:
    """Start the y axis at 0; make it logarithmic where the positive values span more than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    above = [value for value in values if value is not None and 0 < value < math.inf]
    if not above or max(above) <= 10 * min(above):
        axes.set_ylim(0, 1.06 * max(above) if above else None)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(above) < 100 * min(above) else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


LONGEST_NAME = 32  # in a legend; longer ones would leave no room for the curves


def short(name: str) -> str:
    """Return a name that fits into a legend: both ends of it, because names often differ at the end."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half:]}"


def line_look(number: int) -> dict[str, Any]:
    """Return colour and dashes of a line; the first ``len(PALETTE) * len(LINES)`` lines differ."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number // len(PALETTE) % len(LINES)]}


def legend(axes: Any, lines: Sequence[Any], names: Sequence[str], **where: Any) -> None:
    """Add a legend whose names are plain text."""
    axes.legend(lines, [plain(name) for name in names], **where)


def listed(names: Sequence[str]) -> str:
    """Return names with commas between them."""
    return ", ".join(names)


def strength_text(name: str) -> str:
    """Return the name of a strength in ``metrics.jsonl`` as people read it."""
    try:
        return f"ε {format_epsilon(float(name.removeprefix('eps_')))}" if name.startswith("eps_") else name
    except ValueError:
        return name


def between(index: int, count: int) -> str:
    """Return a colour between blue and vermilion, which colour-blind readers can tell apart on white and on black.

    Args:
        index: Place of the colour, from 0.
        count: Number of colours.
    """
    share = min(max(index / max(count - 1, 1), 0), 1)
    ends = [[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in ("#3489C8", "#D55E00")]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))
