"""The outputs of a search: which of the architectures it knows it gives out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputEntry:
    """One kind of output.

    Args:
        short: a few words, for the rows of a table.
        help: explanation in one line, for ``--help`` and pages.
    """

    short: str
    help: str


OUTPUTS: dict[str, OutputEntry] = {
    "best": OutputEntry("best measured", "the measured architecture with the smallest objective"),
    "verified": OutputEntry("measured, best prediction", "the measured architecture with the smallest predicted "
                            "objective, which noise misleads less"),
    "argmax": OutputEntry("argmax of A", "the architecture of A, as in the paper"),
}
