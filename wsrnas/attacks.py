"""Adversarial attacks as functions from images to adversarial images; all programs use them.

Images are in [0, 1] and ``epsilon`` is in the same unit. It is a float, or a tensor with one strength per image, so
that one batch can hold many strengths. Only the gradient with respect to the images is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from wsrnas.balls import ball, radius_of, step_of
    from wsrnas.operations import BATCH_NORM
    from wsrnas.quick.folding import folded
    from wsrnas.quick.graphs import repeated
    from wsrnas.quick.modules import every_module, modules_in_use, set_flag

AttackLoss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"

PGD_STEP = 2.5  # a step of PGD is this number times epsilon / steps
LONGEST_RECORDED = 20  # steps of an attack that a GPU may record whole: each adds a thousand kernels to the recording
CPU_ROWS = 100  # images in the memory at a time: the features of more do not fit into the caches of a CPU


def full_precision(logits: Tensor) -> Tensor:
    """Return logits in at least float32: a softmax in bfloat16 (under autocast) rounds small losses to zero."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _kl_divergence(logits: Tensor, log_probabilities: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(full_precision(logits), 1), log_probabilities, reduction="sum", log_target=True)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the label's, (B,), of logits (B, K) (Carlini and Wagner 2017).

    It is positive where the prediction is wrong. Unlike that of the cross-entropy, its gradient does not vanish where
    the network is confident.
    """
    logits, label = full_precision(logits), labels.unsqueeze(1)
    return logits.scatter(1, label, -torch.inf).amax(1) - logits.gather(1, label).squeeze(1)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which images logits (B, K) classify correctly, (B,) bool; no image with a logit that is not finite.

    ``argmax`` takes NaN for the largest number, so a broken network would be right about the images of one class.
    """
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


# Sums over the batch, so that the gradient of an image, and its adversarial image, do not depend on the batch.
ATTACK_LOSSES: dict[str, AttackLoss] = {
    "ce": lambda logits, labels: F.cross_entropy(full_precision(logits), labels, reduction="sum"),
    "kl": _kl_divergence,  # the labels are the clean images' log-probabilities (B, K): TRADES
    "margin": lambda logits, labels: margins(logits, labels).sum(),
}


@contextmanager
def attack_mode(model: nn.Module, batch_statistics: bool = False, path_alone: bool = False) -> Iterator[nn.Module]:
    """Set a network up for an attack: evaluation mode, parameters frozen. Everything is restored at the end.

    Args:
        model: the unwrapped network; the mode of each sub-module is restored.
        batch_statistics: whether BatchNorm layers in training mode use the statistics of the batch instead of the
            running ones, which are neither read nor updated. A network in training is then attacked as the function
            that its next update optimises. Layers in evaluation mode keep theirs.
        path_alone: whether only the modules that run at present are set up, which is much quicker in a supernet; its
            path must not change inside.
    """
    modes = {module: module.training for module in (modules_in_use if path_alone else every_module)(model)}
    trainable = {p for module in modes for p in module._parameters.values() if p is not None and p.requires_grad}
    norms = [m for m in modes if isinstance(m, BATCH_NORM) and m.training] if batch_statistics else []
    tracking = {norm: norm.track_running_stats for norm in norms}
    try:
        for module, mode in modes.items():
            if mode:
                set_flag(module, "training", False)
        for norm in tracking:
            # Training mode without tracking is torch's "batch statistics, no update".
            set_flag(norm, "training", True)
            set_flag(norm, "track_running_stats", False)
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                set_flag(module, "training", mode)
        for norm, tracked in tracking.items():
            set_flag(norm, "track_running_stats", tracked)
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def many_attack_steps(model: nn.Module, batch_statistics: bool = False) -> Iterator[nn.Module]:
    """Set a network up as ``attack_mode`` does, for many passes in which neither weights nor a path change: quicker."""
    with attack_mode(model, batch_statistics, path_alone=True), folded(model):
        yield model


