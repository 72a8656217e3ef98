"""Figures without a display: accuracy over noise strength, and the drawing of a cell."""

import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from wsrnas.errors import InputError, run_program
from wsrnas.evaluation import standard_error
from wsrnas.genotype import Genotype

# Okabe and Ito's palette: distinct to colour-blind readers, in print too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":")
FAMILIES = {"sep_conv": COLOURS[0], "dil_conv": COLOURS[2], "conv": COLOURS[3], "max_pool": COLOURS[4],
            "avg_pool": COLOURS[4], "skip_connect": "#666666", "none": "#bbbbbb"}
INPUT_NAMES = ("c_{k-2}", "c_{k-1}")


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


def plot_accuracy(results: dict[str, dict[str, Any]], path: Path) -> Path:
    """Accuracy over strength, one line a network.

    Args:
        results: name -> result of ``evaluation.robust_accuracy``.
        path: of the figure; .svg and .png are added.

    Returns:
        The path of the PNG.
    """
    figure = _figure(6.4, 4.2)
    axes = figure.subplots()
    styles = itertools.cycle(itertools.product(LINES, COLOURS))  # endless: no network may be left out
    for (line, colour), (name, result) in zip(styles, results.items(), strict=False):
        strengths = [0.0, *(row["epsilon"] for row in result["strengths"])]
        accuracy = [result["clean_accuracy"], *(row["accuracy"] for row in result["strengths"])]
        error = [2 * standard_error(a, result["images"]) for a in accuracy]
        axes.errorbar([255 * e for e in strengths], [100 * a for a in accuracy], yerr=[100 * e for e in error],
                      color=colour, linestyle=line, marker="o", markersize=4, capsize=2, label=name)
    attack = next(iter(results.values()))["strengths"][0]["attack"]
    axes.set(xlabel=r"L$_\infty$ noise strength $\epsilon$ (n/255)", ylabel=f"accuracy under {attack} (%)",
             ylim=(0, 100))
    axes.set_xlim(left=-1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title("bars: two standard errors over the test images", fontsize=8, color="#666666")
    return _save(figure, path)


def draw_genotype(genotype: Genotype, path: Path, title: str = "") -> Path:
    """Draw both cells, inputs on the left, output on the right, every edge with its operation.

    Returns:
        The path of the PNG; an SVG lies beside it.
    """
    figure = _figure(11, 6.6)
    for axes, kind in zip(figure.subplots(2, 1), ("normal", "reduce"), strict=True):
        _draw_cell(axes, genotype.nodes(kind), getattr(genotype, f"{kind}_concat"))
        axes.set_title(f"{title + ': ' if title else ''}{kind} cell")
    return _save(figure, path)


def _draw_cell(axes, nodes, concat) -> None:
    from matplotlib.patches import FancyArrowPatch

    places = _positions(len(nodes))
    output = (2.4 * len(nodes) + 2.2, 0.0)
    seen: Counter = Counter()
    for node, edges in enumerate(nodes, start=2):
        for slot, (operation, source) in enumerate(edges):
            bend = 0.12 * (-1) ** slot + 0.18 * seen[source, node]
            seen[source, node] += 1
            colour = next(c for family, c in FAMILIES.items() if operation.startswith(family))
            axes.add_patch(FancyArrowPatch(places[source], places[node], connectionstyle=f"arc3,rad={bend}",
                                           arrowstyle="-|>", mutation_scale=12, color=colour, shrinkA=17, shrinkB=17))
            _label(axes, places[source], places[node], bend, operation, colour, 0.62 if source < 2 else 0.5)
    for node in sorted(set(concat)):
        times = concat.count(node)
        axes.add_patch(FancyArrowPatch(places[node], output, arrowstyle="-", color="#cccccc", linestyle=":",
                                       linewidth=1.2 * times, shrinkA=17, shrinkB=17))
    names = [f"${name}$" for name in INPUT_NAMES] + [str(node) for node in range(2, len(nodes) + 2)]
    for name, place in [*zip(names, places, strict=True), ("output", output)]:
        face = "#eef3f8" if name.startswith("$") else "#f4f1e8" if name == "output" else "white"
        axes.text(*place, name, ha="center", va="center", zorder=3,
                  bbox={"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": "#444444"})
    axes.set_xlim(-0.8, output[0] + 0.8)
    axes.set_ylim(-1.9, 1.9)
    axes.axis("off")


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
              bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.9})


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
