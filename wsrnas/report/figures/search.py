"""The figures of a search: losses at all strengths, predicted and measured objectives, the estimator against PGD."""

from collections.abc import Sequence
from typing import Any

from wsrnas.report.figures.axes import (
    between,
    blank,
    legend,
    marker_of,
    numbers,
    strength_text,
    styled,
    whole_ticks,
)
from wsrnas.report.figures.picture import Picture, picture
from wsrnas.report.figures.style import INK, MUTED
from wsrnas.report.reading.rows import column, names_under, path_rows
from wsrnas.runtime.config import format_epsilon


@styled
def losses(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """Draw loss and accuracy on D_v at every strength over the steps."""
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
    table = [[row["step"] + 1, *(row["losses"].get(name) for name in names),
              *((row.get("accuracies") or {}).get(name) for name in names)] for row in kept]
    return picture(figure, "losses", f"Loss and accuracy on D_v of the first path of each step at {len(names)} "
                   f"strengths over {len(kept)} steps.", "Each step samples another path, so the curves are rough. "
                   "Their level shows how much the supernet has learnt, their distance how much accuracy a stronger "
                   "noise costs.", header, table)


@styled
def predictions(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """Draw the predicted over the measured objective of the first path of a step, before the predictor knew it."""
    ranks, rows = rank_of_predictions(rows), path_rows(rows)
    measured, predicted = (column(rows, "loss_estimator", f"{word}_objective") for word in ("measured", "predicted"))
    table = [[row["step"] + 1, m, p] for row, m, p in zip(rows, measured, predicted, strict=True)
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
    said = f" Kendall's τ of the newest {ranks['pairs'] or ''} of all paths: {ranks['tau']:+.2f}." if ranks else ""
    if ranks and ranks["detrended"] is not None:
        said += (f" Without the trend over the steps it is {ranks['detrended']:+.2f}: both fall while a supernet "
                 "learns, whatever the predictor knows.")
    return picture(figure, "predictions", f"Scatter of {len(table)} predicted over measured objectives.{said}",
                   "Each point is the first path of a step. The prediction was made before the predictor (in the paper "
                   "the validation loss estimator, VLE) was trained on the path. Dashed: both are equal. The strategy "
                   "wsr learns from bad measurements that are cut (--loss_quantile), so these lie below the line."
                   f"{said}",
                   ("step", "measured", "predicted"), table)


@styled
def estimator_gaps(rows: Sequence[dict[str, Any]]) -> Picture | None:
    """Draw by how many points of accuracy the estimated noise is weaker than PGD's, over the steps."""
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
    table = [[row["step"] + 1, check["mean_gap"], check.get("largest_gap"), check.get("largest_gap_at"),
              " ".join(map(str, check.get("attacked", [])))] for row, check in zip(kept, checks, strict=True)]
    return picture(figure, "estimator-gap", f"Mean and largest gap between estimated noise and PGD over {len(kept)} "
                   "steps.", f"Accuracy under the estimated noise minus that under PGD, on {checks[-1].get('images')} "
                   "images of D_v. Above zero, the estimate is the weaker attack. Strengths that PGD attacks: "
                   f"{attacked}{then}.", ("step", "mean gap", "largest gap", "at", "attacked"), table)


def rank_of_predictions(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how well the newest predictions rank, as the search has measured it; empty before three.

    Returns:
        ``pairs``: number of the newest predictions and measurements; ``tau``: their Kendall's τ; ``detrended``: that of
        what straight lines over time leave of both, because both fall while the supernet learns; None for too few.
    """
    found = [row["loss_estimator"] for row in path_rows(rows)
             if (row.get("loss_estimator") or {}).get("kendall_tau") is not None]
    if not found:
        return {}
    newest = found[-1]
    return {"pairs": newest.get("ranked"), "tau": newest["kendall_tau"],
            "detrended": newest.get("kendall_tau_detrended")}
