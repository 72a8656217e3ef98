"""The result of an evaluation: accuracies with intervals from flags of images, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import Attack, attack_of
from wsrnas.evaluation.caveats import caveats
from wsrnas.evaluation.check_levels import FULL, NONE
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.curve_results import (
    MeasuredCurve,
    area_end,
    curve_rows,
    measure_curve,
    median_cell,
    stored_scores,
    summary,
)
from wsrnas.evaluation.disagreements import disagreements
from wsrnas.evaluation.honesty import Part, choose_images, choose_strength, honesty_checks
from wsrnas.evaluation.intervals import accuracy_interval, accuracy_row, difference_interval
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.errors import InputError

with deferred_imports():
    import torch
    from torch import Tensor

    from wsrnas.evaluation.measurement import Evaluation

FORMAT = "wsrnas evaluation 1"


def measure(evaluation: Evaluation, attacks: Sequence[Attack], check_images: int,
            keep: Callable[[dict[str, Any]], None] = lambda result: None, spare_fallen: bool = False,
            level: str = FULL, curve: Curve | None = None) -> dict[str, Any]:
    """Run attacks on a network, then the honesty checks.

    Args:
        evaluation: evaluation of the network.
        attacks: the attacks, in the order of the result.
        check_images: number of correctly classified images for the checks.
        keep: function that receives the incomplete result after each attack.
        spare_fallen: whether an image that fell at a smaller strength counts as fallen without being attacked again,
            where the attack allows it (``spares_the_fallen``). The strengths of an attack must then increase.
        level: which honesty checks run, a key of ``CHECK_LEVELS``.
        curve: the curve that is measured first; its strengths come before the attacks.

    Returns:
        ``complete``, ``images``, ``clean``, ``attacks``, ``average_robust``, ``area``, ``curve``, ``disagreements``,
        ``passes``, ``check_level``, ``checks``, ``failed_checks`` and ``warnings``: plain values, every accuracy with
        its 95 % interval and one character (1 or 0) per image. Passes are those of a test image on average, forward
        with backward and forward alone; None where they are not known.
    """
    clean = evaluation.clean()
    found = measure_curve(evaluation, clean, curve) if curve else None
    measured: list[tuple[Attack, Tensor]] = []
    rows: list[dict[str, Any]] = []
    for attack in attacks:
        standing = _standing(clean, attack, measured if spare_fallen else ())
        flags = evaluation.robust(attack, standing.nonzero().flatten())
        seconds, warnings = evaluation.cost(attack)
        passes = evaluation.passes_of(attack)
        measured.append((attack, flags))
        rows.append({**attack.describe(), **accuracy_row(flags), "seconds": round(seconds, 1), "warnings": warnings,
                     "passes": list(passes) if passes else None})
        evaluation.log(f"{evaluation.name}: {attack}: {_cell(rows[-1])} %, {seconds:.1f} s")
        keep(_result(evaluation, clean, measured, rows, level, found))
    checks = []
    if level != NONE:
        points, more = curve_rows(found, measured)
        strength = choose_strength([*more, *rows], clean.double().mean().item())
        part = Part(evaluation, choose_images(clean, check_images, evaluation.seed), strength, level, spare_fallen)
        checks = honesty_checks(part, [(attack, flags[clean]) for attack, flags in (*points, *measured)])
    return {**_result(evaluation, clean, measured, rows, level, found, checks), "complete": True}


def _standing(clean: Tensor, attack: Attack, measured: Sequence[tuple[Attack, Tensor]]) -> Tensor:
    """Return the images to attack, (N,) bool: those that are right and did not fall to the attack's smaller strengths.

    Args:
        clean: (N,) bool, which images are classified correctly.
        attack: the attack.
        measured: earlier attacks with their (N,) flags; none: every correct image is attacked.
    """
    smaller = [flags for other, flags in measured if attack.entry.spares_the_fallen and attack.epsilon is not None
               and other.family == attack.family and other.epsilon is not None and other.epsilon < attack.epsilon]
    return torch.stack([clean, *smaller]).all(0)


def _passes(evaluation: Evaluation, rows: Sequence[dict[str, Any]]) -> list[float] | None:
    """Return the passes of prediction and attacks together for each test image; None where one is not known."""
    parts = [evaluation.passes_of(None), *(row["passes"] for row in rows)]
    return None if None in parts else [sum(numbers) for numbers in zip(*parts, strict=True)]


def _result(evaluation: Evaluation, clean: Tensor, measured: Sequence[tuple[Attack, Tensor]],
            rows: list[dict[str, Any]], level: str, found: MeasuredCurve | None,
            checks: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    curve = summary(found, clean, measured) if found else None
    differ = disagreements([*(found.points if found else ()), *measured])
    points, more = curve_rows(found, measured)
    measured, rows = [*points, *measured], [*more, *rows]
    return {
        "complete": False, "images": len(clean), "clean": accuracy_row(clean), "attacks": list(rows),
        "average_robust": average_robust(measured), "curve": curve, "disagreements": differ,
        "area": curve["area"] if curve else normalised_area(clean, measured),
        "passes": _passes(evaluation, rows), "check_level": level, "checks": list(checks),
        "failed_checks": [check["check"] for check in checks if check["passed"] is False],
        "warnings": sorted({warning for row in rows for warning in row["warnings"]}),
    }


def _spectrum(measured: Sequence[tuple[Attack, Tensor]]) -> list[tuple[Attack, Tensor]]:
    """Return the longest series of one averaged L-inf attack over strengths, of equally long ones PGD's."""
    series: dict[Attack, list[tuple[Attack, Tensor]]] = {}
    for attack, flags in measured:
        if attack.entry.averaged and attack.norm == "linf":
            series.setdefault(attack.family, []).append((attack, flags))
    longest = max(series.values(), key=lambda pairs: (len(pairs), pairs[0][0].method == "pgd"), default=[])
    return sorted(longest, key=lambda pair: pair[0].epsilon or 0.0)


