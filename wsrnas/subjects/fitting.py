"""The door of an evaluation: a network is asked once for all that follows, and adapted where that is possible."""

from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsrnas.attacks import ATTACK_LOSSES, attack_mode, full_precision, require_gradients
from wsrnas.runtime.errors import InputError, named_line
from wsrnas.subjects import checking
from wsrnas.subjects.images import EvaluationImages, require_same_classes
from wsrnas.subjects.model_source import ModelSource

NCHW = "it needs images in PyTorch's usual memory format (NCHW), and gets them so"
PROBABILITIES = ("its outputs are probabilities, not logits: where they saturate, so do the losses of attacks, and the "
                 "accuracy may be too high; expected the logits, from before the softmax")
SAME = 1e-2  # largest difference that counts as rounding, as a share of the largest logit: TF32, half precision
SAMPLE = 16  # images that are looked at for probabilities
NO_GRADIENT = "no gradient leads from its logits back to its images"


class Adapted(nn.Module):
    """A network that gets images in the memory format that it needs, and whose logits are float32 or float64.

    Args:
        network: images (B, C, H, W) -> logits (B, K), in evaluation mode.
        contiguous: whether it needs images in NCHW format, such as one that ends in ``x.view(len(x), -1)``.
    """

    def __init__(self, network: nn.Module, contiguous: bool) -> None:
        super().__init__()
        self.network, self.contiguous = network, contiguous
        self.training = network.training

    def get_submodule(self, target: str) -> nn.Module:
        """Return a layer of the network, by its name there."""
        return self.network.get_submodule(target)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        return full_precision(self.network(images.contiguous() if self.contiguous else images))


class Fit(NamedTuple):
    """A network as an evaluation can use it.

    Args:
        model: the network, or an adapted one.
        notes: what was found out about it, and done.
        has_gradient: whether a gradient leads from its logits to its images.
    """

    model: nn.Module
    notes: tuple[str, ...]
    has_gradient: bool


def fitted(network: ModelSource, images: EvaluationImages, device: torch.device) -> ModelSource:
    """Return a network on the device, adapted to what is asked of it, or refuse it.

    The ``notes`` of the result say what was done.

    Args:
        network: The network; it is moved, and gets images in channels_last format, which is faster, if it takes them.
        images: The images of the evaluation.
        device: The device.

    Raises:
        InputError: Naming the network and what it does instead of returning logits of the images' classes, or its other
            classes.
    """
    trained = network.description
    if trained and (trained["num_classes"], *trained["image_shape"]) != (images.num_classes, *images.shape):
        raise InputError(f"{network.source} was trained on {trained['num_classes']} classes of images "
                         f"{tuple(trained['image_shape'])}, but {images.dataset} has {images.num_classes} classes of "
                         f"images {images.shape}")
    require_same_classes(network, images)
    network.model.to(device)
    to_format(network.model, torch.channels_last)
    try:
        fit = adapted(network.model, *images.spread(), images.num_classes, network.takes_unit_range,
                      images.loader.batch_size)
    except InputError as error:
        raise InputError(f"{network.source}: {error}") from None
    return replace(network, model=fit.model, notes=fit.notes, has_gradient=fit.has_gradient)


