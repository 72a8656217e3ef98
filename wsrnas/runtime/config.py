"""Turn a frozen dataclass into a command line: fields become flags, instances presets, values JSON."""

import dataclasses
import difflib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from wsrnas.runtime.errors import InputError, say
from wsrnas.runtime.flags import Parser as Parser
from wsrnas.runtime.flags import inner_type, make_parser, show
from wsrnas.runtime.flags import parse_number as parse_number
from wsrnas.runtime.flags import within as within
from wsrnas.runtime.options import choices_of, field_aliases
from wsrnas.runtime.options import help_of as help_of
from wsrnas.runtime.options import option as option
from wsrnas.runtime.reading import read_json
from wsrnas.runtime.sanity import refuse_absurd, refuse_nonsense
from wsrnas.runtime.tracking import TRACKERS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def up_to_date(cls: "DataclassInstance | type[DataclassInstance]", values: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored configuration values by the names of today's fields, with the defaults of fields added since.

    Where a field and its alias are both stored, the alias counts.
    """
    fields = field_aliases(cls)
    named = {field.name: field.default for field in dataclasses.fields(cls) if field.metadata.get("added")}
    named |= {name: value for name, value in values.items() if name not in fields}
    return named | {fields[alias]: value for alias, value in values.items() if alias in fields}


def require(condition: bool, message: str) -> None:
    """Raise ``InputError(message)`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)


def require_different(folders: Sequence[Path], what: str) -> None:
    """Raise InputError if a folder is given twice; ``what`` says in the plural what was expected."""
    twice = [str(folder) for folder, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    require(not twice, f"{', '.join(twice)}: given twice; expected different {what}")


class Ranges:
    """Refuse fields of a configuration that are out of range, or that nothing reads."""

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        return {}

    def require_at_least(self, bound: float, *names: str) -> None:
        """Refuse fields below ``bound``.

        Raises:
            InputError: the sentence names the first such field.
        """
        for name in names:
            require(getattr(self, name) >= bound, f"{name} is {getattr(self, name):g}; expected at least {bound:g}")

    def require_positive(self, *names: str) -> None:
        """Refuse fields that are not above 0, as ``require_at_least`` does."""
        for name in names:
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name):g}; expected a number above 0")

    def require_strength(self, *names: str) -> None:
        """Refuse strengths outside (0, 1), as ``require_at_least`` does."""
        for name in names:
            value = getattr(self, name)
            require(0 < value < 1, f"{name} is {value:g}; {expected_strength(value)}")


@dataclasses.dataclass(frozen=True)
class RunConfig(Ranges):
    """Hold the fields of every program that trains: which run, where, on which data."""

    preset_flags: ClassVar[tuple[str, ...]] = ("--preset",)
    overwrite_help: ClassVar[str] = "move an existing run directory aside and start again"

    preset: str = ""
    save: str = option("", "name of the run directory (empty: derived from the configuration)",
                       identity=False, group="run and machine")
    runs: str = option("runs", "folder of all run directories", identity=False)
    seed: int = option(0, "seed of all random numbers; the same seed on the same machine gives the same result")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU if there is one, else the CPU", identity=False)
    report_freq: int = option(50, "training batches between two updates of the progress line", identity=False)
    track: str = option("", "experiment tracker that gets the numbers of metrics.jsonl, too; empty: none",
                        choices=TRACKERS, identity=False, added=True)
    data: str = option("data", "folder of the data set", identity=False, group="data")
    max_train: int = option(0, "number of training images, a class-balanced random choice (0: all)")


def require_step(name: str, value: float) -> None:
    """Refuse the step of an attack that is negative or crosses all pixels; 0 stands for the default.

    Raises:
        InputError: naming the step.
    """
    require(0 <= value < 1, f"{name} is {value:g}; expected 0 or more, below 1, in pixels of [0, 1]{meant(value)}")


def expected_strength(value: float) -> str:
    """Return what was expected in place of an L-inf strength outside (0, 1)."""
    return f"expected pixels of [0, 1], strictly inside (0, 1){meant(value)}"


def meant(value: float) -> str:
    """Return the question whether a number from 1 to 254 was meant in 255ths; nothing for another number."""
    return f"; was {value:g}/255 meant?" if 1 <= value < 255 else ""


def format_epsilon(epsilon: float) -> str:
    """Return a strength in both common units: ``0.0300 (7.65/255)``."""
    return f"{epsilon:.4f} ({epsilon * 255:.4g}/255)"


@dataclasses.dataclass(frozen=True)
class Invocation:
    """Hold the flags that are not part of the configuration."""

    dry_run: bool
    overwrite: bool


def parse_config(cls: type[Config], presets: Mapping[str, Config] | None = None,
                 argv: Sequence[str] | None = None, prog: str | None = None) -> tuple[Config, Invocation]:
    """Read the command line. Flags override ``--config`` or ``--preset``, which override the dataclass' defaults.

    A dataclass may have a method ``adapted(flags)``: it returns the configuration that the flags override, where the
    default of one field depends on the flag of another. It may have a method ``unread()``: a flag that changes one of
    the fields that it names is refused, because it would be believed to count.

    Args:
        cls: the dataclass.
        presets: named instances of the configuration; the first one is the default.
        argv: the command line; None: that of this process.
        prog: name of the program in its messages.

    Returns:
        The configuration, and the flags that are not part of it.

    Raises:
        InputError: a flag is unknown (the closest ones are named), a value has the wrong type, the configuration file
            cannot be read, or ``__post_init__`` of the dataclass refuses the values.
    """
    presets = presets or {}
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(cls, presets, prog or Path(sys.argv[0]).stem, argv)
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        first: dict[str, str] = {}  # of the spellings of a flag
        known = {flag: first.setdefault(action.dest, flag) for action in parser._actions
                 for flag in action.option_strings}
        near = difflib.get_close_matches(unknown[0].split("=")[0][:100], known, n=6)
        close = list(dict.fromkeys(known[flag] for flag in near))[:3]
        parser.error(f"unknown argument {unknown[0]!r}" + (f"; did you mean {', '.join(close)}?" if close else ""))
    flags = vars(values)
    invocation = Invocation(flags.pop("dry_run"), flags.pop("overwrite", False))
    preset, path = flags.pop("preset", None), flags.pop("config")
    base: Any = presets[preset or next(iter(presets))] if presets else cls()
    if path is not None:
        require(preset is None, "--preset and --config cannot be given together: a config.json is complete")
        base = load_config(cls, path)
    overrides = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
    refuse_absurd(overrides)
    _sort(cls, overrides)
    if hasattr(base, "adapted"):
        base = base.adapted(flags)
    config = dataclasses.replace(base, **overrides)
    refuse_nonsense(vars(config))
    for name, why in config.unread().items() if hasattr(config, "unread") else ():
        changed = name in overrides and overrides[name] != getattr(base, name)
        require(not changed, f"--{name} is given, but nothing reads it: {why}, or no --{name}")
    return config, invocation


def _sort(cls: "type[DataclassInstance]", flags: dict[str, Any]) -> None:
    """Put numbers that must increase in order, and say which were not."""
    for field in dataclasses.fields(cls):
        given = flags.get(field.name, ())
        if field.metadata.get("increasing") and field.metadata["beside"] not in flags and list(given) != sorted(given):
            flags[field.name] = tuple(sorted(given))
            say(f"note: --{field.name} is sorted: {show(flags[field.name])}")


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Return the configuration as plain JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def _fits(value: Any, annotation: Any) -> bool:
    """Return whether a JSON value has the type of the field."""
    kind = inner_type(annotation)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(v, get_args(kind)[0]) for v in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Return the dataclass that JSON values describe.

    Args:
        cls: the dataclass.
        values: one value for each field.
        where: source of the values, for error messages.

    Raises:
        InputError: ``values`` is not a mapping, a field is unknown or missing, or the dataclass refuses a value.
    """
    require(isinstance(values, Mapping), f"{where}: expected a JSON object of configuration fields")
    values = up_to_date(cls, values)
    names = {field.name for field in dataclasses.fields(cls)}
    require(not set(values) - names, f"{where}: unknown configuration fields {sorted(set(values) - names)}")
    require(not names - set(values), f"{where}: missing configuration fields {sorted(names - set(values))}")
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, annotation, table = field.name, hints[field.name], choices_of(field)
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        require(_fits(values[name], annotation), f"{where}: {name} is {values[name]!r}; expected {kind}")
        given = values[name] if isinstance(values[name], list) else [values[name]]
        require(not table or all(value in table or value == "" == field.default for value in given),
                f"{where}: {name} is {values[name]!r}; expected one of {', '.join(table)}")
    refuse_absurd(values)
    config = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    refuse_nonsense(vars(config))
    return config


def load_config(cls: type[Config], path: str | Path) -> Config:
    """Read a ``config.json`` as written into every run directory.

    Raises:
        InputError: the file is missing or not JSON, or ``from_dict`` refuses its values.
    """
    return from_dict(cls, read_json(path, "the configuration"), str(path))


def describe(config: "DataclassInstance") -> str:
    """Return one aligned line for each field: its name and its value."""
    width = max(len(field.name) for field in dataclasses.fields(config))
    return "\n".join(f"  {field.name:<{width}}  {show(getattr(config, field.name))}"
                     for field in dataclasses.fields(config))


def identity_differences(config: "DataclassInstance", stored: Mapping[str, Any]) -> list[str]:
    """Return ``field: stored -> asked`` for each field that changes the result and differs from a stored one."""
    current, stored = to_dict(config), up_to_date(config, stored)
    return [f"{field.name}: {stored.get(field.name, 'absent')} -> {current[field.name]}"
            for field in dataclasses.fields(config)
            if field.metadata.get("identity", True) and stored.get(field.name, "absent") != current[field.name]]
