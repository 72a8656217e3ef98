"""RobustBench's description of a network with its numbers, and the text of its "New Model" issue.

Source: RobustBench's model_info files and issue form (Croce et al., "RobustBench", NeurIPS 2021 data sets).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsrnas.data.datasets import DATASETS, source_of
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from retrain.publishing.evaluations import failed_checks
    from wsrnas.evaluation.caveats import is_at_chance

LEADERBOARDS = tuple(name for name, source in DATASETS.items() if source.leaderboard)
SAME_STRENGTH = 5e-5  # pixels of [0, 1]: 0.031 is not 8/255


@dataclass(frozen=True)
class Publication:
    """The paper that a network belongs to; an empty string is unknown."""

    title: str = ""
    authors: str = ""
    venue: str = ""
    link: str = ""


@dataclass(frozen=True)
class Numbers:
    """Accuracies as RobustBench lists them, with remarks.

    Args:
        clean: The clean accuracy in [0, 1]; None where nothing was measured, as in the next two.
        autoattack: The accuracy under AutoAttack, on the largest number of images that it was measured on.
        reported: The lowest accuracy under any L-inf attack of the threat model's strength, AutoAttack included, on
            the largest number of images that any was measured on.
        footnote: Sentences; empty where there is nothing to say.
        unreliable: Whether a check failed in an evaluation that these numbers are from; None where less than half of
            the checks of one of them ran, or its clean accuracy is at chance.
        missing: Sentences on what is unknown, or was measured on a part of the test images.
    """

    clean: float | None
    autoattack: float | None
    reported: float | None
    footnote: str
    unreliable: bool | None
    missing: tuple[str, ...]


def threat_strength(dataset: str) -> str:
    """Return RobustBench's L-inf strength for a data set, as RobustBench spells it.

    Without a leaderboard it is 8/255, and for large pictures ImageNet's.
    """
    source = source_of(dataset)
    return source.leaderboard or (source_of("imagenet").leaderboard if source.large else "8/255")


def numbers(evaluations: list[dict[str, Any]], dataset: str, classes: int = 10) -> Numbers:
    """Return the numbers of stored evaluations: AutoAttack on the most images, with the clean accuracy beside it."""
    standard, lowest = _at_threat_strength(evaluations, dataset)
    attacked = [measurement.document for measurement in (standard, lowest) if measurement]
    clean = standard.document if standard else max(
        evaluations, key=lambda document: (document["images"], document in attacked), default=None)
    used = [*attacked, *([clean] if clean else [])]
    failed = list(dict.fromkeys(check for document in used for check in failed_checks(document)))
    notes = _scope(clean["images"], dataset, bool(standard), lowest) if clean else []
    if lowest and not lowest.is_ranked:
        notes.append(f"The reported robust accuracy is under {lowest.row['attack']}, on "
                     f"{lowest.document['images']:,} images.")
    if failed:
        notes.append(f"Failed checks of the evaluation: {'; '.join(failed)}.")
    return Numbers(clean["clean"]["accuracy"] if clean else None, standard.row["accuracy"] if standard else None,
                   lowest.row["accuracy"] if lowest else None, " ".join(notes), _unreliable(used),
                   _missing(clean, standard, dataset, takes_autoattack(classes)))


@dataclass(frozen=True)
class _Measurement:
    """One attack of an evaluation."""

    document: dict[str, Any]
    row: dict[str, Any]

    @property
    def is_ranked(self) -> bool:
        """Whether RobustBench ranks by the attack; no for an attack that is not in the table."""
        entry = ATTACKS.get(self.row["method"])
        return entry is not None and entry.leaderboard


def _at_threat_strength(evaluations: list[dict[str, Any]], dataset: str
                        ) -> tuple[_Measurement | None, _Measurement | None]:
    """Return AutoAttack, and the attack with the lowest accuracy, each on the largest number of images.

    Of several measurements on that number of images, the lowest counts: every attack gives an upper bound of
    robustness.
    """
    strength = float(threat_strength(dataset).split("/")[0]) / 255
    every = [_Measurement(document, row) for document in evaluations for row in document["attacks"]
             if row["norm"] == "linf" and row["epsilon"] and abs(row["epsilon"] - strength) < SAME_STRENGTH]
    every.sort(key=lambda m: (-m.document["images"], m.row["accuracy"], not m.is_ranked))
    return next((m for m in every if m.is_ranked), None), next(iter(every), None)


def _unreliable(used: list[dict[str, Any]]) -> bool | None:
    """Return whether a check failed; None where less than half of an evaluation's checks ran, or it is at chance."""
    if any(map(failed_checks, used)):
        return True
    return False if used and all(map(_is_checked, used)) else None


def _is_checked(document: dict[str, Any]) -> bool:
    """Return whether the checks of an evaluation tell something."""
    outcomes = [check["passed"] is not None for check in document.get("checks") or ()]
    return bool(outcomes) and 2 * sum(outcomes) >= len(outcomes) and not is_at_chance(document)


