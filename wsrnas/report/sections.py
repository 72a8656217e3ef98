"""The sections of a page: each is one entry, a title with a function, in a table whose order is that of the page.

``run_sections.SECTIONS`` is the table for the page of runs, ``race.SECTIONS`` that for the page of a race.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wsrnas.report.figures.picture import Numbers, Picture
from wsrnas.report.html import details, download, escape, figure_block, paragraph


@dataclass(frozen=True)
class Folded:
    """Parts of a section that open at a click on their summary."""

    summary: str
    parts: Sequence["Part"]


Part = str | Numbers | Folded  # HTML, a table or a figure with its numbers, or parts that fold away


@dataclass(frozen=True)
class Section:
    """One entry of a table of sections.

    Args:
        title: The heading.
        content: Function that returns what stands below the heading; without parts, the page has no such section.
        shown_for: Which pages have the section, as the documents say it.
        subject: What ``content`` is called with: one "run", all "networks" that the page's runs evaluated, or one
            "race".
    """

    title: str
    content: Callable[[Any], Sequence[Part]]
    shown_for: str
    subject: str = "run"


@dataclass(frozen=True)
class Drawn:
    """A section with its content."""

    title: str
    parts: Sequence[Part]


def drawn_sections(sections: Iterable[Section], **subjects: Any) -> list[Drawn]:
    """Return the sections that have content.

    A section that fails says so on the page: one damaged number must not cost the others, and must not hide.

    Args:
        sections: Entries in order.
        **subjects: What the page is about, by the name in ``Section.subject``; entries about anything else are left
            out.
    """
    drawn = []
    for section in sections:
        if section.subject not in subjects:
            continue
        try:
            parts = section.content(subjects[section.subject])
        except Exception as error:
            parts = [paragraph(f"This section could not be drawn: {type(error).__name__}: {error}. Its data are not "
                               "what it expects.", "warning")]
        drawn += [Drawn(section.title, parts)] * bool(parts)
    return drawn


def section_html(section: Drawn, prefix: str, level: int = 2) -> str:
    """Return a section as HTML.

    Args:
        section: The section.
        prefix: Start of all ids, which keeps those of several runs apart.
        level: Level of the heading.
    """
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in section.title.lower()).split()
    body = "\n".join(part_html(part, prefix) for part in section.parts)
    return f'<section id="{prefix}{"-".join(words)}"><h{level}>{escape(section.title)}</h{level}>\n{body}\n</section>'


def part_html(part: Part, prefix: str) -> str:
    """Return a part of a section as HTML."""
    if isinstance(part, Folded):
        return details(part.summary, "\n".join(part_html(inner, prefix) for inner in part.parts))
    if isinstance(part, Picture):
        return figure_block(part, prefix)
    return download(part, prefix) if isinstance(part, Numbers) else part


def numbers_of(sections: Iterable[Drawn]) -> Iterator[Numbers]:
    """Yield all tables and figures of sections, folded ones too."""
    waiting: list[Part] = [part for section in sections for part in section.parts]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Folded):
            waiting = [*part.parts, *waiting]
        elif isinstance(part, Numbers):
            yield part
