"""Accuracy at a few strengths, for the selection during training; nothing is stored."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from wsrnas.attacks import PGD_STEP, attack_mode, is_correct, pgd, rows_at_once
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, all_sum
from wsrnas.runtime.errors import InputError, type_in_words
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import generator
from wsrnas.training.strengths import Strengths, read_strengths

with deferred_imports():
    import torch
    from torch import nn

    from wsrnas.training.epoch import Loader


def robust_accuracy(model: nn.Module, loader: Loader, epsilons: Strengths, steps: int = 20,
                    step_size_ratio: float | None = None, random_start: bool = False, seed: int = 0,
                    world: World | None = None, label: str = "evaluate") -> dict[str, Any]:
    """Measure the clean accuracy and the accuracy under white-box L-inf PGD at each strength.

    Every image is attacked and predicted in evaluation mode: without random starts, the result does not depend on batch
    size or order.

    Args:
        model: the unwrapped network, from images in [0, 1] to logits.
        loader: evaluation batches; each image exactly once, shared between the processes.
        epsilons: strengths in pixels of [0, 1], one or several: numbers, texts such as ``"8/255"``, an array.
        steps: number of PGD steps.
        step_size_ratio: step size as a share of the strength; None: ``2.5 / steps``, the rule of the papers.
        random_start: whether to start uniformly in the ball (the papers do not).
        seed: seed of the random starts.
        world: the processes that share the images; None: a single one.
        label: first words of the progress line.

    Returns:
        ``clean_accuracy``; ``strengths``: one row per strength with ``epsilon``, ``accuracy``, and the attack's norm,
        steps, step size, start and restarts; ``average_robust_accuracy``: their plain mean; ``images``.

    Raises:
        InputError: The loader is none of ours, there are no strengths, one is outside (0, 1), or the attack has no
            steps.
    """
    world = world or World(device=next((weight.device for weight in model.parameters()), torch.device("cpu")))
    if not hasattr(loader, "batches"):
        raise InputError(f"the loader is {type_in_words(loader)}; expected one of wsrnas.BatchLoader; "
                         "wsrnas.evaluate takes images and labels, or a data set")
    strengths = read_strengths("epsilons", epsilons)
    if not strengths:
        raise InputError("epsilons has no strength; expected at least one, inside (0, 1)")
    if not isinstance(steps, Integral) or steps < 1:
        raise InputError(f"the evaluation attack's number of steps is {steps}; expected a whole number of at least 1")
    ratio = PGD_STEP / steps if step_size_ratio is None else step_size_ratio
    correct = torch.zeros(1 + len(strengths), dtype=torch.float64, device=world.device)
    seen = torch.zeros(1, dtype=torch.float64, device=world.device)
    noise = generator(seed, "evaluation", world.rank, device=world.device)
    for images, labels in progress(loader.batches(0), label, world, len(loader)):
        with torch.no_grad(), attack_mode(model):
            correct[0] += is_correct(model(images), labels).sum()
        for column, epsilon in enumerate(strengths, start=1):
            adversarial = pgd(model, images, labels, epsilon, steps, ratio * epsilon, random_start, generator=noise,
                              rows=rows_at_once(images))
            with torch.no_grad(), attack_mode(model):
                correct[column] += is_correct(model(adversarial), labels).sum()
        seen += len(images)
    total = all_sum(seen, world).item()
    clean, *robust = (all_sum(correct, world) / total).tolist()
    attack = {"attack": f"PGD-{steps}", "norm": "linf", "steps": steps, "random_start": random_start, "restarts": 1}
    return {
        "images": int(total), "clean_accuracy": clean,
        "strengths": [{"epsilon": float(e), "accuracy": a, "step_size": ratio * e, **attack}
                      for e, a in zip(strengths, robust, strict=True)],
        "average_robust_accuracy": sum(robust) / len(robust),
    }
