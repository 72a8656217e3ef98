"""The parts that a report's page is put together from: escaped text, tables, figures, the document around them."""

import base64
import csv
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.report.plotting import inline_svg, svg_text
from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.errors import InputError


@dataclass(frozen=True)
class Picture:
    """A figure and the numbers in it.

    Args:
        name: of its files; letters, digits and hyphens, unique in its section list.
        svg: the text of the SVG file.
        label: what is seen, in a sentence, for those who cannot see it.
        caption: below the figure.
        header, rows: the numbers that are drawn.
    """

    name: str
    svg: str
    label: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def table(self) -> str:
        """The numbers as CSV."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([self.header, *(["" if value is None else value for value in row] for row in self.rows)])
        return buffer.getvalue()


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: pieces of HTML and pictures in order."""

    title: str
    parts: Sequence[str | Picture]


def picture(figure, name: str, label: str, caption: str, header: Sequence[str],
            rows: Sequence[Sequence[Any]]) -> Picture:
    """A matplotlib figure as a ``Picture``."""
    return Picture(name, svg_text(figure, name), label, caption, header, rows)


def escape(value: Any) -> str:
    """A value as text that means nothing to HTML."""
    return html.escape(str(value))


def paragraph(text: str, kind: str = "") -> str:
    """Text in a ``p`` of the class ``kind``."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def alarm(text: str, sentences: Iterable[str]) -> str:
    """A box that cannot be overlooked: what is wrong, and each case of it."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="alarm" role="alert"><strong>{escape(text)}</strong><ul>{items}</ul></div>'


@dataclass(frozen=True)
class Cell:
    """A table cell of its own looks.

    Args:
        kind: a class of the style sheet: ``good``, ``bad``, ``muted``, or ``text``, which wraps.
    """

    text: str
    kind: str


def table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], numbers: Iterable[int] = (),
          caption: str = "", strong: Iterable[int] = ()) -> str:
    """An HTML table in a box that scrolls sideways by itself.

    Args:
        numbers: columns aligned to the right.
        strong: rows that sum up others.
    """
    right, strong = set(numbers), set(strong)
    lines = [paragraph(caption, "caption")] if caption else []  # outside of the box: a phone shows all of it
    lines.append('<div class="scroll" tabindex="0"><table>')
    heads = "".join(f'<th scope="col"{_right(right, i)}>{escape(text)}</th>' for i, text in enumerate(header))
    lines.append(f"<thead><tr>{heads}</tr></thead><tbody>")
    for number, row in enumerate(rows):
        cells = "".join(_cell(entry, i, right) for i, entry in enumerate(row))
        lines.append(f'<tr class="sum">{cells}</tr>' if number in strong else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _right(columns: set[int], index: int) -> str:
    return ' class="n"' if index in columns else ""


def _cell(entry: str | Cell, index: int, right: set[int]) -> str:
    text, kinds = (entry.text, [entry.kind]) if isinstance(entry, Cell) else (entry, [])
    kinds += ["n"] * (index in right)
    tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
    shown = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{scope}{shown}>{escape(text)}</{tag}>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    return "<dl>" + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
                            for name, value in pairs) + "</dl>"


def tiles(numbers: Iterable[tuple[str, str, str]]) -> str:
    """Key numbers: (what, value, remark)."""
    return '<ul class="tiles">' + "".join(
        f'<li><span class="what">{escape(what)}</span><span class="value">{escape(value)}</span>'
        f'<span class="remark">{escape(remark)}</span></li>' for what, value, remark in numbers) + "</ul>"


def details(summary: str, content: str, opened: bool = False) -> str:
    """Content that folds away behind its summary."""
    return f"<details{' open' * opened}><summary>{escape(summary)}</summary>{content}</details>"


def figure_block(shown: Picture, prefix: str) -> str:
    """A picture in the page with its caption and its numbers to download."""
    name = f"{prefix}{shown.name}"
    data = base64.b64encode(shown.table.encode()).decode()
    return (f'<figure id="figure-{name}"><div class="scroll" tabindex="0">'
            f"{inline_svg(shown.svg, name, escape(shown.label))}</div>"
            f"<figcaption>{escape(shown.caption)} <a download=\"{name}.csv\" "
            f'href="data:text/csv;charset=utf-8;base64,{data}">{name}.csv</a></figcaption></figure>')


def section_html(shown: Section, prefix: str, level: int = 2) -> str:
    """A section with its heading; ``prefix`` keeps ids of several runs apart."""
    key = prefix + "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in shown.title.lower()).split())
    body = "\n".join(figure_block(part, prefix) if isinstance(part, Picture) else part for part in shown.parts)
    return f'<section id="{key}"><h{level}>{escape(shown.title)}</h{level}>\n{body}\n</section>'


def document(title: str, head: str, body: str) -> str:
    """The whole page: nothing in it is fetched from elsewhere."""
    css = (Path(__file__).parents[1] / "assets" / "report.css").read_text()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{css}</style>
</head>
<body>
<header>
{head}
</header>
<main>
{body}
</main>
</body>
</html>
"""


def made(section: Callable[..., Section | None], *arguments: Any) -> Section | None:
    """A section, or what says why data that are not what they should be keep it from being drawn."""
    try:
        return section(*arguments)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        title = section.__name__.removesuffix("_section").replace("_", " ")
        return Section(title.capitalize(), [paragraph(f"This section could not be drawn: its data are not what was "
                                                      f"expected ({type(error).__name__}: {error}).", "warning")])


def write_files(folder: Path, text: str, pictures: Mapping[str, Picture]) -> Path:
    """Write a page and its figures, each file wholly or not at all; the path of the page.

    Raises:
        InputError: the folder cannot be made or written.
    """
    files = {f"{run_files.FIGURES}/{name}.{kind}": content for name, shown in pictures.items()
             for kind, content in (("svg", shown.svg), ("csv", shown.table)) if content} | {run_files.REPORT: text}
    try:
        (folder / run_files.FIGURES).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(folder / name, content.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"the report cannot be written to {folder}: {(error.strerror or str(error)).lower()}; "
                         "expected a folder that can be made and written") from None
    return folder / run_files.REPORT
