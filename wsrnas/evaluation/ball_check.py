"""Refuse what an attack returns if it is no image inside the ball: its accuracy would be a number like any other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError, type_in_words

with deferred_imports():
    import torch
    from torch import Tensor

if TYPE_CHECKING:
    from wsrnas.evaluation.attack_table import AttackTask

ORDERS = {"linf": math.inf, "l2": 2.0}
SLACK, SHARE = 1e-5, 1e-4  # of rounding: in pixels of [0, 1], and of the radius


def require_in_ball(adversarial: Tensor, task: AttackTask, name: str) -> Tensor:
    """Return the images of an attack.

    Args:
        adversarial: what the attack returned.
        task: what it was given.
        name: name of the attack in the message.

    Raises:
        InputError: They are not (B, C, H, W) floats inside [0, 1] and inside the ball. NaN is neither.
    """
    subject = f"the attack {name} returned"
    if not isinstance(adversarial, torch.Tensor):
        raise InputError(f"{subject} {type_in_words(adversarial)}; expected a tensor of images")
    if adversarial.shape != task.images.shape or adversarial.dtype != task.images.dtype:
        raise InputError(f"{subject} {adversarial.dtype} {tuple(adversarial.shape)}; expected {task.images.dtype} "
                         f"{tuple(task.images.shape)}, one image for each")
    adversarial = adversarial.detach()
    low, high = adversarial.min().item(), adversarial.max().item()
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise InputError(f"{subject} pixels from {low:.4g} to {high:.4g}; expected [0, 1]")
    noise = (adversarial - task.images).flatten(1)
    largest = torch.linalg.vector_norm(noise, ORDERS[task.norm], dim=1).max().item()
    if not largest <= task.epsilon * (1 + SHARE) + SLACK:
        raise InputError(f"{subject} an image outside its ball: its noise is {_shown(largest, task.norm)}; expected at "
                         f"most {_shown(task.epsilon, task.norm)} ({task.norm})")
    return adversarial


def _shown(radius: float, norm: str) -> str:
    return f"{radius:.4g}" if norm == "l2" else format_epsilon(radius)
