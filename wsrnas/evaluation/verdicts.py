"""What a check finds: whether it passed, in words and numbers; and the comparison of two attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wsrnas.evaluation.check_levels import QUICK
from wsrnas.evaluation.intervals import share_test, sign_test
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from torch import Tensor

SIGNIFICANCE = 0.001
ESCAPE_SHARE = 0.05  # share of images that AutoAttack breaks and PGD on the cross-entropy misses on honest networks


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check.

    Args:
        passed: whether it passed; None where it could not be run.
        says: one sentence about the outcome.
        numbers: the numbers behind it.
    """

    passed: bool | None
    says: str
    numbers: dict[str, Any] = field(default_factory=dict)


LEFT_OUT = Verdict(None, f"left out by --checks {QUICK}")


def _percent(flags: Tensor) -> str:
    return f"{100 * flags.double().mean().item():.1f} %"


def compare(stronger: Tensor, weaker: Tensor, names: tuple[str, str]) -> Verdict:
    """Fail if too many images withstand what should be the stronger attack and fall to the weaker one.

    Too many are more than fall to the stronger attack alone, or more than a share of all images.

    Args:
        stronger: (n,) bool, which correctly classified images withstand what should be the stronger attack.
        weaker: (n,) bool, the same for the weaker attack.
        names: how the sentence calls both.
    """
    escaped = int((stronger & ~weaker).sum())
    caught = int((weaker & ~stronger).sum())
    more, many = sign_test(escaped, caught), share_test(escaped, len(stronger), ESCAPE_SHARE)
    says = (f"of {len(stronger)} correct images, {_percent(stronger)} withstand {names[0]} and {_percent(weaker)} "
            f"{names[1]}; {escaped} fall to the latter alone")
    return Verdict(min(more, many) >= SIGNIFICANCE, says, {
        "images": len(stronger), "fell_only_to_weaker": escaped, "fell_only_to_stronger": caught,
        "probability": min(more, many)})


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the most suspicious of several comparisons; none were made if the quick checks leave them out."""
    return min(verdicts, key=lambda verdict: verdict.numbers["probability"], default=LEFT_OUT)
