"""The page of a run or of a comparison: one HTML file that needs nothing else, and its figures beside it.

    python -m wsrnas.report RUN                        writes RUN/report.html and RUN/figures/
    python -m wsrnas.report RUN RUN [...] --out FOLDER  compares them, in FOLDER (default: runs/report)
    python -m wsrnas.report RACE                       the page of a race, see ``race``

Every section is one function of the runs that gives None where its data do not exist.
"""

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsrnas.checkpoint import write_atomic
from wsrnas.errors import InputError
from wsrnas.report.data import Run, column, read_run, run_names
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
    paragraph,
    section_html,
    table,
    tiles,
)
from wsrnas.report.networks import Network, networks_of
from wsrnas.report.search_figures import estimator_gaps, losses, noise, predictions, rank_correlation, weights
from wsrnas.report.vulnerability import discretised_section, last_bound, vulnerability_section

REFRESH_SECONDS = 60
REFRESH_SHARE = 0.05  # of a run's time, at most, goes into refreshing its page
_started = time.monotonic()
_refreshed: dict[Path, tuple[float, float]] = {}  # when the last refresh of a run ended, and the seconds it took


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

def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s`` or ``4.2 s``."""
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes else f"{seconds:.1f} s"


def text_of(value: Any) -> str:
    """A JSON value in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items())
    return " ".join(map(text_of, value)) if isinstance(value, list) else str(value)


def command_text(command: Any) -> str:
    """The command line, with the program as the module that it is."""
    if not isinstance(command, list) or not command:
        return text_of(command)
    first, *arguments = map(str, command)
    start = f"python -m {'.'.join(Path(first).with_suffix('').parts[-2:])}" if first.endswith(".py") else first
    return " ".join([start, *(f"'{word}'" if " " in word else word for word in arguments)])


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

def made(section: Callable[..., Section | None], *arguments: Any) -> Section | None:
    """A section, or what says why data that are not what they should be keep it from being drawn."""
    try:
        return section(*arguments)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        title = section.__name__.removesuffix("_section").replace("_", " ")
        return Section(title.capitalize(), [paragraph(f"This section could not be drawn: its data are not what was "
                                                      f"expected ({type(error).__name__}: {error}).", "warning")])


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


def write_report(paths: Sequence[Path], out: Path | None = None, live: bool = False) -> Path:
    """Write ``report.html`` and ``figures/NAME.svg``, ``figures/NAME.csv``.

    Args:
        paths: run directories, or the folder of one race.
        out: folder of the page; None is the run's own, or ``runs/report`` for several.
        live: whether the run is going on.

    Returns:
        The path of the page.

    Raises:
        InputError: one of the paths is not a run directory, or the page cannot be written.
    """
    if len(paths) == 1 and (Path(paths[0]) / "race.json").exists():
        from wsrnas.report.race import write_race_report  # here: it is put together with the parts of this module
        return write_race_report(Path(paths[0]), out, live)
    runs = [read_run(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    return write_files(out or (runs[0].path if len(runs) == 1 else Path("runs/report")), *page(runs, live))


def write_files(folder: Path, text: str, pictures: Mapping[str, Picture]) -> Path:
    """Write a page and its figures, each file wholly or not at all; raises as ``write_report``."""
    files = {f"figures/{name}.{kind}": content for name, shown in pictures.items()
             for kind, content in (("svg", shown.svg), ("csv", shown.table)) if content} | {"report.html": text}
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(folder / name, content.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"the report cannot be written to {folder}: {(error.strerror or str(error)).lower()}; "
                         "expected a folder that can be made and written") from None
    return folder / "report.html"


def refresh(run_path: Path, log: Callable[[str], None] = print, ended: bool = False) -> None:
    """Write a run's page from the program that makes it; a page that cannot be written is a line in its log.

    While the run goes on, at most once a minute, and rarer where a page takes long: all refreshes together stay
    below a twentieth of the time. Only the main process writes.

    Args:
        log: where the line goes.
        ended: write it now; the program has nothing more to add.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    now, key = time.monotonic(), Path(run_path).resolve()
    before, took = _refreshed.get(key, (_started, 0.0))
    if not ended and now - before < max(REFRESH_SECONDS, took / REFRESH_SHARE):
        return
    try:
        write_report([Path(run_path)], live=not ended)
    except Exception as error:  # a run of days must not end for its page
        with contextlib.suppress(OSError):  # the disk that cannot hold the page may hold no log either
            log(f"the report could not be written: {type(error).__name__}: {error}")
    end = time.monotonic()
    _refreshed[key] = (end, end - now)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page that the command line asks for, and say where it is."""
    parser = argparse.ArgumentParser(prog="wsrnas.report", description="Write the page of a run, or of a comparison of "
                                     "several, as one HTML file that needs no network.")
    parser.add_argument("run", nargs="+", type=Path, help="runs: of a search, a retraining or evaluations; or one race")
    parser.add_argument("--out", type=Path, help="folder of the page (default: the run's own; runs/report for several)")
    arguments = parser.parse_args(argv)
    print(f"report: {write_report(arguments.run, arguments.out)}")
