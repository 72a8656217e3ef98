"""The stored evaluations of a network: read from its run directory, and checked for what an export needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsrnas.evaluation.results import FORMAT
from wsrnas.runtime import run_files
from wsrnas.runtime.reading import read_json


def stored_evaluations(folder: Path, fingerprint: str, dataset: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the complete evaluations of a network on the data set of its training.

    Args:
        folder: The run directory.
        fingerprint: The fingerprint of the network.
        dataset: The data set of its training.

    Returns:
        The evaluations in the order of their file names, and a sentence for each file that was left out.
    """
    found, remarks = [], []
    for path in sorted((folder / run_files.EVALUATIONS).glob("*.json")):
        try:
            document = read_json(path)
        except (OSError, ValueError):
            remarks.append(f"{path} is left out: it is not JSON text")
            continue
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            remarks.append(f"{path} is left out: expected an evaluation of the format {FORMAT!r}")
        elif not _well_formed(document):
            remarks.append(f"{path} is left out: it lacks numbers that an evaluation has")
        elif document["model"].get("fingerprint") != fingerprint:
            remarks.append(f"{path} is left out: it is of other weights ({document['model'].get('source')})")
        elif document.get("dataset") != dataset:
            remarks.append(f"{path} is left out: it is on {document.get('dataset')}, not on {dataset}")
        elif document.get("complete") is not True:
            remarks.append(f"{path} is left out: the evaluation is still running or was stopped; the same command "
                           "resumes it")
        else:
            found.append(document)
    return found, remarks


_DETAILS = {"steps": int | None, "step_size": int | float | None, "restarts": int | None, "random_start": bool | None,
            "loss": str | None, "source": str | None}  # of an attack


def _well_formed(document: dict[str, Any]) -> bool:
    """Return whether an evaluation has the numbers that an export uses, with the right types."""
    try:
        rows, measured = document["attacks"], [document["clean"], *document["attacks"]]
        measured += [{"accuracy": value.get("accuracy", value.get("value")), "interval": value.get("interval")}
                     for value in (document.get("average_robust"), document.get("area")) if value is not None]
        return (isinstance(document["images"], int) and document["images"] > 0 and isinstance(document["model"], dict)
                and all(_is_share(row["accuracy"]) for row in measured)
                and all(len(ends) == 2 and all(map(_is_share, ends))
                        for ends in (row.get("interval") or (0, 1) for row in measured))
                and all(isinstance(row[key], str) for row in rows for key in ("attack", "method", "norm"))
                and all(isinstance(row["epsilon"], int | float | None) for row in rows)
                and all(isinstance(row.get(key), kind) for row in rows for key, kind in _DETAILS.items())
                and isinstance(document.get("chance"), int | float | None)
                and (document.get("chance") is None or len(document["clean"]["interval"]) == 2)
                and all(isinstance(check["check"], str) and isinstance(check["passed"], bool | None)
                        for check in document.get("checks") or ())
                and all(isinstance(text, str) for text in [*(document.get("failed_checks") or ()),
                                                           *(document.get("warnings") or ())]))
    except (KeyError, TypeError, AttributeError):
        return False


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def failed_checks(document: Mapping[str, Any]) -> list[str]:
    """Return the names of an evaluation's failed checks, each once."""
    failed = [check["check"] for check in document.get("checks") or () if check["passed"] is False]
    return list(dict.fromkeys([*(document.get("failed_checks") or ()), *failed]))
