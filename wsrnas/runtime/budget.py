"""Read a budget of parameters or multiply-adds."""

import re
from dataclasses import dataclass

from wsrnas.runtime.errors import InputError, shown

QUANTITIES = {"params": "parameters", "macs": "multiply-adds"}
LARGEST = 1e18
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Budget:
    """Cost that a network should have.

    Args:
        quantity: ``params`` (parameters) or ``macs`` (multiply-adds for one image).
        value: number of them.
        text: the budget as the user wrote it.
    """

    quantity: str
    value: float
    text: str


def parse_budget(text: str) -> Budget:
    """Parse ``params=4.5M`` or ``macs=700M``.

    Raises:
        InputError: the text is neither.
    """
    found = re.fullmatch(r"(params|macs)=(\d+(?:\.\d*)?|\.\d+)([kKmMgGtT]?)", text)
    if not found or not 0 < float(found[2]) < LARGEST:
        raise InputError(f"budget is {shown(text)}; expected params=NUMBER or macs=NUMBER, such as params=4.5M or "
                         "macs=700M")
    return Budget(found[1], float(found[2]) * UNITS[found[3].lower()], text)
