"""The page of a race: several architectures, trained at one budget with one recipe and several seeds."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from wsrnas.architectures import searched
from wsrnas.evaluation.caveats import counted
from wsrnas.report.figures.cells import cell_picture
from wsrnas.report.figures.picture import Numbers, Picture, slug
from wsrnas.report.figures.race import accuracy_over_cost, accuracy_over_strength
from wsrnas.report.html import alarm, definitions, details, document, escape, paragraph, problem_list
from wsrnas.report.page_files import write_files
from wsrnas.report.race_facts import FACTS
from wsrnas.report.race_tables import cost, differences, shown, standing
from wsrnas.report.reading.races import Entrant, Race, budget_of, race_of, read_race
from wsrnas.report.reading.rows import DAMAGE
from wsrnas.report.sections import Folded, Part, Section, drawn_sections, numbers_of, section_html
from wsrnas.report.texts import command_text, text_of
from wsrnas.report.tiles import tiles_html, tiles_of
from wsrnas.runtime import run_files

__all__ = ["read_race", "write_race_report"]


# -- sections ---------------------------------------------------------------------------------------------------------

def strengths(race: Race) -> Sequence[Part]:
    """Draw how accuracy falls with the strength."""
    return [drawn] if (drawn := accuracy_over_strength(race)) else []


def sizes(race: Race) -> Sequence[Part]:
    """Draw accuracy over the size of the networks."""
    return [drawn] if (drawn := accuracy_over_cost(race)) else []


def cells(race: Race) -> Sequence[Part]:
    """Draw the cells of every entrant that has some."""
    return [Folded(entrant.name, [drawn_cells(entrant)]) for entrant in race.standing
            if entrant.document.get("genotype") is not None]


def drawn_cells(entrant: Entrant) -> Picture | str:
    """Return an entrant's cells as a picture, or the reason why they cannot be drawn."""
    try:
        drawn = cell_picture(searched.read(json.dumps(entrant.document["genotype"])))
    except DAMAGE as error:
        return paragraph(f"These cells cannot be drawn: {error}.", "warning")
    return dataclasses.replace(drawn, name=f"cells-{entrant.number}-{slug(entrant.name)}".strip("-"),
                               label=f"{entrant.name}: {drawn.label}")


def origin(race: Race) -> Sequence[Part]:
    """Show command, recipe, data and configuration, and links to the pages of all jobs."""
    names = ("recipe", "protocol", "dataset", "images", "seeds")
    pairs = [("command", command_text(race.document["command"]))] if race.document.get("command") else []
    pairs += [(name, text_of(race.document[name])) for name in names if race.document.get(name) is not None]
    pairs += [("budget", budget_of(race))]
    pairs += [(entrant.name, ", ".join(origin)) for entrant in race.entrants if (
        origin := [text_of(entrant.document[key]) for key in ("family", "source") if entrant.document.get(key)])]
    parts: list[Part] = [definitions(pairs)]
    if isinstance(config := race.document.get("config"), dict) and config:
        parts.append(details(f"configuration ({len(config)} fields)",
                             definitions((name, text_of(value)) for name, value in config.items())))
    return [*parts, job_list(race)]


SECTIONS: tuple[Section, ...] = (
    Section("Standing", standing, "all races", "race"),
    Section("Accuracy over strength", strengths, "races with an attack at several strengths", "race"),
    Section("Accuracy over parameters", sizes, "all races", "race"),
    Section("Paired differences", differences, "races of two entrants and more", "race"),
    Section("Cost", cost, "all races", "race"),
    Section("Cells", cells, "races with searched architectures", "race"),
    Section("How it was made", origin, "all races", "race"),
)


# -- jobs -------------------------------------------------------------------------------------------------------------

def job_list(race: Race) -> str:
    """Return the jobs of every entrant, with links to the pages that exist."""
    lines = []
    for entrant in race.entrants:
        jobs = [job for job in entrant.listed("jobs") if isinstance(job, str)]
        links = ", ".join(job_link(job, race.links.get(job)) for job in jobs)
        lines += [f"<li>{escape(entrant.name)}: {links}</li>"] * bool(jobs)
    return f"<p>The jobs; each has a page of its own once it has begun:</p><ul>{''.join(lines)}</ul>" if lines else ""


