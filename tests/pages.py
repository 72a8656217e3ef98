"""Pages as tests read them: what a browser would see, and the figures as they are handed to be written."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

from wsrnas.report import figures as drawings
from wsrnas.report.figures.picture import picture as original


class Page(HTMLParser):
    """Tags with attributes, tables as rows of texts, and all text outside of the style sheet."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text()
        self.tags, self.texts, self.tables, self.style, self.cell = [], [], [], False, False
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.style = tag == "style"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.style, self.cell = self.style and tag != "style", self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            self.tables[-1][-1][-1] += data
        if not self.style:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def titles(self):
        return re.findall(r"<h2>(.*?)</h2>", self.source)

    def table(self, *columns):
        """The rows of the first table with these columns, by the names of all of its columns."""
        header, *rows = next(table for table in self.tables if set(columns) <= set(table[0]))
        return [dict(zip(header, row, strict=True)) for row in rows]

    def links(self):
        return [attributes["href"] for tag, attributes in self.tags if tag == "a" and "download" not in attributes]


@contextmanager
def kept_figures() -> Iterator[dict]:
    """Keep the matplotlib figures that pages draw within it, by name."""
    figures = {}

    def picture(figure, name, *rest):
        figures[name] = figure
        return original(figure, name, *rest)
    for module in pkgutil.iter_modules(drawings.__path__, f"{drawings.__name__}."):  # some are imported when needed
        importlib.import_module(module.name)
    with pytest.MonkeyPatch.context() as context:
        for module in list(sys.modules.values()):
            if getattr(module, "picture", None) is original:
                context.setattr(module, "picture", picture)
        yield figures
