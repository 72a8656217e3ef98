"""Pieces of HTML: escaped text, tables, figures, and the document around them."""

import base64
import html
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.report.figures.picture import Numbers, Picture
from wsrnas.report.figures.svg import inline_svg, natural_width

MOST_BESIDE = 860  # pixels of a figure that leaves room for its caption on the page of a wide screen


def escape(value: Any) -> str:
    """Return a value as text without meaning to HTML."""
    return html.escape(str(value))


def prose(text: str) -> str:
    """Return text whose flags (``--batch_size``) are not broken between their hyphens at the end of a line."""
    return re.sub(r"(?<![\w-])--\w[\w-]*", r'<span class="flag">\g<0></span>', escape(text))


def paragraph(text: str, kind: str = "") -> str:
    """Return text as a paragraph of the style sheet's class ``kind``."""
    return f'<p class="{kind}">{prose(text)}</p>' if kind else f"<p>{prose(text)}</p>"


def _items(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{prose(sentence)}</li>' for sentence in sentences)}</ul>"


def alarm(text: str, sentences: Iterable[str]) -> str:
    """Return a red box: what is wrong, and each case of it."""
    return f'<div class="alarm" role="alert"><strong>{escape(text)}</strong>{_items(sentences)}</div>'


def problem_list(problems: Collection[str]) -> list[str]:
    """Return a box that lists what could not be read; nothing without problems."""
    return [f'<div class="missing"><strong>Not everything could be read.</strong>{_items(problems)}</div>'] * bool(
        problems)


@dataclass(frozen=True)
class Cell:
    """A table cell with a look of its own.

    Args:
        text: Its text.
        kind: Class of the style sheet: ``good``, ``bad``, ``muted``, or ``text``, which breaks into lines.
    """

    text: str
    kind: str


def table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], numbers: Iterable[int] = (),
          caption: str = "", strong: Iterable[int] = ()) -> str:
    """Return an HTML table in a box that scrolls sideways by itself.

    Args:
        header: Names of the columns.
        rows: The cells, row by row.
        numbers: Indices of the columns that are aligned to the right.
        caption: Text above the table.
        strong: Indices of the rows that sum up others.
    """
    right, sums = set(numbers), set(strong)
    lines = [paragraph(caption, "caption")] if caption else []  # outside of the box: a phone shows all of it
    lines.append('<div class="scroll" tabindex="0"><table>')
    heads = "".join(f'<th scope="col"{_right(right, i)}>{_head(text)}</th>' for i, text in enumerate(header))
    lines.append(f"<thead><tr>{heads}</tr></thead><tbody>")
    for number, row in enumerate(rows):
        cells = "".join(_cell(entry, i, right) for i, entry in enumerate(row))
        lines.append(f'<tr class="sum">{cells}</tr>' if number in sums else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _head(text: str) -> str:
    """Return a heading that is broken between words only, not at a hyphen (``PGD-20``)."""
    return re.sub(r"\S+-\S+", r'<span class="flag">\g<0></span>', escape(text))


def _right(columns: set[int], index: int) -> str:
    return ' class="n"' if index in columns else ""


def _cell(entry: str | Cell, index: int, right: set[int]) -> str:
    text, kinds = (entry.text, [entry.kind]) if isinstance(entry, Cell) else (entry, [])
    kinds += ["n"] * (index in right)
    tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
    shown = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{scope}{shown}>{escape(text)}</{tag}>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values, one a line."""
    return "<dl>" + "".join(f"<div><dt>{escape(name)}</dt><dd>{prose(value)}</dd></div>"
                            for name, value in pairs) + "</dl>"


def details(summary: str, content: str) -> str:
    """Return HTML that opens at a click on its summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def figure_block(shown: Picture, prefix: str) -> str:
    """Return a figure with its caption and its numbers to download.

    Args:
        shown: The figure.
        prefix: Start of its ids and of its file's name.
    """
    name = f"{prefix}{shown.name}"
    width = natural_width(shown.svg)
    beside = f' class="beside" style="--natural: {width}px"' if 0 < width <= MOST_BESIDE else ""
    return (f'<figure id="figure-{name}"{beside}><div class="scroll" tabindex="0">'
            f"{inline_svg(shown.svg, name, escape(shown.label))}</div>"
            f"<figcaption>{escape(shown.caption)} {_link(shown, name)}</figcaption></figure>")


def download(numbers: Numbers, prefix: str) -> str:
    """Return a link to the numbers as a CSV file, which the page itself holds."""
    return f'<p class="note">{_link(numbers, f"{prefix}{numbers.name}")}</p>'


def _link(numbers: Numbers, name: str) -> str:
    data = base64.b64encode(numbers.table.encode(errors="replace")).decode()
    return f'<a download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{data}">{name}.csv</a>'


def document(title: str, head: str, body: str) -> str:
    """Return the whole page; nothing in it is fetched from elsewhere."""
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
