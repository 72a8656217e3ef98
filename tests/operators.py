"""Which operators a function calls, and whether any of them would make the host wait for a device."""

from contextlib import nullcontext

import torch
from torch import Tensor, ops
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsrnas.runtime.seeding import generator

META = torch.device("meta")


class NumbersOfTheHost(TorchFunctionMode):
    """Refuses tensors that are made of Python numbers: a copy to the device, which the host waits for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, Tensor.new_tensor), f"{function} of Python numbers"
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Counts operators and the elements that they write; refuses what would make the host wait for a device.

    Its tensors are on the meta device, where whoever looks at a value fails anyway. What is left are copies from the
    host: a Python list made a tensor, or a tensor that somebody left on the CPU.

    Args:
        host_counts: whether single numbers may be on the host, where optimisers count their steps.
    """

    def __init__(self, host_counts: bool = False) -> None:
        super().__init__()
        self.calls, self.elements, self.host_counts = 0, 0, host_counts
        self.numbers = nullcontext() if host_counts else NumbersOfTheHost()

    def __enter__(self):
        self.numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.numbers.__exit__(*exception)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not self.host_counts:
            assert function is not ops.aten.lift_fresh.default, "a tensor of Python numbers is copied to the device"
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            host = isinstance(leaf, Tensor) and not leaf.is_meta
            assert not host or (self.host_counts and leaf.ndim == 0), f"{function} has a tensor of the host"
        self.calls += 1
        self.elements += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


class Autocast(torch.autocast):
    """torch's autocast, which on the device meta does what it does on a CPU instead of refusing it."""

    def __init__(self, device_type, *arguments, **named) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *arguments, **named)


def on_meta(monkeypatch) -> None:
    """Let what has no form for the device meta go on there: generators of random numbers, and autocast."""
    for module in ("wsrnas.training.trainer", "wsrnas.evaluation.accuracy"):
        monkeypatch.setattr(f"{module}.generator", lambda *parts, device="cpu": generator(*parts))
    monkeypatch.setattr(torch, "autocast", Autocast)
