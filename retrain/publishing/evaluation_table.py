"""A stored evaluation as a table in Markdown, every attack with all its parameters in words."""

from collections.abc import Mapping
from typing import Any

from retrain.publishing.evaluations import failed_checks
from wsrnas.evaluation.attack_table import ATTACKS, counted
from wsrnas.evaluation.caveats import caveats
from wsrnas.runtime.config import format_epsilon
from wsrnas.runtime.markdown import markdown_table

LOSSES = {"ce": "cross-entropy"}


def evaluation_table(document: Mapping[str, Any]) -> str:
    """Return one stored evaluation: every attack with its parameters, accuracy and interval, and the checks."""
    rows = [("none", "", "", *_accuracy(document["clean"]))]
    rows += [(row["attack"], strength(row), parameters(row), *_accuracy(row)) for row in document["attacks"]]
    for title, key in ((f"average over the strengths of {averaged(document)}", "average_robust"),
                       ("area under accuracy over strength, normalised", "area")):
        value = document.get(key)
        if isinstance(value, dict):
            rows.append((title, "", "", *_accuracy({"accuracy": value.get("accuracy", value.get("value")), **value})))
    lines = [f"**Note: {sentence}.**" for sentence in caveats(document)]
    lines += [f"Protocol {document.get('protocol', 'unknown')}, {document['images']:,} test images:",
             markdown_table(("attack", "strength", "parameters", "accuracy (%)", "95 % interval"), rows)]
    lines += [f"**Failed check: {check}.**" for check in failed_checks(document)]
    checks = document.get("checks") or ()
    for word, outcome in (("passed", True), ("could not be run", None)):
        if names := [check["check"] for check in checks if check["passed"] is outcome]:
            lines.append(f"Checks that {word}: {'; '.join(names)}.")
    return "\n\n".join([*lines, *(f"Warning: {warning}" for warning in document.get("warnings") or ())])


def averaged(document: Mapping[str, Any]) -> str:
    """Return the attack that the average of an evaluation is over."""
    average = document.get("average_robust")
    over = average.get("over") if isinstance(average, dict) else None
    # The name of an attack ends before two spaces.
    return str(over[0]).split("  ")[0] if isinstance(over, list) and over else "PGD"


def _accuracy(row: Mapping[str, Any]) -> tuple[str, str]:
    interval = row.get("interval")
    shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
    return f"{100 * row['accuracy']:.2f}", shown


def strength(row: Mapping[str, Any]) -> str:
    """Return the norm and the radius of an attack."""
    norm = {"linf": "L-infinity", "l2": "L2"}.get(row["norm"], row["norm"])
    if row["epsilon"] is None:
        return f"{norm}, unbounded"
    return f"{norm} {format_epsilon(row['epsilon']) if row['norm'] == 'linf' else format(row['epsilon'], '.4g')}"


def parameters(row: Mapping[str, Any]) -> str:
    """Return an attack's other parameters in words."""
    entry, steps = ATTACKS.get(row["method"]), row.get("steps") or 0
    if entry and entry.in_words:
        return entry.in_words(steps)
    single = steps == 1 or (entry is not None and not entry.steps)
    shown = ["one step" if single else counted(steps, "step")]
    if row.get("step_size"):
        shown[0] += f" of {row['step_size']:.4g}"
    if entry and entry.detail:
        shown.append(entry.detail)
    if entry and entry.needs_source:
        shown.append("made on another network" + (f" (`{row['source']}`)" if row.get("source") else ""))
    starts, random = row.get("restarts") or 1, row.get("random_start")
    one = "a random start" if random else "from the image"
    shown.append(one if starts == 1 else f"{starts:,} {'random starts' if random else 'starts from the image'}")
    if row.get("loss"):
        shown.append(f"{LOSSES.get(row['loss'], row['loss'])} loss")
    return ", ".join(shown)
