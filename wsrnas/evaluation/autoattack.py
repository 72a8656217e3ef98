"""One attack of the original AutoAttack (Croce & Hein 2020, package ``pyautoattack``) on one batch.

Applied to the batches of images that withstand the earlier attacks, in their order, it gives exactly the result of
``AutoAttack.run_standard_evaluation`` on all images, because the original seeds every batch of every attack again.
Between two batches, an evaluation can be stopped, stored and shared between processes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from wsrnas.attacks import many_attack_steps
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch
    from torch import Tensor, nn

_NORMS = {"linf": "Linf", "l2": "L2"}
LEAST_CLASSES = 4  # the targeted loss compares the third and the fourth largest logit


def autoattack_stage(model: nn.Module, images: Tensor, labels: Tensor, stage: str, epsilon: float, num_classes: int,
                     norm: str = "linf", seed: int = 0, queries: int = 5000) -> tuple[Tensor, list[str]]:
    """Attack images by one part of AutoAttack's standard version.

    Args:
        model: network from images (B, C, H, W) in [0, 1] to logits (B, K); attacked in ``attack_mode``.
        images: (B, C, H, W) in [0, 1], classified correctly.
        labels: (B,) classes.
        stage: ``"apgd-ce"``, ``"apgd-t"``, ``"fab-t"`` or ``"square"``.
        epsilon: radius in pixels of [0, 1].
        num_classes: number of classes; the targeted attacks try the 9 likeliest other classes, or all if there are
            fewer.
        norm: ``"linf"`` or ``"l2"``.
        seed: seed of the batch.
        queries: number of Square's queries.

    Returns:
        Adversarial images (B, C, H, W), and the package's warnings.

    Raises:
        ValueError: The stage is ``"apgd-t"`` and there are fewer than ``LEAST_CLASSES`` classes.
    """
    from pyautoattack import AutoAttack

    if stage == "apgd-t" and num_classes < LEAST_CLASSES:
        raise ValueError(f"apgd-t with {num_classes} classes")
    devices = [images.device] if images.device.type == "cuda" else []
    with warnings_of_autoattack() as warnings, many_attack_steps(model), torch.random.fork_rng(devices=devices):
        adversary = AutoAttack(model, norm=_NORMS[norm], eps=epsilon, seed=seed, device=images.device)
        adversary.attacks_to_run = [stage]
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = min(9, num_classes - 1)
        adversary.square.n_queries = queries
        adversarial, _ = adversary.run_standard_evaluation(images.contiguous(), labels, batch_size=len(images))
    return adversarial.detach(), warnings


@contextmanager
def warnings_of_autoattack() -> Iterator[list[str]]:
    """Collect the warnings of the package (vanishing gradients, a network with random outputs)."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = " ".join(record.getMessage().split())
            if message not in collected:
                collected.append(message)

    logger = logging.getLogger("auto-attack")
    handler, propagated = Collector(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # warnings are part of the result, not lines of the log
    try:
        yield collected
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
