"""Key numbers at the head of a page: one function for each fact, so that one failure costs one tile."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from wsrnas.report.html import escape


class Tile(NamedTuple):
    """A key number.

    Args:
        what: Its name.
        value: The number with its unit.
        remark: What the reader needs to know about it.
    """

    what: str
    value: str
    remark: str


Fact = Callable[[Any], Sequence[Tile]]


def tiles_of(facts: Iterable[Fact], subject: Any) -> list[Tile]:
    """Return the tiles of all facts; one that fails becomes a tile that says why."""
    tiles: list[Tile] = []
    for fact in facts:
        try:
            tiles += fact(subject)
        except Exception as error:
            tiles.append(Tile(fact.__name__.replace("_", " "), "?", f"cannot be read: {type(error).__name__}: {error}"))
    return tiles


def _unbroken(text: str) -> str:
    """Return text whose numbers stay on one line with their unit and their deviation, with the minus sign of print."""
    unbroken = text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return escape(f"\N{MINUS SIGN}{unbroken[1:]}" if re.match(r"-\d", unbroken) else unbroken)


def tiles_html(tiles: Iterable[Tile]) -> str:
    """Return key numbers as an HTML list."""
    return '<ul class="tiles">' + "".join(
        f'<li><span class="what">{escape(what)}</span><span class="value">{_unbroken(value)}</span>'
        f'<span class="remark">{_unbroken(remark)}</span></li>' for what, value, remark in tiles) + "</ul>"
