"""One epoch of a search, as the strategies see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Describe one epoch of the search.

    Args:
        index: its number among all.
        phase: "warm-up", "population" or "search".
        number: its number within the phase.
        trains_losses: whether the predictor learns after it.
        moves: whether A moves after it.
    """

    index: int
    phase: str
    number: int
    trains_losses: bool
    moves: bool

    @property
    def title(self) -> str:
        """Phase and number, counted from 1."""
        return f"{self.phase} {self.number + 1}"
