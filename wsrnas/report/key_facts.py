"""The key numbers of a run: one function for each fact, which returns no tile where the run has no such number."""

from collections.abc import Sequence
from typing import Any

from wsrnas.evaluation.caveats import saturated_strengths
from wsrnas.report.figures.search import rank_of_predictions
from wsrnas.report.figures.training import total_seconds
from wsrnas.report.reading.bound import last_bound
from wsrnas.report.reading.networks import networks_of
from wsrnas.report.reading.rows import column
from wsrnas.report.reading.runs import Run
from wsrnas.report.texts import duration, over_in_words, percent
from wsrnas.report.tiles import Fact, Tile
from wsrnas.training.losses import selection_words


def newest(values: Sequence[float | None]) -> float | None:
    """Return the last number of a column; None where it holds none."""
    return next((value for value in reversed(values) if value is not None), None)


def changed_choices(run: Run) -> list[Tile]:
    """Return in how many choices the newest cell of a search differs from the initial one."""
    architecture = run.rows[-1].get("architecture") if run.rows else None
    if not architecture or "changed_choices" not in architecture:
        return []
    changed = f"{architecture['changed_choices']} of {run.space.choices}"
    return [Tile("changed choices", changed, "against the initial cell")]


def rank_of_paths(run: Run) -> list[Tile]:
    """Return how well the predictor ranks paths; where it is known, without what the learning supernet adds."""
    found = rank_of_predictions(run.rows)
    if not found:
        return []
    said = f"the newest {found['pairs'] or ''} predictions for paths before training on them"
    if found["detrended"] is not None:
        said += f"; {found['detrended']:+.2f} without their trend over the steps"
    return [Tile("Kendall's τ", f"{found['tau']:+.2f}", said)]


def estimator_error(run: Run) -> list[Tile]:
    """Return the relative error of the AN-Estimator's noise."""
    error = newest(column(run.rows, "estimator", "relative_error"))
    return [] if error is None else [Tile("estimator error", f"{error:.3f}", "Σ‖φ − δ‖² / Σ‖δ‖²; 1 for no estimate")]


def estimator_gap(run: Run) -> list[Tile]:
    """Return by how many points of accuracy the estimated noise is weaker than PGD."""
    found = (row["estimator_check"] for row in reversed(run.rows) if row.get("estimator_check"))
    check: dict[str, Any] = next(found, {})
    gap = newest(column([{"check": check}], "check", "mean_gap"))
    if gap is None:
        return []
    blind, every = saturated_strengths(check), len(check.get("gap", {}))
    few = f"nearly no image is right at {len(blind)} of {every} strengths, both under the estimate and under PGD"
    if blind and len(blind) == every:
        return [Tile("estimator gap", "not measurable", few)]
    return [Tile("estimator gap", f"{100 * gap:+.1f} points", "mean weakness against PGD, last check"
                 + f"; {few}" * bool(blind))]


def vulnerability(run: Run) -> list[Tile]:
    """Return the vulnerability of the discretised network, or of the supernet while the search runs."""
    child, supernet = newest(column([run.vulnerability], "child", "vulnerability")), newest(
        column(run.rows, "vulnerability", "network"))
    value, which = (supernet, "supernet, last epoch") if child is None else (child, "discretised network")
    if value is None:
        return []
    bound = last_bound(run)
    return [Tile("vulnerability", f"{value:.4g}", which + (f", H {bound:.4g}" if bound else ""))]


def held_out_accuracy(run: Run) -> list[Tile]:
    """Return the accuracies of the best epoch on held-out images, and by which of them it is the best."""
    rule = selection_words(str(run.config.get("adv_loss"))).split()[0]
    other = "clean" if rule == "robust" else "robust"
    values, others = (column(run.rows, "held_out", f"{word}_accuracy") for word in (rule, other))
    measured = [(value, -index) for index, value in enumerate(values) if value is not None]
    if not measured:
        return []
    value, index = max(measured)
    return [Tile(f"held-out {rule}", f"{percent(value)} %", f"best: epoch {run.rows[-index]['step'] + 1}, "
                 f"{other} {percent(others[-index])} %, chosen by {rule} accuracy")]


def test_accuracies(run: Run) -> list[Tile]:
    """Return the clean and the average robust accuracy on test images, of at most two networks."""
    networks, tiles = networks_of(run.evaluations), []
    for network in networks[:2]:
        which = f"test, {network.title}" if len(networks) > 1 else f"{network.every('images')} test images" + (
            f", {network.mark}" if network.mark else "")
        tiles.append(Tile("clean", f"{percent(network.newest['clean']['accuracy'])} %", which))
        tiles += [Tile("average robust", f"{percent(result['average_robust']['accuracy'])} %",
                       f"{over_in_words(over)}, {which}")
                  for over, result in network.averages.items()]
    return tiles


def training_speed(run: Run) -> list[Tile]:
    """Return how many images per second the last epoch of a training took."""
    speed = newest(column(run.rows[-1:], "train", "images_per_second"))
    if not speed or "learning_rate" not in run.rows[-1]:
        return []
    return [Tile("speed", f"{speed:.4g} images/s", "training, last epoch")]


def total_time(run: Run) -> list[Tile]:
    """Return the measured time of all phases."""
    seconds = sum(total_seconds(run.rows).values())
    return [Tile("time", duration(seconds), "measured, without set-up")] if seconds else []


FACTS: tuple[Fact, ...] = (changed_choices, rank_of_paths, estimator_error, estimator_gap, vulnerability,
                           held_out_accuracy, test_accuracies, training_speed, total_time)
