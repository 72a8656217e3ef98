"""Tests use public names; where one cannot, a comment ``# private: ...`` says why."""

import ast
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))
OF_NAMED_TUPLES = ("_replace", "_asdict", "_make", "_fields")


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in OF_NAMED_TUPLES


def private_names(tree):
    """Line and name of every private name that is imported, read from another object, or given to ``setattr``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")) and node.attr != "_exit":
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setattr":
            yield from ((part.lineno, part.value) for part in node.args if isinstance(part, ast.Constant)
                        and isinstance(part.value, str) and is_private(part.value.rpartition(".")[2]))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_a_private_name_is_used_with_a_reason(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = [f"{path.name}:{line}: {name}" for line, name in private_names(ast.parse(text))
             if not any("# private:" in near for near in lines[max(0, line - 2):line])]
    assert found == []
