"""Names as people write them: what is the same name, and what a misspelled one may mean."""

import difflib
from collections.abc import Iterable


def plain(name: str) -> str:
    """Equal for spellings of one name: upper and lower case, with or without "-", "_" and spaces."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def closest(spec: str, names: Iterable[str]) -> list[str]:
    """At most three of ``names`` that ``spec`` may mean, the likeliest first: begun so, else misspelled."""
    by_plain = {plain(name): name for name in names}
    begun = [known for known in by_plain if plain(spec) and known.startswith(plain(spec))]
    similar = difflib.get_close_matches(plain(spec), by_plain, n=3)
    return [by_plain[known] for known in dict.fromkeys([*begun, *similar])][:3]
