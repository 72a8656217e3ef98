"""The size class of a task: bounds on the weight of an architecture's live operations."""

from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError


def parse_size_class(text: str) -> tuple[int, int] | None:
    """Return the two ends of "18:20"; None for an empty text.

    Raises:
        InputError: the text is something else.
    """
    if not text:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        ends = int(low), int(high)
    except ValueError:
        raise InputError(f"size_class is {text!r}; expected two whole numbers such as 18:20") from None
    require(0 <= ends[0] <= ends[1], f"size_class is {text!r}; expected two whole numbers such as 18:20, the smaller "
            "one first")
    return ends
