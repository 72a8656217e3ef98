"""The page of a race: several architectures, trained at one budget with one recipe and several seeds.

    python -m wsrnas.report RACE        reads RACE/race.json, writes RACE/report.html and RACE/figures/

Every section is one function of the race that gives None where its data do not exist.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from wsrnas.report.html import (
    Picture,
    Section,
    alarm,
    definitions,
    details,
    document,
    escape,
    figure_block,
    made,
    paragraph,
    section_html,
    tiles,
    write_files,
)
from wsrnas.report.race_data import Race, listed, number, race_of, read_race
from wsrnas.report.race_figures import accuracy_over_cost, accuracy_over_strength, cell_parts
from wsrnas.report.race_tables import (
    cost_section,
    difference_numbers,
    differences_section,
    plain_name,
    shown,
    standing_numbers,
    standing_section,
    with_deviation,
)
from wsrnas.report.texts import command_text, text_of
from wsrnas.runtime import run_files

__all__ = ["read_race", "write_race_report"]


# -- sections: a new one is a function and a line in SECTIONS ---------------------------------------------------------

def strength_section(race: Race) -> Section | None:
    """How accuracy falls with the strength."""
    drawn = accuracy_over_strength(race)
    return Section("Accuracy over strength", [drawn]) if drawn else None


def cost_figure_section(race: Race) -> Section | None:
    """What accuracy costs."""
    drawn = accuracy_over_cost(race)
    return Section("Accuracy over parameters", [drawn]) if drawn else None


def origin_section(race: Race) -> Section | None:
    """Command, recipe, data and configuration, and the way to every job's own page."""
    names = ("recipe", "protocol", "dataset", "images", "seeds", "device")
    pairs = [("command", command_text(race.document["command"]))] if race.document.get("command") else []
    pairs += [(name, text_of(race.document[name])) for name in names if race.document.get(name) is not None]
    pairs += [("budget", budget_of(race))]
    pairs += [(entrant.name, ", ".join(origin)) for entrant in race.entrants if (
        origin := [text_of(entrant.document[key]) for key in ("family", "source") if entrant.document.get(key)])]
    parts = [definitions(pairs)]
    if isinstance(config := race.document.get("config"), dict) and config:
        parts.append(details(f"configuration ({len(config)} fields)",
                             definitions((name, text_of(value)) for name, value in config.items())))
    return Section("How it was made", parts)


SECTIONS: tuple[Callable[[Race], Section | None], ...] = (
    standing_section, strength_section, cost_figure_section, differences_section, cost_section)


# -- the page ---------------------------------------------------------------------------------------------------------

def budget_of(race: Race) -> str:
    """``4.5 M parameters ± 2 %``, or none."""
    budget = race.document.get("budget")
    value = number(budget.get("value")) if isinstance(budget, dict) else None
    if value is None:
        return "none"
    quantity = str(budget.get("quantity"))
    quantity = {"params": "parameters", "macs": "multiply-adds"}.get(quantity, quantity)
    tolerance = number(budget.get("tolerance"))
    return f"{value / 1e6:.4g} M {quantity}" + (f" ± {100 * tolerance:.3g} %" if tolerance is not None else "")


def key_numbers(race: Race) -> list[tuple[str, str, str]]:
    """What one wants to know first: (what, value, remark)."""
    found = []
    leader = race.standing[0] if race.standing else None
    if leader and (score := leader.score(race.weights, race.ranking)):
        seeds = f"{len(score.values)} seed{'s' * (len(score.values) != 1)}"
        remark = [f"{plain_name(race.ranking)} {with_deviation(score)} %, {race.weights} weights, {seeds}"]
        close = [other.name for other in race.standing[1:]
                 if not (pair := race.difference(leader.name, other.name)) or not pair.distinct]
        remark += [f"not distinct from {', '.join(close) if len(close) < 3 else f'{len(close)} others'}"] * bool(close)
        remark += ["a check failed"] * bool(leader.listed("failed_checks"))
        found.append(("leader" if race.complete else "leader so far", leader.name, "; ".join(remark)))
    found.append(("budget", budget_of(race), "about what every entrant has" if budget_of(race) != "none" else
                  "every entrant has its own size"))
    if seeds := listed(race.document.get("seeds")):
        found.append(("seeds", str(len(seeds)), f"a training each: {text_of(seeds)}"))
    if (images := number(race.document.get("images"))) is not None:
        found.append(("images", shown(images), f"test images of {race.document.get('dataset') or 'the data set'}"))
    return found


