"""The evaluation of the published code, for comparison with published numbers; its accuracies are too high.

For each batch of 25 images, one strength after the other, it puts the network into training mode and attacks it. The
network then uses the batch's statistics, and each step of the attack updates the running ones. It returns to evaluation
mode and predicts with these running statistics: after 20 steps, 88 % of them come from the images being classified.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsrnas.attacks import PGD_STEP, is_correct, pgd
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.intervals import difference_interval
from wsrnas.network import CellNetwork
from wsrnas.runtime import checkpoint
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.runtime.errors import InputError, first_line, out_of_memory, say, type_in_words
from wsrnas.runtime.folders import make
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import derive_seed, generator

BATCH = 25  # images per batch in one process of the published evaluation


class _InTrainingMode(nn.Module):
    """A network that stays in training mode: it is not registered as a sub-module, so no caller changes its mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._hidden = (model,)

    def forward(self, images: Tensor) -> Tensor:
        return self._hidden[0].train()(images)


def require_training_pass(model: nn.Module, loader: BatchLoader, source: str) -> None:
    """Refuse a network that cannot be evaluated in the published way, before hours of attacks come before it.

    Args:
        model: the network; a copy is asked.
        loader: loader of the test images; the smallest batch of the evaluation is tried.
        source: where the network is from, for the message.

    Raises:
        InputError: it cannot be copied, or fails in training mode on so few images.
    """
    count = len(loader.image_set)
    rows = torch.arange(min(count, count % BATCH or BATCH))
    try:
        images, _ = next(iter(loader.images_at([rows])))
        with torch.no_grad():
            logits = _InTrainingMode(_without_auxiliary_head(copy.deepcopy(model)))(images)
        if not isinstance(logits, Tensor):
            raise TypeError(f"it returns {type_in_words(logits)} in training mode; expected logits")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's code
        raise InputError(f"{source} cannot be evaluated in the published way, in training mode with batches of "
                         f"{len(rows)} images ({first_line(error)}); choose another protocol or --max_test") from None


def _without_auxiliary_head(model: nn.Module) -> nn.Module:
    """Remove the auxiliary heads in place: the network gives only logits in training mode, too."""
    for module in model.modules():
        if isinstance(module, CellNetwork):
            module.auxiliary = None
    return model


def official_accuracy(model: nn.Module, loader: BatchLoader, epsilons: Sequence[float], world: World, steps: int = 20,
                      state: Path | None = None, header: dict[str, Any] | None = None, label: str = "official"
                      ) -> Tensor:
    """Return which images the published code would call robust at each strength.

    The running statistics depend on all earlier batches and strengths, so this runs on the main process alone and in
    one fixed random order. ``model`` itself does not change.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K).
        loader: loader of the test images (``images_at``).
        epsilons: (S,) strengths in pixels of [0, 1]; step size = 2.5 * epsilon / steps, no random start.
        world: the processes.
        steps: number of gradient steps.
        state: file from which a stopped evaluation resumes, whose folder is made; None: nothing is stored.
        header: values that the stored state must agree with.
        label: first words of the progress line.

    Returns:
        (S, N) bool.

    Raises:
        InputError: There is not enough memory for a batch.
    """
    images = len(loader.image_set)
    correct = torch.zeros(len(epsilons), images, dtype=torch.bool)
    if world.is_main:
        correct = _measure(copy.deepcopy(model), loader, epsilons, correct, steps, state, header or {}, label, world)
    return all_sum(correct.to(world.device, torch.float32), world).cpu() == 1


def _stored(state: Path) -> dict[str, Any]:
    """Return the state of an interrupted measurement; an empty one where there is none that can be read."""
    try:
        return checkpoint.restore(state, say)[0] or {}
    except InputError as error:
        say(f"note: {error}; the measurement begins again")
        return {}


def _measure(model: nn.Module, loader: BatchLoader, epsilons: Sequence[float], correct: Tensor, steps: int,
             state: Path | None, header: dict[str, Any], label: str, world: World) -> Tensor:
    _without_auxiliary_head(model)
    parameters = dict(header, epsilons=list(epsilons), steps=steps, batch=BATCH)
    if state:
        make(state.parent)
    stored = _stored(state) if state else {}
    done = 0
    if stored.get("header") == parameters:
        for name, buffer in model.named_buffers():
            buffer.copy_(stored["buffers"][name])
        correct, done = stored["correct"], stored["batches"]
    # Folders are sorted by class, and the statistics of one class are not those of all.
    batches = torch.randperm(correct.shape[1], generator=generator(0, "official")).split(BATCH)
    plan = [(row, batch) for row in range(len(epsilons)) for batch in batches][done:]
    pixels = loader.images_at([batch for _, batch in plan])
    for (row, batch), (images, labels) in progress(zip(plan, pixels, strict=True), f"{label}: the published way", world,
                                                   done + len(plan), initial=done):
        epsilon = epsilons[row]
        try:
            with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
                torch.manual_seed(derive_seed(0, "official", done))  # a network in training may have dropout
                adversarial = pgd(_InTrainingMode(model), images, labels, epsilon, steps, PGD_STEP * epsilon / steps)
            with torch.no_grad():
                correct[row, batch] = is_correct(model.eval()(adversarial), labels).cpu()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise InputError(f"the GPU is out of memory with the {BATCH} images of a batch in the published way; "
                             "free it, or use --device cpu") from None
        done += 1
        if state:
            checkpoint.save(state, {"header": parameters, "buffers": dict(model.named_buffers()),
                                    "correct": correct, "batches": done}, keep_replaced=False)
    return correct


def official_rows(epsilons: Sequence[float], published: Tensor, honest: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return the published and the honest accuracy at each strength, with the paired interval of the difference."""
    return [{"epsilon": epsilon, "strength": format_epsilon(epsilon), "published_way": flags.double().mean().item(),
             "honest": true.double().mean().item(), "difference": (flags.double() - true.double()).mean().item(),
             "interval": list(difference_interval(flags.numpy(), true.numpy()))}
            for epsilon, flags, true in zip(epsilons, published, honest, strict=True)]
