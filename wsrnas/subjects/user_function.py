"""A network from a user's own Python file; an exception of their code becomes one sentence."""

import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from wsrnas.runtime.arithmetic import precision
from wsrnas.runtime.errors import InputError, named_line, type_in_words

MODULE = "_network_of_"  # a user's file runs as a module whose name begins so


def call_function(file: Path, name: str) -> tuple[nn.Module, bytes]:
    """Return the network that a function of a user's Python file returns, and a hash of its code.

    The function is called without arguments. While the file runs, imports find its folder first. The hash covers the
    name, the file, and every other file of its folder that is loaded as a module when the function has returned,
    whichever network's file imported it. It does not cover modules outside the folder, installed packages, this
    package and the running program (where they are in the folder), modules that are imported only when the network is
    called, or data that the code reads.

    Args:
        file: The Python file.
        name: The name of the function.

    Raises:
        InputError: There is no such file or function, it raised something, or it returned something else.
    """
    given = f"{file}:{name}"
    if not os.path.isfile(file):
        raise InputError(f"no Python file at {file}; expected FILE.py:FUNCTION")
    folder = file.absolute().parent
    try:
        with _settings_stay(), _imports_from(folder):
            module = _execute(file)
            model = _checked_function(module, name, given)()
            code = _hash_of_code(Path(os.path.abspath(file)), name)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code: whatever it raises is the answer
        raise InputError(f"{given} raised {named_line(error)}{_place(error, folder)}{_looked_for(error, folder)}"
                         ) from None
    if not isinstance(model, nn.Module):
        raise InputError(f"{given} returned {type_in_words(model)}; expected a torch.nn.Module")
    return model, code


def _checked_function(module: ModuleType, name: str, given: str) -> Callable[[], object]:
    """Return a function of a module, if it can be called without arguments."""
    function = getattr(module, name, None)
    if function is None:
        functions = [key for key, value in vars(module).items()
                     if callable(value) and getattr(value, "__module__", "") == module.__name__]
        there = f"; it has {', '.join(functions)}" if functions else ""
        raise InputError(f"{given} names no function of the file; expected FILE.py:FUNCTION{there}")
    if isinstance(function, nn.Module) or not callable(function):
        raise InputError(f"{given} is {type_in_words(function)}; expected a function without arguments that returns "
                         "the network")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(f"{given} needs arguments ({error}); expected a function without arguments") from None
    except ValueError:  # a callable written in C has no signature
        pass
    return function


def _execute(file: Path) -> ModuleType:
    """Run a Python file as a module whose name hides no other module."""
    name = f"{MODULE}{hashlib.blake2b(str(file.absolute()).encode(), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # as for every path that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def _hash_of_code(file: Path, name: str) -> bytes:
    digest = hashlib.blake2b(name.encode())
    for path in sorted({file, *_loaded_from(file.parent)}):
        digest.update(f"\0{path.relative_to(file.parent)}\0".encode() + hashlib.blake2b(path.read_bytes()).digest())
    return digest.digest()


def _loaded_from(folder: Path) -> Iterator[Path]:
    """Yield the files of modules loaded from ``folder``, except those that the hash of ``call_function`` leaves out."""
    main = sys.modules["__main__"]
    in_package = getattr(getattr(main, "__spec__", None), "parent", "")
    # A network beside this package stays the same network when this package changes.
    ours = [Path(__file__).parents[1]] + ([Path(main.__file__).parent] if in_package else [])
    # Python itself may be in the folder, which may be a home folder.
    ours += [Path(place) for place in map(sysconfig.get_path, ("stdlib", "platstdlib")) if place]
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None) or ""
        if not os.path.isabs(origin) or name.startswith((MODULE, "__main__")):  # torch.ops has a relative one
            continue
        path = Path(os.path.abspath(origin))  # without "..", yet links are not followed: they may lead elsewhere
        if not path.is_relative_to(folder) or not path.is_file():
            continue
        if "site-packages" not in path.relative_to(folder).parts and not any(map(path.is_relative_to, ours)):
            yield path


@contextmanager
def _settings_stay() -> Iterator[None]:
    """Put back what a user's file may set for the whole program: other networks and attacks would run with it."""
    folder, dtype, device, restore = Path.cwd(), torch.get_default_dtype(), torch.get_default_device(), precision()
    try:
        yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        restore()


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Let imports find ``folder`` first, even where a module of the same name is loaded from elsewhere.

    Such names are common (genotypes.py, operations.py, models/): without this, a network would silently be built from
    the parts of another one. Afterwards, the modules that were loaded before are back.
    """
    own = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    own -= {"__init__", "__main__"}
    loose = {path.name for path in folder.iterdir() if path.is_dir()} - own  # folders that can be imported, too

    def hides(name: str) -> bool:
        top = name.partition(".")[0]
        module = sys.modules.get(top)
        origin = getattr(module, "__file__", None)
        if top in sys.stdlib_module_names or (origin and Path(origin).absolute().is_relative_to(folder)):
            return False
        return top in own or (top in loose and module is not None and not origin)

    hidden = {name: module for name, module in sys.modules.items() if hides(name)}
    tops = {name.partition(".")[0] for name in hidden}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _place(error: BaseException, folder: Path) -> str:
    """Return the innermost line and file of the user's own code that an error comes from; empty if it has none."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    own = [f" (line {line} of {Path(file).name})" for file, line in frames
           if Path(file).is_relative_to(folder) and "site-packages" not in file]
    return own[-1] if own else ""


def _looked_for(error: BaseException, folder: Path) -> str:
    """Return where a relative path was looked for, if the file is beside the user's code; else nothing."""
    name = error.filename if isinstance(error, FileNotFoundError) else None
    if not isinstance(name, str) or os.path.isabs(name) or not (folder / name).exists():
        return ""
    return (f"; it was looked for in {Path.cwd()}, and is in {folder}: expected "
            f"Path(__file__).with_name({Path(name).name!r}), or the program started in that folder")
