"""Imports that wait until what they name is used."""

import ast
import builtins
import importlib
import itertools
import sys
from functools import cache

import pytest

from tests.repository.test_structure import product_files, tree
from wsrnas.runtime.deferred import Deferred, deferred_imports, resolve

MODULE = '''
"""A module that is imported late."""
COUNT = 3
class Animal:
    def __init__(self, name="cat"):
        self.name = name
    @classmethod
    def dog(cls):
        return cls("dog")
def double(number):
    return 2 * number
'''


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module ``late_package.late`` that is not imported yet, and what a module with deferred imports holds."""
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("")
    (tmp_path / "late_package" / "late.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = itertools.count()

    def read(source):
        """Import a new module of this source, and return its names."""
        name = f"reader_{next(numbers)}"
        (tmp_path / "late_package" / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return vars(importlib.import_module(f"late_package.{name}"))

    yield read
    for name in [name for name in sys.modules if name.startswith("late_package")]:
        del sys.modules[name]


def put_off(source):
    """The source of a module that puts these imports off."""
    return ("from wsrnas.runtime.deferred import deferred_imports\nwith deferred_imports():\n    "
            + source.replace("\n", "\n    "))


def is_loaded():
    return "late_package.late" in sys.modules


def test_a_function_is_imported_by_its_first_call_and_then_stands_for_itself(late):
    names = late(put_off("from late_package.late import double as twice"))
    assert isinstance(names["twice"], Deferred) and names["twice"].__name__ == "double" and not is_loaded()
    assert names["twice"](4) == 8 and is_loaded()
    assert names["twice"] is sys.modules["late_package.late"].double


def test_a_class_builds_objects_has_attributes_and_knows_its_instances(late):
    names = late(put_off("from late_package.late import Animal"))
    kept = names["Animal"]
    assert not is_loaded()
    assert kept.dog().name == "dog" and is_loaded()
    assert isinstance(kept("owl"), kept) and not isinstance(3, kept)
    assert issubclass(names["Animal"], kept) and names["Animal"] is not kept

    class Bird(kept):
        pass
    assert Bird.__mro__[1] is names["Animal"]


def test_a_module_is_imported_by_its_first_attribute(late):
    for source, name in (("from late_package import late", "late"), ("from late_package import late as it", "it")):
        names = late(put_off(source))
        module = names[name]
        assert not is_loaded()
        assert module.COUNT == 3 and is_loaded() and names[name] is sys.modules["late_package.late"]
        del sys.modules["late_package.late"], sys.modules["late_package"].late
    names = late(put_off("import late_package"))
    assert names["late_package"].__path__ and names["late_package"] is sys.modules["late_package"]


def test_a_package_may_defer_its_own_modules(late, tmp_path):
    (tmp_path / "late_package" / "__init__.py").write_text(
        "from wsrnas.runtime.deferred import deferred_imports\nwith deferred_imports():\n"
        "    from late_package import late\ndef count():\n    return late.COUNT\n")
    package = importlib.import_module("late_package")
    assert not is_loaded() and package.count() == 3 and package.late is sys.modules["late_package.late"]


def test_what_is_missing_is_said_at_the_first_use(late):
    names = late(put_off("from late_package.late import nothing\nimport no_such_module"))
    with pytest.raises(ImportError, match=r"late_package\.late\.nothing"):
        names["nothing"]()
    with pytest.raises(ImportError, match="no_such_module"):
        names["no_such_module"].anything  # noqa: B018


def test_other_modules_are_imported_as_ever_meanwhile_and_afterwards(late):
    before = builtins.__import__
    with deferred_imports():
        other = late("from late_package.late import COUNT")
    assert other["COUNT"] == 3 and builtins.__import__ is before
    with pytest.raises(ZeroDivisionError), deferred_imports():
        1 / 0  # noqa: B018
    assert builtins.__import__ is before
    assert resolve(3) == 3


@cache
def blocks():
    """The statements of all blocks of deferred imports, by module."""
    return {name: [statement for node in tree(path).body if isinstance(node, ast.With)
                   and "deferred_imports" in ast.unparse(node.items[0]) for statement in node.body]
            for name, path in product_files().items() if "deferred_imports():" in path.read_text(encoding="utf-8")}


def test_deferred_imports_name_modules_functions_and_classes():
    assert "retrain.train_cifar" in blocks()
    for module, statements in blocks().items():
        for statement in statements:
            assert isinstance(statement, ast.Import | ast.ImportFrom), module
            for alias in statement.names:
                if isinstance(statement, ast.Import):
                    assert "." not in alias.name, f"{module}: write 'from package import module'"
                    continue
                found = resolve(Deferred(statement.module, alias.name, {}))
                assert callable(found) or type(found).__name__ == "module", f"{module}: {alias.name} is a constant"


def test_a_package_does_not_pass_deferred_names_on():
    """Modules that import them could not know, and would write ``Base.__init__(self)`` of what is not a class."""
    packages = [module for module in blocks() if product_files()[module].name == "__init__.py"]
    for module in packages:
        exported = getattr(importlib.import_module(module), "__all__", [])
        deferred = {alias.asname or alias.name for statement in blocks()[module] for alias in statement.names}
        assert not deferred & set(exported), module


def test_deferred_names_catch_no_exceptions():
    """The class after ``except`` must be a real one."""
    for module, statements in blocks().items():
        deferred = {alias.asname or alias.name for statement in statements for alias in statement.names}
        handlers = [node for node in ast.walk(tree(product_files()[module]))
                    if isinstance(node, ast.ExceptHandler) and node.type]
        caught = {name.id for handler in handlers for name in ast.walk(handler.type) if isinstance(name, ast.Name)}
        assert not caught & deferred, module
