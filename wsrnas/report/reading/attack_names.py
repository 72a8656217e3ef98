"""Names of the attacks in evaluations, and keys that are equal for equal attacks."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

from wsrnas.evaluation.attack_spec import Attack, attack_of
from wsrnas.report.reading.rows import DAMAGE

PARAMETERS = ("attack", "method", "norm", "epsilon", "steps", "step_size", "restarts", "random_start", "loss", "source")


def whole_attack(row: dict[str, Any]) -> Attack | None:
    """Return the attack of a stored row; None where the row is damaged."""
    try:
        attack = attack_of({"source": "", **row})  # only transfer attacks need to say where they come from
        hash((attack, str(attack), attack.family))
    except DAMAGE:
        return None
    return attack


def attack_key(row: dict[str, Any]) -> Hashable:
    """Return a key that is equal for rows of one attack at one strength; of a damaged row, its parameters as text."""
    return whole_attack(row) or str([row.get(name) for name in PARAMETERS])


def attack_family(row: dict[str, Any]) -> Attack | str:
    """Return a key that is equal for rows that differ in their strength alone."""
    attack = whole_attack(row)
    return attack.family if attack else str(row["attack"])


def attack_label(row: dict[str, Any]) -> str:
    """Return an attack's name without its strength."""
    attack = whole_attack(row)
    return str(replace(attack, epsilon=None)) if attack else str(row["attack"])


def attack_names(attacks: Iterable[Attack | str]) -> dict[Hashable, str]:
    """Return the names of attacks or of their families; those that share a name get their parameters, too."""
    names = {attack: str(attack) for attack in attacks}
    counts = Counter(names.values())
    return {attack: ", ".join([name, *(_manner(attack) if counts[name] > 1 else [])]) for attack, name in names.items()}


def _manner(attack: Attack | str) -> list[str]:
    if isinstance(attack, str):
        return []
    ratio = attack.step_size if attack.epsilon is None else attack.family.step_size  # of a family, it is the ratio
    return [f"step {ratio:.3g} ε"] * bool(ratio) + ["random start"] * attack.random_start
