"""The configuration field that turns CUDA graphs off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wsrnas.runtime.config import RunConfig, option
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    import torch

    from wsrnas.quick.graphs import Graphs


@dataclass(frozen=True)
class GraphsConfig(RunConfig):
    """Hold the field of programs that repeat one step many times."""

    cuda_graphs: Literal["auto", "off"] = option(
        "auto", "auto: on a GPU, record the attacks and gradients that are repeated as CUDA graphs (the log says where "
        "that is not possible); off: record nothing", identity=False, added=True, group="speed")

    def graphs(self, device: torch.device, log: Callable[[str], object]) -> Graphs:
        """Return what records steps on a device.

        Args:
            device: device of the steps.
            log: function that takes a line for the log.
        """
        return Graphs(device if self.cuda_graphs == "auto" else None, log)
