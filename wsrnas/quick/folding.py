"""Fold BatchNorm into the convolutions before it while an attack runs: with fixed weights, the two are one.

Weights and buffers are only read. A folded module gets a ``forward`` of its own, which is removed at the end.
docs/PERFORMANCE.md has what this saves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from wsrnas.quick.modules import modules_in_use
from wsrnas.quick.strided import FewChannels
from wsrnas.quick.winograd import suits, winograd

Forward = Callable[[Tensor], Tensor]

FOREIGN = ("torch.nn.parallel", "torch.distributed", "torch.jit", "torch.fx", "torch._dynamo", "torch.ao")
"""Modules of classes from here run their children in a way of their own."""


class Affine(NamedTuple):
    """BatchNorm in evaluation mode, x -> scale * x + shift; both are (1, C, 1, 1).

    ``factor`` is what the output of the BatchNorm is multiplied by, which both contain already.
    """

    scale: Tensor
    shift: Tensor
    factor: Tensor | None = None


Affines = dict[nn.Module, Affine]


@contextmanager
def folded(model: nn.Module) -> Iterator[nn.Module]:
    """Run a network with BatchNorm folded into convolutions; at the end, everything is as before.

    Outputs and gradients of the input are the same up to rounding. Weights, buffers, modes and the path of a supernet
    must not change inside. A convolution and a BatchNorm are folded where it is certain that one follows the other: as
    neighbours in an ``nn.Sequential``, and in classes that say so (``before_norm``). Every other BatchNorm becomes one
    multiplication and addition. Convolutions with many channels are computed in fewer products (``winograd``).

    Whatever is not understood stays as it is: BatchNorm with the batch's statistics, or of a class other than
    ``nn.BatchNorm2d``; modules with hooks, a parametrisation or a ``forward`` of their own; parameters that need a
    gradient; anything under autocast; and whole networks with a compiled, scripted, traced or distributed part.
    """
    modules = list(modules_in_use(model))
    forwards: dict[nn.Module, Forward] = {}
    with ExitStack() as stack:
        if _understood(modules):
            affines = _affines([module for module in modules if _is_fixed_norm(module)])
            stack.enter_context(_scaled(model, affines))
            forwards = _forwards(modules, affines)
        try:
            for module, forward in forwards.items():
                object.__setattr__(module, "forward", forward)
            yield model
        finally:
            for module in forwards:
                vars(module).pop("forward", None)


# -- what may be folded -----------------------------------------------------------------------------------------------

def _understood(modules: Sequence[nn.Module]) -> bool:
    """Return whether a network calls its modules as they are."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        return False
    if any(getattr(global_hooks, f"_global_{kind}_hooks") for kind in ("forward_pre", "forward", "backward_pre",
                                                                       "backward")):
        return False
    if any(base.__module__.startswith(FOREIGN) for kind in set(map(type, modules)) for base in kind.__mro__):
        return False
    return all(vars(module).get("_compiled_call_impl") is None for module in modules)


def calls_are_plain(modules: Sequence[nn.Module]) -> bool:
    """Return whether all of these modules are called as they are, and do what their classes say."""
    return _understood(modules) and all(map(_plain, modules))


def _plain(module: nn.Module) -> bool:
    """Return whether a module does what its class says: it has neither hooks nor a ``forward`` of its own."""
    return not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks or "forward" in vars(module))


def _fixed(*tensors: Tensor | None) -> bool:
    """Return whether these are ordinary numbers of one precision, on one device and without gradient."""
    present = [tensor for tensor in tensors if tensor is not None]
    return (len({(tensor.dtype, tensor.device) for tensor in present}) == 1
            and present[0].dtype in (torch.float32, torch.float64)
            and all(type(tensor) in (Tensor, nn.Parameter) and not tensor.requires_grad
                    for tensor in present))


def _is_fixed_norm(module: Any) -> bool:
    if type(module) is not nn.BatchNorm2d or module.training or not _plain(module):
        return False
    mean, var = (module._buffers.get(name) for name in ("running_mean", "running_var"))
    return mean is not None and var is not None and _fixed(mean, var, *_weight_and_bias(module))


def _is_fixed_convolution(module: Any, like: Tensor | None = None) -> bool:
    """Return whether a module is a convolution with fixed weights, like another tensor if one is given."""
    return (type(module) in (nn.Conv2d, FewChannels) and module.padding_mode == "zeros" and _plain(module)
            and module._parameters.get("weight") is not None and _fixed(*_weight_and_bias(module), like))


def _weight_and_bias(module: nn.Module) -> tuple[Any, Any]:
    """Return what is registered under these names, Tensor or None; wrappers leave other things as attributes."""
    return module._parameters.get("weight"), module._parameters.get("bias")


# -- the forwards that stand for theirs -------------------------------------------------------------------------------

def _forwards(modules: Iterable[nn.Module], affines: Affines) -> dict[nn.Module, Forward]:
    """Return the modules that are to run differently, and how."""
    modules = list(modules)
    wide = [module for module in modules
            if isinstance(module, nn.Conv2d) and _is_fixed_convolution(module) and suits(module)]
    forwards = {norm: _unless_cast(norm, affine, _multiply_add(affine)) for norm, affine in affines.items()}
    forwards |= {module: _unless_cast(module, module.weight, winograd(module, module.weight, module.bias))
                 for module in wide}
    for module in filter(_plain, modules):
        if names := _before_norm(module):
            forwards |= _of_named(module, names, affines)
        elif type(module).forward is nn.Sequential.forward:
            forwards |= _of_sequence(module, affines)
    return forwards


