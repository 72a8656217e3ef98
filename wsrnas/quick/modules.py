"""The sub-modules of a network: all of them, or those that its next forward runs."""

from collections.abc import Collection

import torch
from torch import nn


def every_module(model: nn.Module, but: Collection[nn.Module] = ()) -> dict[nn.Module, None]:
    """Return a network and its sub-modules, each once; ``modules()`` takes twice as long, for it also names them.

    Args:
        model: the network.
        but: modules to leave out, with all that is in them.
    """
    found: dict[nn.Module, None] = {model: None}
    waiting = [model]
    while waiting:
        new = [child for child in waiting.pop()._modules.values()
               if child is not None and child not in found and child not in but]
        found.update(dict.fromkeys(new))
        waiting += new
    return found


def modules_in_use(model: nn.Module) -> dict[nn.Module, None]:
    """Return the modules that the next forward can run, each once: of a supernet, those of its current path.

    A network with modules that stand idle has a method ``idle_modules()``, which returns them.
    """
    idle = getattr(model, "idle_modules", None)
    return every_module(model, idle() if callable(idle) else ())


def set_flag(module: nn.Module, name: str, value: bool) -> None:
    """Set a flag without nn.Module's ``__setattr__``, which takes a tenth of the time in a supernet."""
    if isinstance(module, torch.jit.ScriptModule):
        setattr(module, name, value)  # its flags live in C++
    else:
        object.__setattr__(module, name, value)
