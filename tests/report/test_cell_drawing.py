"""The drawing of a cell, read back from what lies where in it: exactly the edges and the concat of the genotype."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import genotypes
from tests.quick import slow_after
from wsrnas.architectures.nas_bench_201 import CellGraph
from wsrnas.architectures.robnet import FREE, LARGE, SMALL, cell_of
from wsrnas.genotype import KINDS, Genotype
from wsrnas.operations import OPERATIONS
from wsrnas.report.figures.cells import cell_figure, cell_picture, draw_genotype, genotype_text
from wsrnas.report.figures.style import MUTED, STYLE, TEXT_COLOURS
from wsrnas.report.figures.svg import svg_text

NUMBERS = {"cₖ₋₂": 0, "cₖ₋₁": 1, "output": -1}
TOUCHING = 2  # pixels, of which an inch has a hundred


def random_genotype(seed: int) -> Genotype:
    """One to five nodes a cell, one to five edges a node, repeated edges and concatenated nodes among them."""
    draw = random.Random(seed)
    cells = {}
    for kind in KINDS:
        nodes = [[(draw.choice(list(OPERATIONS)), draw.randrange(node)) for _ in range(draw.randint(1, 5))]
                 for node in range(2, draw.randint(3, 7))]
        nodes[-1] += nodes[-1][:draw.randrange(2)]
        cells |= {kind: nodes, f"{kind}_concat": draw.choices(range(2, len(nodes) + 2), k=draw.randint(1, 6))}
    return Genotype(**cells)


def crowded(source: int) -> Genotype:
    """Five nodes with five equal edges each, all of which come from one source or from the node before."""
    nodes = [[("conv_7x1_1x7", min(source, node - 1))] * 5 for node in range(2, 7)]
    return Genotype(nodes, [6, 2, 6, 6], [[("none", 0)]], [2])


GENOTYPES = {name: genotypes.load(name) for name in genotypes.names()} | {
    "RobNet small": cell_of(SMALL), "RobNet large": cell_of(LARGE), "RobNet free": cell_of(FREE[1]),
    "from an input": crowded(0), "from a node": crowded(2), "from the node before": crowded(6)} | {
    f"random {seed}": random_genotype(seed) for seed in range(12)}
FAST = ("WsrNet_Basic", "from an input", "from the node before", "random 0", "random 1", "random 2")
every_genotype = pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)


# -- reading ----------------------------------------------------------------------------------------------------------

class Arrow(NamedTuple):
    line: np.ndarray  # points (n, 2) from the source on
    tip: np.ndarray
    colour: str
    dashed: bool


class Drawing(NamedTuple):
    """One cell as it lies on the canvas, in pixels."""

    canvas: Bbox
    title: Bbox
    boxes: dict[int, Bbox]
    arrows: list[Arrow]
    dotted: list[np.ndarray]
    labels: list[tuple[str, Bbox, str]]  # text, place, colour


def drawings(genotype: Genotype) -> dict[str, Drawing]:
    with rc_context(STYLE):
        figure = cell_figure(genotype)
    figure.set_dpi(100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    cells = {kind: drawing(axes, renderer, f"{kind} cell") for kind, axes in zip(KINDS, figure.axes, strict=True)}
    above, below = cells.values()
    assert above.title.y0 > max(box.y1 for box in above.boxes.values())
    assert min(box.y0 for box in above.boxes.values()) > below.title.y1
    assert below.title.y0 > max(box.y1 for box in below.boxes.values())
    return cells


def drawing(axes, renderer, title: str) -> Drawing:
    above, = axes.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() == title)
    frames = [patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    boxes, labels = {}, []
    for text in axes.texts:
        place, words = text.get_window_extent(renderer), text.get_text()
        around = [frame for frame in frames if frame.contains(*middle(place))]
        if around:
            frame, = around
            assert np.all(frame.min < place.min) and np.all(place.max < frame.max), f"{words} leaves its box"
            number = NUMBERS[words] if words in NUMBERS else int(words)
            assert number not in boxes
            boxes[number] = frame
        else:
            labels.append((words, text.get_bbox_patch().get_window_extent(renderer), to_hex(text.get_color())))
    assert len(boxes) == len(frames)
    arrows = [arrow(axes, patch) for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(frames) + len(arrows) == len(axes.patches)
    assert min(text.zorder for text in axes.texts) > max(line.zorder for line in [*axes.lines, *axes.patches]
                                                         if not isinstance(line, FancyBboxPatch)), "a line on a text"
    assert all(line.get_linestyle() == ":" for line in axes.lines)
    dotted = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
    return Drawing(axes.figure.bbox, above.get_window_extent(renderer), boxes, arrows, dotted, labels)


def arrow(axes, patch: FancyArrowPatch) -> Arrow:
    line, head = axes.transData.transform_path(patch.get_path()).to_polygons(closed_only=False)
    tip = max(head, key=lambda corner: np.linalg.norm(head - corner, axis=1).sum())  # of a slender triangle
    farthest = np.linalg.norm(head - line[0], axis=1).max()
    assert np.linalg.norm(tip - line[0]) == pytest.approx(farthest)  # away from the source
    return Arrow(dense(np.vstack([line, tip])), tip, to_hex(patch.get_edgecolor()), patch.get_linestyle() != "-")


def dense(points: np.ndarray) -> np.ndarray:
    """Points of the same line, a pixel apart."""
    pieces = [np.linspace(a, b, max(2, int(np.linalg.norm(b - a)) + 1)) for a, b in itertools.pairwise(points)]
    return np.vstack(pieces)


def middle(box: Bbox) -> np.ndarray:
    return (box.min + box.max) / 2


def outside(points: np.ndarray, box: Bbox) -> np.ndarray:
    """Distances (n,) of points from a rectangle, 0 inside."""
    return np.linalg.norm(np.maximum(np.maximum(box.min - points, points - box.max), 0), axis=-1)


def touched(point: np.ndarray, boxes: dict[int, Bbox]) -> int:
    """The one box at whose border a point lies."""
    near = [number for number, box in boxes.items() if outside(point, box) < 5 * TOUCHING]
    assert len(near) == 1
    box = boxes[near[0]]
    to_borders = np.minimum(np.abs(point - box.min), np.abs(point - box.max))  # across and up
    assert to_borders.min() < TOUCHING and to_borders.max() > 5, "not at one side of the box"
    return near[0]


def apart(point: np.ndarray, line: np.ndarray) -> float:
    return float(np.linalg.norm(line - point, axis=1).min())


def corners(boxes: Iterable[Bbox]) -> tuple[np.ndarray, np.ndarray]:
    """The lower left and the upper right corners (n, 2)."""
    pairs = np.array([[box.min, box.max] for box in boxes])
    return pairs[:, 0], pairs[:, 1]


def gaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance from another line at every fourth pixel of one."""
    x, y = (np.subtract.outer(one[::4, axis], other[::4, axis]) for axis in (0, 1))
    return np.sqrt((x**2 + y**2).min(axis=1))