def average_robust(measured: Sequence[tuple[Attack, Tensor]]) -> dict[str, Any] | None:
    """Return the plain mean of PGD accuracies over strengths; None for fewer than two strengths."""
    scores = _average_scores(measured)
    if scores is None:
        return None
    return {"accuracy": float(scores.mean()), "interval": list(accuracy_interval(scores)),
            "over": [str(attack) for attack, _ in _spectrum(measured)]}


def _average_scores(measured: Sequence[tuple[Attack, Tensor]]) -> np.ndarray | None:
    """Return the share of strengths that each image withstands, (N,); None for fewer than two strengths."""
    series = _spectrum(measured)
    return torch.stack([flags for _, flags in series]).double().mean(0).numpy() if len(series) > 1 else None


def normalised_area(clean: Tensor, measured: Sequence[tuple[Attack, Tensor]]) -> dict[str, Any] | None:
    """Return the area under the PGD accuracy over ε from 0 (clean) to the largest strength, divided by that strength.

    Between neighbouring strengths the curve is a straight line. The result is None for fewer than two strengths.
    """
    scores = _area_scores(clean, measured)
    if scores is None:
        return None
    return {"value": float(scores.mean()), "interval": list(accuracy_interval(scores)),
            "up_to": _spectrum(measured)[-1][0].epsilon}


def _area_scores(clean: Tensor, measured: Sequence[tuple[Attack, Tensor]]) -> np.ndarray | None:
    """Return the area under each image's own flags over strength, (N,); None for fewer than two strengths."""
    series = _spectrum(measured)
    if len(series) < 2:
        return None
    epsilons = np.array([0.0, *(attack.epsilon for attack, _ in series)])
    flags = torch.stack([clean, *(flags for _, flags in series)]).double().numpy()
    return np.trapezoid(flags, epsilons, axis=0) / epsilons[-1]


def flags_of(row: dict[str, Any]) -> np.ndarray:
    """Return the flags of a stored row, (N,) 0 or 1."""
    return np.array([character == "1" for character in row["robust"]], dtype=np.uint8)


# -- for people -----------------------------------------------------------------------------------------------------

