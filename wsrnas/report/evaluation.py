"""The accuracies of networks under attack, and what was evaluated."""

import math
from collections.abc import Sequence
from typing import Any

from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.curve_results import area_end, median_cell
from wsrnas.report.figures.accuracy import accuracy
from wsrnas.report.html import paragraph, table
from wsrnas.report.reading.attack_names import PARAMETERS, attack_label
from wsrnas.report.reading.networks import AREA, AVERAGE, CLEAN, Network, marks_of
from wsrnas.report.reading.whole_curves import WholeCurve, curves_of
from wsrnas.report.sections import Part
from wsrnas.report.texts import over_in_words, percent

FEW = 6  # attacks that a sentence lists one by one


def robustness(networks: Sequence[Network]) -> Sequence[Part]:
    """Show accuracy over strength as figures, and as a table with the parameters of every attack."""
    if not networks:
        return []
    pictures = [accuracy(networks, norm) for norm in ("linf", "l2")]
    return [*(shown for shown in pictures if shown), *_whole_curves(networks), attack_table(networks),
            *_sum_notes(networks), _origins(networks)]


def _whole_curves(networks: Sequence[Network]) -> list[str]:
    """Return a table of the areas and the medians of whole curves, if there are any."""
    rows = [[network.title, *_curve_cells(curve)] for network in networks for norm in ("linf", "l2")
            for curve in curves_of(network, norm)]
    caption = ("The whole curve: the mean accuracy in % over all strengths up to the largest (area), and the smallest "
               "noise of half of the images that are right without noise (median), with 95 % intervals")
    header = ["network", "norm", "largest ε", "area", "median smallest noise", "attack", "lowered by"]
    return [table(header, rows, (2, 3), caption)] if rows else []


def _curve_cells(curve: WholeCurve) -> list[str]:
    """Return norm, largest strength, area, median, attack, and what else lowers the curve."""
    found, linf = curve.document, curve.document["norm"] == "linf"
    top = found["strengths"][-1]
    return ["L∞" if linf else "L2", f"{255 * top:.4g}/255" if linf else f"{top:.4g}",
            percent(found["area"]["value"], found["area"].get("interval")), median_cell(found), curve.name,
            ", ".join(map(str, found.get("lowered_by") or [])) or "–"]


def attack_table(networks: Sequence[Network]) -> str:
    """Return a table with one row for each attack with all its parameters, and one column for each network."""
    measured = [network.attacks for network in networks]
    attacks = {key: row for found in measured for key, row in found.items()}
    places = {label: place for place, label in enumerate(dict.fromkeys(map(attack_label, attacks.values())))}
    header = ["attack", "norm", "ε", "ε in 1/255", *(network.title for network in networks),
              "steps", "step size", "restarts", "start", "loss"]
    before, after = [""] * 3, [""] * 5
    rows = [[CLEAN, *before, *(_accuracy(network.newest["clean"]) for network in networks), *after]]
    for key, row in sorted(attacks.items(), key=lambda item: (places[attack_label(item[1])],
                                                              item[1]["epsilon"] or math.inf)):
        strength, manner = _parameters({name: row.get(name) for name in PARAMETERS})
        rows.append([attack_label(row), *strength, *(_accuracy(found.get(key)) for found in measured), *manner])
    sums = _sums(networks)
    strong = range(len(rows), len(rows) + len(sums))
    rows += [[name, *before, *cells, *after] for name, cells in sums]
    return table(header, rows, range(2, 9 + len(networks)), "Accuracy in %, with 95 % intervals over the test images",
                 strong)


def _sums(networks: Sequence[Network]) -> list[tuple[str, list[str]]]:
    """Return averages and areas of each kind: their name, and one cell for each network."""
    rows: list[tuple[str, list[str]]] = []
    for name, key, value, found in ((AVERAGE, "average_robust", "accuracy", [each.averages for each in networks]),
                                    (AREA, "area", "value", [each.areas for each in networks])):
        for over, mark in marks_of(found).items():
            sums = [results.get(over, {}).get(key) for results in found]
            rows.append((name + mark, [percent(s[value], s.get("interval")) if s else "–" for s in sums]))
    return rows


def _sum_notes(networks: Sequence[Network]) -> list[str]:
    """Return sentences that say what the averages and the areas are taken over."""
    notes = []
    for over, mark in marks_of(network.averages for network in networks).items():
        notes += [f"Average robust{mark}: the mean over {_listed(over)}."] * bool(over)
    for over, mark in marks_of(network.areas for network in networks).items():
        found = next(network.areas[over] for network in networks if over in network.areas)
        if (found.get("area") or {}).get("up_to"):
            norm = " of L2 noise" * (bool(mark) and (found.get("curve") or {}).get("norm") == "l2")
            notes.append(f"Area{mark}: the mean accuracy over ε{norm} from 0 to {area_end(found)}.")
    return [paragraph(note, "note") for note in notes]


def _listed(over: Sequence[str]) -> str:
    """Return attacks one by one; many of one kind as their first and last strength."""
    words = over_in_words(over)
    if len(over) < FEW or words.endswith("attacks"):
        return ", ".join(over)
    first, last = (name.partition("  eps ")[2] for name in (over[0], over[-1]))
    return f"{words} from {first} to {last}"


def _parameters(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return an attack's norm and strength, and its other parameters."""
    epsilon, step = row["epsilon"], row["step_size"]
    linf = row["norm"] != "l2"
    strength = [{"linf": "L∞", "l2": "L2"}.get(row["norm"], _shown(row["norm"])),
                "unbounded" if epsilon is None else f"{epsilon:.4f}",
                f"{255 * epsilon:.4g}" if epsilon is not None and linf else "–"]
    start = "–" if step is None else "random" if row["random_start"] else "image"
    entry = ATTACKS.get(str(row["method"]))
    steps = row["steps"] or (1 if entry and entry.step_factor else None)  # a gradient attack without a number has one
    return strength, [_shown(steps), "–" if step is None else f"{step:.3g}", _shown(row["restarts"]),
                      start, _shown(row["loss"] or None)]


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)


def _accuracy(row: dict[str, Any] | None) -> str:
    return percent(row["accuracy"], row.get("interval")) if row else "–"


def _origins(networks: Sequence[Network]) -> str:
    rows = []
    for network in networks:
        model = network.evaluations[-1].model
        rows.append([network.title, network.every("protocol"), network.every("dataset"), network.every("images"),
                     network.every("seed"), _shown(model.get("source")), _count(model.get("parameters")),
                     _shown(model.get("fingerprint"))])
    return table(["network", "protocol", "data set", "images", "seed", "weights", "parameters", "fingerprint"], rows,
                 (3, 4, 6), "What was evaluated")


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else _shown(value)
