"""The memories of the search: M_a feeds the AN-Estimator, M_v the validation loss estimator."""

import torch
from torch import Tensor

from wsrnas.runtime.errors import InputError


class Memory:
    """Keep the newest rows of several named tensors, at most ``capacity``.

    M_a (Eq. 4) has the fields of ``estimators.training.leave_one_out``, M_v (Eq. 9) has ``gates`` and ``losses``. The
    field ``iteration`` is the number of the supernet update that a row comes from.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()))) if self.rows else 0

    def append(self, iteration: int, **fields: Tensor) -> None:
        """Add rows.

        Args:
            iteration: number of the supernet update.
            **fields: tensors (n, ...), one for each field.

        Raises:
            InputError: the fields have different lengths, or differ from those before.
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
        """Count the supernet updates (sampled networks) that the rows come from."""
        return len(self.rows["iteration"].unique()) if self.rows else 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return all fields by name."""
        return dict(self.rows)

    def load_state_dict(self, rows: dict[str, Tensor], device: torch.device) -> None:
        """Replace all rows by those of a ``state_dict``, moved to a device."""
        self.rows = {name: value.to(device) for name, value in rows.items()}
