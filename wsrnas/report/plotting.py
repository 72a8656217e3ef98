"""Figures without a display: the drawing of a cell, curves over networks' layers, and SVG that a page can hold."""

import io
import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wsrnas.genotype import Genotype, Nodes

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


def _figure(width: float, height: float, layout: str | None = "constrained"):
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, no import at start-up
    return Figure(figsize=(width, height), layout=layout)


def _save(figure, path: Path) -> Path:
    """Write the figure on an opaque ground as SVG and PNG, under the pages' style; returns the path of the PNG."""
    from matplotlib.patches import Rectangle
    figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=SURFACE, zorder=-1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.svg").write_text(svg_text(figure, path.name), encoding="utf-8")
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=150, metadata={"Software": None})
    return path.with_name(f"{path.name}.png")


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

    Args:
        path: with or without a suffix.

    Returns:
        The path of the PNG; an SVG lies beside it.
    """
    from matplotlib import rc_context
    if path.suffix in (".svg", ".png"):  # any other point belongs to the name
        path = path.with_suffix("")
    with rc_context(STYLE):
        return _save(cell_figure(genotype, title), path)


def cell_figure(genotype: Genotype, title: str = ""):
    """Both cells of a genotype as a matplotlib figure, as large as they need."""
    cells = {kind: _boxes(genotype.nodes(kind)) for kind in ("normal", "reduce")}
    width = max(boxes[-1].right for boxes in cells.values()) + 2 * MARGIN
    heights = [TITLE + 2 * MARGIN - boxes[-1].bottom for boxes in cells.values()]
    figure = _figure(width, sum(heights), layout=None)
    above = 0.0
    for (kind, boxes), height in zip(cells.items(), heights, strict=True):
        above += height
        axes = figure.add_axes((0, 1 - above / sum(heights), 1, (height - TITLE) / sum(heights)))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(boxes[-1].bottom - MARGIN, MARGIN))  # in inches
        axes.axis("off")
        axes.set_title(f"{plain(title) + ': ' if title else ''}{kind} cell", loc="left", x=MARGIN / width)
        _draw_boxes(axes, boxes)
        _draw_edges(axes, genotype.nodes(kind), boxes)
        _draw_concat(axes, getattr(genotype, f"{kind}_concat"), boxes)
    return figure


# A cell's layout, in inches. The nodes descend like stairs, and an edge leaves its source downwards and enters its node
# from the left, in a row of its own. So no line meets a node that it does not join, no two lines run on top of each
# other, and the names of the operations, beside the node that they enter, meet neither each other nor another line.

MARGIN, TITLE = 0.15, 0.3
ROW, LANE = 0.24, 0.12  # from one line to the next: into a node, out of a node
STEP = 0.18  # down from a node to the next
WIDTH, OUTPUT_WIDTH = 0.46, 0.68
BEFORE, CHARACTER, AFTER = 0.2, 0.07, 0.24  # an edge's line before its name, the name in 8 points, the arrow's head
BESIDE_INPUT, BEFORE_OUTPUT = 0.2, 0.7
CORNER = 0.1
ON_A_LINE = {"fontsize": 8, "va": "center", "zorder": 2,
             "bbox": {"boxstyle": "square,pad=0.1", "facecolor": SURFACE, "edgecolor": "none"}}


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def _boxes(nodes: Nodes) -> list[_Box]:
    """The boxes of the inputs, the nodes and the output, the first at (0, 0) and all others to the right and below."""
    leaving = Counter(source for edges in nodes for _, source in edges)
    names = CHARACTER * max(len(operation) for edges in nodes for operation, _ in edges)
    boxes: list[_Box] = []
    for number, rows in enumerate([1, 1, *map(len, nodes)]):
        before = BESIDE_INPUT if number == 1 else BEFORE + names + AFTER
        left = boxes[-1].right + before if boxes else 0.0
        top = boxes[-1].bottom - STEP if number >= 2 else 0.0
        boxes.append(_Box(left, top - ROW * rows, left + max(WIDTH, LANE * (leaving[number] + 1)), top))
    left = boxes[-1].right + BEFORE_OUTPUT
    return [*boxes, _Box(left, boxes[-1].bottom, left + OUTPUT_WIDTH, boxes[2].top)]


def _draw_boxes(axes, boxes: Sequence[_Box]) -> None:
    from matplotlib.patches import FancyBboxPatch
    for name, box in zip([*INPUT_NAMES, *range(2, len(boxes) - 1), "output"], boxes, strict=True):
        face = SURFACE if isinstance(name, int) else TINT
        axes.add_patch(FancyBboxPatch((box.left, box.bottom), box.right - box.left, box.top - box.bottom, zorder=3,
                                      boxstyle="round,pad=0,rounding_size=0.06", facecolor=face, edgecolor=MUTED))
        axes.text(*box.centre, str(name), ha="center", va="center", zorder=4, color=INK)


def _draw_edges(axes, nodes: Nodes, boxes: Sequence[_Box]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve
    waiting = Counter(source for edges in nodes for _, source in edges)
    lanes = {source: boxes[source].centre[0] - LANE * (count + 1) / 2 for source, count in waiting.items()}
    for node, edges in enumerate(nodes, start=2):
        # Nearest source first, a source's uppermost edge rightmost: edges to one node or from one never cross.
        for row, (operation, source) in enumerate(sorted(edges, key=lambda edge: -edge[1])):
            x, y = lanes[source] + LANE * waiting[source], boxes[node].top - ROW * (row + 0.5)
            waiting[source] -= 1
            curve = Curve([(x, boxes[source].bottom), (x, y + CORNER), (x, y), (x + CORNER, y), (boxes[node].left, y)],
                          [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO])
            colour = operation_colour(operation)
            axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=10, color=colour, linewidth=1.2,
                                           linestyle=(0, (3, 2)) if operation == "none" else "-"))
            axes.text(boxes[node].left - AFTER, y, operation, color=colour, ha="right", **ON_A_LINE)


def _draw_concat(axes, concat: Sequence[int], boxes: Sequence[_Box]) -> None:
    """A dotted line from each node that the output concatenates, with the number of times where it is not once."""
    output = boxes[-1]
    for node, times in Counter(concat).items():
        y = boxes[node].centre[1]
        axes.plot([boxes[node].right, output.left], [y, y], color=MUTED, linestyle=":", linewidth=1.2, zorder=1)
        if times > 1:
            axes.text((boxes[-2].right + output.left) / 2, y, f"×{times}", color=INK, ha="center", **ON_A_LINE)


def operation_colour(operation: str) -> str:
    """The colour of an operation's family, in cells and in curves."""
    return next(colour for family, colour in FAMILIES.items() if operation.startswith(family))


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
    with rc_context(STYLE):
        figure = _figure(9, 4.2)
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
        return _save(figure, path)


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
