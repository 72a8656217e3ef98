"""Names as people write them: what is the same name, and what a misspelled one may mean."""

import difflib
from collections.abc import Iterable


def plain(name: str) -> str:
    """Equal for spellings of one name: upper and lower case, with or without "-" and "_"."""
    return name.lower().replace("-", "").replace("_", "")


def closest(spec: str, names: Iterable[str]) -> list[str]:
    """At most three of ``names`` that ``spec`` may be a misspelling of, the likeliest first."""
    by_plain = {plain(name): name for name in names}
    return [by_plain[found] for found in difflib.get_close_matches(plain(spec), by_plain, n=3)]
