"""Checks that all readers of tables share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wsrnas.runtime.config import require
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import json_kind


def listed(document: Mapping[str, Any], key: str, name: str) -> list[Any]:
    """Return a list of a table's JSON object.

    Raises:
        InputError: it is missing, or something else.
    """
    require(key in document, f"{name} has no {key!r}; expected a list of that name")
    values = document[key]
    require(isinstance(values, list), f"{name}: {key} is {json_kind(values)}; expected a list")
    return list(values)


def accuracies(name: str, names: list[Any], results: list[Any], columns: tuple[str, ...], whole: float,
               row_name: str = "row {} of results") -> Tensor:
    """Return the chosen columns (m, L) of results, as shares of 1.

    Args:
        name: name of the file, for messages.
        names: names of all columns.
        results: one list of numbers for each row.
        columns: the columns to return.
        whole: the number that stands for an accuracy of 100 %.
        row_name: what messages call a row, with ``{}`` in place of its number.

    Raises:
        InputError: a column is missing or named twice, or an entry is no accuracy; the sentence names the place.
    """
    usable = [str(each) for each in names if "loss" not in str(each)]  # a low loss is good: it would rank backwards
    for column in columns:
        require(column in names, f"{name} has no column {column!r}; expected some of {', '.join(usable)}")
        require(column in usable, f"the column {column} of {name} holds losses; expected accuracies, some of "
                f"{', '.join(usable)}")
        require(column != "mean" or len(columns) == 1, f"the column mean of {name} would be taken for the mean of all; "
                "expected another name, or no further column")
        require(columns.count(column) == 1, f"columns names {column} twice; expected each once")
    places = [names.index(column) for column in columns]
    for number, row in enumerate(results):
        if not isinstance(row, list) or len(row) != len(names):
            raise InputError(f"{name}: {row_name.format(number)} is {_short(row)}; expected {len(names)} numbers, "
                             "one for each column")
        for place in places:
            if not _is_accuracy(row[place], whole):
                raise InputError(f"{name}: {row_name.format(number)} has {_short(row[place])} in the column "
                                 f"{names[place]}; expected an accuracy from 0 to {whole:g}")
    return torch.tensor([[row[place] for place in places] for row in results], dtype=torch.float64) / whole


def means_of_equal(losses: Tensor, row: Tensor) -> Tensor:
    """Return the mean losses (m, L) of the architectures with losses (n, L) that share each of m rows (n,)."""
    sums = torch.zeros(int(row.max()) + 1, losses.shape[1], dtype=losses.dtype).index_add(0, row, losses)
    return sums / torch.bincount(row).unsqueeze(-1)


def _is_accuracy(value: Any, whole: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= whole


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
