"""Whether a search collapses: to skip connections, which a young supernet favours, or to pools."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from search.spaces.space import Space

MOST_SKIPS = 0.5  # share of the operations of an architecture; .01 % of random cells of DARTS have more
MOST_FREE = 0.75  # share of skips and pools together; .2 % of random cells of DARTS have more
RECENT = 10  # newest measured architectures that are judged together


def free_shares(space: Space, architectures: Iterable[Any]) -> dict[str, float]:
    """Return the shares of ``skips`` and ``pools`` among the operations of architectures, ``none`` not counted."""
    names = [name for architecture in architectures for kind in space.chosen(architecture).values() for name in kind
             if name != "none"]
    count = max(1, len(names))
    return {"skips": names.count("skip_connect") / count, "pools": sum("pool" in name for name in names) / count}


def collapse_warnings(space: Space, found: Any, gates: Tensor) -> list[str]:
    """Return a sentence where the architecture that was found, or the newest measured ones, consist of skips and pools.

    Args:
        space: the search space.
        found: the architecture that was found.
        gates: measured paths (n, R, O), the newest last; fewer than ``RECENT`` are not judged.
    """
    judged = [("the architecture found", [found])]
    if len(gates) >= RECENT:
        choices = space.discrete(gates[-RECENT:].cpu().view(-1, *space.shape))
        judged.append((f"the last {RECENT} measured architectures", [space.decode(row) for row in choices]))
    sentences = []
    for words, architectures in judged:
        shares = free_shares(space, architectures)
        both = shares["skips"] + shares["pools"]
        if shares["skips"] > MOST_SKIPS:
            sentences.append(f"{shares['skips']:.0%} of the operations of {words} are skip connections")
        elif both > MOST_FREE:
            sentences.append(f"{both:.0%} of the operations of {words} are skip connections and pools")
    return sentences
