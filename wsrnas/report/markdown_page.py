"""The page of a folder whose results are a text in Markdown: a study, an exported network, a measured vulnerability.

Only what this project writes is understood: headings, paragraphs, lists, tables, code, figures, text that folds away.
"""

import html
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wsrnas.report.figures.svg import inline_svg
from wsrnas.report.html import Cell, document, escape, paragraph, prose, table
from wsrnas.report.page_files import write_files
from wsrnas.report.sections import Drawn, section_html
from wsrnas.report.tiles import Tile, tiles_html

LONG = 40  # characters of a cell that breaks into lines
FOLDED = re.compile(r"<details><summary>(.*)</summary>")
PICTURE = re.compile(r"!\[(.*)\]\((.*\.svg)\)")


def write_text_page(folder: Path, name: str, kind: str, text: str, tiles: Sequence[Tile] = ()) -> Path:
    """Write ``report.html`` of a text and of the figures that it names.

    Args:
        folder: Folder of the page and of the figures.
        name: Heading of the page.
        kind: What it is about, in a few words.
        text: The text; its first heading is left out, its second-level headings begin sections.
        tiles: Key numbers.

    Returns:
        The path of the page.

    Raises:
        InputError: The page cannot be written.
    """
    state = f"{kind} · {time.strftime('%Y-%m-%d %H:%M')}"
    head = [f"<h1>{escape(name)}</h1>", f'<p class="state">{escape(state)}</p>',
            *[tiles_html(tiles)] * bool(tiles)]
    body = [section_html(Drawn(title, parts), "") for title, parts in sections_of(text, folder) if parts]
    return write_files(folder, document(f"{name} · {kind}", "\n".join(head), "\n".join(body)), {})


def sections_of(text: str, folder: Path) -> list[tuple[str, list[str]]]:
    """Return the titles of a text's sections, each with its parts as HTML.

    Args:
        text: The text.
        folder: Where its figures are.
    """
    sections: list[tuple[str, list[str]]] = [("Summary", [])]
    lines = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).splitlines()
    for block in _blocks(lines):
        first = block[0]
        if first.startswith("## "):
            sections.append((first[3:], []))
        elif not first.startswith("# "):
            sections[-1][1].append(_block_html(block, folder))
    return sections


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the blocks of a text: what empty lines part, and code with its fences."""
    block: list[str] = []
    code = False
    for line in [*lines, ""]:
        code ^= line.startswith("```")
        if line.strip() or code:
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _block_html(block: Sequence[str], folder: Path) -> str:
    first = block[0]
    if first.startswith("```"):
        return f"<pre>{prose(chr(10).join(block[1:-1]))}</pre>"
    if folded := FOLDED.fullmatch(first):
        return f"<details><summary>{escape(html.unescape(folded[1]))}</summary>"
    if first == "</details>":
        return first
    if picture := PICTURE.fullmatch(first):
        return _figure(folder / picture[2], picture[1])
    kind: Callable[[Sequence[str]], str] = _table if first.startswith("|") and len(block) > 1 else (
        _items if first.startswith("- ") else _paragraph)
    return kind(block)


def _figure(path: Path, label: str) -> str:
    if not path.is_file():
        return paragraph(f"The figure {path.name} is missing.", "warning")
    svg = inline_svg(path.read_text(encoding="utf-8"), re.sub(r"\W", "-", path.stem), escape(label))
    return f'<figure><div class="scroll" tabindex="0">{svg}</div><figcaption>{escape(label)}</figcaption></figure>'


def _table(block: Sequence[str]) -> str:
    rows = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in block]
    header, marks, *body = rows
    numbers = [place for place, mark in enumerate(marks) if mark.endswith(":")]
    shown = [[Cell(cell, "text") if len(cell) > LONG and place else cell for place, cell in enumerate(row)]
             for row in body]
    return table(header, shown, numbers)


def _items(block: Sequence[str]) -> str:
    joined = "\n".join(block)[2:].split("\n- ")
    return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in joined)}</ul>"


def _paragraph(block: Sequence[str]) -> str:
    text = " ".join(line.strip() for line in block)
    bold = re.fullmatch(r"\*\*((?:[^*`]|`[^`]*`)+)\*\*", text)
    return f'<p class="warning">{_inline(bold[1])}</p>' if bold else f"<p>{_inline(text)}</p>"


def _plain(text: str) -> str:
    """Return the text of a cell without marks, and with the minus signs of print."""
    plain = re.sub(r"\*\*|`", "", text.replace("\\|", "|")).strip()
    return re.sub(r"(?<![\w.)\]-])-(?=\d)", "\N{MINUS SIGN}", plain)


def _inline(text: str) -> str:
    """Return text as HTML, with its code, its strong words and its links."""
    codes: list[str] = []

    def kept(code: re.Match[str]) -> str:  # nothing inside of code is a mark
        codes.append(code[1])
        return f"\0{len(codes) - 1}\0"

    shown = re.sub(r"`([^`]+)`", kept, prose(text.replace("\0", "")))
    shown = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
    shown = re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', shown)
    return re.sub(r"\0(\d+)\0", lambda place: f"<code>{codes[int(place[1])]}</code>", shown)
