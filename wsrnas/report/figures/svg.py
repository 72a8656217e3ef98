"""Figures as SVG: files without a date, and elements that a page can hold."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

from wsrnas.report.figures.style import PAGE_COLOURS, STYLE, SURFACE
from wsrnas.runtime.folders import make


def svg_text(figure: Any, name: str) -> str:
    """Return a figure as SVG; its texts stay texts, and the same figure gives the same bytes.

    Args:
        figure: A matplotlib figure.
        name: Seed of the ids inside.
    """
    from matplotlib import rc_context
    buffer = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib's font lacks; the browser's has them
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # A hundredth of a point is finer than any screen; six decimals make the page twice as large.
    return re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), buffer.getvalue())


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """Return an SVG file's text as an element of a page, with unique ids and with the page's colours and font.

    Args:
        svg: Text of the file.
        prefix: Start of all ids; letters, digits and hyphens, unique in the page.
        label: What the figure shows, for readers who cannot see it; already escaped for an attribute.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg"):], flags=re.DOTALL)

    def adapted(tag: re.Match[str]) -> str:
        found = re.sub(r'\bid="', f'id="{prefix}-', tag[0])
        found = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", found)
        for colour, variable in PAGE_COLOURS.items():
            found = found.replace(colour, variable)
        return re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", found)

    body = re.sub(r"<style.*?</style>|<[^>]*>", adapted, body, flags=re.DOTALL)  # not in the words between the tags
    opening, rest = body.split(">", 1)
    width = natural_width(opening)
    opening = re.sub(r' (width|height|version)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{label}" style="--natural: {width}px">{rest}'


def natural_width(svg: str) -> int:
    """Return the width of an SVG in pixels; 0 where it does not say."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    return round(float(found[1]) * 4 / 3) if found else 0


def plain(text: str) -> str:
    """Return a text as matplotlib should draw it: without formulas and control characters, never hidden in a legend."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return ("\N{NO-BREAK SPACE}" if printable.startswith("_") else "") + printable.replace("$", r"\$")


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure on an opaque ground as SVG and PNG.

    Args:
        figure: A matplotlib figure.
        path: Path without a suffix.

    Returns:
        The path of the PNG.
    """
    from matplotlib.patches import Rectangle
    figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=SURFACE, zorder=-1))
    make(path.parent)
    path.with_name(f"{path.name}.svg").write_text(svg_text(figure, path.name), encoding="utf-8")
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=150, metadata={"Software": None})
    return path.with_name(f"{path.name}.png")