def adapted(network: nn.Module, drawn: Tensor, labels: Tensor, num_classes: int, range_is_known: bool = False,
            batch_size: int | None = None) -> Fit:
    """Ask a network for all that follows, and adapt it.

    It is asked for logits of a batch and of one image alone, and for a gradient. It gets images as they are drawn, or
    in NCHW format if it fails on them or gives other logits. Logits in half precision become float32, here and nowhere
    else.

    Args:
        network: The network, in evaluation mode, on the images' device.
        drawn: (B, C, H, W) real images in [0, 1].
        labels: (B,) classes.
        num_classes: As for ``check_model``.
        range_is_known: As for ``check_model``.
        batch_size: As for ``check_model``.

    Raises:
        InputError: Saying what the network does instead of returning logits of the images' classes.
    """
    model: nn.Module = network
    notes: list[str] = []

    def check(model: nn.Module) -> None:
        checking.check_model(model, drawn, labels, num_classes, range_is_known=range_is_known, batch_size=batch_size)

    try:
        check(model)
        right = same_in_both_formats(model, drawn[:min(SAMPLE, batch_size or SAMPLE)])
    except checking.FailedPass:
        right = False
    if not right:
        to_format(network, torch.contiguous_format)
        model = Adapted(network, contiguous=True)
        check(model)
        notes.append(NCHW)
    dtype = check_alone(network, drawn[:1].contiguous() if notes else drawn[:1], num_classes)
    if dtype in (torch.float16, torch.bfloat16):
        model = Adapted(network, contiguous=bool(notes))
        notes.append(f"its logits are {str(dtype).removeprefix('torch.')}, and become float32")
    sample = drawn[:min(SAMPLE, batch_size or SAMPLE)]
    notes += [PROBABILITIES] if gives_probabilities(model, sample) else []
    with_gradient = has_gradient(model, drawn[:2], labels[:2])
    notes += [] if with_gradient else [NO_GRADIENT]
    return Fit(model, tuple(notes), with_gradient)


def to_format(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Change the memory format of the weights, if the network lets it: weights of five dimensions do not."""
    with suppress(RuntimeError, TypeError):
        network.to(memory_format=memory_format)  # type: ignore[call-overload]


def same_in_both_formats(model: nn.Module, images: Tensor) -> bool:
    """Return whether images (B, C, H, W) get the same logits in their own memory format and in NCHW, up to rounding.

    A network whose logits are random says nothing about formats; an honesty check finds it.
    """
    with torch.no_grad(), attack_mode(model):
        plain, again = (full_precision(model(images.contiguous())) for _ in range(2))
        own = full_precision(model(images))
    rounding = SAME * plain.abs().max()
    return bool((own - plain).abs().max() <= rounding) or bool((again - plain).abs().max() > rounding)


def gives_probabilities(model: nn.Module, images: Tensor) -> bool:
    """Return whether the outputs for images (B, C, H, W) look like probabilities: none negative, of the sum 1."""
    with torch.no_grad(), attack_mode(model):
        outputs = model(images)
    return bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())


def check_alone(model: nn.Module, image: Tensor, num_classes: int) -> torch.dtype:
    """Refuse a network that does not take one image alone; return the type of its logits.

    Args:
        model: The network.
        image: (1, C, H, W).
        num_classes: The number of classes K.

    Raises:
        InputError: It fails, or does not return finite logits (1, K).
    """
    try:
        with torch.no_grad(), attack_mode(model):
            logits = model(image)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's code
        raise InputError(f"the network takes a batch of images, but not one image alone ({named_line(error)}); "
                         "expected any number of them, such as the last ones of a data set") from None
    if logits.shape != (1, num_classes):
        raise InputError(f"the network returns a tensor of shape {tuple(logits.shape)} for one image alone; expected "
                         f"(1, {num_classes}): .squeeze() without a dimension removes that of the batch, too")
    if not logits.isfinite().all():
        raise InputError("the network returns logits that are NaN or infinite for one image alone; expected the same "
                         "logits as in a batch")
    return logits.dtype


def has_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> bool:
    """Return whether a gradient, zero or not, leads from the logits to the images.

    It does not where the forward pass runs under ``torch.no_grad`` or ``torch.inference_mode``, or detaches.

    Args:
        model: The network.
        images: (B, C, H, W).
        labels: (B,).

    Raises:
        InputError: the caller is inside ``torch.inference_mode``.
    """
    require_gradients()
    leaf = images.detach().clone().requires_grad_(True)
    with torch.enable_grad(), attack_mode(model):
        loss = ATTACK_LOSSES["ce"](model(leaf), labels)
    return loss.requires_grad and torch.autograd.grad(loss, leaf, allow_unused=True)[0] is not None