def require_gradients() -> None:
    """Refuse ``torch.inference_mode``, inside which nothing has a gradient: an attack would leave images as they are.

    Raises:
        InputError: the caller is inside it.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("an attack needs gradients; expected a call outside of torch.inference_mode() "
                         "(torch.no_grad() is all right)")


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: AttackLoss) -> Tensor:
    """Return the gradient of a loss with respect to the images, (B, C, H, W); zero where none reaches them."""
    require_gradients()
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        value = loss(model(images), labels)
    if not value.requires_grad:  # a path of nothing but `none` operations ignores its input
        return torch.zeros_like(images)
    return torch.autograd.grad(value, images, allow_unused=True, materialize_grads=True)[0]


def _mean_one(gradient: Tensor) -> Tensor:
    """Divide the gradient of each image by its mean absolute entry; zero stays zero, what is not finite becomes it."""
    gradient = gradient.nan_to_num(0, 0, 0)
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)


def random_start(images: Tensor, epsilon: float | Tensor, norm: str = "linf",
                 generator: torch.Generator | None = None) -> Tensor:
    """Add noise drawn uniformly in the ball to images (B, C, H, W), inside [0, 1]; arguments as for ``pgd``."""
    draw, _, project = ball(norm)
    radius = radius_of(epsilon, images, norm)
    images = images.detach()
    return project(images + draw(images, radius, generator), images, radius)


def _objective(loss: str | AttackLoss, steps: int, momentum: float) -> AttackLoss:
    """Return the loss that is meant, if it and the numbers are valid."""
    if isinstance(loss, str) and loss not in ATTACK_LOSSES:
        raise InputError(f"unknown attack loss {loss!r}; expected one of {', '.join(ATTACK_LOSSES)}")
    if steps < 0:
        raise InputError(f"the attack's number of steps is {steps}; expected at least 0")
    if not momentum >= 0:
        raise InputError(f"the attack's momentum is {momentum}; expected at least 0")
    return ATTACK_LOSSES[loss] if isinstance(loss, str) else loss


def pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float | Tensor, steps: int = 7,
        step_size: float | Tensor | None = None, random_start: bool = False, norm: str = "linf",
        loss: str | AttackLoss = "ce", generator: torch.Generator | None = None, start: Tensor | None = None,
        batch_statistics: bool = False, momentum: float = 0.0, rows: int | None = None,
        first_gradient: Tensor | None = None) -> Tensor:
    """Attack images by projected gradient ascent (Madry et al. 2018; Wsr-NAS Eq. 1).

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes, or whatever ``loss`` takes (log-probabilities (B, K) for ``"kl"``).
        epsilon: radius of the ball, a number or (B,), in pixels of [0, 1] (for ``"l2"`` the norm over all pixels).
        steps: number of gradient steps; 0: return the projected start.
        step_size: length of a step in the unit of ``epsilon``, a number or (B,); default ``2.5 * epsilon / steps``.
        random_start: whether to add noise drawn uniformly in the ball to the starting point.
        norm: ``"linf"`` or ``"l2"``.
        loss: a name in ``ATTACK_LOSSES`` or ``(logits, labels) -> scalar``, summed over the batch.
        generator: source of the random start, on the images' device.
        start: (B, C, H, W) starting points in place of the images.
        batch_statistics: whether BatchNorm uses the statistics of the batch, as in ``attack_mode``.
        momentum: factor of the accumulated gradients, as in ``mim``; 0 follows the gradient alone.
        rows: number of images in the memory at a time, for a network in which they are independent of one another;
            None: all. With ``batch_statistics`` each part has its own.
        first_gradient: (B, C, H, W) gradient of ``loss`` at the starting points, where it is known already.

    Returns:
        Adversarial images (B, C, H, W), inside the ball and inside [0, 1], detached.

    Raises:
        InputError: The norm or the loss is unknown, steps or momentum are negative, ``epsilon`` or ``step_size`` is
            no number, does not fit the batch or is above 1 for ``"linf"``, ``rows`` is below 1, or the images are no
            tensor of floating-point numbers.
    """
    draw, _, project = ball(norm)
    objective = _objective(loss, steps, momentum)
    if rows is not None and rows < 1:
        raise InputError(f"rows is {rows}; expected at least 1, or None")
    radius = radius_of(epsilon, images, norm)
    images = images.detach()
    step = PGD_STEP * radius / max(steps, 1) if step_size is None else step_of(step_size, images, norm)
    adversarial = images if start is None else start.detach()
    if random_start:
        adversarial = adversarial + draw(images, radius, generator)
    adversarial = project(adversarial, images, radius)

    whole = [images, labels, adversarial, *(values.expand(len(images), 1, 1, 1) for values in (radius, step))]
    if first_gradient is not None:
        whole.append(first_gradient)
    ascent = _Ascent(model, objective, norm, steps, momentum, batch_statistics, rows)
    obstacle = f"one has more than {LONGEST_RECORDED} steps" if steps > LONGEST_RECORDED else ""
    return repeated(ascent, whole, model, obstacle=obstacle)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Ascent:
    """The steps of PGD: all of an attack that is the same for every batch."""

    what: ClassVar[str] = "attacks"
    model: nn.Module
    objective: AttackLoss
    norm: str
    steps: int
    momentum: float
    batch_statistics: bool
    rows: int | None

    def __call__(self, *whole: Tensor) -> Tensor:
        """Return adversarial images.

        Args:
            *whole: images, labels, the start, radii and step lengths (B, 1, 1, 1), and the gradient at the start where
                it is known.
        """
        count = len(whole[0])
        with many_attack_steps(self.model, self.batch_statistics):
            if self.rows is None or self.rows >= count:
                return self._ascend(*whole)
            return torch.cat([self._ascend(*part) for part in zip(*(values.split(self.rows) for values in whole),
                                                                  strict=True)])

    def _ascend(self, images: Tensor, labels: Tensor, adversarial: Tensor, radius: Tensor, step: Tensor,
                gradient: Tensor | None = None) -> Tensor:
        _, direction, project = ball(self.norm)
        accumulated: Tensor | float = 0.0
        for number in range(self.steps):
            if number or gradient is None:
                gradient = input_gradient(self.model, adversarial, labels, self.objective)
            if self.momentum:
                gradient = accumulated = self.momentum * accumulated + _mean_one(gradient)
            adversarial = project(adversarial + step * direction(gradient), images, radius)
        return adversarial.detach()


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float | Tensor, norm: str = "linf",
         loss: str | AttackLoss = "ce", batch_statistics: bool = False, rows: int | None = None) -> Tensor:
    """Attack images by one step of length ``epsilon`` (FGSM, Goodfellow et al. 2015); arguments as for ``pgd``."""
    return pgd(model, images, labels, epsilon, steps=1, step_size=epsilon, norm=norm, loss=loss,
               batch_statistics=batch_statistics, rows=rows)


def rows_at_once(images: Tensor) -> int | None:
    """Return the ``rows`` with which an attack in evaluation mode is quickest: none on a GPU, which takes all."""
    return CPU_ROWS if images.device.type == "cpu" else None


def mim(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float | Tensor, steps: int = 20,
        step_size: float | Tensor | None = None, momentum: float = 1.0, **arguments) -> Tensor:
    """Attack images by ``pgd`` along a sum of past gradients (momentum iterative method, Dong et al. 2018, Alg. 1).

    Before it is added, an image's gradient is divided by its mean absolute entry. The paper divides by the sum of the
    absolute entries, which scales the accumulated gradient and so changes no step.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K).
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        epsilon: radius of the ball, a number or (B,), in pixels of [0, 1].
        steps: number of gradient steps.
        step_size: length of a step in pixels of [0, 1]; default ``epsilon / steps`` as in the paper.
        momentum: factor (mu in the paper) of the sum so far.
        **arguments: further arguments of ``pgd``.
    """
    step_size = epsilon / max(steps, 1) if step_size is None else step_size
    return pgd(model, images, labels, epsilon, steps, step_size, momentum=momentum, **arguments)


@dataclass(frozen=True)
class _FirstGradient:
    """The gradient at the images, with which attacks at all strengths begin."""

    what: ClassVar[str] = "attacks"
    model: nn.Module
    objective: AttackLoss
    rows: int | None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient (B, C, H, W) at images (B, C, H, W) with labels (B,)."""
        parts = zip(*(values.split(self.rows or len(images)) for values in (images, labels)), strict=True)
        with many_attack_steps(self.model):
            return torch.cat([input_gradient(self.model, some, theirs, self.objective) for some, theirs in parts])