def _affines(norms: Sequence[Any]) -> Affines:
    """Return BatchNorm layers as affine functions, computed together: a network has hundreds of small ones."""
    groups = defaultdict(list)
    for norm in norms:
        mean, (weight, bias) = norm._buffers["running_mean"], _weight_and_bias(norm)
        groups[mean.device, mean.dtype, norm.eps, weight is None, bias is None].append(norm)
    affines: Affines = {}
    for (_, _, eps, no_weight, no_bias), group in groups.items():
        mean, var = (torch.cat([norm._buffers[name] for norm in group]) for name in ("running_mean", "running_var"))
        scale = (var + eps).rsqrt()
        if not no_weight:
            scale = scale * torch.cat([norm.weight for norm in group])
        shift = -mean * scale if no_bias else torch.cat([norm.bias for norm in group]) - mean * scale
        sizes = [norm.num_features for norm in group]
        both = zip(*(values.view(1, -1, 1, 1).split(sizes, 1) for values in (scale, shift)), strict=True)
        affines.update({norm: Affine(*pair) for norm, pair in zip(group, both, strict=True)})
    return affines


def _scaled(model: nn.Module, affines: Affines) -> AbstractContextManager[None]:
    """Multiply the BatchNorms at the end of a supernet's operations by the factors of its path.

    Args:
        model: a network, with factors if it has a method ``output_scales()``.
        affines: its BatchNorms, which are changed.

    Returns:
        A context in which the network leaves those factors out.
    """
    outputs = getattr(model, "output_scales", None)
    scales = outputs() if callable(outputs) else {}
    ends = {place: [_last_norm(operation) for operation in operations] for place, (_, operations) in scales.items()}
    inside = [place for place, norms in ends.items()
              if not scales[place][0].requires_grad and all(norm in affines for norm in norms)]
    for place in inside:
        factor = scales[place][0]
        for norm in ends[place]:
            scale, shift, _ = affines[norm]
            affines[norm] = Affine(scale * factor, shift * factor, factor)
    return model.scaled_elsewhere(inside) if inside else nullcontext()  # type: ignore[operator,no-any-return]


def _last_norm(module: Any) -> Any:
    """Return the module whose output is that of ``module``, if it can be known; else ``module``."""
    if not _plain(module):
        return module
    if _before_norm(module):
        return module._modules["norm"]
    if type(module).forward is nn.Sequential.forward and len(module):
        return _last_norm(module[-1])
    return module


def _before_norm(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the convolutions before ``norm`` that its class tells; a name may mean other things."""
    names = vars(type(module)).get("before_norm")
    if isinstance(names, tuple) and {*names, "norm"} <= module._modules.keys():
        return names
    return ()


def _of_named(module: nn.Module, names: Sequence[str], affines: Affines) -> dict[nn.Module, Forward]:
    """Fold ``norm`` into the convolutions of a class whose outputs, channel after channel, are its input."""
    norm: Any = module._modules["norm"]
    convolutions: list[Any] = [module._modules[name] for name in names]
    if norm not in affines or not all(_is_fixed_convolution(part, affines[norm].scale) for part in convolutions):
        return {}
    sizes = [part.out_channels for part in convolutions]
    parts = map(Affine, *(values.split(sizes, 1) for values in affines[norm][:2]))
    return {norm: _unless_cast(norm, affines[norm], _unchanged)} | {
        convolution: _unless_cast(convolution, part, _convolution(convolution, part))
        for convolution, part in zip(convolutions, parts, strict=True)}


def _of_sequence(module: nn.Module, affines: Affines) -> dict[nn.Module, Forward]:
    """Fold neighbours in a sequence. It alone runs the result: who calls its children one by one finds them as ever."""
    children: list[Any] = list(module._modules.values())
    folds = {place: affines[norm] for place, (child, norm) in enumerate(pairwise(children))
             if norm in affines and _is_fixed_convolution(child, affines[norm].scale)}
    if not folds:
        return {}
    steps: list[Forward] = []
    for place, child in enumerate(children):
        if place - 1 in folds:
            continue
        if steps and children[place - 1] in affines and type(child) is nn.ReLU and _plain(child):
            steps.append(torch.relu_)  # of a tensor that nobody else has
        else:
            steps.append(_convolution(child, folds[place]) if place in folds else child)

    def forward(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return {module: _unless_cast(module, next(iter(folds.values())), forward)}


def _unless_cast(module: nn.Module, numbers: Affine | Tensor, forward: Forward) -> Forward:
    """Return ``forward``, which uses these numbers, but a module's own where a part of the network casts them."""
    own: Any = type(module).forward
    like, factor = (numbers, None) if isinstance(numbers, Tensor) else (numbers.scale, numbers.factor)
    if not isinstance(module, nn.BatchNorm2d):
        factor = None  # a BatchNorm inside multiplies
    dtype, kind = like.dtype, like.device.type
    casts = torch.amp.is_autocast_available(kind)

    def guarded(x: Tensor) -> Tensor:
        other = x.dtype is not dtype or (casts and torch.is_autocast_enabled(kind))
        if not other:
            return forward(x)
        output = own(module, x)
        return output if factor is None else output * factor  # type: ignore[no-any-return]

    return guarded


def _unchanged(x: Tensor) -> Tensor:
    return x


def _multiply_add(affine: Affine) -> Forward:
    scale, shift, _ = affine
    return lambda x: torch.addcmul(shift, x, scale)


def _convolution(module: Any, affine: Affine) -> Forward:
    """Return a convolution followed by an affine function as one convolution, in the same memory format."""
    scale, shift = affine.scale.flatten(), affine.shift.flatten()
    weight = module.weight * scale.view(-1, 1, 1, 1)
    bias = shift if module.bias is None else torch.addcmul(shift, module.bias, scale)
    if suits(module):
        return winograd(module, weight, bias)
    return lambda x: F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)
