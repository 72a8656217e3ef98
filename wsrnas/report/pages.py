"""The page of a run or of a comparison of several.

Every section is one function of the runs that gives None where its data do not exist.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from wsrnas.report.data import Run, column, run_names
from wsrnas.report.evaluation import alarms, honesty, official, paired_differences, percent, robustness
from wsrnas.report.figures import cells, phases, total_seconds, training
from wsrnas.report.html import (
    Cell,
    Picture,
    Section,
    definitions,
    details,
    document,
    escape,
    made,
    section_html,
    table,
    tiles,
)
from wsrnas.report.networks import Network, networks_of
from wsrnas.report.search_figures import estimator_gaps, losses, noise, predictions, rank_correlation, weights
from wsrnas.report.texts import command_text, duration, text_of
from wsrnas.report.vulnerability import discretised_section, last_bound, vulnerability_section

# -- sections of one run: a new one is a function and a line in SECTIONS ----------------------------------------------

def cell_section(run: Run) -> Section | None:
    """The cell that was found or trained."""
    return Section("The cell", [cells(run.genotype)]) if run.genotype else None


def weights_section(run: Run) -> Section | None:
    """Architecture weights over the search."""
    pictures = [shown for kind in ("normal", "reduce") if (shown := weights(run.rows, kind, run.unit))]
    return Section("Architecture weights", pictures) if pictures else None


def losses_section(run: Run) -> Section | None:
    """Losses at every strength over the search."""
    shown = losses(run.rows)
    return Section("Losses over the strengths", [shown]) if shown else None


def predictions_section(run: Run) -> Section | None:
    """How well the validation loss estimator ranks."""
    shown = predictions(run.rows, rank_correlation(run.rows))
    return Section("Predicted and measured objective", [shown]) if shown else None


def gap_section(run: Run) -> Section | None:
    """How much weaker the estimated noise is than PGD's."""
    shown = estimator_gaps(run.rows)
    return Section("Estimator against PGD", [shown]) if shown else None


def noise_section(run: Run) -> Section | None:
    """Estimated noise beside that of PGD."""
    shown = noise(run.noise) if run.noise else None
    return Section("Estimated noise", [shown]) if shown else None


def training_section(run: Run) -> Section | None:
    """Curves of the training."""
    shown = training(run.rows, run.unit)
    return Section("Training", [shown]) if shown else None


def time_section(run: Run) -> Section | None:
    """Where the time went."""
    seconds = total_seconds(run.rows)
    total = sum(seconds.values())
    if len(seconds) < 2 or not total:
        return None
    shown = phases(run.rows, run.unit)
    rows = [[name.replace("_", " "), duration(value), f"{100 * value / total:.1f}"] for name, value in seconds.items()]
    rows.append(["all", duration(total), "100.0"])
    sums = table(["phase", "time", "share (%)"], rows, (1, 2), strong=(len(seconds),))
    return Section("Time", [*([shown] if shown else []), sums])


def origin_section(run: Run) -> Section | None:
    """Command, versions, hardware, data and configuration: what a reader needs to do it again."""
    pairs = start_pairs(run.starts[-1]) if run.starts else []
    pairs += [("starts", str(len(run.starts)))] * (len(run.starts) > 1)
    data = run.inputs.get("data set")
    if isinstance(data, dict):
        pairs += [(f"data {name}", text_of(value)) for name, value in data.items()]
    parts = [definitions(pairs)] if pairs else []
    if run.config:
        parts.append(details(f"configuration ({len(run.config)} fields)",
                             definitions((name, text_of(value)) for name, value in run.config.items())))
    for evaluation in run.evaluations:
        result = evaluation.result
        start = {"command": result.get("command"), **(result.get("environment") or {})}
        names = ("model", "image_set", "transfer_source")
        pairs = [(name, text_of(result[name])) for name in names if result.get(name)]
        parts.append(details(f"evaluation {evaluation.label}", definitions([*start_pairs(start), *pairs])))
    return Section("How it was made", parts) if parts else None


def start_pairs(start: dict[str, Any]) -> list[tuple[str, str]]:
    """What ``run.environment`` noted of a start, without the name of the machine."""
    names = ("time", "git", "python", "torch", "cuda", "cudnn", "device", "processes", "threads", "slurm_job")
    pairs = [("command", command_text(start["command"]))] if start.get("command") else []
    return pairs + [(name.replace("_", " "), str(start[name])) for name in names if start.get(name) is not None]


SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    cell_section, weights_section, vulnerability_section, discretised_section, losses_section, predictions_section,
    gap_section, noise_section, training_section, time_section, origin_section)
EVALUATION_SECTIONS = (robustness, paired_differences, honesty, official)


# -- texts ------------------------------------------------------------------------------------------------------------

def state(run: Run, live: bool = False) -> str:
    """Finished, running or not finished, and how far."""
    done = f"{len(run.rows)} of {run.steps}" if isinstance(run.steps, int) else str(len(run.rows))
    if run.finished:
        return f"finished, {len(run.rows)} {run.unit}s" if run.rows else "finished"
    if not run.rows and run.evaluations and not run.config:
        return "evaluated"
    return f"{'running' if live else 'not finished'}, {done} {run.unit}s"


