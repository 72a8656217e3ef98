"""How many of the honesty checks run, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CheckLevel:
    """How many of the checks run.

    Args:
        help: explanation for the command line.
        passes: most passes of an image forward and backward, and most passes forward alone, rounded up.
    """

    help: str
    passes: tuple[int, int]


NONE, QUICK, FULL = "none", "quick", "full"
CHECK_LEVELS = {
    NONE: CheckLevel("no check; the results say so in their first line", (0, 0)),
    QUICK: CheckLevel("no attack of more than 20 steps, no Square and no transfer", (90, 70)),
    FULL: CheckLevel("all of them; for every number that is published", (270, 585)),
}


def was_checked(result: Mapping[str, Any], level: str) -> bool:
    """Return whether a stored result had the honesty checks of a level, or more of them."""
    levels = list(CHECK_LEVELS)
    had = result.get("check_level", FULL)  # results that do not say are older, and had all
    return had in levels and levels.index(had) >= levels.index(level)
