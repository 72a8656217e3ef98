"""Times, values and command lines as a page shows them."""

from pathlib import Path
from typing import Any


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s`` or ``4.2 s``."""
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes else f"{seconds:.1f} s"


def text_of(value: Any) -> str:
    """A JSON value in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items())
    return " ".join(map(text_of, value)) if isinstance(value, list) else str(value)


def command_text(command: Any) -> str:
    """The command line, with the program as the module that it is."""
    if not isinstance(command, list) or not command:
        return text_of(command)
    first, *arguments = map(str, command)
    start = f"python -m {'.'.join(Path(first).with_suffix('').parts[-2:])}" if first.endswith(".py") else first
    return " ".join([start, *(f"'{word}'" if " " in word else word for word in arguments)])
