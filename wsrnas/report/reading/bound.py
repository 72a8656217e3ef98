"""RNAS' bound on the vulnerability of a network, and the sentences about it on a page."""

import math
from typing import Any

from wsrnas.report.reading.rows import column
from wsrnas.report.reading.runs import Run
from wsrnas.runtime.config import format_epsilon


def last_bound(run: Run) -> float | None:
    """Return the bound H of an RNAS search; None without a finite bound."""
    found = [value for value in (*column(run.rows, "bound", "bound"), *column([run.vulnerability], "bound")) if value]
    return found[-1] if found and math.isfinite(found[-1]) else None


def watched(run: Run, count: str) -> str:
    """Return a text that names the images on which an RNAS search measures, and the attack on them.

    Args:
        run: The search.
        count: Field of its configuration that holds the number of batches.
    """
    batches, size, steps, epsilon = (run.config.get(name) for name in (count, "batch_size", "num_steps", "epsilon"))
    images = f"the first {batches} batches of {size} images of D_v" if batches and size else "the first images of D_v"
    if not isinstance(epsilon, int | float) or not steps:
        return images
    return f"{images} under PGD-{steps} at ε {format_epsilon(epsilon)}"


def meaning(run: Run) -> str:
    """Return a sentence without its end that defines F; the images on which it is measured follow."""
    distance = f"“{run.config['distance']}” " if run.config.get("distance") else ""
    return (f"F, the vulnerability, is the {distance}distance between a cell's outputs on clean and on adversarial "
            "images, averaged over the cells (RNAS, Eq. 6)")


def origin_of_bound(run: Run) -> str:
    """Return a sentence about the bound H and its origin."""
    asked, bound = run.config.get("vulnerability_bound"), last_bound(run)
    if not bound:
        when = "" if asked == "inf" else " yet"
        return "" if asked is None else f"There is no bound{when} (vulnerability_bound is {asked})."
    held: dict[str, Any] = next((row["bound"] for row in reversed(run.rows) if isinstance(row.get("bound"), dict)), {})
    reference, = column([held], "reference")
    source = f"vulnerability_bound is {asked}" if asked else ""
    if str(asked).startswith("rel:") and reference is not None:
        count = len(held["values"]) if isinstance(held.get("values"), list) else 0
        source = f"{asked}: a share of {reference:.4g}, the value after the warm-up" + (
            f" as the median of {count} batches" if count else "")
    return f"Dashed: the bound H = {bound:.4g}" + (f" ({source})." if source else ".")
