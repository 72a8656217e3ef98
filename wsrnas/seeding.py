"""Seeds named by their purpose: no two uses of randomness share a stream, none depends on a global state."""

import hashlib
import operator

import torch


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on every part and on their order.

    It is the same in every process and for every version of Python; ``1`` and ``"1"`` are different parts.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(operator.index(part)))
        encoded = text.encode()
        digest.update(f"{kind}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on ``device`` seeded by ``derive_seed(*parts)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
