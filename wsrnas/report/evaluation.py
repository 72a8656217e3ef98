"""The sections of a report that say how robust networks are, alone and against one another."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsrnas.confidence import difference_interval
from wsrnas.config import format_epsilon
from wsrnas.report.data import Evaluation, attack_name, averaged_over
from wsrnas.report.figures import accuracy
from wsrnas.report.html import Cell, Picture, Section, paragraph, table

PARAMETERS = ("attack", "method", "norm", "epsilon", "steps", "step_size", "restarts", "random_start", "loss")
MARKS = {True: ("passed", "good"), False: ("FAILED", "bad"), None: ("not run", "muted")}


def percent(value: float | None, interval: Any = None, signed: bool = False) -> str:
    """A share in percent with its interval: ``50.0 [47.0, 53.0]``."""
    if value is None:
        return "–"
    form = "{:+.1f}" if signed else "{:.1f}"
    text = form.format(100 * value).replace("-", "−")
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return text
    return f"{text} [{', '.join(form.format(100 * end).replace('-', '−') for end in interval)}]"


def robustness(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section | None:
    """Accuracy over strength as figures and as a table with every attack's parameters."""
    if not evaluations:
        return None
    pictures = [accuracy(evaluations, names, norm) for norm in ("linf", "l2")]
    return Section("Accuracy under attack", [shown for shown in pictures if shown] + [
        attack_table(evaluations, names), *_origins(evaluations, names)])


