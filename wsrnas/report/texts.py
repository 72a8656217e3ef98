"""Times, values and command lines as a page shows them."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LONGEST = 1e12  # seconds


def duration(seconds: float) -> str:
    """Return a time as ``2 h 05 min``, ``3 min 20 s`` or ``4.2 s``; a dash for what is no time."""
    if not 0 <= seconds < LONGEST:
        return "–"
    if 59.95 <= seconds < 60:
        seconds = 60.0
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes else f"{seconds:.1f} s"


def text_of(value: Any) -> str:
    """Return a JSON value as one line, numbers with six digits (``config.json`` has all)."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(text_of, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def over_in_words(over: Sequence[str]) -> str:
    """Return attacks as a page lists them; an attack at several strengths as one: ``PGD-20 at 4 strengths``."""
    kinds = {name.partition("  eps ")[0] for name in over}
    return f"{kinds.pop()} at {len(over)} strengths" if len(kinds) == 1 < len(over) else f"{len(over)} attacks"


def command_text(command: Any) -> str:
    """Return a command line whose program is given as a module."""
    if not isinstance(command, list) or not command:
        return text_of(command)
    first, *arguments = map(str, command)
    parts = [part for part in Path(first.removesuffix(".py")).parts if part != "__main__"]
    start = f"python -m {'.'.join(parts[-2:])}" if first.endswith(".py") else first
    return " ".join([start, shlex.join(arguments)]).strip()


def percent(value: float | None, interval: Any = None, signed: bool = False) -> str:
    """Return a share in percent, with its interval where there is one: ``50.0 [47.0, 53.0]``."""
    if value is None:
        return "–"
    form = "{:+.1f}" if signed else "{:.1f}"
    text = form.format(100 * value + 0.0).replace("-", "−")
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return text
    return f"{text} [{', '.join(form.format(100 * end).replace('-', '−') for end in interval)}]"
