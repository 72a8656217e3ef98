"""The table of the sections on the page of a run or of several, and the sections that are one figure."""

from collections.abc import Sequence
from typing import Any

from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.report.differences import paired_differences
from wsrnas.report.evaluation import robustness
from wsrnas.report.figures.cells import cell_picture
from wsrnas.report.figures.collapse import collapse as skips_and_entropy
from wsrnas.report.figures.noise import noise
from wsrnas.report.figures.picture import Picture
from wsrnas.report.figures.search import estimator_gaps, losses, predictions
from wsrnas.report.figures.supernet_ranking import supernet_ranking
from wsrnas.report.figures.training import phases, total_seconds, training
from wsrnas.report.figures.weights import weights
from wsrnas.report.honesty import honesty, official
from wsrnas.report.html import definitions, details, paragraph, table
from wsrnas.report.reading.runs import Run
from wsrnas.report.search_size import size
from wsrnas.report.sections import Part, Section
from wsrnas.report.texts import command_text, duration, text_of
from wsrnas.report.vulnerability import discretised_network, vulnerability


def drawn(*pictures: Picture | None) -> list[Part]:
    """Return the pictures that could be drawn from the data."""
    return [picture for picture in pictures if picture]


def cell(run: Run) -> Sequence[Part]:
    """Draw the cell that was found or trained."""
    if not run.genotype:
        return []
    output = OUTPUTS.get(str(run.config.get("output")))
    said = [paragraph(f"This is {output.help}.")] if output else []
    return [*said, cell_picture(run.genotype)]


def architecture_weights(run: Run) -> Sequence[Part]:
    """Draw the architecture weights over the search."""
    return drawn(*(weights(run.rows, kind, run.space, run.unit) for kind in run.space.cells))


def collapse(run: Run) -> Sequence[Part]:
    """Say whether the search collapses, and draw skips, pools and entropy."""
    newest = run.rows[-1].get("collapse") if run.rows else None
    sentences = newest if isinstance(newest, list) else []
    said = [paragraph(f"The search collapses: {sentence}.") for sentence in sentences]
    return [*said, *drawn(skips_and_entropy(run.rows, run.space, run.unit))]


def search_losses(run: Run) -> Sequence[Part]:
    """Draw the losses at every strength over the search."""
    return drawn(losses(run.rows))


def predicted_objectives(run: Run) -> Sequence[Part]:
    """Draw how well the predictor of the search predicts."""
    return drawn(predictions(run.rows))


def ranking_of_a_table(run: Run) -> Sequence[Part]:
    """Draw how well the supernet ranks architectures of a table."""
    return drawn(supernet_ranking(run.rows))


def estimator_against_pgd(run: Run) -> Sequence[Part]:
    """Draw how much weaker the estimated noise is than PGD's."""
    return drawn(estimator_gaps(run.rows))


def estimated_noise(run: Run) -> Sequence[Part]:
    """Draw estimated noise beside that of PGD."""
    return drawn(noise(run.noise)) if run.noise else []


def training_curves(run: Run) -> Sequence[Part]:
    """Draw the curves of the training."""
    return drawn(training(run.rows, run.unit))


def time_by_phase(run: Run) -> Sequence[Part]:
    """Show how much time each phase took."""
    seconds = total_seconds(run.rows)
    total = sum(seconds.values())
    if len(seconds) < 2 or not total:
        return []
    rows = [[name.replace("_", " "), duration(value), f"{100 * value / total:.1f}"] for name, value in seconds.items()]
    rows.append(["all", duration(total), "100.0"])
    sums = table(["phase", "time", "share (%)"], rows, (1, 2), strong=(len(seconds),))
    return [*drawn(phases(run.rows, run.unit)), sums]


def origin(run: Run) -> Sequence[Part]:
    """Show command, versions, hardware, data and configuration: what a reader needs to repeat the run."""
    pairs = start_pairs(run.starts[-1]) if run.starts else []
    pairs += [("starts", str(len(run.starts)))] * (len(run.starts) > 1)
    data = run.inputs.get("data set")
    if isinstance(data, dict):
        pairs += [(f"data {name}", ", ".join(map(text_of, value)) if isinstance(value, list) else text_of(value))
                  for name, value in data.items()]
    if known_as := (run.config or {}).get("dataset_name"):
        pairs.append(("data known as", text_of(known_as)))
    parts: list[Part] = [definitions(pairs)] if pairs else []
    if run.config:
        parts.append(details(f"configuration ({len(run.config)} fields)",
                             definitions((name, text_of(value)) for name, value in run.config.items())))
    for evaluation in run.evaluations:
        result = evaluation.result
        start = {"command": result.get("command"), **(result.get("environment") or {})}
        names = ("model", "image_set", "transfer_source")
        pairs = [(name, text_of(result[name])) for name in names if result.get(name)]
        parts.append(details(f"evaluation {evaluation.label}", definitions([*start_pairs(start), *pairs])))
    return parts


def start_pairs(start: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what ``env.json`` records about a start, without the name of the machine."""
    names = ("time", "git", "python", "torch", "cuda", "cudnn", "device", "processes", "threads", "slurm_job")
    pairs = [("command", command_text(start["command"]))] if start.get("command") else []
    return pairs + [(name.replace("_", " "), str(start[name])) for name in names if start.get(name) is not None]


SECTIONS: tuple[Section, ...] = (
    Section("Accuracy under attack", robustness, "evaluated networks", "networks"),
    Section("Paired differences", paired_differences, "two networks, evaluated on the same images", "networks"),
    Section("Honesty checks", honesty, "evaluated networks", "networks"),
    Section("The published way and the honest one", official, "evaluations with `--protocol official`", "networks"),
    Section("The cell", cell, "runs with a genotype"),
    Section("Architecture weights", architecture_weights, "searches"),
    Section("Collapse", collapse, "searches"),
    Section("Vulnerability", vulnerability, "RNAS, and Wsr-NAS with a bound"),
    Section("The discretised network", discretised_network, "RNAS, at its end"),
    Section("Losses over the strengths", search_losses, "Wsr-NAS"),
    Section("Predicted and measured objective", predicted_objectives, "Wsr-NAS"),
    Section("Ranking of a table", ranking_of_a_table, "Wsr-NAS with `--ranking_table`"),
    Section("How much is size", size, "Wsr-NAS"),
    Section("Estimator against PGD", estimator_against_pgd, "Wsr-NAS with estimated strengths"),
    Section("Estimated noise", estimated_noise, "Wsr-NAS with estimated strengths"),
    Section("Training", training_curves, "searches and trainings"),
    Section("Time", time_by_phase, "searches"),
    Section("How it was made", origin, "all runs"),
)
