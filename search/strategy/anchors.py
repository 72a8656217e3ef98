"""Anchors: architectures that are measured again and again, to see how far a supernet has come."""

from typing import Any

import torch
from torch import Tensor

from search.strategy.memory import Memory


class Anchors:
    """Remember the first measured architectures, and by how much their losses change.

    A supernet learns on, so a loss that was measured ten epochs ago cannot be compared with one of today. The same
    architectures, measured again, show the difference. The changes of single steps add up to the whole change, so
    errors do not grow with the age of a measurement.

    Args:
        capacity: number of architectures; 0: none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.gates = torch.empty(0)
        self.losses = torch.empty(0)

    def __len__(self) -> int:
        return len(self.losses)

    def correct(self, memory: Memory, losses: Tensor) -> None:
        """Add to all losses in M_v the mean change (L,) of the anchors' losses since they were measured before.

        Args:
            memory: M_v.
            losses: what was measured of the anchors now (n, L), in the order of ``gates``.
        """
        memory["losses"].add_((losses - self.losses).mean(0))
        self.losses = losses.clone()

    def add(self, gates: Tensor, losses: Tensor) -> None:
        """Take further architectures as anchors, as long as there is room: gates (n, R, O), losses (n, L)."""
        room = self.capacity - len(self)
        if room > 0:
            self.gates = torch.cat([self.gates, gates[:room]]) if len(self) else gates[:room].clone()
            self.losses = torch.cat([self.losses, losses[:room]]) if len(self) else losses[:room].clone()

    def state_dict(self) -> dict[str, Any]:
        """Return gates and losses."""
        return {"gates": self.gates, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Continue from the result of ``state_dict``, on a device."""
        self.gates, self.losses = state["gates"], state["losses"].to(device)
