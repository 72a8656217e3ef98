"""The figures of a search's report, each with the numbers that it draws."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.operations import PRIMITIVES
from wsrnas.report.data import column, names_under
from wsrnas.report.figures import blank, legend, marker_of, numbers, styled, whole_ticks
from wsrnas.report.html import Picture, picture
from wsrnas.report.plotting import INK, INPUT_NAMES, MUTED, operation_colour
from wsrnas.runtime.config import format_epsilon

DRAWN_POINTS = 120  # of a line among a hundred others; the numbers beside the figure are all of them


@styled
def weights(rows: Sequence[dict[str, Any]], kind: str, unit: str) -> Picture | None:
    """softmax(A) of every edge of one cell over the search: a panel an edge, in the triangle that the edges form."""
    kept = [row for row in rows if kind in (row.get("architecture") or {}).get("alphas", {})
            and row.get("phase", "search") == "search"]  # before, nothing moves
    if len(kept) < 2:
        return None
    from matplotlib.collections import LineCollection
    alphas = np.array([row["architecture"]["alphas"][kind] for row in kept], dtype=float)  # (steps, E, O)
    shares = np.exp(alphas - alphas.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    changed = _changes(kept, kind)
    low, high = 0.95 * shares.min(), 1.05 * shares.max()
    edges = _edges(alphas.shape[1])
    figure = blank(9.4, 1.55 * (edges[-1][0] - 1))
    axes = figure.subplots()
    time = np.linspace(0, 1, len(kept))
    shown = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), DRAWN_POINTS)).round().astype(int))
    for edge, (node, source) in enumerate(edges):
        left, bottom = 1.14 * source, -1.3 * (node - 2)
        frame = [[(left, bottom), (left, bottom + 1)], [(left, bottom), (left + 1, bottom)]]
        marks = [[(left + time[i], bottom), (left + time[i], bottom + 1)] for i in changed[edge]]
        axes.add_collection(LineCollection(frame, colors=MUTED, linewidths=0.7))
        axes.add_collection(LineCollection(marks, colors=MUTED, linewidths=0.7, linestyles=":"))
        curves = [np.stack([left + time[shown], bottom + (shares[shown, edge, o] - low) / (high - low)], -1)
                  for o in range(alphas.shape[2])]
        strongest = shares[-1, edge].argmax()
        axes.add_collection(LineCollection(curves, colors=[operation_colour(name) for name in PRIMITIVES],
                                           linestyles=[_dashes(name) for name in PRIMITIVES],
                                           linewidths=[2.6 if o == strongest else 1.1 for o in range(len(curves))]))
        axes.text(left + 0.02, bottom + 1.02, f"{_state(source)} → {node}", fontsize=8.5, va="bottom")
    handles = [axes.plot([], [], color=operation_colour(name), linestyle=_dashes(name))[0] for name in PRIMITIVES]
    axes.legend(handles, PRIMITIVES, loc="upper right", ncols=2)
    axes.set(xlim=(-0.05, 1.14 * edges[-1][1] + 1.05), ylim=(-1.3 * (edges[-1][0] - 2) - 0.08, 1.28))
    axes.axis("off")
    header = ["step", *(f"{_state(source)}->{node} {name}" for node, source in edges for name in PRIMITIVES)]
    table = [[row["step"], *shares[i].round(4).ravel().tolist()] for i, row in enumerate(kept)]
    first, last = kept[0]["step"] + 1, kept[-1]["step"] + 1
    title = "normal" if kind == "normal" else "reduction"
    return picture(figure, f"weights-{kind}", f"Weights of the operations on the {len(edges)} edges of the {title} "
                   f"cell from {unit} {first} to {last}.", f"{title.capitalize()} cell: softmax of the architecture "
                   f"parameters, a panel an edge (its input → its node), {unit}s {first} to {last} from left "
                   f"to right, {low:.3f} to {high:.3f} from bottom to top; thick: the strongest at the end; dotted: "
                   "where the genotype's operations on this edge change.",
                   header, table)


def _dashes(operation: str) -> str:
    """Apart from its family's colour, what tells an operation from its sibling."""
    return ":" if operation == "none" else "--" if operation.endswith("5x5") or operation.startswith("avg") else "-"


def _edges(count: int) -> list[tuple[int, int]]:
    """(node, input) of every edge, in the order of the architecture parameters' rows."""
    pairs = [(node, source) for node in range(2, 2 + count) for source in range(node)]
    return pairs[:count]


def _state(source: int) -> str:
    return INPUT_NAMES[source] if source < 2 else str(source)


def _changes(rows: Sequence[dict[str, Any]], kind: str) -> list[list[int]]:
    """For every edge, the rows at which the genotype's operation on it (or its absence) differs from the row before."""
    edges = _edges(len(rows[0]["architecture"]["alphas"][kind]))
    chosen = []
    for row in rows:
        pairs = row["architecture"]["genotype"][kind]
        chosen.append([sorted(name for name, i in pairs[2 * (node - 2):2 * (node - 1)] if i == source)
                       for node, source in edges])
    return [[i for i in range(1, len(rows)) if chosen[i][edge] != chosen[i - 1][edge]] for edge in range(len(edges))]


