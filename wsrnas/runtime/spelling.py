"""Compare names as people write them, and guess what a misspelled one means."""

import difflib
from collections.abc import Iterable

LONGEST = 200  # letters of a name that may be misspelled


def plain(name: str) -> str:
    """Return a name in lower case, without "-", "_" and spaces, so that its spellings are equal."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def closest(spec: str, names: Iterable[str]) -> list[str]:
    """Return at most three of ``names`` that ``spec`` may mean: those that begin with it, then similar ones."""
    if len(spec) > LONGEST:  # comparing it would take minutes
        return []
    by_plain = {plain(name): name for name in names}
    begun = [known for known in by_plain if plain(spec) and known.startswith(plain(spec))]
    similar = difflib.get_close_matches(plain(spec), by_plain, n=3)
    return [by_plain[known] for known in dict.fromkeys([*begun, *similar])][:3]
