"""What keeps a result from showing anything, in sentences that stand before its numbers."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from wsrnas.evaluation.check_levels import NONE, QUICK

BLACK_BOX = ("noise", "transfer", "square")  # attacks that do not follow the gradients of the attacked network
NEARLY_NONE = 0.05  # share of right images below which two noises cannot be told apart: both break nearly every image


def chance(labels: Sequence[int], num_classes: int) -> float:
    """Return the accuracy of a network that always answers the most frequent class; at least one in all classes.

    Args:
        labels: (N,) classes of the test images.
        num_classes: number of classes.
    """
    counts = [0] * num_classes
    for label in labels:
        counts[label] += 1
    return max([count / len(labels) for count in counts if count] + [1 / num_classes])


def is_at_chance(result: Mapping[str, Any]) -> bool:
    """Return whether a clean accuracy is not above chance: its interval reaches down to it.

    Results that do not say what chance is are older, and are believed.
    """
    level = result.get("chance")
    return level is not None and result["clean"]["interval"][0] <= level


def caveats(result: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each reason why an evaluation shows less than its numbers seem to say."""
    found = []
    if is_at_chance(result):
        low, high = result["clean"]["interval"]
        found.append(f"the clean accuracy, {100 * result['clean']['accuracy']:.1f} % [{100 * low:.1f}, "
                     f"{100 * high:.1f}], is not above chance ({100 * result['chance']:.1f} %): nothing follows about "
                     "robustness")
    if failed := len(result.get("failed_checks") or ()):
        found.append(f"{failed} honesty check(s) FAILED: the accuracies are upper bounds only, and probably too high")
    attacks = result.get("attacks") or ()
    if attacks and not result.get("curve") and all(row.get("method") in BLACK_BOX for row in attacks):
        found.append("no attack of this evaluation follows gradients: the accuracies under attack are upper bounds "
                     "only, and may be far too high")
    return found + unchecked(result)


def unchecked(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the honesty checks of a complete result that did not run, if any."""
    checks = result.get("checks") or ()
    missing = [check["check"] for check in checks if check["passed"] is None]
    if not result.get("complete"):
        return []
    if len(missing) == len(checks):
        why = f" (--checks {NONE})" if result.get("check_level") == NONE else ""
        return [f"no honesty check ran{why}: the accuracies may be too high, and nothing would show it"]
    asked = f" (--checks {QUICK})" if result.get("check_level") == QUICK else ""
    return [f"{len(missing)} of {len(checks)} honesty checks did not run{asked}: {', '.join(missing)}"] * bool(missing)


def counted(sentences: Iterable[str]) -> list[str]:
    """Return each sentence once, with the number of evaluations that it is about."""
    return [f"In {count} evaluation{'s' * (count > 1)}, {sentence}" for sentence, count in Counter(sentences).items()]


def leader(ranked: Sequence[str], better: Callable[[str, str], bool], at_chance: Collection[str] = ()
           ) -> tuple[bool, str]:
    """Return whether a race has a leader, and a sentence that names it or says why there is none.

    Args:
        ranked: names of the entrants with results, best first.
        better: function that returns whether the first of two entrants is told to be better than the second.
        at_chance: entrants whose clean accuracy is not above chance in some training.
    """
    if not ranked:
        return False, "no network is evaluated yet"
    first, *others = ranked
    if first in at_chance:
        return False, f"{first} ranks first, but its clean accuracy is not above chance"
    close = [other for other in others if not better(first, other)]
    names = ", ".join(close) if len(close) < 3 else f"{len(close)} others"
    if close:
        return False, f"{first} ranks first, but is not distinct from {names}"
    return bool(others), first if others else f"{first} has no rival"


def saturated_strengths(check: Mapping[str, Any]) -> list[str]:
    """Return the strengths, as a search's check of its estimator names them, at which the gap shows nothing."""
    estimates, attacks = (check.get(key) or {} for key in ("estimated_accuracy", "pgd_accuracy"))
    return [name for name in estimates if name in attacks and is_saturated(estimates[name], attacks[name])]


def is_saturated(estimate: float, attack: float) -> bool:
    """Return whether nearly no image is right under either of two noises, so that their gap shows nothing.

    Args:
        estimate: accuracy under the one, a share.
        attack: accuracy under the other.
    """
    return max(estimate, attack) < NEARLY_NONE
