"""The flags of a configuration: one for each field, in titled groups, with units and the values of a preset."""

import argparse
import dataclasses
import inspect
import math
import os
import re
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from wsrnas.runtime.errors import InputError
from wsrnas.runtime.options import choices_of, help_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FIRST = "what people change first"
OTHER = "other"
LAST = ("speed", "run and machine", OTHER)
NOTE = """EPS is an L-inf radius in pixels of [0, 1], such as 8/255 or 0.031. Flags may be written with hyphens, too:
--batch-size is --batch_size."""
UNITS = (
    (r"num_.*_strengths", "N"),
    (r"epsilon|.*_epsilon|.*strengths|sources|single_source|spectrum|step_size", "EPS"),
    (r".*epochs|milestones|select_every|.*_warmup", "EPOCHS"),
    (r".*_steps|save_every", "STEPS"),
    (r"max_(train|test|validation|estimator_train)|held_out|images|.*_images|batch_size|.*_batch_size", "IMAGES"),
    (r".*_batches|report_freq|rotation", "BATCHES"),
    (r"init_channels", "CHANNELS"),
    (r"(.*_)?layers", "CELLS"),
    (r"seed|.*_seed", "SEED"),
    (r"image_size|cutout", "PIXELS"),
    (r"workers", "PROCESSES"),
    (r"iterations", "ITERATIONS"),
)
"""Units of numbers by the names of fields, which mean the same in every program."""
PLACES = r"data|runs|run|out|table|ranking_table|supernet|state_dict|source"
"""Fields that are the path of a file or a folder."""


def parse_number(text: str) -> float:
    """Return ``"0.031"`` or ``"8/255"`` as a float."""
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.031 or 8/255") from None


def within(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], Any]:
    """Return the ``type`` of a flag for finite numbers from ``least`` to ``most``."""
    name = "a whole number" if kind is int else "a number"
    wanted = f"{name} from {least:g} to {most:g}" if most < math.inf else f"{name} of at least {least:g}"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return read


class Parser(argparse.ArgumentParser):
    """Say what is wrong with a command line in one sentence, without the usage."""

    command: ClassVar[str] = ""
    """What the user has typed to start the program, where that is not its module: ``wsrnas train``."""

    def __init__(self, prog: str | None = None, **settings: Any) -> None:
        super().__init__(prog=self.command or prog, **settings)
        # Python before 3.14 takes -1/255 and -1e-3 for flags; as values they are refused with the right words.
        self._negative_number_matcher = re.compile(r"-(\.?\d|inf|nan)")

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{self.prog}: {message} (see --help)")


def inner_type(annotation: Any) -> Any:
    """Return the annotation without ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


_ENTRIES = {float: (parse_number, "X"), int: (int, "N"), str: (str, "TEXT")}  # how it is read and called


class Help(argparse.RawDescriptionHelpFormatter):
    """Leave names whole at their hyphens, and more room for the flags."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, **settings})

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def unit_of(field: dataclasses.Field, kind: Any) -> str:
    """Return what stands for a value in ``--help``: its unit, PATH, or the kind of value.

    Args:
        field: field of a configuration.
        kind: type of a single value.
    """
    if unit := field.metadata.get("unit"):
        return str(unit)
    if kind is str:
        named = choices_of(field) or field.name == "save"
        return "PATH" if re.fullmatch(PLACES, field.name) else "NAME" if named else "TEXT"
    found = next((unit for pattern, unit in UNITS if re.fullmatch(pattern, field.name)), "")
    return found or _ENTRIES[kind][1]


def _arguments(field: dataclasses.Field, annotation: Any) -> dict[str, Any]:
    """Return the arguments of ``add_argument`` for a field."""
    annotation = inner_type(annotation)
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation), "metavar": "{" + ",".join(map(str, get_args(annotation))) + "}"}
    several = get_origin(annotation) is tuple
    kind = get_args(annotation)[0] if several else annotation
    # A shell leaves ~ as it is after "=": the results would be in a folder of that name.
    entry = os.path.expanduser if kind is str and re.fullmatch(PLACES, field.name) else _ENTRIES[kind][0]
    found: dict[str, Any] = {"type": entry, "metavar": unit_of(field, kind)}
    if several:
        found["nargs"] = "+"
    if names := list(choices_of(field)):
        found["choices"] = [*names, *[""] * (field.default == "")]
    return found