def shared_passes(strengths: int, steps: int) -> int:
    """Return the passes of an image in ``multi_strength_pgd`` where the strengths share the first one."""
    return strengths * (steps - 1) + 1 if strengths > 1 else strengths * steps


def multi_strength_pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilons: Tensor | Sequence[float], *,
                       loss: str | AttackLoss = "ce", rows: int | None = None, **arguments: Any) -> Tensor:
    """Attack images by PGD at several strengths, as one batch.

    All strengths begin at the images, so they share the first gradient: S strengths of T steps take S (T - 1) + 1
    passes instead of S T (``shared_passes``). With starts of their own, or with the statistics of the batch, they share
    nothing.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K).
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes.
        epsilons: (S,) strengths for all images, or (B, S), in pixels of [0, 1].
        loss: as for ``pgd``.
        rows: as for ``pgd``.
        **arguments: further arguments of ``pgd``, but ``first_gradient``; ``start`` is (B S, C, H, W).

    Returns:
        Adversarial images (B, S, C, H, W).
    """
    images = images.detach().contiguous(memory_format=torch.channels_last)
    given = epsilons if isinstance(epsilons, Tensor) else torch.as_tensor(epsilons)
    radii = given.to(images).expand(len(images), -1)
    strengths = radii.shape[1]

    def every_strength(values: Tensor) -> Tensor:
        return values.repeat_interleave(strengths, 0)

    own_start = arguments.get("random_start") or arguments.get("start") is not None
    if strengths > 1 and not own_start and not arguments.get("batch_statistics"):
        first = _FirstGradient(model, _objective(loss, 0, 0), rows)
        arguments["first_gradient"] = every_strength(repeated(first, (images, labels), model))
    adversarial = pgd(model, every_strength(images), every_strength(labels), radii.reshape(-1), loss=loss, rows=rows,
                      **arguments)
    return adversarial.reshape(len(images), strengths, *images.shape[1:])
