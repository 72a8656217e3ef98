"""Paired differences: how much better one network is than another, image by image."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.intervals import difference_interval
from wsrnas.evaluation.results import scores_by_attack
from wsrnas.report.html import Cell, paragraph, table
from wsrnas.report.reading.attack_names import attack_names, whole_attack
from wsrnas.report.reading.networks import AREA, AVERAGE, CLEAN, Network, area_series, marks_of, series
from wsrnas.report.reading.rows import DAMAGE
from wsrnas.report.sections import Part
from wsrnas.report.texts import percent


def paired_differences(networks: Sequence[Network]) -> Sequence[Part]:
    """Show each network minus the first network before it that was attacked alike on the same images."""
    scores = [image_scores(network) for network in networks]
    marks = {(name, over): mark for name, sums in ((AVERAGE, [network.averages for network in networks]),
                                                   (AREA, [network.areas for network in networks]))
             for over, mark in marks_of(sums).items()}
    parts = []
    for number, network in enumerate(networks):
        for other, base in zip(networks[:number], scores, strict=False):
            if _same_images(other, network) and (rows := _differences(scores[number], base, marks)):
                parts.append(table(["attack", "difference (points)", "what the interval says"], rows, (1,),
                                   f"{network.title} minus {other.title}, with 95 % intervals over the images"))
                break
    why = "On the same images, the difference of two networks is known more precisely than either accuracy."
    return [paragraph(why), *parts] if parts else []


def _same_images(one: Network, other: Network) -> bool:
    """Return whether these are two different networks on one set of images."""
    first, second = one.evaluations[-1], other.evaluations[-1]
    return bool(first.image_set) and first.image_set == second.image_set and "" not in (
        first.fingerprint, second.fingerprint) and first.fingerprint != second.fingerprint


def _differences(own: dict[Hashable, np.ndarray], base: dict[Hashable, np.ndarray],
                 marks: dict[tuple[str, tuple[str, ...]], str]) -> list[list[str | Cell]]:
    """Return one row for each attack, average and area that both networks share; none without a shared attack."""
    shared = [key for key, values in own.items() if key in base and len(base[key]) == len(values)]
    names: dict[Hashable, str] = {CLEAN: CLEAN, **attack_names(key for key in shared if isinstance(key, Attack))}
    if len(names) == 1:
        return []
    names |= {key: key[0] + marks.get(key, "") for key in shared if isinstance(key, tuple)}
    shared.sort(key=lambda key: isinstance(key, tuple))  # averages and areas last
    return [[names[key], *_difference(own[key], base[key])] for key in shared]


def _difference(own: np.ndarray, base: np.ndarray) -> list[str | Cell]:
    low, high = difference_interval(own, base)
    sign = (low > 0) - (high < 0)
    verdict = (Cell("undecided", "muted"), Cell("higher", "good"), Cell("lower", "bad"))[sign]
    return [percent(float(np.mean(own - base)), (low, high), signed=True), verdict]


def image_scores(network: Network) -> dict[Hashable, np.ndarray]:
    """Return the scores of the images, without those that are damaged.

    Returns:
        Scores (N,) in [0, 1] by ``CLEAN``, by each ``Attack``, by (``AVERAGE``, attacks) and by (``AREA``, attacks).
    """
    found: dict[Hashable, np.ndarray] = {}
    for evaluation in network.evaluations:
        found |= _scores(evaluation.result)
    return found


def _scores(result: dict[str, Any]) -> dict[Hashable, np.ndarray]:
    count = len(_flags(result["clean"]))
    rows = {attack: {"source": "", **row} for row in result["attacks"]
            if (attack := whole_attack(row)) and len(_flags(row)) == count > 0}
    try:
        scores = scores_by_attack({**result, "attacks": list(rows.values())})
    except DAMAGE:
        return {}
    named: dict[Hashable, str] = {CLEAN: "clean"} | {attack: str(attack) for attack in rows}
    if len(rows) == len(result["attacks"]):  # else they would be taken over other attacks than the file says
        named |= {(AVERAGE, series(result)): "average robust", (AREA, area_series(result)): "area"}
    return {key: scores[name] for key, name in named.items() if name in scores}


def _flags(row: dict[str, Any]) -> str:
    text = row.get("robust")
    return text if isinstance(text, str) and not set(text) - {"0", "1"} else ""
