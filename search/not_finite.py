"""Refuse what a step of Wsr-NAS has measured or learned where it is NaN or infinite, before a memory keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search.strategy.step import Step
from search.strategy.strengths import column_name
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.finite import require_finite

if TYPE_CHECKING:
    from torch import Tensor

OTHERWISE = "start under another --save with a lower"
RATES = {"AN-Estimator": "estimator_learning_rate", "loss estimator": "loss_learning_rate",
         "objective": "architecture_learning_rate"}  # that may be too large, by what was found


def finite(value: float, step: Step, what: str) -> float:
    """Return a number.

    Args:
        value: The number.
        step: The step that found it.
        what: Its name in the message, which ends with one of ``RATES``.

    Raises:
        InputError: It is not finite; the message names the step.
    """
    rate = next(rate for name, rate in RATES.items() if what.endswith(name))
    require_finite(float(value), f"{step.title}: {what}", f"{OTHERWISE} --{rate}")
    return value


def require_finite_measurement(measured: Mapping[str, Tensor], strengths: Sequence[float], estimated: Sequence[int],
                               step: Step) -> None:
    """Refuse losses and vulnerabilities on D_v that are not finite.

    Args:
        measured: ``losses`` (1 + N1 + N2,), natural first; under a bound ``vulnerabilities`` (N1 + N2,).
        strengths: N1 + N2 strengths in pixels of [0, 1].
        estimated: Indices of those whose noise the AN-Estimator has made.
        step: The step that measured them.

    Raises:
        InputError: The message names the first one, and whether the AN-Estimator may be the cause.
    """
    for kind, first in (("losses", 0), ("vulnerabilities", 1)):
        numbers = measured[kind].tolist() if kind in measured else []
        broken = [index for index, number in enumerate(numbers, start=first)
                  if not abs(number) < float("inf")]  # also where it is NaN
        if not broken:
            continue
        index = broken[0]
        where = f"under noise of {column_name(strengths[index - 1])}" if index else "without noise"
        blamed = {index - 1 for index in broken} <= set(estimated)
        raise InputError(
            f"{step.title}: {'a loss' if kind == 'losses' else 'a vulnerability'} on D_v is not finite "
            f"({numbers[index - first]} {where}{', which the AN-Estimator has made' * blamed}); {OTHERWISE} "
            f"--{'estimator_' * blamed}learning_rate")
