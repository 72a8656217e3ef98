"""The sections of a report that say how robust networks are, alone and against one another."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from wsrnas.evaluation.attack_spec import Attack
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.evaluation.intervals import difference_interval
from wsrnas.report.data import Evaluation
from wsrnas.report.figures import accuracy
from wsrnas.report.html import Cell, Section, alarm, paragraph, table
from wsrnas.report.networks import (
    AREA,
    AVERAGE,
    CLEAN,
    PARAMETERS,
    Network,
    attack_label,
    attack_names,
    image_scores,
    series_marks,
)
from wsrnas.runtime.config import format_epsilon

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


def robustness(networks: Sequence[Network]) -> Section | None:
    """Accuracy over strength as figures and as a table with every attack's parameters."""
    if not networks:
        return None
    pictures = [accuracy(networks, norm) for norm in ("linf", "l2")]
    return Section("Accuracy under attack", [shown for shown in pictures if shown] + [
        attack_table(networks), *_sum_notes(networks), _origins(networks)])


def attack_table(networks: Sequence[Network]) -> str:
    """One row an attack with all its parameters, one column a network."""
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
    """Averages and areas over each list of attacks: their name, and a cell a network."""
    rows = []
    for over, mark in series_marks(networks).items():
        found = [network.sums.get(over, {}) for network in networks]
        for name, key, value in ((AVERAGE, "average_robust", "accuracy"), (AREA, "area", "value")):
            sums = [result.get(key) for result in found]
            if any(sums):
                rows.append((name + mark, [percent(s[value], s.get("interval")) if s else "–" for s in sums]))
    return rows


def _sum_notes(networks: Sequence[Network]) -> list[str]:
    """What the averages and the areas are taken over."""
    notes = []
    for over, mark in series_marks(networks).items():
        notes += [f"Average robust{mark}: the mean over {', '.join(over)}."] * bool(over)
        areas = [network.sums[over].get("area") for network in networks if over in network.sums]
        ends = dict.fromkeys(area["up_to"] for area in areas if area and area.get("up_to"))
        notes += [f"Area{mark}: the mean accuracy over ε from 0 to {format_epsilon(end)}." for end in ends]
    return [paragraph(note, "note") for note in notes]


def _grouped(pairs: Sequence[tuple[str, str]], count: int) -> list[str]:
    """Sentences about networks, each once: with the names it holds for, unless it holds for all ``count``."""
    holds: dict[str, list[str]] = {}
    for name, sentence in pairs:
        holds.setdefault(sentence, []).append(name)
    return [(sentence[0].upper() + sentence[1:] if len(names) == count else f"{', '.join(names)}: {sentence}") + "."
            for sentence, names in holds.items()]


