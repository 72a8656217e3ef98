"""The page of a run or of a comparison of several."""

import json
import time
from collections.abc import Sequence

from wsrnas.report.figures.picture import Numbers
from wsrnas.report.figures.training import total_seconds
from wsrnas.report.honesty import alarms
from wsrnas.report.html import Cell, details, document, escape, problem_list, table
from wsrnas.report.key_facts import FACTS
from wsrnas.report.reading.networks import Network, networks_of
from wsrnas.report.reading.runs import Run, run_names
from wsrnas.report.run_sections import SECTIONS
from wsrnas.report.sections import Drawn, drawn_sections, numbers_of, section_html
from wsrnas.report.texts import duration, text_of
from wsrnas.report.tiles import tiles_html, tiles_of


def page(runs: Sequence[Run], live: bool = False) -> tuple[str, dict[str, Numbers]]:
    """Return the page of a run or of a comparison.

    Args:
        runs: The runs, at least one.
        live: Whether they are still running.

    Returns:
        The page as HTML; its figures by the names of their files.
    """
    networks = networks_of([evaluation for run in runs for evaluation in run.evaluations])
    common = drawn_sections(SECTIONS, networks=networks)
    alone = [drawn_sections(SECTIONS, run=run) for run in runs]
    prefixes = [f"run{number}-" if len(runs) > 1 else "" for number in range(1, len(runs) + 1)]
    numbers = {prefix + part.name: part for prefix, sections in [("", common), *zip(prefixes, alone, strict=True)]
               for part in numbers_of(sections)}
    body = [section_html(section, "") for section in common]
    if len(runs) == 1:
        body += [section_html(section, "") for section in alone[0]]
        title = f"{runs[0].name} · {runs[0].program}"
    else:
        body.insert(0, section_html(Drawn("Runs", [overview(runs, live)]), ""))
        body += [details(name, "\n".join(section_html(section, prefix, 3) for section in sections))
                 for name, prefix, sections in zip(run_names(runs), prefixes, alone, strict=True)]
        title = f"Comparison of {len(runs)} runs"
    return document(title, heading(runs, title, networks, live), "\n".join(body)), numbers


def heading(runs: Sequence[Run], title: str, networks: Sequence[Network], live: bool) -> str:
    """Return the page's title, its state, alarms, unreadable files, and the key numbers of a single run."""
    single = runs[0] if len(runs) == 1 else None
    updated = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(run.updated for run in runs)))
    states = [single.program, state(single, live)] if single else [", ".join(run_names(runs))]
    problems = [problem if single else f"{name}: {problem}" for name, run in zip(run_names(runs), runs, strict=True)
                for problem in run.problems]
    tiles = tiles_of(FACTS, single) if single else []
    return "\n".join([
        f"<h1>{escape(single.name if single else title)}</h1>",
        f'<p class="state">{escape(" · ".join([*states, f"last update {updated}"]))}</p>',
        *alarms(networks), *problem_list(problems), *([tiles_html(tiles)] if tiles else [])])


def state(run: Run, live: bool = False) -> str:
    """Return whether a run is finished, running or not finished, and how far it got."""
    done = f"{len(run.rows)} of {run.steps}" if isinstance(run.steps, int) else str(len(run.rows))
    if run.finished:
        return f"finished, {len(run.rows)} {run.unit}s" if run.rows else "finished"
    if not run.rows and run.evaluations and not run.config:
        whole = all(evaluation.result.get("complete") is True for evaluation in run.evaluations)
        return "evaluated" if whole else "evaluation not finished"
    return f"{'running' if live else 'not finished'}, {done} {run.unit}s"


def overview(runs: Sequence[Run], live: bool) -> str:
    """Return a table of the runs, and one of the fields in which their configurations differ."""
    names = run_names(runs)
    rows = [[name, run.program, state(run, live), duration(sum(total_seconds(run.rows).values()))]
            for name, run in zip(names, runs, strict=True)]
    shown = table(["run", "program", "state", "time"], rows, (3,))
    fields = dict.fromkeys(name for run in runs for name in run.config)
    different: list[list[str | Cell]] = [
        [name, *(Cell(text_of(run.config.get(name, "–")), "text") for run in runs)] for name in fields
        if len({json.dumps(run.config[name]) if name in run.config else "" for run in runs}) > 1]
    return shown + table(["field", *names], different, caption="Where the configurations differ") * bool(different)