def takes_autoattack(classes: int) -> bool:
    """Return whether AutoAttack works with a number of classes."""
    return classes >= ATTACKS["autoattack"].least_classes


def _missing(clean: dict[str, Any] | None, standard: _Measurement | None, dataset: str, possible: bool
             ) -> tuple[str, ...]:
    """Return sentences on what is still to be measured; ``possible``: AutoAttack is."""
    eps, missing = threat_strength(dataset), []
    if clean is None:
        return (f"not measured yet: clean accuracy{f', and AutoAttack at {eps}' * possible}",)
    if not standard and possible:
        missing.append(f"not measured yet: AutoAttack at {eps}")
    if clean["images"] < (total := source_of(dataset).test_images):
        missing.append(f"not measured yet on all test images, only on {clean['images']:,} of {total:,}")
    return tuple(missing)


def _scope(images: int, dataset: str, standard: bool, lowest: _Measurement | None) -> list[str]:
    """Say on how many images the numbers were measured, unless all; ``standard``: AutoAttack is among them."""
    subject = "Measured"
    if lowest and lowest.document["images"] != images:  # the entry also states their number of images
        subject = f"Clean accuracy{' and AutoAttack' * standard} measured"
    source = source_of(dataset)
    if source.large and source.leaderboard:
        return [f"{subject} on {images:,} of the {source.test_images:,} validation images, not on RobustBench's list "
                "of 5,000."]
    if images != source.test_images:
        total = f" of {source.test_images:,}" if source.test_images else ""
        return [f"{subject} on {images:,}{total} {'validation' if source.large else 'test'} images."]
    return []


def percent(accuracy: float | None) -> str | None:
    """Return an accuracy as RobustBench spells it: ``"53.42"``."""
    return None if accuracy is None else f"{100 * accuracy:.2f}"


def model_info(publication: Publication, measured: Numbers, dataset: str, architecture: str) -> dict[str, Any]:
    """Return RobustBench's description of the network; unknown values are null."""
    return {
        "link": publication.link or None, "name": publication.title or None, "authors": publication.authors or None,
        "additional_data": False, "number_forward_passes": 1, "dataset": dataset, "venue": publication.venue or None,
        "architecture": architecture, "eps": threat_strength(dataset), "clean_acc": percent(measured.clean),
        "reported": percent(measured.reported), "autoattack_acc": percent(measured.autoattack),
        "footnote": measured.footnote or None, "unreliable": measured.unreliable,
    }


def zoo_entry(name: str, preprocessing: str | None) -> str:
    """Return the lines that enter the network into RobustBench's model zoo.

    Args:
        name: The name of the network's Python file, which goes to the zoo's architectures.
        preprocessing: How ImageNet's pictures are resized (RobustBench puts their normalisation in front); None for
            small images.
    """
    constructor, extra = f"{name}.build", ""
    if preprocessing:
        constructor = f"lambda: normalize_model({name}.build(), {name}.MEAN, {name}.STD)"
        extra = f"    'preprocessing': '{preprocessing}',\n"
    return (f"from robustbench.model_zoo.architectures import {name}\n\n"
            f"('{name}', {{\n    'model': {constructor},\n    'gdrive_id': 'ID OF {name}.pt',\n{extra}}}),")


def new_model_issue(name: str, info: dict[str, Any], preprocessing: str | None) -> str:
    """Return the filled-in form of RobustBench's "New Model" issue; unknown values are marked."""
    def shown(value: str | None, unit: str = "") -> str:
        return "TO BE FILLED IN" if value is None else f"{value}{unit}"

    method = "AutoAttack, standard version (APGD-CE, APGD-T, FAB-T, Square)"
    robust = shown(info["autoattack_acc"], " %")
    return f"""\
Title: [New Model] {name}

# Paper Information

- **Paper Title**: {shown(info["name"])}
- **Paper URL**: {shown(info["link"])}
- **Paper authors**: {shown(info["authors"])}

# Leaderboard Claim(s)

## Model 1

- **Architecture**: {info["architecture"]}
- **Threat Model**: Linf
- **eps**: {info["eps"]}
- **Clean accuracy**: {shown(info["clean_acc"], " %")}
- **Robust accuracy**: {robust}
- **Additional data**: {shown(info["additional_data"] if info["additional_data"] is None else "false")}
- **Evaluation method**: {method}{f" ({info['footnote']})" if info["footnote"] else ""}
- **Checkpoint and code**: TO BE FILLED IN (the address of {name}.pt, {name}.py and {name}.json)

# Model Zoo

- [ ] I want to add my models to the Model Zoo (check if true)
- [x] I use an architecture that is **not** included among those in robustbench/model_zoo/architectures (check if true):
  {name}.py is that file
- [ ] I agree to release my model(s) under MIT license (check if true) **OR**
- [ ] I want my models to be released under a custom license, located here: (custom license URL here)

The entry of model_zoo/{info["dataset"]}.py:

```python
{zoo_entry(name, preprocessing)}
```
"""
