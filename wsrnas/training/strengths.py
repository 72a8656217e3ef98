"""Noise strengths that several programs use, and the reading and check of strengths. All are in pixels of [0, 1]."""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

from wsrnas.runtime.config import expected_strength, require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.flags import parse_number

SIX_STRENGTHS = (0.03, 0.045, 0.06, 0.075, 0.09, 0.105)  # the strengths of WsrNet-Basic (Wsr-NAS)
WIDE_STRENGTHS = (0.01, 0.02, 0.03, 0.045, 0.06, 0.075, 0.09, 0.105, 0.12, 0.135, 0.15, 0.17, 0.19, 0.21, 0.23, 0.25)


Strengths = float | str | Sequence[float | str]  # what users give in Python for one or several


def require_increasing(name: str, strengths: Sequence[float]) -> None:
    """Refuse strengths that are outside (0, 1) or do not increase.

    Args:
        name: field of the configuration, for the message.
        strengths: L-inf radii in pixels of [0, 1].

    Raises:
        InputError: a strength is wrong; the message names the first one and what was expected.
    """
    for strength in strengths:
        require(0 < strength < 1, f"{name} contains {strength:g}; {expected_strength(strength)}")
    for weaker, stronger in itertools.pairwise(strengths):
        require(weaker != stronger, f"{name} contains {weaker:g} twice; expected each strength once")
        require(weaker < stronger, f"{name} must increase, but {weaker:g} comes before {stronger:g}")


def read_strengths(name: str, given: Any, norm: str = "linf") -> tuple[float, ...]:
    """Return strengths that a user gave in Python: a number, a text such as ``8/255``, or several of them.

    Args:
        name: argument of the function, for the message.
        given: the strengths; arrays and tensors will do.
        norm: ``"linf"``, whose strengths are below 1, or ``"l2"``.

    Raises:
        InputError: one is no number, or is out of range; the message names it.
    """
    if hasattr(given, "tolist"):  # of NumPy or torch
        given = given.tolist()
    is_one = isinstance(given, str) or not hasattr(given, "__iter__")
    verb, strengths = "is" if is_one else "contains", []
    for value in [given] if is_one else given:
        try:
            strengths.append(parse_number(value) if isinstance(value, str) else float(value))
        except (TypeError, ValueError, argparse.ArgumentTypeError):
            raise InputError(f"{name} {verb} {value!r}; expected a number such as 0.031 or 8/255") from None
    for strength in strengths:
        if norm == "linf":
            require(0 < strength < 1, f"{name} {verb} {strength:g}; {expected_strength(strength)}")
        require(0 < strength < float("inf"), f"{name} {verb} {strength:g}; expected a number above 0")
    return tuple(strengths)