def show(value: Any) -> str:
    """Return a value as a command line would have it."""
    if isinstance(value, tuple):
        return " ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def groups_of(cls: type[Any]) -> dict[str, str]:
    """Return the title of the group of each field of a configuration.

    ``option(group=...)`` gives the title of a field and of those after it in its class. A field that a class has from
    another one stays in its group. The fields in ``cls.first_flags`` stand before all others.
    """
    titles: dict[str, str] = {}
    for owner in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        title = OTHER
        known = {field.name: field for field in dataclasses.fields(owner)}
        for name in filter(known.__contains__, inspect.get_annotations(owner)):
            given = known[name].metadata.get("group", "")
            if given or name not in titles:
                title = given or title
                titles[name] = title
    return titles | dict.fromkeys(getattr(cls, "first_flags", ()), FIRST)


def asked_preset(argv: Sequence[str], flags: Sequence[str], presets: Mapping[str, Any]) -> str:
    """Return the preset that a command line names, or the first one."""
    named = [word.partition("=")[2] if "=" in word else following
             for word, following in zip(argv, [*argv, ""][1:], strict=True) if word.partition("=")[0] in flags]
    return next((name for name in reversed(named) if name in presets), next(iter(presets)))


def make_parser(cls: "type[DataclassInstance]", presets: Mapping[str, Any], prog: str,
                argv: Sequence[str] = ()) -> Parser:
    """Return the parser of a configuration's flags.

    Args:
        cls: the dataclass.
        presets: named instances; the first one is the default.
        prog: name of the program in messages.
        argv: the command line, which says of which preset ``--help`` shows the values.
    """
    preset_flags = getattr(cls, "preset_flags", ("--preset",))
    preset = f" [{preset_flags[0]} NAME]" if presets else ""
    about = "" if sys.flags.optimize > 1 else (cls.__doc__ or "").strip()  # -OO leaves the signature of a dataclass
    parser = Parser(prog=prog, description=about, epilog=NOTE, allow_abbrev=False,
                    usage=f"%(prog)s [-h]{preset} [--FLAG VALUE ...]", formatter_class=Help, add_help=False)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    general = parser.add_argument_group("start")
    general.add_argument("-h", "--help", action="help", help="show this text, with the values of the preset that is "
                         "asked for, and stop" if presets else "show this text and stop")
    if presets:
        shown = asked_preset(argv, preset_flags, presets)
        defaults |= dataclasses.asdict(presets[shown])
        general.add_argument(*preset_flags, dest="preset", choices=list(presets), metavar="NAME",
                             help=f"named configuration: {', '.join(presets)}. Any flag overrides it; below are the "
                                  f"values of {shown} (default: {next(iter(presets))})")
    general.add_argument("--config", type=Path, metavar="PATH", help="start from a config.json of an earlier run")
    general.add_argument("--dry_run", action="store_true",
                         help="print the resolved configuration and the cost of the run, then stop"
                         + "; with --download, the data set is downloaded first" * ("download" in defaults))
    general.add_argument("--dry-run", dest="dry_run", action="store_true", help=argparse.SUPPRESS)
    if overwrite_help := getattr(cls, "overwrite_help", ""):
        general.add_argument("--overwrite", action="store_true", help=overwrite_help)
    _add_fields(parser, cls, defaults)
    return parser


def _add_fields(parser: Parser, cls: "type[DataclassInstance]", defaults: Mapping[str, Any]) -> None:
    """Add the flags of all fields, group by group in the order of their first field, those of ``LAST`` last."""
    hints, titles = get_type_hints(cls), groups_of(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "preset"}
    order = [*getattr(cls, "first_flags", ()), *(name for name in fields if titles[name] != FIRST)]
    sections = {title: parser.add_argument_group(title) for title in sorted(
        dict.fromkeys(titles[name] for name in order), key=lambda title: LAST.index(title) if title in LAST else -1)}
    for name in order:
        field, section = fields[name], sections[titles[name]]
        arguments = {"dest": name, "default": argparse.SUPPRESS, **_arguments(field, hints[name])}
        text = f"{help_of(field)} (default: {show(defaults[name]) or 'empty'})".replace("%", "%%")
        section.add_argument(f"--{name}", help=text, **arguments)
        others = [name.replace("_", "-"), *(spelling for alias in field.metadata.get("aliases", ())
                                            for spelling in (alias, alias.replace("_", "-")))]
        for other in dict.fromkeys(others):
            if other != name:
                section.add_argument(f"--{other}", help=argparse.SUPPRESS, **arguments)
