"""Measure processor and wall seconds of nested phases, and run measurements by turns."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Measure seconds by phase, with the device idle at both ends.

    The name of a phase inside another is ``outer/inner``; ``outer`` counts the time of its inner phases, too.

    Args:
        device: device of the work. On a GPU the wall time counts, on a CPU the time of all its threads.

    Attributes:
        cpu: processor seconds by phase.
        wall: wall seconds by phase.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self._open: list[str] = []

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds that count on this device."""
        return self.wall if self.device.type == "cuda" else self.cpu

    def now(self) -> tuple[float, float]:
        """Return processor and wall seconds; this waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time(), time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        self._open.append(phase)
        cpu, wall = self.now()
        yield
        cpu_end, wall_end = self.now()
        name = "/".join(self._open)
        self._open.pop()
        self.cpu[name] = self.cpu.get(name, 0.0) + cpu_end - cpu
        self.wall[name] = self.wall.get(name, 0.0) + wall_end - wall


def by_turns(work: Mapping[str, Callable[[], Any]], turns: int, device: torch.device,
             note: Callable[[str], None] = lambda line: None) -> dict[str, list[Clock]]:
    """Run pieces of work one after the other, ``turns`` times, after a first turn that is not kept.

    Args:
        work: functions by name.
        turns: number of turns that are kept.
        device: device of the work.
        note: function that takes a line for every measurement.

    Returns:
        For each name a clock of every turn, with the phase ``all``.
    """
    kept: dict[str, list[Clock]] = {name: [] for name in work}
    for turn in range(turns + 1):
        for name, run in work.items():
            clock = Clock(device)
            with clock("all"):
                run()
            note(f"turn {turn} of {turns}, {name}: {clock.seconds['all']:.2f} s")
            if turn:
                kept[name].append(clock)
    return kept


def median(clocks: list[Clock], phase: str = "all") -> float:
    """Return the median seconds of a phase."""
    return statistics.median(clock.seconds.get(phase, 0.0) for clock in clocks)
