"""Turn a frozen dataclass into a command line: fields become flags, instances presets, values JSON."""

import argparse
import dataclasses
import difflib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import read_json
from wsrnas.runtime.sanity import refuse_absurd, refuse_nonsense

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


Choices = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


def option(default: Any, help: str | Callable[[], str], *, identity: bool = True, aliases: tuple[str, ...] = (),
           choices: Choices | None = None, added: bool = False) -> Any:
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
    """
    return dataclasses.field(default=default, metadata={"help": help, "identity": identity, "aliases": aliases,
                                                        "choices": choices, "added": added})


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


class Ranges:
    """Refuse fields of a configuration that are out of range."""

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
            require(0 < getattr(self, name) < 1,
                    f"{name} is {getattr(self, name):g}; expected pixels of [0, 1], strictly inside (0, 1)")


@dataclasses.dataclass(frozen=True)
class RunConfig(Ranges):
    """Hold the fields of every program that trains: which run, where, on which data."""

    preset_flags: ClassVar[tuple[str, ...]] = ("--preset",)
    overwrite_help: ClassVar[str] = "move an existing run directory aside and start again"

    preset: str = ""
    save: str = option("", "name of the run directory (empty: derived from the configuration)",
                       identity=False)
    runs: str = option("runs", "folder of all run directories", identity=False)
    seed: int = option(0, "seed of all random numbers; the same seed on the same machine gives the same result")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU if there is one, else the CPU", identity=False)
    report_freq: int = option(50, "training batches between two updates of the progress line", identity=False)
    data: str = option("data", "folder of the data set", identity=False)
    max_train: int = option(0, "number of training images, a class-balanced random choice (0: all)")


def parse_number(text: str) -> float:
    """Return ``"0.031"`` or ``"8/255"`` as a float."""
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.031 or 8/255") from None


def format_epsilon(epsilon: float) -> str:
    """Return a strength in both common units: ``0.0300 (7.65/255)``."""
    return f"{epsilon:.4f} ({epsilon * 255:.4g}/255)"


@dataclasses.dataclass(frozen=True)
class Invocation:
    """Hold the flags that are not part of the configuration."""

    dry_run: bool
    overwrite: bool


class Parser(argparse.ArgumentParser):
    """Say what is wrong with a command line in one sentence, without the usage."""

    command: ClassVar[str] = ""
    """What the user has typed to start the program, where that is not its module: ``wsrnas train``."""

    def __init__(self, prog: str | None = None, **settings: Any) -> None:
        super().__init__(prog=self.command or prog, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{self.prog}: {message} (see --help)")


def _inner_type(annotation: Any) -> Any:
    """Return the annotation without ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


_ENTRIES = {float: (parse_number, "X"), int: (int, "N"), str: (str, "TEXT")}  # of lists: how each is read, and its name


def _flag_arguments(annotation: Any) -> dict[str, Any]:
    annotation = _inner_type(annotation)
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation), "metavar": "{" + ",".join(map(str, get_args(annotation))) + "}"}
    if get_origin(annotation) is tuple:
        kind, metavar = _ENTRIES[get_args(annotation)[0]]
        return {"nargs": "+", "type": kind, "metavar": metavar}
    return {"type": parse_number if annotation is float else annotation, "metavar": annotation.__name__.upper()}


def _spellings(name: str) -> list[str]:
    """Return the flags of a field: ``--batch_size`` and ``--batch-size``."""
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def _parser(cls: type[Config], presets: Mapping[str, Config], prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description=(cls.__doc__ or "").strip(), allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if presets:
        parser.add_argument(*getattr(cls, "preset_flags", ("--preset",)), dest="preset", choices=list(presets),
                            metavar="{" + ",".join(presets) + "}",
                            help=f"named configuration; any flag overrides it (default: {next(iter(presets))})")
    parser.add_argument("--config", type=Path, metavar="PATH", help="start from a config.json of an earlier run")
    parser.add_argument("--dry_run", "--dry-run", action="store_true",
                        help="print the resolved configuration and the cost of the run, then stop")
    if overwrite_help := getattr(cls, "overwrite_help", ""):
        parser.add_argument("--overwrite", action="store_true", help=overwrite_help)
    hints = get_type_hints(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    defaults |= dataclasses.asdict(next(iter(presets.values()))) if presets else {}
    for field in dataclasses.fields(cls):
        if field.name == "preset":
            continue
        flags = _spellings(field.name)
        text = f"{help_of(field)} (default: {_show(defaults[field.name])})".replace("%", "%%")
        arguments = _flag_arguments(hints[field.name])
        if names := list(choices_of(field)):
            empty = [""] if field.default == "" else []
            arguments |= {"choices": [*names, *empty], "metavar": "{" + ",".join(names) + "}"}
        parser.add_argument(*flags, dest=field.name, default=argparse.SUPPRESS, help=text, **arguments)
        for alias in field.metadata.get("aliases", ()):
            parser.add_argument(*_spellings(alias), dest=field.name, default=argparse.SUPPRESS, help=argparse.SUPPRESS,
                                **arguments)
    return parser


def parse_config(cls: type[Config], presets: Mapping[str, Config] | None = None,
                 argv: Sequence[str] | None = None, prog: str | None = None) -> tuple[Config, Invocation]:
    """Read the command line. Flags override ``--config`` or ``--preset``, which override the dataclass' defaults.

    A dataclass may have a method ``adapted(flags)``: it returns the configuration that the flags override, where the
    default of one field depends on the flag of another.

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
    parser = _parser(cls, presets, prog or Path(sys.argv[0]).stem)
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        close = difflib.get_close_matches(unknown[0].split("=")[0][:100], known, n=3)
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
    if hasattr(base, "adapted"):
        base = base.adapted(flags)
    config = dataclasses.replace(base, **overrides)
    refuse_nonsense(vars(config))
    return config, invocation


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Return the configuration as plain JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def _fits(value: Any, annotation: Any) -> bool:
    """Return whether a JSON value has the type of the field."""
    kind = _inner_type(annotation)
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
    return "\n".join(f"  {field.name:<{width}}  {_show(getattr(config, field.name))}"
                     for field in dataclasses.fields(config))


def identity_differences(config: "DataclassInstance", stored: Mapping[str, Any]) -> list[str]:
    """Return ``field: stored -> asked`` for each field that changes the result and differs from a stored one."""
    current, stored = to_dict(config), up_to_date(config, stored)
    return [f"{field.name}: {stored.get(field.name, 'absent')} -> {current[field.name]}"
            for field in dataclasses.fields(config)
            if field.metadata.get("identity", True) and stored.get(field.name, "absent") != current[field.name]]
