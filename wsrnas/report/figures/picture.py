"""A figure or a table together with its numbers, as a page shows it and as files hold it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsrnas.report.figures.svg import svg_text


@dataclass(frozen=True)
class Numbers:
    """Numbers that a page offers as a CSV file.

    Args:
        name: Name of the file without its ending: letters, digits and hyphens, unique in its page.
        header: Names of the columns.
        rows: The numbers, row by row; None leaves a field empty.
    """

    name: str
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
class Picture(Numbers):
    """A figure and the numbers that it draws.

    Args:
        svg: Text of the SVG file.
        label: What the figure shows, in a sentence, for readers who cannot see it.
        caption: Text below the figure.
    """

    svg: str
    label: str
    caption: str


def slug(name: str) -> str:
    """Return a name as a part of a file's name: at most 40 letters and digits of ASCII, hyphens in place of others."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name[:40]).strip("-")


def picture(figure: Any, name: str, label: str, caption: str, header: Sequence[str],
            rows: Sequence[Sequence[Any]]) -> Picture:
    """Return a matplotlib figure as a ``Picture``; the arguments are those of ``Picture``."""
    return Picture(name, header, rows, svg_text(figure, name), label, caption)
