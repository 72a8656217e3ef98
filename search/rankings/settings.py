"""Configuration of the ranking of a table's architectures by a supernet."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from search.measure_settings import SHORT
from search.ranking_sample_settings import LEAST
from search.rankings.measurements import MEASUREMENTS
from search.strategy.budget import check_budget
from search.tables.reading import FORMATS
from wsrnas.runtime.config import Ranges, option, require
from wsrnas.training.strengths import require_increasing

USUAL = tuple(name for name, entry in MEASUREMENTS.items() if entry.usual)


@dataclass(frozen=True)
class RankingConfig(Ranges):
    """Measure how well a supernet ranks architectures that somebody has trained one by one.

    Every architecture of the table runs with the weights that it inherits from the supernet of a search, or after a
    short training of its own. Its losses are compared with the accuracies of the table by rank correlations. The same
    command resumes; started several times at once, it shares the architectures.
    """

    first_flags: ClassVar[tuple[str, ...]] = ("run", "table", "sample", "images", "strengths")
    overwrite_help: ClassVar[str] = "move the existing folder aside and start again"

    run: str = option("", "run directory of search.wsr_nas, whose supernet is asked", identity=False,
                      group="supernet and table")
    table: str = option("", lambda: "JSON file of measured architectures (" + "; ".join(
        form.help for form in FORMATS.values()) + ")", identity=False)
    columns: tuple[str, ...] = option((), "accuracies of the table that are compared, on clean images first; empty: "
                                      "clean, pgd_3 and pgd_8 (DARTS cells: clean and pgd)", identity=False)
    sample: int = option(0, "number of architectures, a seeded random choice of different ones; a larger choice has "
                         "all of a smaller one; 0: all", identity=False)
    budget: str = option("", "only architectures whose networks cost about so much, such as params=1.1M, or of another "
                         "width and number of cells macs=150M@C16L15; empty: all", added=True)
    budget_tolerance: float = option(0.02, "largest difference from the budget, as a fraction", added=True)
    measure: tuple[str, ...] = option(USUAL, "what is measured of every architecture", identity=False,
                                      choices=MEASUREMENTS, group="measurement")
    images: int = option(1000, "images of D_v, a class-balanced seeded choice, the same for all architectures; 0: all")
    strengths: tuple[float, ...] = option((), "strengths of PGD, increasing; empty: those of the run. Without one of "
                                          "the run's, its objective is not compared", increasing=True)
    num_steps: int = option(0, "steps of PGD; 0: those with which the run measures on D_v")
    recalibration_batches: int = option(0, "D_t batches used to recompute BatchNorm statistics; 0: those of the run")
    training_free_layers: int = option(0, "cells of the networks that training-free scores see, best as many as those "
                                       "of the table have; 0: as many as the supernet", added=True)
    short_epochs: int = option(0, f"epochs of the trainings of --measure {SHORT}, whose learning rate is half a "
                               "cosine; 0: those of the run", added=True)
    short_images: int = option(0, "images of D_t that train there, a class-balanced seeded choice; 0: those of the "
                               "run, or all", added=True)
    short_learning_rate: float = option(0.0, "learning rate at their beginning; 0: that of the run", added=True)
    eval_batch_size: int = option(100, "images at a time")
    seed: int = option(0, "seed of the choices of architectures and images, and of the intervals")
    resamples: int = option(2000, "resamples of the architectures for the intervals", identity=False)
    data: str = option("", "folder of the data set; empty: that of the run", identity=False, group="data")
    runs: str = option("runs", "folder of all run directories", identity=False, group="run and machine")
    save: str = option("", "name of the folder in RUNS/ranking; empty: the run's name, its completed steps and the "
                       "table's name", identity=False)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU if there is one, else the CPU", identity=False)

    def __post_init__(self) -> None:
        self.require_at_least(0, "seed", "images", "num_steps", "recalibration_batches", "training_free_layers",
                              "short_epochs", "short_images", "short_learning_rate")
        self.require_at_least(1, "eval_batch_size", "resamples")
        require(self.sample == 0 or self.sample >= LEAST,
                f"sample is {self.sample}; expected 0 (all) or at least {LEAST} architectures")
        require_increasing("strengths", self.strengths)
        check_budget(self.budget, self.budget_tolerance)
        require(bool(self.measure), f"measure is empty; expected some of {', '.join(MEASUREMENTS)}")

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        names = () if SHORT in self.measure else ("short_epochs", "short_images", "short_learning_rate")
        return dict.fromkeys(names, f"measure is {' '.join(self.measure)}; expected --measure {SHORT} with it")

    def folder(self, steps: int) -> Path:
        """Return the folder of the results for a supernet after ``steps`` steps; it has no time stamp."""
        name = self.save or f"{Path(self.run).resolve().name}-{steps}-{Path(self.table).stem}"
        return Path(self.runs) / "ranking" / name