@styled
def losses(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """Loss and accuracy on D_v at every strength over the steps."""
    kept = [row for row in rows if isinstance(row.get("losses"), dict)]
    names = names_under(kept, "losses")
    if not kept:
        return None
    figure = blank(9.4, 3.5)
    left, right = figure.subplots(1, 2)
    steps = [row["step"] + 1 for row in kept]
    lines = []
    for index, name in enumerate(names):
        colour = INK if name == "natural" else between(index - 1, len(names) - 1)
        line, = left.plot(steps, numbers(column(kept, "losses", name)), color=colour, marker=marker_of(len(kept)),
                          markersize=3)
        right.plot(steps, [100 * a for a in numbers(column(kept, "accuracies", name))], color=colour,
                   marker=marker_of(len(kept)), markersize=3)
        lines.append(line)
    whole_ticks(left, right)
    left.set(xlabel="step", ylabel="nats", title="loss on D_v")
    right.set(xlabel="step", ylabel="%", title="accuracy on D_v", ylim=(0, 100))
    legend(right, lines, [strength_text(name) for name in names], loc="upper left", bbox_to_anchor=(1.01, 1))
    header = ["step", *(f"loss {name}" for name in names), *(f"accuracy {name}" for name in names)]
    table = [[row["step"], *(row["losses"].get(name) for name in names),
              *((row.get("accuracies") or {}).get(name) for name in names)] for row in kept]
    return picture(figure, "losses", f"Loss and accuracy on D_v of the sampled paths at {len(names)} strengths over "
                   f"{len(kept)} steps.", "Each step samples another path, so the curves are rough; their level shows "
                   "how far the supernet has learnt, their distance what a stronger noise costs.", header, table)


def strength_text(name: str) -> str:
    """A column's name in ``metrics.jsonl`` as people read it."""
    try:
        return f"ε {format_epsilon(float(name.removeprefix('eps_')))}" if name.startswith("eps_") else name
    except ValueError:
        return name


def between(index: int, count: int) -> str:
    """From blue to vermilion: both are told apart by colour-blind readers, on white and on black."""
    share = min(max(index / max(count - 1, 1), 0), 1)
    ends = [[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in ("#3489C8", "#D55E00")]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))


@styled
def predictions(rows: Sequence[dict[str, Any]], tau: float | None) -> Picture | None:
    """Predicted over measured search objective of every path, before the VLE was trained on it."""
    measured, predicted = (column(rows, "loss_estimator", f"{word}_objective") for word in ("measured", "predicted"))
    table = [[row["step"], m, p] for row, m, p in zip(rows, measured, predicted, strict=True)
             if m is not None and p is not None]
    if not table:
        return None
    figure = blank(6.4, 4.2)
    axes = figure.subplots()
    steps, x, y = zip(*table, strict=True)
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle="--")
    for step, a, b in table:
        axes.plot([a], [b], "o", color=between(step - steps[0], steps[-1] - steps[0] + 1), markersize=5)
    for axis, values in (("x", x), ("y", y)):
        margin = 0.08 * (max(values) - min(values)) or 0.1
        axes.set(**{f"{axis}lim": (min(values) - margin, max(values) + margin)})
    ends = [axes.plot([], [], "o", color=colour)[0] for colour in (between(0, 2), between(1, 2))]
    legend(axes, ends, [f"step {steps[0] + 1}", f"step {steps[-1] + 1}"], loc="best")
    axes.set(xlabel="measured objective (nats)", ylabel="predicted objective (nats)")
    said = "" if tau is None else f" Kendall's τ of all {len(table)}: {tau:+.2f}."
    return picture(figure, "predictions", f"Scatter of {len(table)} predicted over measured objectives.{said}",
                   "Each point is a sampled path, predicted before the validation loss estimator (VLE) was trained "
                   f"on it; dashed: equal.{said}", ("step", "measured", "predicted"), table)


