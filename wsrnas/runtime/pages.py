"""Let torch put large tensors on a CPU on large memory pages, which saves the time of setting up small ones."""

import os
from collections.abc import MutableMapping


def use_large_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Ask torch to ask Linux for large pages for tensors of at least 2 MB; a user's own setting stays.

    A freed tensor goes back to the system, so every pass pays for new pages. Torch reads the variable when it makes its
    first tensor, so this must come before.
    """
    environment.setdefault("THP_MEM_ALLOC_ENABLE", "1")