LABELS = {line.lower(): label for line, label in TEXT_COLOURS.items()}  # labels are darker than their lines


def edges_in(drawn: Drawing) -> Counter:
    """(operation, source, node) of every arrow, the operation being the nearest label's."""
    names = [label for label in drawn.labels if label[0] in OPERATIONS]
    assert len(names) == len(drawn.arrows)
    edges = Counter()
    places = np.array([middle(place) for _, place, _ in names])
    distances = [np.linalg.norm(one.line[:, None] - places, axis=-1).min(axis=0) for one in drawn.arrows]
    nearest = [int(np.argmin(row)) for row in distances]
    assert len({*nearest}) == len(names), "a label is the nearest of two arrows"
    for one, row, number in zip(drawn.arrows, distances, nearest, strict=True):
        operation, _, colour = names[number]
        assert row[number] < TOUCHING and colour == LABELS.get(one.colour, one.colour)
        assert one.dashed == (operation == "none") and (operation != "none" or colour == MUTED)
        edges[operation, touched(one.line[0], drawn.boxes), touched(one.tip, drawn.boxes)] += 1
    return edges


def concat_in(drawn: Drawing) -> Counter:
    """How often the output concatenates each node: dotted lines times the marks on them."""
    marks = [(words, place) for words, place, _ in drawn.labels if words not in OPERATIONS]
    counts = Counter()
    for ends in drawn.dotted:
        assert touched(ends[1], drawn.boxes) == -1
        node = touched(ends[0], drawn.boxes)
        assert node not in counts
        own = [mark for mark in marks if apart(middle(mark[1]), dense(ends)) < TOUCHING]
        assert len(own) <= 1
        counts[node] = int(re.fullmatch(r"×(\d)", own[0][0])[1]) if own else 1
        marks = [mark for mark in marks if mark not in own]
    assert not marks
    return counts


