"""Refuse values of a configuration with which no run could end: giant counts, infinite numbers, names of no file."""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from wsrnas.runtime.errors import InputError, shown

LARGEST_COUNT = 10**6
LARGEST: dict[str, int] = {  # other limits, of fields by name
    "init_channels": 4096, "layers": 1000, "image_size": 4096, "workers": 1024, "num_steps": 10**4,
    "epochs": 10**5, "warmup_epochs": 10**5, "iterations": 10**5, "warmup_architectures": 10**5, "population": 10**5,
    "queries": 10**5, "seeds": 10**4, "num_pgd_strengths": 1000, "num_estimated_strengths": 1000,
    "max_train": 10**9, "max_test": 10**9, "max_validation": 10**9, "max_estimator_train": 10**9,
    "seed": 2**63 - 1, "first_seed": 2**62, "split_seed": 2**63 - 1,
}
LARGEST_NUMBER = 10**9  # of fields that are no counts
LONGEST_TEXT = 4096  # letters, as of a path
LONGEST_NAME = 255  # bytes of a part of a path
MOST_ENTRIES = 10**4
SMALLEST_STRENGTH = 1e-6
STRENGTHS = ("epsilon", "strengths", "test_strengths", "single_source", "sources", "spectrum", "attacked_strengths")


def refuse_absurd(values: Mapping[str, Any]) -> None:
    """Refuse values that would never end, fill the memory, or are the name of no file.

    This comes before the configuration checks its fields, because it may calculate with them.

    Args:
        values: Values by the names of their fields.

    Raises:
        InputError: The sentence names the first such field.
    """
    for name, value in values.items():
        entries = value if isinstance(value, (tuple, list)) else (value,)
        if len(entries) > MOST_ENTRIES:
            raise InputError(f"{name} has {len(entries)} entries; expected at most {MOST_ENTRIES}")
        for entry in entries:
            if isinstance(entry, str):
                _refuse_text(name, entry)
            elif isinstance(entry, int) and not isinstance(entry, bool):
                if abs(entry) > (most := LARGEST.get(name, LARGEST_COUNT)):
                    raise InputError(f"{name} is {shown(entry)}; expected at most {most}")
            elif isinstance(entry, float) and (math.isinf(entry) or abs(entry) > LARGEST_NUMBER):
                raise InputError(f"{name} is {entry:g}; expected a number of at most {LARGEST_NUMBER:g}")
    if isinstance(values.get("save"), str):
        _refuse_place(values["save"])


def refuse_nonsense(values: Mapping[str, Any]) -> None:
    """Refuse values that each field takes, but that mean nothing.

    Args:
        values: All values of a configuration by the names of their fields.

    Raises:
        InputError: The sentence names the first such field.
    """
    for name, value in values.items():
        entries = value if isinstance(value, (tuple, list)) else (value,)
        if name == "seed" and isinstance(value, int) and value < 0:
            raise InputError(f"seed is {value}; expected at least 0")
        numbers = [entry for entry in entries if isinstance(entry, float)]
        if any(map(math.isnan, numbers)):
            raise InputError(f"{name} is nan; expected a number")
        if name in STRENGTHS and (tiny := [number for number in numbers if 0 < number < SMALLEST_STRENGTH]):
            raise InputError(f"{name} is {tiny[0]:g}; expected a strength of at least {SMALLEST_STRENGTH:g}, in pixels "
                             "of [0, 1]")
    momentum, rate, end = (values.get(name) for name in ("momentum", "learning_rate", "learning_rate_min"))
    if isinstance(momentum, float) and not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum:g}; expected 0 or more, below 1")
    if isinstance(rate, float) and isinstance(end, float) and not 0 <= end <= rate:
        raise InputError(f"learning_rate_min, the minimum of the schedule is {end:g}; expected 0 to its peak, the "
                         f"learning_rate {rate:g}")


def _refuse_text(name: str, text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise InputError(f"{name} is {shown(text)}; expected at most {LONGEST_TEXT} letters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is {shown(text)}, which is not UTF-8 text; expected a name that is") from None
    if "\0" in text:
        raise InputError(f"{name} is {shown(text)}, which has a zero byte; expected a name without it")


def _refuse_place(save: str) -> None:
    parts = PurePath(save).parts
    if any(part in (".", "..") for part in save.split("/")):
        raise InputError(f"save is {save!r}; expected the name of a folder for this run alone, without . and ..")
    if save and (not save.isprintable() or save.isspace() or save.startswith("~")):
        raise InputError(f"save is {save!r}; expected the name of a folder, printable and without ~")
    if long := next((part for part in parts if len(part.encode()) > LONGEST_NAME), None):
        raise InputError(f"save is {shown(long)}; expected a name of at most {LONGEST_NAME} bytes")