def job_link(job: str, target: str | None) -> str:
    """Return a job's name as HTML, with a link where it has a page."""
    name = escape(job.rstrip("/").rpartition("/")[2])
    return f'<a href="{escape(quote(target))}">{name}</a>' if target else name


def links_to_jobs(race: Race, folder: Path, out: Path) -> dict[str, str]:
    """Return the paths of the jobs' pages, relative to the page of the race.

    Args:
        race: The race.
        folder: Folder of the race.
        out: Folder of its page.
    """
    links = {}
    for job in {job for entrant in race.entrants for job in entrant.listed("jobs") if isinstance(job, str)}:
        page = folder / job / run_files.REPORT
        try:
            if page.is_file():
                links[job] = Path(os.path.relpath(page.resolve(), out.resolve())).as_posix()
        except (OSError, ValueError):  # a name that no file can have
            continue
    return links


# -- the page ---------------------------------------------------------------------------------------------------------

def heading(race: Race, name: str, updated: float, live: bool) -> str:
    """Return the page's title, its state, failed checks, unreadable parts and key numbers.

    Args:
        race: The race.
        name: Its name.
        updated: Time of its last change, in seconds since the epoch.
        live: Whether it is still running.
    """
    state = "finished" if race.complete else "running" if live else "not finished"
    count = len(race.entrants)
    words = [f"race of {count} architecture{'s' * (count != 1)}",
             f"{state}, {shown(race.quantity('done'))} of {shown(race.quantity('jobs'))} jobs",
             f"last update {time.strftime('%Y-%m-%d %H:%M', time.localtime(updated))}"]
    failed = [text_of(check) for entrant in race.entrants for check in entrant.listed("failed_checks")]
    alarms = [alarm(f"{len(failed)} honesty check{'s' * (len(failed) > 1)} failed: these networks may be less "
                    "robust than their accuracies say.", failed)] if failed else []
    messages = race.document.get("failed")
    lost = [f"{name}: {text_of(said)}" for name, said in messages.items()] if isinstance(messages, dict) else []
    alarms += [alarm(f"{len(lost)} job{'s' * (len(lost) > 1)} failed; the same command tries them again.", lost)
               ] if lost else []
    chance = [entrant.name for entrant in race.entrants if entrant.document.get("at_chance") is True]
    alarms += [alarm("The clean accuracy of these entrants is not above chance in some training: nothing follows about "
                     "their robustness.", chance)] if chance else []
    alarms += [paragraph(f"{sentence}.", "warning") for sentence in counted(
        text_of(sentence) for entrant in race.entrants for sentence in entrant.listed("unchecked"))]
    partial = [] if race.complete else [paragraph(
        "These numbers are not final, and entrants may have different numbers of seeds. After a stop, the same command "
        "resumes.", "warning")]
    return "\n".join([f"<h1>{escape(name)}</h1>", f'<p class="state">{escape(" · ".join(words))}</p>', *alarms,
                      *problem_list(race.problems), *partial, tiles_html(tiles_of(FACTS, race))])


def page(race: Race, folder: Path, out: Path, live: bool = False) -> tuple[str, dict[str, Numbers]]:
    """Return the page of a race.

    Args:
        race: The race.
        folder: Its folder.
        out: Folder of the page.
        live: Whether the race is still running.

    Returns:
        The page as HTML; its figures and tables by the names of their files.
    """
    sections = drawn_sections(SECTIONS, race=dataclasses.replace(race, links=links_to_jobs(race, folder, out)))
    name = folder.resolve().name
    text = document(f"{name} · race", heading(race, name, (folder / run_files.RACE).stat().st_mtime, live),
                    "\n".join(section_html(section, "") for section in sections))
    return text, {numbers.name: numbers for numbers in numbers_of(sections)}


def write_race_report(folder: Path, out: Path | None = None, live: bool = False) -> Path:
    """Write ``report.html``, and every figure and its numbers into ``figures/``.

    Args:
        folder: Folder of a race, with its race.json.
        out: Folder of the page; None: the race's own.
        live: Whether the race is still running.

    Returns:
        The path of the page.

    Raises:
        InputError: ``folder`` holds no race, or the page cannot be written.
    """
    folder = Path(folder)
    race = race_of(read_race(folder))
    return write_files(out or folder, *page(race, folder, out or folder, live), new=out is not None)
