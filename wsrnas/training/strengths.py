"""Noise strengths that several programs use, and the check of a list of strengths. All are in pixels of [0, 1]."""

import itertools
from collections.abc import Sequence

from wsrnas.runtime.config import require

SIX_STRENGTHS = (0.03, 0.045, 0.06, 0.075, 0.09, 0.105)  # the strengths of WsrNet-Basic (Wsr-NAS)
WIDE_STRENGTHS = (0.01, 0.02, 0.03, 0.045, 0.06, 0.075, 0.09, 0.105, 0.12, 0.135, 0.15, 0.17, 0.19, 0.21, 0.23, 0.25)


def require_increasing(name: str, strengths: Sequence[float]) -> None:
    """Refuse strengths that are outside (0, 1) or do not increase.

    Args:
        name: field of the configuration, for the message.
        strengths: L-inf radii in pixels of [0, 1].

    Raises:
        InputError: a strength is wrong; the message names the first one and what was expected.
    """
    for strength in strengths:
        require(0 < strength < 1, f"{name} contains {strength:g}; expected pixels of [0, 1], strictly inside (0, 1)")
    for weaker, stronger in itertools.pairwise(strengths):
        require(weaker < stronger, f"{name} must increase, but {weaker:g} comes before {stronger:g}")