def edges_of(genotype: Genotype, kind: str) -> Counter:
    return Counter((operation, source, node) for node, edges in enumerate(genotype.nodes(kind), start=2)
                   for operation, source in edges)


# -- the drawing ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("genotype", [
    pytest.param(genotype, marks=[] if name in FAST else pytest.mark.slow) for name, genotype in GENOTYPES.items()],
    ids=GENOTYPES)
def test_the_drawing_read_back_is_the_genotype(genotype):
    for kind, drawn in drawings(genotype).items():
        assert sorted(drawn.boxes) == list(range(-1, len(genotype.nodes(kind)) + 2))
        assert edges_in(drawn) == edges_of(genotype, kind)
        assert concat_in(drawn) == Counter(getattr(genotype, f"{kind}_concat"))
        check_readable(drawn)


def check_readable(drawn: Drawing) -> None:
    """Nothing covers anything else: lines cross one another, and that is all."""
    places = [place for _, place, _ in drawn.labels]
    low, high = corners([*places, *drawn.boxes.values()])
    overlaps = ((low[:, None] <= high) & (low <= high[:, None])).all(axis=-1)
    assert not np.triu(overlaps, 1).any()
    for place in [*places, *drawn.boxes.values(), drawn.title]:
        assert np.all(place.min >= drawn.canvas.min) and np.all(place.max <= drawn.canvas.max)
    lines = [one.line for one in drawn.arrows] + [dense(ends) for ends in drawn.dotted]
    lying = np.zeros(len(low), int)  # how many lines come to each
    for line in lines:
        assert np.all((line >= drawn.canvas.min) & (line <= drawn.canvas.max))
        away = np.linalg.norm(np.maximum(np.maximum(low - line[:, None], line[:, None] - high), 0), axis=-1)
        assert np.all(away[4:-4, len(places):] > 1), "a line runs through a node"
        lying += np.any(away < 1, axis=0)
    assert np.all(lying[:len(places)] == 1), "a label lies on another line, too"
    ends = [(line.min(axis=0), line.max(axis=0)) for line in lines]
    for (one, (left, right)), (other, (start, end)) in itertools.combinations(zip(lines, ends, strict=True), 2):
        if np.all(left - 4 <= end) and np.all(start <= right + 4):  # others are farther from each other anyway
            assert np.sum(gaps(one, other) < 4) <= 4, "two lines run on top of each other"


@pytest.mark.parametrize("name", slow_after(1, ["NASNet_A", "CRoZe_cifar10", "RobNet large", "random 3"]))
def test_edges_from_one_node_or_to_one_node_do_not_cross(name):
    for drawn in drawings(GENOTYPES[name]).values():
        ends = [(touched(one.line[0], drawn.boxes), touched(one.tip, drawn.boxes)) for one in drawn.arrows]
        for (one, start), (other, end) in itertools.combinations(zip(drawn.arrows, ends, strict=True), 2):
            if start[0] == end[0] or start[1] == end[1]:
                assert gaps(one.line, other.line).min() > 8


def test_the_inputs_stand_on_the_left_and_the_output_on_the_right():
    for drawn in drawings(GENOTYPES["PNAS"]).values():
        across = [drawn.boxes[number].x0 for number in [*range(len(drawn.boxes) - 1), -1]]
        assert across == sorted(across)


