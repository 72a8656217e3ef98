"""The figures of a training: its curves, and the time of its phases."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.report.figures.axes import blank, legend, listed, marker_of, numbers, styled, whole_ticks
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import COLOURS, INK, MUTED, PALETTE
from wsrnas.report.reading.rows import column, names_under

CURVES = {"train clean": ("train", "clean_accuracy"), "train robust": ("train", "adversarial_accuracy"),
          "held-out clean": ("held_out", "clean_accuracy"), "held-out robust": ("held_out", "robust_accuracy"),
          "probe (PGD)": ("probe", "accuracy")}


@styled
def training(rows: Sequence[dict[str, Any]], unit: str) -> Picture | None:
    """Draw loss, accuracies and, where rows hold them, the upper loss of a search and the learning rate.

    Args:
        rows: Rows of ``metrics.jsonl``.
        unit: What a row is about: "epoch" or "step".
    """
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
    searching = " Losses on D_v: those that the architecture minimises, averaged over an epoch." * bool(upper)
    return picture(figure, "training", f"Training loss and {listed(list(curves))} accuracy over {len(x)} {unit}s.",
                   "Training accuracies come from the forward passes of the training, under its attack. Held-out "
                   f"images are training images that are kept for selection.{searching}",
                   (unit, "loss", *upper, *curves, "learning rate"), table)


@styled
def phases(rows: Sequence[dict[str, Any]], unit: str) -> Picture | None:
    """Draw the seconds of every step or epoch by phase, stacked.

    Args:
        rows: Rows of ``metrics.jsonl``.
        unit: What a row is about: "epoch" or "step".
    """
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
                   [[row["step"] + 1, *(row["seconds"].get(name) for name in names)] for row in kept])


def total_seconds(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of each phase over all rows; of a training, those of its epochs."""
    names = names_under(rows, "seconds")
    if names:
        return {name: sum(value or 0.0 for value in column(rows, "seconds", name)) for name in names}
    trained = [value for value in column(rows, "train", "seconds") if value is not None]
    return {"train": sum(trained)} if trained else {}