def key_numbers(run: Run) -> list[tuple[str, str, str]]:
    """What one wants to know first: (what, value, remark)."""
    found: list[tuple[str, str, str]] = []
    last = run.rows[-1] if run.rows else {}
    architecture, ranking = last.get("architecture") or {}, rank_correlation(run.rows)
    if "changed_choices" in architecture:
        found.append(("changed choices", f"{architecture['changed_choices']} of 16", "against the initial cell"))
    if ranking is not None:
        found.append(("Kendall's τ", f"{ranking:+.2f}", "VLE, before it was trained on each path"))
    error = next((v for v in reversed(column(run.rows, "estimator", "relative_error")) if v is not None), None)
    if error is not None:
        found.append(("estimator error", f"{error:.3f}", "Σ‖φ − δ‖² / Σ‖δ‖², 1 for no estimate"))
    gap = next((v for v in reversed(column(run.rows, "estimator_check", "mean_gap")) if v is not None), None)
    if gap is not None:
        found.append(("estimator gap", f"{100 * gap:+.1f} points", "mean, weaker than PGD, last check"))
    child, = column([run.vulnerability], "child", "vulnerability")
    watched = next((v for v in reversed(column(run.rows, "vulnerability", "network")) if v is not None), None)
    if child is not None or watched is not None:
        bound = f", H {last_bound(run):.4g}" if last_bound(run) else ""
        found.append(("vulnerability", f"{watched if child is None else child:.4g}",
                      ("supernet, last epoch" if child is None else "discretised network") + bound))
    robust, clean = (column(run.rows, "held_out", f"{word}_accuracy") for word in ("robust", "clean"))
    if any(value is not None for value in robust):
        best = max((i for i, value in enumerate(robust) if value is not None), key=lambda i: robust[i])
        found.append(("held-out robust", f"{percent(robust[best])} %",
                      f"best: epoch {run.rows[best]['step'] + 1}, clean {percent(clean[best])} %"))
    networks = networks_of(run.evaluations)
    for network in networks[:2]:
        which = f"test, {network.title}" if len(networks) > 1 else f"{network.every('images')} test images"
        which += f", {network.mark}" * (bool(network.mark) and len(networks) == 1)
        found.append(("clean", f"{percent(network.newest['clean']['accuracy'])} %", which))
        for over, result in network.sums.items():
            if result.get("average_robust"):
                found.append(("average robust", f"{percent(result['average_robust']['accuracy'])} %",
                              f"{len(over)} attacks, {which}"))
    speed = column(run.rows[-1:], "train", "images_per_second")
    if "learning_rate" in last and speed[0]:
        found.append(("speed", f"{speed[0]:.4g} images/s", "training, last epoch"))
    seconds = sum(total_seconds(run.rows).values())
    return found + [("time", duration(seconds), "measured, without set-up")] * bool(seconds)


# -- the page ---------------------------------------------------------------------------------------------------------

def page(runs: Sequence[Run], live: bool = False) -> tuple[str, dict[str, Picture]]:
    """The document of a run or of a comparison, and its pictures by the names of their files."""
    networks = networks_of([evaluation for run in runs for evaluation in run.evaluations])
    common = [shown for section in EVALUATION_SECTIONS if (shown := made(section, networks))]
    alone = [[shown for section in SECTIONS if (shown := made(section, run))] for run in runs]
    prefixes = [f"run{number}-" if len(runs) > 1 else "" for number in range(1, len(runs) + 1)]
    pictures = {prefix + part.name: part for prefix, sections in [("", common), *zip(prefixes, alone, strict=True)]
                for section in sections for part in section.parts if isinstance(part, Picture)}
    body = [section_html(section, "") for section in common]
    if len(runs) == 1:
        body += [section_html(section, "") for section in alone[0]]
        title = f"{runs[0].name} · {runs[0].program}"
    else:
        body.insert(0, section_html(Section("Runs", [overview(runs, live)]), ""))
        body += [details(name, "\n".join(section_html(section, prefix, 3) for section in sections))
                 for name, prefix, sections in zip(run_names(runs), prefixes, alone, strict=True)]
        title = f"Comparison of {len(runs)} runs"
    return document(title, heading(runs, title, networks, live), "\n".join(body)), pictures


def heading(runs: Sequence[Run], title: str, networks: Sequence[Network], live: bool) -> str:
    """Title, state, what cannot be trusted, what is missing, key numbers."""
    single = runs[0] if len(runs) == 1 else None
    updated = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(run.updated for run in runs)))
    lines = [f"<h1>{escape(single.name if single else title)}</h1>"]
    states = [single.program, state(single, live)] if single else [", ".join(run_names(runs))]
    lines.append(f'<p class="state">{escape(" · ".join([*states, f"last update {updated}"]))}</p>')
    lines += alarms(networks)
    problems = [problem if single else f"{name}: {problem}" for name, run in zip(run_names(runs), runs, strict=True)
                for problem in run.problems]
    if problems:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        lines.append(f'<div class="missing"><strong>Not everything could be read.</strong><ul>{items}</ul></div>')
    if single and (numbers := made_numbers(single)):
        lines.append(tiles(numbers))
    return "\n".join(lines)


def made_numbers(run: Run) -> list[tuple[str, str, str]]:
    """The key numbers, or none where the data are not what was expected."""
    try:
        return key_numbers(run)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError):
        return []


def overview(runs: Sequence[Run], live: bool) -> str:
    """The runs of a comparison, and the fields in which their configurations differ."""
    names = run_names(runs)
    rows = [[name, run.program, state(run, live), duration(sum(total_seconds(run.rows).values()))]
            for name, run in zip(names, runs, strict=True)]
    shown = table(["run", "program", "state", "time"], rows, (3,))
    fields = dict.fromkeys(name for run in runs for name in run.config)
    different = [[name, *(Cell(text_of(run.config.get(name, "–")), "text") for run in runs)] for name in fields
                 if len({text_of(run.config.get(name, "–")) for run in runs}) > 1]
    return shown + table(["field", *names], different, caption="Where the configurations differ") * bool(different)