def progress_of(race: Race) -> str:
    """How many of the jobs are done."""
    done, jobs = (number(race.document.get(key)) for key in ("done", "jobs"))
    return f"{shown(done)} of {shown(jobs)} jobs"


def heading(race: Race, name: str, updated: float, live: bool) -> str:
    """Title, state, what cannot be trusted, what is damaged, key numbers."""
    state = "finished" if race.complete else "running" if live else "not finished"
    count = len(race.entrants)
    words = [f"race of {count} architecture{'s' * (count != 1)}", f"{state}, {progress_of(race)}",
             f"last update {time.strftime('%Y-%m-%d %H:%M', time.localtime(updated))}"]
    lines = [f"<h1>{escape(name)}</h1>", f'<p class="state">{escape(" · ".join(words))}</p>']
    failed = [text_of(check) for entrant in race.entrants for check in entrant.listed("failed_checks")]
    if failed:
        lines.append(alarm(f"{len(failed)} honesty check{'s' * (len(failed) > 1)} failed: these networks may be less "
                           "robust than their accuracies say.", failed))
    if race.problems:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in race.problems)
        lines.append(f'<div class="missing"><strong>Not everything could be read.</strong><ul>{items}</ul></div>')
    if not race.complete:
        lines.append(paragraph("These numbers are not final: entrants may stand on different numbers of seeds. The "
                               "same command goes on.", "warning"))
    return "\n".join([*lines, tiles(key_numbers(race))])


def job_links(race: Race, folder: Path, out: Path) -> str:
    """The jobs of every entrant: a link, relative to the page, where a job has a page of its own."""
    lines = []
    for entrant in race.entrants:
        jobs = [job for job in entrant.listed("jobs") if isinstance(job, str)]
        links = ", ".join(job_link(job, folder, out) for job in jobs)
        lines += [f"<li>{escape(entrant.name)}: {links}</li>"] * bool(jobs)
    return f"<p>The jobs, each with a page of its own once it has begun:</p><ul>{''.join(lines)}</ul>" if lines else ""


def job_link(job: str, folder: Path, out: Path) -> str:
    page = folder / job / run_files.REPORT
    try:
        target = os.path.relpath(page.resolve(), out.resolve()) if page.is_file() else ""
    except (OSError, ValueError):  # a name that no file can have
        target = ""
    name = escape(job.rstrip("/").rpartition("/")[2])
    return f'<a href="{escape(quote(Path(target).as_posix()))}">{name}</a>' if target else name


def page(race: Race, folder: Path, out: Path, live: bool = False) -> tuple[str, dict[str, Picture]]:
    """The document of a race, and its pictures by the names of their files."""
    sections = [found for section in SECTIONS if (found := made(section, race))]
    cells = cell_parts(race)
    pictures = [part for section in sections for part in section.parts if isinstance(part, Picture)]
    pictures += [part for _, part in cells if isinstance(part, Picture)]
    folded = [details(name, figure_block(part, "") if isinstance(part, Picture) else part) for name, part in cells]
    origin = made(origin_section, race)
    sections += [Section("Cells", folded)] * bool(folded) + [
        Section(origin.title, [*origin.parts, job_links(race, folder, out)])]
    name = folder.resolve().name
    text = document(f"{name} · race", heading(race, name, (folder / run_files.RACE).stat().st_mtime, live),
                    "\n".join(section_html(section, "") for section in sections))
    tables = [numbers for numbers in (standing_numbers(race), difference_numbers(race)) if numbers.rows]
    return text, {drawn.name: drawn for drawn in [*pictures, *tables]}


def write_race_report(folder: Path, out: Path | None = None, live: bool = False) -> Path:
    """Write ``report.html``, and every figure and its numbers into ``figures/``.

    Args:
        folder: with the race.json of a race.
        out: folder of the page; None is the race's own.
        live: whether the race is going on.

    Returns:
        The path of the page.

    Raises:
        InputError: ``folder`` holds no race, or the page cannot be written.
    """
    folder = Path(folder)
    race = race_of(read_race(folder))
    return write_files(out or folder, *page(race, folder, out or folder, live))