@styled
def estimator_gaps(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """By how many points the estimated noise is weaker than PGD's, over the steps."""
    kept = [row for row in rows if column([row], "estimator_check", "mean_gap") != [None]]
    if not kept:
        return None
    figure = blank(9.4, 3)
    axes = figure.subplots()
    steps = [row["step"] + 1 for row in kept]
    lines = [axes.plot(steps, [100 * gap for gap in numbers(column(kept, "estimator_check", name))], color=colour,
                       marker=marker_of(len(kept)), markersize=3)[0]
             for name, colour in (("mean_gap", INK), ("largest_gap", between(1, 2)))]
    axes.axhline(0, color=MUTED, linewidth=0.8, linestyle="--")
    fallbacks = [(row["step"] + 1, row["estimator_check"]["fallback"]) for row in kept
                 if "fallback" in row["estimator_check"]]
    for step, _ in fallbacks:
        axes.axvline(step, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="points of accuracy")
    whole_ticks(axes)
    legend(axes, lines, ["mean of the estimated strengths", "largest"], loc="upper left", bbox_to_anchor=(1.01, 1))
    checks = [row["estimator_check"] for row in kept]
    attacked = ", ".join(map(format_epsilon, checks[0].get("attacked", [])))
    then = "".join(f"; {format_epsilon(strength)} from step {step + 1} on" for step, strength in fallbacks)
    table = [[row["step"], check["mean_gap"], check.get("largest_gap"), check.get("largest_gap_at"),
              " ".join(map(str, check.get("attacked", [])))] for row, check in zip(kept, checks, strict=True)]
    return picture(figure, "estimator-gap", f"Mean and largest gap between estimated noise and PGD over {len(kept)} "
                   "steps.", f"Accuracy under the estimated noise minus that under PGD, on {checks[-1].get('images')} "
                   "images of D_v: above zero, the estimate is the weaker attack. Strengths that PGD attacks: "
                   f"{attacked}{then}.", ("step", "mean gap", "largest gap", "at", "attacked"), table)


@styled
def noise(arrays: dict[str, np.ndarray]) -> Picture | None:
    """Images with PGD's noise beside the estimator's, both amplified so that ±ε fills the range of a display."""
    images, pgd, estimated = (arrays[name].astype(float) for name in ("images", "pgd", "estimated"))
    epsilons = arrays["epsilons"].astype(float)
    if not len(images) or not len(epsilons):
        return None
    count, strengths, _, height, width = pgd.shape
    gap = max(2, width // 8)
    columns, rows = 1 + 2 * strengths, count
    canvas = np.zeros((rows * height + (rows - 1) * gap, columns * width + (columns - 1) * gap, 4))
    table = []
    for i, j in itertools.product(range(count), range(columns)):
        if j == 0:
            pixels = images[i] / 255
        else:
            strength, source = (j - 1) // 2, pgd if j % 2 else estimated
            pixels = np.clip(0.5 + 0.5 * source[i, strength] / epsilons[strength], 0, 1)
        top, left = i * (height + gap), j * (width + gap)
        canvas[top:top + height, left:left + width, :3] = np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0)
        canvas[top:top + height, left:left + width, 3] = 1
    for i, strength in itertools.product(range(count), range(strengths)):
        true, guess = pgd[i, strength].ravel(), estimated[i, strength].ravel()
        size, product = np.linalg.norm(true), np.linalg.norm(true) * np.linalg.norm(guess)
        table.append([i, epsilons[strength], np.abs(true).max(), np.abs(guess).max(), *(
            [np.linalg.norm(guess - true) / size, true @ guess / product] if product else [None, None])])
    figure = _noise_figure(canvas, epsilons, width + gap, width, height + gap, height, table)
    texts = [f"×{0.5 / e:.3g} at {format_epsilon(e)}" for e in epsilons]
    return picture(figure, "noise", f"{count} validation images, each with PGD's noise and the estimated noise at "
                   f"{strengths} strengths.", f"Step {int(arrays['step']) + 1}. Left: images of D_v. Then, for each "
                   "strength, PGD's noise and the AN-Estimator's estimate of it, grey where zero, amplified "
                   f"{', '.join(texts)}; below: the cosine between the two.",
                   ("image", "epsilon", "largest pgd", "largest estimated", "relative error", "cosine"), table)


def _noise_figure(canvas: np.ndarray, epsilons: np.ndarray, across: int, width: int, down: int, height: int,
                  table: list[list[Any]]):
    """The montage with its captions; sizes in pixels of the images."""
    strengths = len(epsilons)
    figure = blank(9.4, 9.4 * (canvas.shape[0] + 0.6 * height) / canvas.shape[1])
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="none")
    axes.axis("off")
    small = {"ha": "center", "fontsize": 8.5}
    axes.text(width / 2, -0.06 * height, "image", va="bottom", **small)
    for j in range(2 * strengths):
        centre = (j + 1) * across + width / 2
        axes.text(centre, -0.06 * height, "estimated" if j % 2 else "PGD", va="bottom", **small)
        if j % 2 == 0:
            epsilon = epsilons[j // 2]
            axes.text(centre + across / 2, -0.26 * height, f"ε {format_epsilon(epsilon)}, ×{0.5 / epsilon:.3g}",
                      va="bottom", **small)
    for image, epsilon, *_, cosine in table:
        strength = int(np.argmin(abs(epsilons - epsilon)))
        text = "no noise" if cosine is None else f"{cosine:.2f}"
        axes.text((2 + 2 * strength) * across + width / 2, image * down + height + 0.03 * height, text, va="top",
                  color=MUTED, ha="center", fontsize=7.5)
    return figure


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float | None:
    """Kendall's τ of all predicted and measured objectives; None for fewer than three, or without any order."""
    from scipy.stats import kendalltau
    pairs = [(m, p) for m, p in zip(*(column(rows, "loss_estimator", f"{word}_objective")
                                      for word in ("measured", "predicted")), strict=True)
             if m is not None and p is not None]
    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) >= 3 else math.nan
    return None if math.isnan(tau) else tau
