"""Whether an evaluation of a network would mean anything: checked on real images before anything is measured."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.attacks import ATTACK_LOSSES, attack_mode, require_gradients
from wsrnas.runtime.errors import InputError, named_line, type_in_words
from wsrnas.subjects.input_range import refuse_other_range
from wsrnas.subjects.portions import in_portions
from wsrnas.subjects.program_mode import is_program, trained_in_script, trained_operation


class FailedPass(InputError):
    """A network's forward or backward pass raised something."""


def check_model(model: nn.Module, images: Tensor, labels: Tensor, num_classes: int,
                range_is_known: bool = False, batch_size: int | None = None) -> None:
    """Refuse a network whose evaluation would mean nothing; the message does not name the network.

    Args:
        model: The network.
        images: (B, C, H, W), real images in [0, 1] on the network's device. With 64 or more of mixed classes, the check
            notices nearly every network that expects another range; with fewer than a dozen, or of one class, none.
        labels: (B,) classes.
        num_classes: The number of classes.
        range_is_known: Whether the network certainly takes [0, 1]. A network trained for a few dozen steps only may
            look as if it did not.
        batch_size: Images at a time, None: all at once; halved until the memory is sufficient.

    Raises:
        InputError: A label is outside the classes; a sub-module is in training mode; the network does not return logits
            (B, num_classes) for images (B, C, H, W), or has no gradient back to them; logits, or gradients of the
            cross-entropy, are NaN or infinite; the forward pass changes the images; the network expects another range
            than [0, 1]; or the caller is inside ``torch.inference_mode``.
        torch.OutOfMemoryError: A single image is too much.
    """
    require_gradients()
    for label in labels[(labels < 0) | (labels >= num_classes)].tolist()[:1]:
        raise InputError(f"an image has the label {label}, but there are {num_classes} classes; expected 0 to "
                         f"{num_classes - 1}")
    _check_mode(model)
    passes = in_portions(lambda some, their: _there_and_back(model, some, their, num_classes), images, labels,
                         batch_size)
    logits, gradient_is_finite = (torch.cat(parts) for parts in zip(*passes, strict=True))
    _check_finite(logits, gradient_is_finite)
    if not range_is_known:
        refuse_other_range(model, images, labels, logits, batch_size)


def _check_mode(model: nn.Module) -> None:
    programs = tuple(path for path, module in model.named_modules() if is_program(module))
    if isinstance(model, torch.jit.ScriptModule) and (name := trained_in_script(model)):
        raise InputError(f"the network was traced in training mode (its {name} is switched to it); expected .eval() "
                         "before torch.jit.trace")
    for path, module in model.named_modules():
        inside = any(path == program or path.startswith(f"{program}." if program else "") for program in programs)
        if module.training and not inside:
            kind = getattr(module, "original_name", type(module).__name__)
            which = f"the network's sub-module {path} ({kind})" if path else "the network"
            raise InputError(f"{which} is in training mode; expected evaluation mode: call .eval() on the network "
                             "before it is returned or saved")
        if isinstance(module, torch.fx.GraphModule) and (name := trained_operation(module)):
            raise InputError(f"the network was exported in training mode (its {name} is switched to it); expected "
                             ".eval() before torch.export.export")


def _there_and_back(model: nn.Module, images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return logits (B, K), and whether an attack has a finite gradient at each image (B,)."""
    shape, leaf = tuple(images.shape), images.clone().requires_grad_(True)
    try:
        with torch.enable_grad(), attack_mode(model):
            logits = model(leaf)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's code
        raise FailedPass(f"the network cannot take images of shape {shape} ({named_line(error)})") from None
    if not torch.equal(leaf, images):
        raise InputError("the network changes the images that it is given; expected operations that make new tensors")
    _check_logits(logits, len(images), num_classes)
    gradient = torch.zeros_like(images)
    try:
        with torch.enable_grad():
            loss = ATTACK_LOSSES["ce"](logits, labels)
            if loss.requires_grad:
                gradient, = torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise FailedPass(f"the network has no gradient for its images ({named_line(error)}); expected differentiable "
                         "operations") from None
    return logits.detach(), gradient.isfinite().flatten(1).all(1)


def _check_logits(logits: Any, count: int, num_classes: int) -> None:
    expected = f"expected logits of shape ({count}, {num_classes})"
    if isinstance(logits, (tuple, list)):
        raise InputError(f"the network returns {type_in_words(logits)} of {len(logits)}, such as logits and "
                         f"auxiliary logits; {expected} alone")
    if not isinstance(logits, Tensor):
        held = f" with {', '.join(map(str, list(logits)[:5]))}" if isinstance(logits, Mapping) else ""
        raise InputError(f"the network returns {type_in_words(logits)}{held}; {expected} alone: wrap it in a module "
                         "that returns the tensor of logits")
    if logits.ndim == 2 and len(logits) == count and logits.shape[1] != num_classes:
        raise InputError(f"the network has logits for {logits.shape[1]} classes, but the data set has {num_classes} "
                         f"classes; {expected}")
    if logits.shape != (count, num_classes):
        raise InputError(f"the network returns a tensor of shape {tuple(logits.shape)} for {count} images; {expected}")
    if not logits.is_floating_point():
        raise InputError(f"the network returns {logits.dtype}; {expected} in floating point")


def _check_finite(logits: Tensor, gradient_is_finite: Tensor) -> None:
    count, broken = len(logits), (~logits.isfinite().all(1)).sum().item()
    if broken:
        raise InputError(f"the network's logits are NaN or infinite for {broken} of {count} images; expected finite "
                         "numbers")
    # The sign of NaN is 0: the network would look robust.
    if broken := (~gradient_is_finite).sum().item():
        raise InputError(f"the gradient of the network's cross-entropy is NaN or infinite for {broken} of {count} "
                         "images, and attacks cannot follow it; expected finite numbers (torch.where lets through the "
                         "NaN of the branch that it does not take, such as the square root's at 0)")
