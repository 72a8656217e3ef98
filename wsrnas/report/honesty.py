"""Whether accuracies can be trusted: alarms, honesty checks, and the published evaluation beside the honest one."""

from collections.abc import Sequence
from typing import Any

from wsrnas.evaluation import caveats
from wsrnas.evaluation.check_levels import NONE
from wsrnas.report.html import Cell, alarm, paragraph, table
from wsrnas.report.reading.evaluations import Evaluation
from wsrnas.report.reading.networks import Network
from wsrnas.report.sections import Part
from wsrnas.report.texts import percent
from wsrnas.runtime.config import format_epsilon

MARKS = {True: ("passed", "good"), False: ("FAILED", "bad"), None: ("not run", "muted")}


def alarms(networks: Sequence[Network]) -> list[str]:
    """Return one box for each kind of reason not to trust the numbers, and the checks that did not run."""
    failed, parts, blind = failed_checks(networks), unfinished(networks), unchecked(networks)
    chance = at_chance(networks)
    boxes = [alarm(text, sentences) for sentences, text in (
        (chance, f"{_counted(chance, 'evaluation')} not above chance: nothing follows about robustness."),
        (failed, f"{_counted(failed, 'honesty check')} failed: these networks may be less robust than their accuracies "
                 "say."),
        (parts, f"{_counted(parts, 'evaluation')} unfinished (running or stopped): these numbers are not final. After "
                "a stop, the same command resumes."),
        (blind, f"{_counted(blind, 'evaluation')} without any honesty check: these accuracies may be overestimates."),
    ) if sentences]
    return boxes + [paragraph(sentence, "warning") for sentence in partly_checked(networks)]


def _counted(found: Sequence[str], what: str) -> str:
    return f"{len(found)} {what}{'s' * (len(found) > 1)}"


def failed_checks(networks: Sequence[Network]) -> list[str]:
    """Return one sentence for each honesty check that failed."""
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


def unfinished(networks: Sequence[Network]) -> list[str]:
    """Return one sentence for each evaluation that is running or was stopped."""
    return [f"{_which(network, evaluation)}: {len(evaluation.result['attacks'])} attacks are measured; other attacks "
            "or the honesty checks are missing" for network in networks for evaluation in network.unfinished]


def unchecked(networks: Sequence[Network]) -> list[str]:
    """Return one sentence for each evaluation in which no honesty check ran."""
    return [f"{_which(network, evaluation)}: " + "; ".join(dict.fromkeys(
                str(check.get("says", "")) for check in evaluation.checks) or [
                    f"--checks {NONE} was asked for" if evaluation.result.get("check_level") == NONE else
                    "its file holds no check"])
            for network in networks for evaluation in network.unchecked]


def at_chance(networks: Sequence[Network]) -> list[str]:
    """Return one sentence for each evaluation whose clean accuracy is not above chance."""
    return [f"{_which(network, evaluation)}: {caveats.caveats(evaluation.result)[0]}"
            for network in networks for evaluation in network.evaluations if evaluation.at_chance]


def partly_checked(networks: Sequence[Network]) -> list[str]:
    """Return one sentence for each evaluation in which some honesty checks ran and others did not."""
    pairs = [(network.name, sentence) for network in networks for evaluation in network.evaluations
             if evaluation not in network.unchecked for sentence in caveats.unchecked(
                 {**evaluation.result, "checks": evaluation.checks})]
    return _grouped(list(dict.fromkeys(pairs)), len(networks))


def _which(network: Network, evaluation: Evaluation) -> str:
    return f"{network.name} ({evaluation.run}/eval/{evaluation.label}.json)"


def honesty(networks: Sequence[Network]) -> Sequence[Part]:
    """Show every check for gradient masking with its numbers, failed ones first, and the evaluations' warnings."""
    rows: list[list[Any]] = [[check["check"], Cell(*MARKS.get(check.get("passed"), MARKS[None])), network.name,
             Cell(str(check.get("says", "")), "text")]
            for network in networks for evaluation in network.evaluations
            for check in evaluation.result.get("checks") or []]
    rows = [row for number, row in enumerate(rows) if row not in rows[:number]]  # files of one network may agree
    rows.sort(key=lambda row: row[1].kind != "bad")
    warnings = _grouped(list(dict.fromkeys(
        (network.name, str(warning).rstrip(".")) for network in networks for evaluation in network.evaluations
        for warning in evaluation.result.get("warnings") or [] if warning)), len(networks))
    shown = [table(["check", "result", "network", "what was seen"], rows, caption="Checks for gradient masking: "
                   "a network that hides its gradients looks robust to attacks that use them")] if rows else []
    return shown + [paragraph(warning, "warning") for warning in warnings]


def _grouped(pairs: Sequence[tuple[str, str]], count: int) -> list[str]:
    """Return each sentence once, with the names of the networks that it is true for.

    Args:
        pairs: Names of networks and sentences about them.
        count: Number of networks; a sentence that is true for all of them needs no names.
    """
    holds: dict[str, list[str]] = {}
    for name, sentence in pairs:
        if sentence:
            holds.setdefault(sentence, []).append(name)
    return [(sentence[0].upper() + sentence[1:] if len(names) == count else f"{', '.join(names)}: {sentence}") + "."
            for sentence, names in holds.items()]


def official(networks: Sequence[Network]) -> Sequence[Part]:
    """Show what the published evaluation reports beside the honest numbers."""
    rows = []
    for network in networks:
        found = {row["epsilon"]: row for evaluation in network.evaluations
                 for row in evaluation.result.get("official") or []}
        rows += [[network.title, format_epsilon(epsilon), percent(row["published_way"]), percent(row["honest"]),
                  percent(row["difference"], row.get("interval"), signed=True)]
                 for epsilon, row in sorted(found.items())]
    if not rows:
        return []
    return [paragraph("The published code attacks the network with BatchNorm in training mode. This changes the "
                      "running statistics, with which it then predicts. The difference shows how much accuracy that "
                      "adds or hides."),
            table(["network", "ε", "published way (%)", "honest (%)", "difference (points)"], rows, range(1, 5))]
