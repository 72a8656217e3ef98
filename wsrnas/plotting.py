"""Figures without a display: the drawing of a cell, curves over networks' layers, and SVG that a page can hold."""

import io
import itertools
import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsrnas.errors import InputError, run_program
from wsrnas.genotype import Genotype

# Okabe and Ito's palette: distinct to colour-blind readers, in print too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":")
# Colours of what is not data. In a file they are what they say; in a page ``inline_svg`` replaces them by its own.
INK, MUTED, GRID, SURFACE, TINT = "#1f2329", "#6e7682", "#d0d7df", "#fffffe", "#eef3f9"
PAGE_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", SURFACE: "var(--surface)",
                TINT: "var(--tint)"}
STYLE = {"svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED,
         "axes.titlecolor": INK, "axes.titlesize": 10, "axes.titlelocation": "left", "xtick.color": MUTED,
         "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.facecolor": "none",
         "axes.spines.right": False, "axes.spines.top": False, "axes.grid": True, "grid.color": GRID,
         "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.6, "legend.frameon": False,
         "legend.fontsize": 8.5, "figure.facecolor": "none", "savefig.facecolor": "none"}
FAMILIES = {"sep_conv": COLOURS[0], "dil_conv": COLOURS[2], "conv": COLOURS[3], "max_pool": "#B97F00",
            "avg_pool": "#B97F00", "skip_connect": MUTED, "none": MUTED}
