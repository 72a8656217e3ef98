"""H, the upper bound of the vulnerability: a number, or a share of a vulnerability that is measured later."""

import argparse
import math
from dataclasses import dataclass

from wsrnas.runtime.config import parse_number, require
from wsrnas.runtime.errors import InputError

RELATIVE = "rel:"
TOLERANCE = 1e-2  # F counts as within H up to H * (1 + TOLERANCE)


@dataclass(frozen=True)
class Bound:
    """Hold H as a number, or as a share of the vulnerability of a network that is not known yet.

    Attributes:
        value: above 0; infinite for no bound.
        relative: whether ``value`` is a share.
    """

    value: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """Read ``"1e-3"``, ``"rel:0.6"`` or ``"inf"``.

        Raises:
            InputError: the text has none of these forms, or the number is not above 0.
        """
        relative = text.startswith(RELATIVE)
        expected = "expected a number above 0, rel:0.6 (a share of the vulnerability after the warm-up), or inf"
        try:
            value = parse_number(text.removeprefix(RELATIVE))
        except argparse.ArgumentTypeError:
            raise InputError(f"vulnerability_bound is {text!r}, which is not a bound; {expected}") from None
        endless = math.isinf(value) and (relative or "inf" not in text.lower())  # 1e400 is too large a number
        require(value > 0 and not endless, f"vulnerability_bound is {text}; {expected}")
        return cls(value, relative)

    @property
    def finite(self) -> bool:
        """Whether there is a bound at all."""
        return math.isfinite(self.value)

    def resolve(self, reference: float) -> float:
        """Return H in the unit of the vulnerability, given the vulnerability of the reference network."""
        return self.value * reference if self.relative else self.value
