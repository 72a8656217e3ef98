"""Which operators a function calls, and whether any of them would make the host wait for a device."""

from torch import Tensor, ops
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operators(TorchDispatchMode):
    """Counts operators and the elements that they write; refuses what would make the host wait for a device.

    Its tensors are on the meta device, where whoever looks at a value fails anyway. What is left are copies from the
    host: a Python list made a tensor, or a tensor that somebody left on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.elements = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not ops.aten.lift_fresh.default, "a tensor of Python numbers is copied to the device"
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        assert all(tensor.is_meta for tensor in tensors), f"{function} is given a tensor of the host"
        result = function(*args, **(kwargs or {}))
        self.calls += 1
        self.elements += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result
