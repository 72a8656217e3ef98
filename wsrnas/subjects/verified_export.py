"""torch.export archives, checked before torch reads them, because reading one may execute what it holds.

``torch.export.load`` unpickles objects, evaluates the expressions of shapes and of guards as Python, imports the
modules that enumerations name, and generates code from names. So a copy is made that has none of this: the example
inputs, guards and remarks about the source are left out, and every other name, expression and target is checked.
"""

import ast
import io
import json
import re
from typing import Any

import torch

from wsrnas.runtime.errors import InputError
from wsrnas.runtime.reading import parse_json
from wsrnas.subjects.archives import packed, read_entries

NAME = re.compile(r"[A-Za-z0-9_.:+-]{0,300}")
SYMBOL = re.compile(r"[a-z]+_?[0-9]+|-?[0-9]{1,20}(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
LARGEST_POWER = 8
FUNCTIONS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "Abs", "FloorDiv", "CleanDiv",
    "ModularIndexing", "PythonMod", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "TruncToFloat", "ToFloat",
    "IntTrueDiv", "FloatTrueDiv", "Identity", "Where", "And", "Or", "Not", "Equality", "Unequality", "GreaterThan",
    "LessThan", "StrictGreaterThan", "StrictLessThan", "Eq", "Ne", "Ge", "Le", "Gt", "Lt", "floor", "ceiling",
    "Pow", "PowByNatural",
}
CONSTANTS = {"oo", "int_oo", "true", "false"}
NODES = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.BinOp,
         ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE,
         ast.Gt, ast.GtE)
NAMESPACES = {"aten", "prims", "torchvision"}
FORBIDDEN = {"from_file", "_print", "save"}  # operations of aten that read or write
PYTHON_OPERATORS = {"getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "eq",
                    "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"}
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
WRAPPERS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
EXPECTED = "expected a network of torch's own operations, as torch.export.save writes it"


def verified_export(data: bytes, what: str) -> io.BytesIO:
    """Return a copy of a torch.export archive that executes nothing when torch reads it.

    Args:
        data: The archive.
        what: Its name, for messages.

    Raises:
        InputError: An entry would execute something, or is not known.
    """
    entries, given = {}, read_entries(data, what)
    empty = {name.rpartition("/")[2] for name, content in given.items() if not content}
    for name, content in given.items():
        try:
            entries[name] = _verified_entry(name, content, empty)
        except _Refused as refused:
            raise InputError(f"{what}: {name} {refused}; {EXPECTED}") from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, MemoryError) as error:
            raise InputError(f"{what} cannot be loaded ({type(error).__name__} in {name}); {EXPECTED}") from None
    return packed(entries)


class _Refused(Exception):
    """Say what an entry does."""


def _verified_entry(name: str, content: bytes, empty: set[str]) -> bytes:
    base = name.rpartition("/")[2]
    if "sample_inputs" in name or "example_inputs" in name:
        return b""
    if base.endswith("_config.json"):
        document = json.loads(content)
        _check_payloads(document, empty)
        return json.dumps(document).encode()
    if re.search(r"(^|/)models/[^/]+\.json$|^serialized_exported_program\.json$", name):
        document = json.loads(content)
        _check(document, "")
        return json.dumps(document).encode()
    if base.endswith(".pt") or name in ("serialized_state_dict.json", "serialized_constants.json"):
        _check_tensors(content)  # torch does the same with the same bytes
    elif not re.fullmatch(r"(weight|tensor)_[0-9]+|archive_format|archive_version|version|byteorder|serialization_id"
                          r"|\.format_version|\.storage_alignment", base):
        raise _Refused("is not an entry of a network")
    return content


