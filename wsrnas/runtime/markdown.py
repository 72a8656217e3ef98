"""Tables in Markdown."""

from collections.abc import Iterable


def plain_words(text: str) -> str:
    """Return words of others on one line, without characters that Markdown or HTML would obey."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|~" else letter for letter in " ".join(text.split()))


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown; a bar in a cell is escaped, a line break is a space.

    Args:
        head: titles of the columns.
        rows: cells of each row.
    """
    lines = [[" ".join(str(cell).splitlines()).replace("|", "\\|") for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