def texts_in(svg: str) -> Counter:
    return Counter(element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAST, "NASNet_A", "RobNet large", "RobNet free"])
def test_the_svg_names_every_operation_as_often_as_the_genotype(name):
    genotype = GENOTYPES[name]
    with rc_context(STYLE):
        found = texts_in(svg_text(cell_figure(genotype), "cells"))
    operations = Counter(edge[0] for kind in KINDS for edge in edges_of(genotype, kind).elements())
    assert Counter({name: count for name, count in found.items() if name in OPERATIONS}) == operations
    assert found["output"] == found["cₖ₋₂"] == found["cₖ₋₁"] == 2


@pytest.mark.slow
def test_the_files_of_a_cell_are_the_same_every_time(tmp_path):
    genotype = genotypes.load("WsrNet_Plus")
    paths = [draw_genotype(genotype, tmp_path / folder / name, "$a$ in 8.0")
             for folder, name in [("1", "cell 0.5"), ("2", "cell 0.5.svg"), ("3", "cell 0.5.png")]]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [f"{n}/cell 0.5.png" for n in (1, 2, 3)]
    assert {file.name for file in tmp_path.glob("*/*")} == {"cell 0.5.png", "cell 0.5.svg"}
    assert len({path.read_bytes() for path in paths}) == 1
    svg, = {path.with_suffix(".svg").read_text("utf-8") for path in paths}
    assert texts_in(svg)["sep_conv_5x5"] == 1 and texts_in(svg)["$a$ in 8.0: reduce cell"] == 1


# -- the terminal -----------------------------------------------------------------------------------------------------

@every_genotype
def test_the_text_is_the_genotype(genotype):
    cells = re.fullmatch(r"normal cell\n(.*)\nreduce cell\n(.*)", genotype_text(genotype), re.DOTALL).groups()
    for kind, cell in zip(KINDS, cells, strict=True):
        *nodes, output = cell.split("\n")
        read = []
        for number, line in enumerate(nodes, start=2):
            terms = re.fullmatch(rf"  node {number} = (.*)", line)[1].split(" + ")
            pairs = [re.fullmatch(r"(\w+)\((?:c\[k-(\d)]|node (\d))\)", term).groups() for term in terms]
            read.append(tuple((name, 2 - int(back) if back else int(node)) for name, back, node in pairs))
        assert tuple(read) == genotype.nodes(kind)
        names = re.fullmatch(r"  output = concat\((.*)\)", output)[1].split(", ")
        assert names == [f"node {node}" for node in getattr(genotype, f"{kind}_concat")]


# -- graphs of NAS-Bench-201 ------------------------------------------------------------------------------------------

GRAPH = CellGraph.from_string("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|")


def test_a_graph_has_one_drawing_of_six_labelled_edges():
    with rc_context(STYLE):
        figure = cell_figure(GRAPH, "found")
    axes, = figure.axes
    assert axes.get_title(loc="left") == "found: cell"
    names = Counter(text.get_text() for text in axes.texts)
    assert names == Counter(["input", "1", "2", "3", "output", *GRAPH.operations])
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 6
    assert sum(to_hex(arrow.get_edgecolor()) == MUTED for arrow in arrows) == 2  # none and skip_connect


def test_the_numbers_and_the_text_of_a_graph_are_its_edges():
    picture = cell_picture(GRAPH)
    assert [tuple(row) for row in picture.rows] == [
        ("cell", 1, "nor_conv_3x3", 0), ("cell", 2, "none", 0), ("cell", 2, "nor_conv_1x1", 1),
        ("cell", 3, "skip_connect", 0), ("cell", 3, "nor_conv_3x3", 1), ("cell", 3, "avg_pool_3x3", 2)]
    assert genotype_text(GRAPH) == """\
cell
  node 1 = nor_conv_3x3(input)
  node 2 = none(input) + nor_conv_1x1(node 1)
  node 3 = skip_connect(input) + nor_conv_3x3(node 1) + avg_pool_3x3(node 2)
  output = node 3"""
