"""The drawing of an architecture: its cells as graphs, and as text for a terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wsrnas.architectures.searched import Searched
from wsrnas.genotype import Diagram
from wsrnas.report.figures.axes import styled
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import INK, MUTED, STYLE, SURFACE, TEXT_COLOURS, TINT, operation_colour
from wsrnas.report.figures.svg import plain, save_figure

INPUT_NAMES = ("cₖ₋₂", "cₖ₋₁")
PRINTED = dict(zip(("c[k-2]", "c[k-1]"), INPUT_NAMES, strict=True))  # of a terminal's spelling

# A cell's layout, in inches. The nodes descend like stairs. An edge leaves its source downwards and enters its node
# from the left, in a row of its own. So no line meets a node that it does not join, no two lines run on top of each
# other, and the names of the operations, beside the node that they enter, meet neither each other nor another line.
MARGIN, TITLE = 0.15, 0.3
ROW, LANE = 0.24, 0.12  # from one line to the next: into a node, out of a node
STEP = 0.18  # down from a node to the next
WIDTH, OUTPUT_WIDTH = 0.46, 0.68
BEFORE, CHARACTER, AFTER = 0.2, 0.07, 0.24  # an edge's line before its name, the name in 8 points, the arrow's head
BESIDE_INPUT, BEFORE_OUTPUT = 0.2, 0.7
CORNER = 0.1
ON_A_LINE: Any = {"fontsize": 8, "va": "center", "zorder": 2,
             "bbox": {"boxstyle": "square,pad=0.1", "facecolor": SURFACE, "edgecolor": "none"}}


def draw_genotype(genotype: Searched, path: str | Path, title: str = "") -> Path:
    """Draw all cells, inputs on the left, output on the right, every edge with its operation.

    Args:
        genotype: A searched architecture.
        path: Path with or without a suffix.
        title: Text above each cell.

    Returns:
        The path of the PNG; an SVG is in the same folder.
    """
    from matplotlib import rc_context
    path = Path(path)
    if path.suffix in (".svg", ".png"):  # any other point belongs to the name
        path = path.with_suffix("")
    with rc_context(STYLE):
        return save_figure(cell_figure(genotype, title), path)


@styled
def cell_picture(genotype: Searched) -> Picture:
    """Draw the cells of an architecture, with their edges as numbers."""
    diagrams = genotype.diagrams()
    rows = [[diagram.title.removesuffix(" cell"), node, operation, source] for diagram in diagrams
            for node, edges in enumerate(diagram.nodes, start=len(diagram.inputs)) for operation, source in edges]
    if len(diagrams) > 1:
        what = "The normal and the reduction cell as graphs"
        note = ("Inputs cₖ₋₂ and cₖ₋₁ are the outputs of the two previous cells. A node is the sum of its edges. "
                "Dotted: the nodes that the output concatenates.")
    else:
        what = "The cell as a graph"
        note = "The input is the output of the previous cell. A node is the sum of its edges; the last is the output."
    return picture(cell_figure(genotype), "cells", f"{what}: inputs on the left, output on the right, every edge "
                   "labelled with its operation.", note, ("cell", "node", "operation", "input"), rows)


def cell_figure(genotype: Searched, title: str = "") -> Any:
    """Draw the cells of an architecture as a matplotlib figure that is as large as they need."""
    from matplotlib.figure import Figure
    cells = [(diagram, _boxes(diagram)) for diagram in genotype.diagrams()]
    width = max(boxes[-1].right for _, boxes in cells) + 2 * MARGIN
    heights = [TITLE + 2 * MARGIN - boxes[-1].bottom for _, boxes in cells]
    figure = Figure(figsize=(width, sum(heights)))
    above = 0.0
    for (diagram, boxes), height in zip(cells, heights, strict=True):
        above += height
        axes = figure.add_axes((0, 1 - above / sum(heights), 1, (height - TITLE) / sum(heights)))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(boxes[-1].bottom - MARGIN, MARGIN))  # in inches
        axes.axis("off")
        axes.set_title(f"{plain(title) + ': ' if title else ''}{diagram.title}", loc="left", x=MARGIN / width)
        _draw_boxes(axes, diagram.inputs, boxes)
        _draw_edges(axes, diagram, boxes)
        _draw_concat(axes, diagram.concat, boxes)
    return figure


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def _boxes(diagram: Diagram) -> list[_Box]:
    """Return the boxes of inputs, nodes and output; the first is at (0, 0), the others are to the right and below."""
    nodes, inputs = diagram.nodes, len(diagram.inputs)
    leaving = Counter(source for edges in nodes for _, source in edges)
    names = CHARACTER * max(len(operation) for edges in nodes for operation, _ in edges)
    boxes: list[_Box] = []
    for number, rows in enumerate([*[1] * inputs, *map(len, nodes)]):
        before = BESIDE_INPUT if number < inputs else BEFORE + names + AFTER
        left = boxes[-1].right + before if boxes else 0.0
        top = boxes[-1].bottom - STEP if number >= inputs else 0.0
        boxes.append(_Box(left, top - ROW * rows, left + max(WIDTH, LANE * (leaving[number] + 1)), top))
    left = boxes[-1].right + BEFORE_OUTPUT
    return [*boxes, _Box(left, boxes[-1].bottom, left + OUTPUT_WIDTH, boxes[inputs].top)]


def _draw_boxes(axes: Any, inputs: Sequence[str], boxes: Sequence[_Box]) -> None:
    from matplotlib.patches import FancyBboxPatch
    left = [PRINTED.get(name, name) for name in inputs]
    for name, box in zip([*left, *range(len(left), len(boxes) - 1), "output"], boxes, strict=True):
        face = SURFACE if isinstance(name, int) else TINT
        axes.add_patch(FancyBboxPatch((box.left, box.bottom), box.right - box.left, box.top - box.bottom, zorder=3,
                                      boxstyle="round,pad=0,rounding_size=0.06", facecolor=face, edgecolor=MUTED))
        axes.text(*box.centre, str(name), ha="center", va="center", zorder=4, color=INK)


def _draw_edges(axes: Any, diagram: Diagram, boxes: Sequence[_Box]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve
    waiting = Counter(source for edges in diagram.nodes for _, source in edges)
    lanes = {source: boxes[source].centre[0] - LANE * (count + 1) / 2 for source, count in waiting.items()}
    for node, edges in enumerate(diagram.nodes, start=len(diagram.inputs)):
        # Nearest source first, a source's uppermost edge rightmost: edges to one node or from one never cross.
        for row, (operation, source) in enumerate(sorted(edges, key=lambda edge: -edge[1])):
            x, y = lanes[source] + LANE * waiting[source], boxes[node].top - ROW * (row + 0.5)
            waiting[source] -= 1
            curve = Curve([(x, boxes[source].bottom), (x, y + CORNER), (x, y), (x + CORNER, y), (boxes[node].left, y)],
                          [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO])
            colour = operation_colour(operation)
            axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=10, color=colour, linewidth=1.2,
                                           linestyle=(0, (3, 2)) if operation == "none" else "-"))
            axes.text(boxes[node].left - AFTER, y, operation, color=TEXT_COLOURS.get(colour, colour), ha="right",
                      **ON_A_LINE)


def _draw_concat(axes: Any, concat: Sequence[int], boxes: Sequence[_Box]) -> None:
    """Draw a dotted line from each node that the output concatenates, with the number of times where it is not once."""
    output = boxes[-1]
    for node, times in Counter(concat).items():
        y = boxes[node].centre[1]
        axes.plot([boxes[node].right, output.left], [y, y], color=MUTED, linestyle=":", linewidth=1.2, zorder=1)
        if times > 1:
            axes.text((boxes[-2].right + output.left) / 2, y, f"×{times}", color=INK, ha="center", **ON_A_LINE)


def genotype_text(genotype: Searched) -> str:
    """Return all cells as lines of text for a terminal: each node as a sum of its edges."""
    lines = []
    for diagram in genotype.diagrams():
        lines.append(diagram.title)
        first = len(diagram.inputs)
        names = [*diagram.inputs, *(f"node {n}" for n in range(first, len(diagram.nodes) + first))]
        for node, edges in enumerate(diagram.nodes, start=first):
            terms = " + ".join(f"{operation}({names[source]})" for operation, source in edges)
            lines.append(f"  node {node} = {terms}")
        output = ", ".join(f"node {n}" for n in diagram.concat)
        lines.append(f"  output = {f'concat({output})' if diagram.concatenates else output}")
    return "\n".join(lines)