def _check_tensors(content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises half a dozen types, and its message tells how to execute it
        raise _Refused("holds pickled objects, and reading them could run any code") from None


def _check_payloads(document: Any, empty: set[str]) -> None:
    for name, payload in document["config"].items():
        if payload["use_pickle"] or payload.get("tensor_meta") is None:
            raise _Refused(f"has the pickled object {name[:50]!r}, and reading it could run any code")
        if not re.fullmatch(r"(weight|tensor)_[0-9]+", payload["path_name"]):
            raise _Refused(f"names the file {payload['path_name'][:50]!r}")
        if payload["path_name"] in empty and {"as_int": 0} not in payload["tensor_meta"]["sizes"]:
            raise _Refused(f"has no contents for the weight {name[:50]!r}")  # torch would allocate zeros of any size
    _check(document, "")


def _check(value: Any, key: str) -> None:
    """Check every text of a document, and leave out what a network does not need."""
    if isinstance(value, dict):
        for unneeded, nothing in (("guards_code", []), ("metadata", {}), ("treespec_namedtuple_fields", {})):
            if unneeded in value:
                value[unneeded] = nothing
        if "as_custom_obj" in value:
            raise _Refused("holds an object that is no tensor")
        for name, inner in value.items():
            _check_name(name)
            _check(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key in ("target", "as_operator") and "." in text and not _is_attribute(text):
        _check_target(text)
    elif key == "expr_str":
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        _, tree = parse_json(text)
        _check_tree(tree)
    elif key not in ("as_string", "as_strings"):  # these are quoted wherever they go
        _check_name(text)


def _is_attribute(text: str) -> bool:
    """Return whether a target is the path of a buffer, which input and output specifications also call target."""
    return not text.startswith(("_operator", "torch", "math", "#")) and NAME.fullmatch(text) is not None


def _check_name(text: str) -> None:
    if not NAME.fullmatch(text):
        raise _Refused(f"has the name {text[:50]!r}, of which code would be made")


def _check_target(text: str) -> None:
    first, *rest = text.split(".")
    if first == "_operator" and len(rest) == 1 and rest[0] in PYTHON_OPERATORS:
        return
    if first == "math" and len(rest) == 1 and rest[0] in ("ceil", "floor", "trunc"):
        return
    if first == "torch" and len(rest) == 1 and re.fullmatch(r"sym_[a-z]+", rest[0]):
        return
    if first == "torch" and rest[:2] == ["ops", "higher_order"] and len(rest) == 3 and rest[2] in WRAPPERS:
        return
    if first == "torch" and len(rest) == 4 and rest[0] == "ops" and rest[1] in NAMESPACES and _is_overload(*rest[1:]):
        return
    raise _Refused(f"calls {text[:80]!r}")


def _is_overload(namespace: str, operation: str, overload: str) -> bool:
    """Return whether there is such an operation, one without effects."""
    if operation.startswith("__") or operation in FORBIDDEN:
        return False
    packet = getattr(getattr(torch.ops, namespace), operation, None)
    return isinstance(packet, torch._ops.OpOverloadPacket) and overload in packet.overloads()


def _check_expression(text: str) -> None:
    """Refuse the expression of a shape unless it consists of known functions of symbols and numbers."""
    if len(text) > 2000:
        raise _Refused("has an expression of a shape that is too long")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        raise _Refused(f"has {text[:50]!r} as the expression of a shape") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        good = isinstance(node, NODES)
        if isinstance(node, ast.Name):
            good = node.id in (FUNCTIONS if id(node) in called else CONSTANTS) or (
                id(node) not in called and SYMBOL.fullmatch(node.id) is not None)
        elif isinstance(node, ast.Constant):
            good = isinstance(node.value, bool) or SYMBOL.fullmatch(str(node.value)) is not None
        elif isinstance(node, ast.Call):
            good = isinstance(node.func, ast.Name) and ("Pow" not in node.func.id or _small(node.args[-1]))
        if not good:
            raise _Refused(f"has {text[:50]!r} as the expression of a shape")


def _small(power: ast.expr) -> bool:
    """Return whether a power is a small number: a large one takes for ever."""
    if isinstance(power, ast.Call) and len(power.args) == 1:
        power = power.args[0]
    return isinstance(power, ast.Constant) and isinstance(power.value, int) and 0 <= power.value <= LARGEST_POWER


def _check_tree(tree: Any) -> None:
    """Refuse a tree of inputs or outputs unless it consists of tuples, lists and dictionaries."""
    if tree["type"] not in CONTAINERS:
        raise _Refused(f"has inputs or outputs of the type {str(tree['type'])[:50]!r}")
    context = json.loads(tree["context"]) if tree["context"] is not None else None
    keys = context if isinstance(context, list) else [context]
    if not all(key is None or isinstance(key, (str, int)) for key in keys):
        raise _Refused("has inputs or outputs with keys that are no text")
    for key in keys:
        if isinstance(key, str):
            _check_name(key)
    for child in tree["children_spec"]:
        _check_tree(child)