INPUT_NAMES = ("cₖ₋₂", "cₖ₋₁")


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, no import at start-up
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure, path: Path) -> Path:
    """Write the figure as SVG and PNG; returns the path of the PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem if path.suffix in (".svg", ".png") else path.name  # strengths in a name have points, too
    figure.savefig(path.with_name(f"{name}.svg"))
    figure.savefig(path.with_name(f"{name}.png"), dpi=150)
    return path.with_name(f"{name}.png")


def svg_text(figure, name: str) -> str:
    """The figure as SVG whose texts stay texts, without a date: the same figure gives the same bytes.

    Args:
        name: seeds the ids inside.
    """
    from matplotlib import rc_context
    buffer = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib's own font lacks: the browser's has them
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # A hundredth of a point is finer than any screen; six decimals make the page twice as large.
    return re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), buffer.getvalue())


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """An SVG file's text as an element of a page: ids of its own, the page's colours and font, a description.

    Args:
        prefix: unique in the page; letters, digits and hyphens.
        label: what is seen, for those who cannot; already escaped for an attribute.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg"):], flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for colour, variable in PAGE_COLOURS.items():
        body = body.replace(colour, variable)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", body)
    opening, rest = body.split(">", 1)
    width = re.search(r'viewBox="0 0 ([\d.]+) ', opening)[1]
    opening = re.sub(r' (width|height|version)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{label}" style="--natural: {float(width) * 4 / 3:.0f}px">{rest}'


def plain(text: str) -> str:
    """A text from a file as matplotlib should draw it: no formula, no control character, never hidden in a legend."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return ("\N{NO-BREAK SPACE}" if printable.startswith("_") else "") + printable.replace("$", r"\$")


def draw_genotype(genotype: Genotype, path: Path, title: str = "") -> Path:
    """Draw both cells, inputs on the left, output on the right, every edge with its operation.

    Returns:
        The path of the PNG; an SVG lies beside it.
    """
    return _save(cell_figure(genotype, title), path)


def cell_figure(genotype: Genotype, title: str = ""):
    """Both cells of a genotype as a matplotlib figure."""
    figure = _figure(11, 6.6)
    for axes, kind in zip(figure.subplots(2, 1), ("normal", "reduce"), strict=True):
        _draw_cell(axes, genotype.nodes(kind), getattr(genotype, f"{kind}_concat"))
        axes.set_title(f"{title + ': ' if title else ''}{kind} cell")
    return figure


def _draw_cell(axes, nodes, concat) -> None:
    from matplotlib.patches import FancyArrowPatch

    places = _positions(len(nodes))
    output = (2.4 * len(nodes) + 2.2, 0.0)
    seen: Counter = Counter()
    for node, edges in enumerate(nodes, start=2):
        for slot, (operation, source) in enumerate(edges):
            bend = 0.12 * (-1) ** slot + 0.18 * seen[source, node]
            seen[source, node] += 1
            colour = operation_colour(operation)
            axes.add_patch(FancyArrowPatch(places[source], places[node], connectionstyle=f"arc3,rad={bend}",
                                           arrowstyle="-|>", mutation_scale=12, color=colour, shrinkA=17, shrinkB=17))
            _label(axes, places[source], places[node], bend, operation, colour, 0.62 if source < 2 else 0.5)
    for node in sorted(set(concat)):
        times = concat.count(node)
        axes.add_patch(FancyArrowPatch(places[node], output, arrowstyle="-", color=MUTED, linestyle=":",
                                       linewidth=1.2 * times, shrinkA=17, shrinkB=17))
    names = [*INPUT_NAMES] + [str(node) for node in range(2, len(nodes) + 2)]
    for name, place in [*zip(names, places, strict=True), ("output", output)]:
        face = TINT if name in INPUT_NAMES or name == "output" else SURFACE
        axes.text(*place, name, ha="center", va="center", zorder=3, color=INK,
                  bbox={"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": MUTED})
    axes.set_xlim(-0.8, output[0] + 0.8)
    axes.set_ylim(-1.9, 1.9)
    axes.axis("off")


def operation_colour(operation: str) -> str:
    """The colour of an operation's family, in cells and in curves."""
    return next(colour for family, colour in FAMILIES.items() if operation.startswith(family))


def _positions(nodes: int) -> list[tuple[float, float]]:
    """Inputs above each other, then the nodes from left to right on alternating heights."""
    return [(0.0, 1.1), (0.0, -1.1)] + [(2.2 + 2.4 * k, 0.85 * (-1) ** k) for k in range(nodes)]


def _label(axes, start, end, bend, text, colour, share) -> None:
    """Text on the quadratic curve that matplotlib's arc3 draws, a share of the way along."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    control = ((start[0] + end[0]) / 2 + bend * dy, (start[1] + end[1]) / 2 - bend * dx)
    x, y = (((1 - share) ** 2) * a + 2 * share * (1 - share) * c + share**2 * b
            for a, c, b in zip(start, control, end, strict=True))
    axes.text(x, y, text, fontsize=8, color=colour, ha="center", va="center", zorder=2,
              bbox={"boxstyle": "square,pad=0.1", "facecolor": SURFACE, "edgecolor": "none", "alpha": 0.9})


def draw_layers(curves: Mapping[str, Sequence[float | None]], path: Path, label: str, notes: Sequence[str],
                ticks: Sequence[str] = ()) -> Path:
    """Draw one curve a network over its layers, on a logarithmic axis; None and what is not positive leave gaps.

    Args:
        curves: for each network's name the values of its layers, in their order.
        path: without a suffix.
        label: of the y axis.
        notes: below each name in the legend.
        ticks: names of the layers; empty: their numbers from 1.

    Returns:
        The path of the PNG; an SVG lies beside it.
    """
    from matplotlib import rc_context
    from matplotlib.patches import Rectangle
    with rc_context(STYLE):
        figure = _figure(9, 4.2)
        figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=SURFACE, zorder=-1))
        axes = figure.subplots()
        styles = itertools.cycle(itertools.product(LINES, zip(COLOURS[:6], "os^DvP", strict=True)))
        for (name, values), note, (line, (colour, marker)) in zip(curves.items(), notes, styles, strict=False):
            heights = [math.nan if value is None or value <= 0 else value for value in values]
            axes.plot(range(1, len(values) + 1), heights, color=colour, linestyle=line, marker=marker, markersize=5,
                      label=f"{plain(name if len(name) <= 40 else '…' + name[-39:])}\n{plain(note)}")
        _layer_axes(axes, [value for values in curves.values() for value in values if value and value > 0],
                    max(map(len, curves.values())), ticks)
        axes.set_ylabel(label)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", labelspacing=0.9)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.svg").write_text(svg_text(figure, path.name), encoding="utf-8")
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=150, metadata={"Software": None})
    return path.with_name(f"{path.name}.png")


def _layer_axes(axes, drawn: Sequence[float], count: int, ticks: Sequence[str]) -> None:
    """Whole layers on the x axis; on the y axis numbers that can be read, whether it spans decades or less than one."""
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


def genotype_text(genotype: Genotype) -> str:
    """Both cells as lines of text for a terminal: each node as a sum of its edges."""
    lines = []
    for kind in ("normal", "reduce"):
        lines.append(f"{kind} cell")
        names = ["c[k-2]", "c[k-1]", *(f"node {n}" for n in range(2, len(genotype.nodes(kind)) + 2))]
        for node, edges in enumerate(genotype.nodes(kind), start=2):
            terms = " + ".join(f"{operation}({names[source]})" for operation, source in edges)
            lines.append(f"  node {node} = {terms}")
        concat = getattr(genotype, f"{kind}_concat")
        lines.append(f"  output = concat({', '.join(f'node {n}' for n in concat)})")
    return "\n".join(lines)


def main() -> None:
    """``python -m wsrnas.plotting GENOTYPE_JSON OUTPUT``: draw a cell, on the terminal and as SVG and PNG."""
    if len(sys.argv) != 3:
        raise InputError("expected two arguments: python -m wsrnas.plotting GENOTYPE_JSON OUTPUT")
    genotype = Genotype.load(sys.argv[1])
    print(genotype_text(genotype))
    print(f"drawing: {draw_genotype(genotype, Path(sys.argv[2]))}")


if __name__ == "__main__":
    run_program(main)
