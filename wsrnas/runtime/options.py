"""Describe a field of a configuration: its default, its help, its choices, its group."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Choices = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


def option(default: Any, help: str | Callable[[], str], *, identity: bool = True, aliases: tuple[str, ...] = (),
           choices: Choices | None = None, added: bool = False, group: str = "", unit: str = "",
           increasing: bool = False, beside: str = "") -> Any:
    """Return a dataclass field with its help text.

    Args:
        default: value without a flag.
        help: text of ``--help``, or a function that returns it.
        identity: False for a field that does not change the result (where a run reads, what it prints). Such a field
            may differ when a run is resumed.
        aliases: other names of the field, such as earlier ones: valid as flags and in a stored ``config.json``.
        choices: table of what a text may be, or a function that returns it. It is read when the command line is. An
            entry's attribute ``help``, if any, follows its name in ``--help``. A field that is empty by default may
            stay empty.
        added: True for a field that earlier versions lack: a stored ``config.json`` without it has the default.
        group: title above this field and those after it in its class, in ``--help``; empty: that of the field before.
        increasing: True for numbers that must increase: the command line sorts them, and says so.
        beside: field with one number for each of them; where the command line gives it, too, nothing is sorted.
        unit: what stands for the value in ``--help``; empty: as ``flags.unit_of`` finds it by the field's name.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "identity": identity, "aliases": aliases, "choices": choices, "added": added, "group": group,
        "unit": unit, "increasing": increasing, "beside": beside})


def choices_of(field: dataclasses.Field) -> Mapping[str, Any]:
    """Return the table of what a field may be; an empty one if the field is free."""
    choices = field.metadata.get("choices") or {}
    return choices() if callable(choices) else choices


def help_of(field: dataclasses.Field) -> str:
    """Return the help text of a field, with one line for each of its choices."""
    lines = [f"{name} ({text})" if (text := getattr(entry, "help", "")) else name
             for name, entry in choices_of(field).items()]
    written = field.metadata["help"]
    text = written() if callable(written) else written
    return f"{text}: {', '.join(lines)}" if lines else text


def field_aliases(cls: "DataclassInstance | type[DataclassInstance]") -> dict[str, str]:
    """Return the field that each alias of a configuration stands for."""
    return {alias: field.name for field in dataclasses.fields(cls) for alias in field.metadata.get("aliases", ())}
