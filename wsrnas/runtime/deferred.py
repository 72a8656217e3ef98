"""Put off imports until what they name is used: help and configuration errors then need no torch.

    with deferred_imports():
        from wsrnas.training.trainer import Trainer

Python 3.15 writes it ``lazy from wsrnas.training.trainer import Trainer`` (PEP 810), with the same meaning. Modules,
functions and classes can be put off, constants cannot.
"""

import builtins
import gc
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()  # one block at a time: each replaces ``builtins.__import__``


class Deferred:
    """Stand for a module, or for a function or class of it, and import it when it is used.

    Args:
        module: name of the module.
        name: name in the module; empty for the module itself.
        importer: global names of the module with the import statement. There the first use puts the real object.
    """

    def __init__(self, module: str, name: str, importer: dict[str, Any]) -> None:
        self.__dict__.update(_module=module, _name=name, _importer=importer, __name__=name or module)

    def __getattr__(self, name: str) -> Any:
        return getattr(resolve(self), name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call what this stands for."""
        return resolve(self)(*arguments, **keywords)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, resolve(self))

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, resolve(self))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (resolve(self),)

    def __repr__(self) -> str:
        return f"<deferred {self._module}{f'.{self._name}' * bool(self._name)}>"


def resolve(value: Any) -> Any:
    """Return the object that a ``Deferred`` stands for; anything else is returned as it is."""
    if not isinstance(value, Deferred):
        return value
    module, name, importer = value._module, value._name, value._importer
    with _no_garbage():
        found: Any = importlib.import_module(module)
    if name:
        found = getattr(found, name, value)
        if found is value:  # a module of a package, whose own name in the package this may be
            found = importlib.import_module(f"{module}.{name}")
    for key in [key for key, held in importer.items() if held is value]:
        importer[key] = found
    return found


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage meanwhile: what an import makes stays, and torch's import takes a seventh less time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Names(ModuleType):
    """What ``from MODULE import NAME`` takes its names from."""

    def __init__(self, module: str, importer: dict[str, Any]) -> None:
        super().__init__(module)
        self.importer = importer

    def __getattr__(self, name: str) -> Deferred:
        return Deferred(self.__name__, name, self.importer)


@contextmanager
def deferred_imports() -> Iterator[None]:
    """Put off the imports of one module that stand in this block: ``import a``, ``from a.b import c``."""
    importer = sys._getframe(2).f_globals
    with _LOCK:
        original = builtins.__import__

        def put_off(name: str, globals: Mapping[str, Any] | None = None, locals: Mapping[str, Any] | None = None,
                    fromlist: Sequence[str] | None = (), level: int = 0) -> Any:
            if globals is not importer:  # another thread imports something meanwhile
                return original(name, globals, locals, fromlist or (), level)
            return _Names(name, importer) if fromlist else Deferred(name.partition(".")[0], "", importer)

        builtins.__import__ = put_off
        try:
            yield
        finally:
            builtins.__import__ = original
