"""Columns of numbers in the rows of a run, and the errors that damaged files cause."""

from collections.abc import Sequence
from typing import Any

LARGEST = 1e300  # NaN is neither smaller nor larger
# Errors that a file causes which holds something else than it should.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def column(rows: Sequence[dict[Any, Any]], *keys: Any) -> list[float | None]:
    """Return one finite number for each row, found by nested keys; None where a row lacks it."""
    values = []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        values.append(float(value) if is_number(value) else None)
    return values


def path_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each measured path of a search: a step may measure several, named under ``paths``.

    The facts of a path stand under ``loss_estimator``, as those of the first path do.
    """
    return [row | {"loss_estimator": path} if isinstance(path, dict) else row
            for row in rows for path in (row.get("paths") or [None])]


def names_under(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    """Return the keys of the mappings that rows hold under ``key``, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows if isinstance(row.get(key), dict) for name in row[key]))


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