def table(results: dict[str, dict[str, Any]]) -> str:
    """Return results as a text table: one row per attack, one column per network, in percent with 95 % intervals.

    What the numbers do not show stands before them.
    """
    rows = [["", *results], ["clean", *(_cell(result["clean"]) for result in results.values())]]
    if len(counts := {result["images"] for result in results.values()}) > 1:
        rows.insert(1, ["test images", *(str(result["images"]) for result in results.values())])
    columns = [{attack_of(row): _cell(row) for row in result["attacks"]} for result in results.values()]
    attacks = dict.fromkeys(attack for column in columns for attack in column)
    for attack in attacks:
        twin = any(str(other) == str(attack) and other != attack for other in attacks)
        rows.append([f"{attack}{_settings(attack) if twin else ''}", *(column.get(attack, "-") for column in columns)])
    spans = {tuple(result["average_robust"]["over"]) for result in results.values() if result["average_robust"]}
    averages = [_average_row(result, len(spans) > 1) for result in results.values()]
    areas = [_area_row(result) for result in results.values()]
    for about in (averages, areas):
        for name in dict.fromkeys(name for name, _ in about if name):
            rows.append([name, *(cell if own == name else "-" for own, cell in about)])
    if any(result.get("curve") for result in results.values()):
        rows.append(["median smallest noise", *(median_cell(result["curve"]) if result.get("curve") else "-"
                                                for result in results.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    lines[:0] = [f"!!! {name}: {sentence}" for name, result in results.items() for sentence in caveats(result)]
    images = f"{counts.pop()} test images" if len(counts) == 1 else "the test images"
    return "\n".join([*lines, f"accuracy in % of {images}, with 95 % intervals"])


def _settings(attack: Attack) -> str:
    """Return what tells attacks of one name apart."""
    step = "" if attack.step_size is None else f", steps of {attack.step_size:.4g}"
    return f"{step}{', random start' * attack.random_start}{f', {attack.loss}' * bool(attack.loss)}"


def _average_row(result: dict[str, Any], exactly: bool) -> tuple[str, str]:
    """Return the name of the average over strengths, with these if asked, and its cell; "" where there is none."""
    if not (average := result["average_robust"]):
        return "", "-"
    over = average["over"]
    kind = "PGD" if over[0].startswith("PGD") else over[0].partition("  eps")[0]
    strengths = ", ".join(text.partition("  eps ")[2].partition(" ")[0] for text in over)
    return f"average over {len(over)} strengths of {kind}{f': {strengths}' * exactly}", _cell(average)


def _area_row(result: dict[str, Any]) -> tuple[str, str]:
    """Return the name of the area under the curve, which tells where it ends, and its cell; "" where there is none."""
    if not (area := result["area"]):
        return "", "-"
    return f"area up to {area_end(result)}", _cell({**area, "accuracy": area["value"]})


def _cell(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


def differences(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the paired differences of each further network from the first, attack by attack.

    Args:
        results: what ``evaluate`` returned, by the names of the networks.

    Returns:
        Rows with ``name``, ``against``, ``attack``, ``difference`` and ``interval``, accuracies in [0, 1]; no rows for
        a network that was measured on other images, for attacks with other settings, and for averages and areas over
        other strengths.

    Raises:
        InputError: this is no such dictionary.
    """
    if not isinstance(results, dict) or not results or not all(isinstance(one, dict) for one in results.values()):
        raise InputError("differences are between several results; expected a dictionary from names to them, such as "
                         "differences({'a': a, 'b': b})")
    (first_name, first), *others = results.items()
    rows = []
    for name, result in others:
        if result["image_set"] != first["image_set"]:
            continue
        mine, theirs = scores_by_attack(result), scores_by_attack(first)
        same = [score for score in mine if score in theirs and meaning_of(result, score) == meaning_of(first, score)]
        rows += [{"name": name, "against": first_name, "attack": attack,
                  "difference": float((mine[attack] - theirs[attack]).mean()),
                  "interval": list(difference_interval(mine[attack], theirs[attack]))}
                 for attack in same]
    return rows


def meaning_of(result: dict[str, Any], score: str) -> Any:
    """Return what a score of ``scores_by_attack`` is of: equal for scores that may be compared."""
    measured = [attack_of(row) for row in result["attacks"]]
    series = [attack for attack, _ in _spectrum([(attack, torch.zeros(0)) for attack in measured])]
    if score == "average robust":
        return series
    if score == "area":
        return (result["curve"]["norm"], result["area"]["up_to"]) if result.get("curve") else series
    return next((attack for attack in measured if str(attack) == score), score)


def scores_by_attack(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the scores of the images in [0, 1], (N,): ``clean``, every attack, ``average robust`` and ``area``."""
    measured = [(attack_of(row), torch.from_numpy(flags_of(row))) for row in result["attacks"]]
    clean = torch.from_numpy(flags_of(result["clean"]))
    scores: dict[str, np.ndarray | None] = {"clean": clean.double().numpy()}
    scores |= {str(attack): flags.double().numpy() for attack, flags in measured}
    scores |= {"average robust": _average_scores(measured),
               "area": stored_scores(result["curve"]) if result.get("curve") else _area_scores(clean, measured)}
    return {name: values for name, values in scores.items() if values is not None}


def difference_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return paired differences as lines of text, in points; a star marks an interval that excludes zero."""
    lines = []
    for row in rows:
        low, high = row["interval"]
        star = " *" if low > 0 or high < 0 else ""
        lines.append(f"{row['name']} - {row['against']}  {row['attack']}: {100 * row['difference']:+.2f} points "
                     f"[{100 * low:+.1f}, {100 * high:+.1f}]{star}")
    return "\n".join(lines)


def check_lines(result: dict[str, Any]) -> list[str]:
    """Return one line per check; failed checks are printed in capitals."""
    if not result["checks"]:
        return [f"  none, as --checks {NONE} asks"]
    words = {True: "passed ", False: "FAILED ", None: "not run"}
    lines = [f"  {words[check['passed']]}  {check['check']}: {check['says']}" for check in result["checks"]]
    if result["failed_checks"]:
        lines.append(f"!!! {len(result['failed_checks'])} honesty check(s) failed: the accuracies above are only upper "
                     "bounds, and probably too high")
    if missing := sum(check["passed"] is None for check in result["checks"]):
        lines.append(f"    {missing} check(s) could not be run")
    return lines


def passes_line(result: dict[str, Any]) -> str:
    """Return how many passes of the network prediction and attacks took for each test image."""
    if result.get("passes") is None:
        return "passes of the attacks: not known, because chunks of an older version were found"
    both, forward = result["passes"]
    return (f"passes of the attacks for each test image: {both:.1f} forward with backward, {forward:.1f} forward "
            "(without the honesty checks)")


def official_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the accuracy of the published way, the honest one and their paired difference as lines of text."""
    lines = []
    for row in rows:
        low, high = row["interval"]
        lines.append(f"  eps {format_epsilon(row['epsilon'])}: published way {100 * row['published_way']:.2f} %, "
                     f"honest {100 * row['honest']:.2f} %, difference {100 * row['difference']:+.2f} points "
                     f"[{100 * low:+.1f}, {100 * high:+.1f}]")
    return "\n".join(lines)
