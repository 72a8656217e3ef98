"""The noise strengths of a Wsr-NAS search: which are allowed, which PGD attacks, which the AN-Estimator estimates."""

import itertools
from collections.abc import Sequence

from wsrnas.runtime.config import require
from wsrnas.training.strengths import require_increasing


def split_strengths(count: int, attacked: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide strengths into those that PGD attacks and those that the AN-Estimator estimates (Sec. "Experiments").

    The strengths form ``attacked`` (N1) groups of equal size. PGD attacks the first strength of each group. If N1 does
    not divide the count, the first groups are larger by one.

    Args:
        count: number of strengths, N1 + N2.
        attacked: N1.

    Returns:
        Indices of the attacked and of the estimated strengths, ascending.
    """
    length, longer = divmod(count, attacked)
    first = [i * length + min(i, longer) for i in range(attacked)]
    return tuple(first), tuple(i for i in range(count) if i not in first)


def check_strengths(strengths: Sequence[float], attacked: int, estimated: int) -> None:
    """Refuse strengths that are not N1 + N2 increasing numbers inside (0, 1).

    Args:
        strengths: L-inf radii in pixels of [0, 1].
        attacked: N1.
        estimated: N2.

    Raises:
        InputError: the list is wrong; the message says how.
    """
    require(attacked >= 1, f"num_pgd_strengths (N1) is {attacked}; expected at least 1: the AN-Estimator starts from "
            "attacks")
    require(estimated >= 0, f"num_estimated_strengths (N2) is {estimated}; expected at least 0")
    require(len(strengths) == attacked + estimated,
            f"strengths has {len(strengths)} entries; expected N1 + N2 = {attacked} + {estimated} = "
            f"{attacked + estimated} (--num_pgd_strengths and --num_estimated_strengths)")
    require_increasing("strengths", strengths)
    require_column_names(strengths)


def check_attacked(attacked: Sequence[float], strengths: Sequence[float], count: int) -> None:
    """Refuse attacked strengths that are not ``count`` (N1) different ones of ``strengths``; an empty list is allowed.

    Args:
        attacked: strengths that PGD attacks, in pixels of [0, 1].
        strengths: all strengths of the search.
        count: N1.

    Raises:
        InputError: the list is wrong; the message says how.
    """
    for strength in attacked:
        require(strength in strengths, f"attacked_strengths contains {strength:g}, which is not among strengths; "
                f"expected some of {', '.join(f'{e:g}' for e in strengths)}")
        require(attacked.count(strength) == 1, f"attacked_strengths contains {strength:g} twice; expected each once")
    require(len(attacked) in (0, count), f"attacked_strengths has {len(attacked)} entries; expected N1 = {count}, or "
            "none for the first strength of each of N1 equal groups")


def attacked_indices(strengths: Sequence[float], attacked: Sequence[float], count: int) -> list[int]:
    """Return the ascending indices of the ``attacked`` strengths; without any, those of the paper's ``count`` (N1)."""
    if not attacked:
        return list(split_strengths(len(strengths), count)[0])
    return sorted(strengths.index(strength) for strength in attacked)


def require_column_names(strengths: Sequence[float]) -> None:
    """Refuse strengths that have one name in ``metrics.jsonl``: their numbers would hide one another.

    Raises:
        InputError: naming the two.
    """
    for one, other in itertools.pairwise(strengths):
        require(column_name(one) != column_name(other), f"strengths contains {one!r} and {other!r}, which agree in "
                "four digits; expected strengths that differ by more")


def column_name(epsilon: float) -> str:
    """Return the name of a strength in ``metrics.jsonl``."""
    return f"eps_{epsilon:.4g}"
