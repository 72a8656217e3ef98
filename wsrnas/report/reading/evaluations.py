"""Evaluations of networks, as the files in ``eval/`` of a run directory hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsrnas.evaluation.caveats import is_at_chance
from wsrnas.evaluation.results import FORMAT
from wsrnas.report.reading.rows import is_number
from wsrnas.runtime import run_files
from wsrnas.runtime.reading import read_json


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one network.

    Args:
        network: Name of the network.
        label: The file's name without its ending.
        result: The file's document, checked by ``evaluation_problem``.
        run: Name of the run directory that holds the file.
        modified: Time of the last change, in seconds since the epoch.
    """

    network: str
    label: str
    result: dict[str, Any]
    run: str = ""
    modified: float = 0.0

    @property
    def model(self) -> dict[str, Any]:
        """The entry of the network in the file; empty if there is none."""
        model = self.result.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the weights; empty where the file does not say."""
        return str(self.model.get("fingerprint") or "")

    @property
    def image_set(self) -> str:
        """The identity of the images and their order; empty where the file does not say."""
        return str(self.result.get("image_set") or "")

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The honesty checks of the file, without damaged ones."""
        checks = self.result.get("checks")
        return [check for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []

    @property
    def at_chance(self) -> bool:
        """Whether the clean accuracy is not above chance, as far as the file says."""
        return is_number(self.result.get("chance")) and bool(self.result["clean"].get("interval")) and is_at_chance(
            self.result)


def read_evaluations(folder: Path, run_name: str) -> tuple[list[Evaluation], list[str]]:
    """Read the evaluations of a run directory.

    Args:
        folder: The run directory.
        run_name: Its name.

    Returns:
        The evaluations; one sentence for each file that is damaged.
    """
    evaluations, problems = [], []
    for path in sorted((folder / run_files.EVALUATIONS).glob("*.json")):
        try:
            modified, result = path.stat().st_mtime, read_json(path)
            problem = evaluation_problem(result)
        except (OSError, ValueError) as error:
            problem = f"cannot be read: {error}"
        if problem:
            problems.append(f"{run_files.EVALUATIONS}/{path.name} {problem}")
        else:
            evaluations.append(Evaluation(str(result.get("name") or run_name), path.stem, result, run_name, modified))
    return evaluations, problems


def evaluation_problem(result: Any) -> str | None:
    """Return why a document is no evaluation, as the end of a sentence about its file; None for an evaluation."""
    if not isinstance(result, Mapping) or result.get("format") != FORMAT:
        found = result.get("format") if isinstance(result, Mapping) else None
        return f"has the format {found!r}, expected {FORMAT!r}; retrain.evaluate writes it again in this format"
    measured = [result.get("clean"), *(result["attacks"] if isinstance(result.get("attacks"), list) else [None])]
    for entry in measured:
        if not isinstance(entry, dict) or not is_number(entry.get("accuracy")):
            return "is damaged: it lacks the clean accuracy or the accuracy under an attack"
        ends = entry.get("interval")
        if ends is not None and not (isinstance(ends, list) and len(ends) in (0, 2) and all(map(is_number, ends))):
            return "is damaged: an interval is no pair of numbers"
    if not all(isinstance(row.get("attack"), str) and (row.get("epsilon") is None or is_number(row["epsilon"]))
               for row in result["attacks"]):
        return "is damaged: an attack has no name, or a strength that is no number"
    if not isinstance(result.get("chance", 0), int | float | None) or not 0 <= (result.get("chance") or 0) <= 1:
        return "is damaged: chance is no share"
    checks = result.get("checks")
    if isinstance(checks, list) and not all(isinstance(check, dict) and isinstance(check.get("check"), str)
                                            and check.get("passed", False) in (True, False, None) for check in checks):
        return "is damaged: a check has no name, or no outcome"
    return None