def _parameters(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """An attack's norm and strength, and how it goes about it."""
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


# -- honesty ----------------------------------------------------------------------------------------------------------

def unfinished(networks: Sequence[Network]) -> list[str]:
    """A sentence for each evaluation that is still running, or was stopped."""
    return [f"{_which(network, evaluation)}: {len(evaluation.result['attacks'])} attacks are measured, others or the "
            "honesty checks are still to come" for network in networks for evaluation in network.unfinished]


def unchecked(networks: Sequence[Network]) -> list[str]:
    """A sentence for each evaluation in which no honesty check ran."""
    return [f"{_which(network, evaluation)}: " + "; ".join(dict.fromkeys(
                str(check.get("says", "")) for check in evaluation.checks) or ["its file holds none"])
            for network in networks for evaluation in network.unchecked]


def _which(network: Network, evaluation: Evaluation) -> str:
    return f"{network.name} ({evaluation.run}/eval/{evaluation.label}.json)"


def alarms(networks: Sequence[Network]) -> list[str]:
    """A box for each kind of thing that nobody should overlook."""
    failed, parts, blind = failed_checks(networks), unfinished(networks), unchecked(networks)
    return [alarm(text, sentences) for sentences, text in (
        (failed, f"{_counted(failed, 'honesty check')} failed: these networks may be less robust than their accuracies "
                 "say."),
        (parts, f"{_counted(parts, 'evaluation')} unfinished, still running or stopped: these numbers are not "
                "final. The same command goes on."),
        (blind, f"{_counted(blind, 'evaluation')} without any honesty check: nothing says whether these accuracies can "
                "be believed."),
    ) if sentences]


def _counted(found: Sequence[str], what: str) -> str:
    return f"{len(found)} {what}{'s' * (len(found) > 1)}"


def failed_checks(networks: Sequence[Network]) -> list[str]:
    """A sentence for each honesty check that failed."""
    failed = []
    for network in networks:
        found: dict[tuple[str, str], None] = {}
        for evaluation in network.evaluations:
            own = [(str(check.get("check")), str(check.get("says", ""))) for check in evaluation.checks
                   if check.get("passed") is False]
            listed = evaluation.result.get("failed_checks")
            found |= dict.fromkeys(own + [(str(check), "") for check in (listed if isinstance(listed, list) else [])
                                          if str(check) not in {name for name, _ in own}])
        failed += [f"{network.name}: {check}" + f" – {says}" * bool(says) for check, says in found]
    return failed


def honesty(networks: Sequence[Network]) -> Section | None:
    """Every check for gradient masking with its numbers, failed ones first; the evaluations' warnings."""
    rows = [[check["check"], Cell(*MARKS.get(check.get("passed"), MARKS[None])), network.name,
             Cell(str(check.get("says", "")), "text")]
            for network in networks for evaluation in network.evaluations
            for check in evaluation.result.get("checks") or []]
    rows = [row for number, row in enumerate(rows) if row not in rows[:number]]  # files of one network may agree
    rows.sort(key=lambda row: row[1].kind != "bad")
    warnings = _grouped(list(dict.fromkeys(
        (network.name, str(warning).rstrip(".")) for network in networks for evaluation in network.evaluations
        for warning in evaluation.result.get("warnings") or [] if warning)), len(networks))
    if not rows and not warnings:
        return None
    shown = [table(["check", "result", "network", "what was seen"], rows, caption="Signs of gradient masking: a "
                   "network that hides its gradients looks robust to attacks that use them")] if rows else []
    return Section("Honesty checks", shown + [paragraph(warning, "warning") for warning in warnings])


def official(networks: Sequence[Network]) -> Section | None:
    """What the published evaluation would have said, beside the honest numbers."""
    rows = []
    for network in networks:
        found = {row["epsilon"]: row for evaluation in network.evaluations
                 for row in evaluation.result.get("official") or []}
        rows += [[network.title, format_epsilon(epsilon), percent(row["published_way"]), percent(row["honest"]),
                  percent(row["difference"], row.get("interval"), signed=True)]
                 for epsilon, row in sorted(found.items())]
    if not rows:
        return None
    return Section("The published way and the honest one", [
        paragraph("The published code attacks a network that normalises by the batch and predicts with running "
                  "statistics that the attack has changed. The difference is what that adds or hides."),
        table(["network", "ε", "published way (%)", "honest (%)", "difference (points)"], rows, range(1, 5))])


# -- comparison -------------------------------------------------------------------------------------------------------

def paired_differences(networks: Sequence[Network]) -> Section | None:
    """Each network minus the first before it that met the same images under one of the same attacks, image by image."""
    scores = [image_scores(network) for network in networks]
    marks = series_marks(networks)
    parts = []
    for number, network in enumerate(networks):
        for other, base in zip(networks[:number], scores, strict=False):
            if _same_images(other, network) and (rows := _differences(scores[number], base, marks)):
                parts.append(table(["attack", "difference (points)", "what the interval says"], rows, (1,),
                                   f"{network.title} minus {other.title}, with 95 % intervals over the images"))
                break
    why = "Where networks met the same images, their difference is known better than either accuracy."
    return Section("Paired differences", [paragraph(why), *parts]) if parts else None


def _same_images(one: Network, other: Network) -> bool:
    """Whether these are two networks on one set of images."""
    first, second = one.evaluations[-1], other.evaluations[-1]
    return bool(first.image_set) and first.image_set == second.image_set and "" not in (
        first.fingerprint, second.fingerprint) and first.fingerprint != second.fingerprint


def _differences(own: dict[Hashable, np.ndarray], base: dict[Hashable, np.ndarray], marks: dict[tuple[str, ...], str]
                 ) -> list[list[str | Cell]]:
    """Rows for all that both were measured under; none where that is no attack."""
    shared = [key for key, values in own.items() if key in base and len(base[key]) == len(values)]
    names: dict[Hashable, str] = {CLEAN: CLEAN} | attack_names(key for key in shared if isinstance(key, Attack))
    if len(names) == 1:
        return []
    names |= {key: key[0] + marks.get(key[1], "") for key in shared if isinstance(key, tuple)}
    shared.sort(key=lambda key: isinstance(key, tuple))  # averages and areas last
    return [[names[key], *_difference(own[key], base[key])] for key in shared]


def _difference(own: np.ndarray, base: np.ndarray) -> list[str | Cell]:
    low, high = difference_interval(own, base)
    sign = (low > 0) - (high < 0)
    verdict = (Cell("undecided", "muted"), Cell("higher", "good"), Cell("lower", "bad"))[sign]
    return [percent(float(np.mean(own - base)), (low, high), signed=True), verdict]
