"""Images on which AutoAttack and a cheaper attack in its place disagree, where both ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsrnas.evaluation.attack_spec import Attack
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from torch import Tensor

MOST_SHOWN = 10  # images of a line


def disagreements(measured: Sequence[tuple[Attack, Tensor]]) -> list[dict[str, Any]]:
    """Return the images that fall to one attack alone, for each cheaper attack at each strength of AutoAttack.

    Args:
        measured: attacks with their (N,) flags of images that withstand them.

    Returns:
        Rows with ``cheaper`` and ``reference``, the names of both attacks, and the indices of the images that fall
        ``only_to_cheaper`` and ``only_to_reference``.
    """
    return [{"cheaper": str(attack), "reference": str(strict),
             "only_to_cheaper": (withstood & ~flags).nonzero().flatten().tolist(),
             "only_to_reference": (flags & ~withstood).nonzero().flatten().tolist()}
            for attack, flags in measured if attack.entry.stands_for_autoattack
            for strict, withstood in measured if strict.entry.leaderboard
            and (strict.norm, strict.epsilon) == (attack.norm, attack.epsilon)]


def disagreement_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line for each pair of attacks."""
    def images(indices: Sequence[int]) -> str:
        shown = ", ".join(map(str, indices[:MOST_SHOWN])) + ", ..." * (len(indices) > MOST_SHOWN)
        return f"{len(indices)}" + (f" (images {shown})" if indices else "")
    return [f"{row['cheaper']} and {row['reference'].partition('  eps')[0]}: fell to the latter alone "
            f"{images(row['only_to_reference'])}, to the former alone {images(row['only_to_cheaper'])}" for row in rows]
