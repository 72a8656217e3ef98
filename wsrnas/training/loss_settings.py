"""Settings of the training losses, and the types of their two parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.seeding import BatchNoise
from wsrnas.training.metrics import Metrics

with deferred_imports():
    from torch import Tensor, nn


@dataclass(frozen=True)
class LossSettings:
    """Settings of the training losses; the entry of a loss in ``LOSSES`` says which ones it reads.

    Args:
        epsilon: L-inf radius of the attack in pixels of [0, 1].
        steps: gradient steps of the attack (Fast-AT always takes one).
        step_size: step of the attack in pixels of [0, 1]; None: ``2.5 * epsilon / steps`` (Fast-AT:
            ``1.25 * epsilon``).
        random_start: whether PGD and multi-strength training start uniformly in the ball (other losses have their own
            start).
        batch_statistics: whether to attack under the batch's BatchNorm statistics (see ``attack_mode``).
        trades_beta: weight of the robust term of TRADES (its 1/lambda) and of MART (its lambda).
        label_smoothing: share of the target that is spread over all classes. It also applies to an attack that
            maximises the cross-entropy, so that the maximised loss is the minimised one. MART has none.
        strengths: L-inf radii of multi-strength training, in place of ``epsilon``.
        auxiliary_weight: weight of the auxiliary head's cross-entropy in every objective (DARTS: 0.4); 0: off.
    """

    epsilon: float
    steps: int
    step_size: float | None = None
    random_start: bool = False
    batch_statistics: bool = False
    trades_beta: float = 1.0
    label_smoothing: float = 0.0
    strengths: tuple[float, ...] = ()
    auxiliary_weight: float = 0.0


Attack: TypeAlias = "Callable[[nn.Module, Tensor, Tensor, LossSettings, BatchNoise], Tensor]"
"""(model, images (B, C, H, W), labels (B,), settings, noise) -> adversarial images (S * B, C, H, W).

The whole batch follows at one strength after the other (S = 1 but for multi-strength training).
"""

Network: TypeAlias = "Callable[[Tensor], Any]"
"""images -> logits (B, K), or logits and auxiliary logits: a network, or one wrapped for several processes."""

Objective: TypeAlias = "Callable[[Network, Tensor, Tensor, Tensor, LossSettings], tuple[Tensor, Metrics]]"
"""(model, images, adversarial images, labels, settings) -> (loss, metrics).

The metrics are ``clean_accuracy`` and ``adversarial_accuracy`` where the objective sees such logits, counted on the
training forward.
"""