def attack_table(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """One row an attack with all its parameters, one column a network."""
    attacks: dict[tuple, dict[int, dict[str, Any]]] = {}
    for index, evaluation in enumerate(evaluations):
        for row in evaluation.result["attacks"]:
            attacks.setdefault(tuple(row.get(name) for name in PARAMETERS), {})[index] = row
    header = ["attack", "norm", "ε", "ε in 1/255", *names, "steps", "step size", "restarts", "start", "loss"]
    before, after = [""] * 3, [""] * 5
    rows = [["no attack", *before, *(_accuracy(e.result["clean"]) for e in evaluations), *after]]
    for key, found in attacks.items():
        strength, manner = _parameters(dict(zip(PARAMETERS, key, strict=True)))
        rows.append([*strength, *(_accuracy(found.get(index)) for index in range(len(evaluations))), *manner])
    sums = []
    averages = [e.result.get("average_robust") for e in evaluations]
    if any(averages):
        sums.append(len(rows))
        rows.append(["average robust", *before, *(_accuracy(value) for value in averages), *after])
    areas = [e.result.get("area") for e in evaluations]
    if any(areas):
        sums.append(len(rows))
        rows.append(["area under the curve", *before,
                     *(percent(a["value"], a.get("interval")) if a else "–" for a in areas), *after])
    meanings = [(name, f"average robust: the mean over {', '.join(averaged_over(e.result))}")
                for name, e in zip(names, evaluations, strict=True) if averaged_over(e.result)]
    meanings += [(name, f"area: the mean accuracy over ε from 0 to {format_epsilon(area['up_to'])}")
                 for name, area in zip(names, areas, strict=True) if area and area.get("up_to")]
    meanings += [(name, "the evaluation is not complete: attacks or honesty checks are still to come")
                 for name, e in zip(names, evaluations, strict=True) if e.result.get("complete") is False]
    return table(header, rows, range(2, 9 + len(names)), "Accuracy in %, with 95 % intervals over the test images",
                 sums) + "".join(paragraph(note, "note") for note in _grouped(meanings, len(names)))


def _grouped(pairs: Sequence[tuple[str, str]], count: int) -> list[str]:
    """Sentences about networks, each once: with the names it holds for, unless it holds for all ``count``."""
    holds: dict[str, list[str]] = {}
    for name, sentence in pairs:
        holds.setdefault(sentence, []).append(name)
    return [(sentence[0].upper() + sentence[1:] if len(names) == count else f"{', '.join(names)}: {sentence}") + "."
            for sentence, names in holds.items()]


def _parameters(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """An attack's name and strength, and how it goes about it."""
    epsilon, step = row["epsilon"], row["step_size"]
    linf = row["norm"] != "l2"
    strength = [row["attack"], {"linf": "L∞", "l2": "L2"}.get(row["norm"], _shown(row["norm"])),
                "unbounded" if epsilon is None else f"{epsilon:.4f}",
                f"{255 * epsilon:.4g}" if epsilon is not None and linf else "–"]
    start = "–" if step is None else "random" if row["random_start"] else "image"
    steps = 1 if row["method"] == "fgsm" else row["steps"] or None
    return strength, [_shown(steps), "–" if step is None else f"{step:.3g}", _shown(row["restarts"]),
                      start, _shown(row["loss"] or None)]


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)


def _accuracy(row: dict[str, Any] | None) -> str:
    return percent(row["accuracy"], row.get("interval")) if row else "–"


def _origins(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    rows = [[name, _shown(r.get("protocol")), _shown(r.get("dataset")), _shown(r.get("images")), _shown(r.get("seed")),
             _shown((r.get("model") or {}).get("source")), _count((r.get("model") or {}).get("parameters")),
             _shown((r.get("model") or {}).get("fingerprint"))]
            for name, r in ((name, e.result) for name, e in zip(names, evaluations, strict=True))]
    return [table(["network", "protocol", "data set", "images", "seed", "weights", "parameters", "fingerprint"], rows,
                  (3, 4, 6), "What was evaluated")]


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else _shown(value)


# -- honesty ----------------------------------------------------------------------------------------------------------

def failed_checks(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    """A sentence for each honesty check that failed."""
    failed = []
    for name, evaluation in zip(names, evaluations, strict=True):
        checks = [check for check in evaluation.result.get("checks") or [] if isinstance(check, dict)]
        found = {check.get("check"): check.get("says", "") for check in checks if check.get("passed") is False}
        known = dict.fromkeys(map(str, evaluation.result.get("failed_checks") or []), "")
        failed += [f"{name}: {check}" + f" – {says}" * bool(says) for check, says in (known | found).items()]
    return failed


def honesty(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section | None:
    """Every check for gradient masking with its numbers, failed ones first; the evaluations' warnings."""
    rows = [[check["check"], Cell(*MARKS.get(check.get("passed"), MARKS[None])), name,
             Cell(str(check.get("says", "")), "text")]
            for name, evaluation in zip(names, evaluations, strict=True)
            for check in evaluation.result.get("checks") or []]
    rows.sort(key=lambda row: row[1].kind != "bad")
    warnings = _grouped([(name, str(warning).rstrip(".")) for name, evaluation in zip(names, evaluations, strict=True)
                         for warning in evaluation.result.get("warnings") or [] if warning], len(names))
    if not rows and not warnings:
        return None
    shown = [table(["check", "result", "network", "what was seen"], rows, caption="Signs of gradient masking: a "
                   "network that hides its gradients looks robust to attacks that use them")] if rows else []
    return Section("Honesty checks", shown + [paragraph(warning, "warning") for warning in warnings])


def official(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section | None:
    """What the published evaluation would have said, beside the honest numbers."""
    rows = [[name, format_epsilon(row["epsilon"]), percent(row["published_way"]), percent(row["honest"]),
             percent(row["difference"], row.get("interval"), signed=True)]
            for name, evaluation in zip(names, evaluations, strict=True)
            for row in evaluation.result.get("official") or []]
    if not rows:
        return None
    return Section("The published way and the honest one", [
        paragraph("The published code attacks a network that normalises by the batch and predicts with running "
                  "statistics that the attack has changed. The difference is what that adds or hides."),
        table(["network", "ε", "published way (%)", "honest (%)", "difference (points)"], rows, range(1, 5))])


# -- comparison -------------------------------------------------------------------------------------------------------

def scores(row: dict[str, Any] | None) -> np.ndarray | None:
    """Which images withstood, (N,) of 0 and 1; None where that was not stored."""
    text = (row or {}).get("robust")
    if not isinstance(text, str) or not text or set(text) - {"0", "1"}:
        return None
    return np.array([character == "1" for character in text], dtype=float)


def _rows_by_attack(evaluation: Evaluation) -> dict[tuple, np.ndarray | None]:
    """Scores under every attack (its parameters), without attack (the empty key), and their mean over the average."""
    result = evaluation.result
    rows = {(): scores(result["clean"])}
    rows |= {tuple(row.get(name) for name in PARAMETERS): scores(row) for row in result["attacks"]}
    over = averaged_over(result)
    averaged = [scores(row) for row in result["attacks"] if attack_name(row) in over]
    if averaged and len(averaged) == len(over) and all(values is not None for values in averaged):
        rows["average robust", *over] = np.mean(averaged, axis=0)
    return rows


def paired_differences(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section | None:
    """Every network minus the first that met the same images under the same protocol, image by image."""
    if len(evaluations) < 2:
        return None
    groups: dict[tuple[Any, Any], list[tuple[str, Evaluation]]] = {}
    for name, evaluation in zip(names, evaluations, strict=True):
        groups.setdefault((evaluation.result.get("image_set"), evaluation.result.get("protocol")), []).append(
            (name, evaluation))
    parts: list[str | Picture] = []
    for (images, _), ((first, reference), *others) in groups.items():
        if not others or not images:
            parts.append(paragraph(f"{first}: no other evaluation by the same protocol on the same images.", "note"))
            continue
        for name, evaluation in others:
            rows = _differences(reference, evaluation)
            parts.append(table(["attack", "difference (points)", "what the interval says"], rows, (1,),
                               f"{name} minus {first}, with 95 % intervals over the images") if rows else
                         paragraph(f"{name} and {first} have no attack in common.", "note"))
    why = "Where networks met the same images, their difference is known better than either accuracy."
    return Section("Paired differences", [paragraph(why), *parts])


def _differences(first: Evaluation, other: Evaluation) -> list[list[str | Cell]]:
    reference, rows = _rows_by_attack(first), []
    for key, own in _rows_by_attack(other).items():
        base = reference.get(key)
        if own is None or base is None or len(own) != len(base):
            continue
        low, high = difference_interval(own, base)
        sign = (low > 0) - (high < 0)
        verdict = (Cell("undecided", "muted"), Cell("higher", "good"), Cell("lower", "bad"))[sign]
        rows.append([_key_text(key), percent(float(np.mean(own - base)), (low, high), signed=True), verdict])
    return rows


def _key_text(key: tuple) -> str:
    if not key or key[0] == "average robust":
        return key[0] if key else "no attack"
    row = dict(zip(PARAMETERS, key, strict=True))
    start = ", random start" if row["random_start"] else ""
    return attack_name(row) + start
