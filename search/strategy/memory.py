"""The queues of the search: M_a feeds the AN-Estimator, M_v the validation loss estimator."""

import torch
from torch import Tensor

from wsrnas.runtime.errors import InputError


class Memory:
    """A queue of at most ``capacity`` entries, each a row of several named tensors; the oldest rows leave first.

    Used as M_a (Eq. 4) with the fields of ``estimators.training.leave_one_out`` and as M_v (Eq. 9) with ``gates`` and
    ``losses``. The field ``iteration`` tells which supernet update a row comes from.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()))) if self.rows else 0

    def append(self, iteration: int, **fields: Tensor) -> None:
        """Add rows (n, ...) a field.

        Raises:
            InputError: fields of different lengths, or other fields than before.
        """
        count = len(next(iter(fields.values())))
        new = {name: value.detach() for name, value in fields.items()}
        new["iteration"] = torch.full((count,), iteration, device=next(iter(new.values())).device)
        if any(len(value) != count for value in new.values()):
            raise InputError(f"memory rows of different numbers: { {k: len(v) for k, v in new.items()} }")
        if self.rows and set(new) != set(self.rows):
            raise InputError(f"memory holds the fields {sorted(self.rows)}, got {sorted(new)}")
        self.rows = {name: torch.cat([self.rows[name], value] if self.rows else [value])[-self.capacity:].clone()
                     for name, value in new.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name]

    def iterations(self) -> int:
        """From how many supernet updates (sampled networks) the rows come."""
        return len(self.rows["iteration"].unique()) if self.rows else 0

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.rows)

    def load_state_dict(self, rows: dict[str, Tensor], device: torch.device) -> None:
        self.rows = {name: value.to(device) for name, value in rows.items()}
