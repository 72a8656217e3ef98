"""Configuration of the AN-Estimator benchmark: its networks, strengths and budgets, and the named presets."""

from dataclasses import dataclass, replace
from typing import ClassVar

from wsrnas.data.settings import SmallImagesConfig
from wsrnas.estimators import ESTIMATORS
from wsrnas.estimators.settings import EstimatorTrainingConfig
from wsrnas.runtime.config import option, require
from wsrnas.training.losses import LossSettings
from wsrnas.training.sgd import SgdConfig
from wsrnas.training.strengths import WIDE_STRENGTHS, require_increasing

# The published seven: genotype, initial channels (published code), epochs (ours; the paper says "different epochs").
PAPER_NETWORKS = ("cna_r:45:40", "cna_m:45:32", "cna_n:50:24", "cna_m_1:45:16", "cna_r_minus:42:10", "cna_r:45:6",
                  "cna_m:45:3")


@dataclass(frozen=True)
class Setting:
    """Describe a question to the estimators.

    Args:
        name: name of its folder.
        sources: attacked strengths, ascending.
        targets: strengths to estimate, ascending; empty: the sources and a random strength, each left out in turn.
        drawn: column of the training noises with the random strengths of its tasks.
    """

    name: str
    sources: tuple[float, ...]
    targets: tuple[float, ...]
    drawn: int


@dataclass(frozen=True)
class BenchmarkConfig(SmallImagesConfig, SgdConfig, EstimatorTrainingConfig):
    """Measure how well AN-Estimators replace the attack: Table 5 of Wsr-NAS (AAAI 2023), and the spectrum of a search.

    Strengths are L-inf radii in pixels of [0, 1]; "8/255" is understood. Several processes of the same command (or
    NGPU > 1) share the work.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "estimators", "networks", "dataset", "data", "save", "max_test", "spectrum")

    preset: str = "paper"
    estimators: tuple[str, ...] = option(tuple(ESTIMATORS), "AN-Estimators to train and measure", identity=False,
                                         choices=ESTIMATORS, group="study")
    max_test: int = option(0, "test images used, a class-balanced seeded choice; 0: all", group="data")

    networks: tuple[str, ...] = option(PAPER_NETWORKS, "GENOTYPE:CHANNELS:EPOCHS is trained here adversarially "
                                       "(with :natural at the end: without attacks); a run directory or a file (as "
                                       "retrain.evaluate's --model) is a network trained before", group="networks")
    layers: int = option(20, "cells of the networks trained here")
    epsilon: float = option(0.031, "strength of their training attack")
    train_steps: int = option(7, "steps of their training attack")
    network_batch_size: int = option(64, "images of their training steps")

    num_steps: int = option(7, "steps of the PGD attack that the estimators replace (PGD-7)",
                            group="attacks and settings")
    sources: tuple[float, ...] = option((0.03, 0.06, 0.09), "attacked strengths (N1 of them)",
                                        increasing=True)
    single_source: float = option(0.06, "the attacked strength of the setting with N1 = 1")
    leave_one_out_max_epsilon: float = option(0.15, "largest of the random strengths in the paper's setting")
    spectrum: tuple[float, ...] = option(
        WIDE_STRENGTHS, "strengths measured in the settings that a search needs, increasing; those that are not "
        "attacked are estimated", increasing=True)
    spectrum_max_epsilon: float = option(0.25, "largest of the random strengths in their training tasks")

    max_estimator_train: int = option(0, "training images in the estimators' one epoch; 0: all", group="AN-Estimator")
    batch_size: int = option(32, "training images attacked together, each gives one task per strength (published code)")
    rotation: int = option(10, "batches until the next network makes the training noise (paper)")
    eval_batch_size: int = option(100, "test images attacked at a time, and stored in a file", group="run and machine")
    estimator_batch_size: int = option(32, "tasks per optimiser step of an AN-Estimator (published code)")

    def __post_init__(self) -> None:
        self.require_at_least(1, "layers", "train_steps", "network_batch_size", "num_steps", "batch_size", "rotation",
                              "eval_batch_size", "report_freq")
        self.require_at_least(0, "max_train", "max_test", "max_estimator_train")
        self.require_sgd()
        self.require_estimator_training()
        self.require_strength("epsilon", "single_source", "leave_one_out_max_epsilon", "spectrum_max_epsilon")
        for name in ("sources", "spectrum"):
            require_increasing(name, getattr(self, name))
        require(len(self.sources) >= 2, f"sources are {self.sources}; expected at least two: each is left out in turn")
        require(all(setting.targets for setting in self.settings()[1:]),
                f"spectrum is {self.spectrum}; expected strengths other than the sources, {self.sources}, and than "
                f"single_source, {self.single_source:g}")
        require(len(set(self.estimators)) == len(self.estimators) > 0, f"estimators are {self.estimators}; expected "
                "different names, at least one")
        require(bool(self.networks), "networks is empty; expected at least one")

    @property
    def name(self) -> str:
        """Name of the study's folder; without a time stamp, so that a restarted job finds its study."""
        return self.save or f"{self.preset}-{self.dataset}-seed{self.seed}"

    def loss_settings(self) -> LossSettings:
        """Return the attack of the networks' training."""
        return LossSettings(self.epsilon, self.train_steps, batch_statistics=True)

    def settings(self) -> tuple["Setting", ...]:
        """Return the questions: that of the paper, then those of a search with N1 sources and with one."""
        count, column = len(self.sources), len(self.fixed_strengths)
        unseen, beside_one = (tuple(e for e in self.spectrum if e not in known)
                              for known in (self.sources, (self.single_source,)))
        return (Setting("leave-one-out", self.sources, (), column),
                Setting(f"spectrum-{count}", self.sources, unseen, column + 1),
                Setting("spectrum-1", (self.single_source,), beside_one, column + 1))

    @property
    def fixed_strengths(self) -> tuple[float, ...]:
        """Strengths of the attacks on training images in addition to the random ones; ascending."""
        return tuple(sorted({*self.sources, self.single_source}))

    @property
    def tested_strengths(self) -> tuple[float, ...]:
        """Strengths of the attacks on test images, without the random one of the paper's setting; ascending."""
        return tuple(sorted({*self.fixed_strengths, *self.spectrum}))


PRESETS: dict[str, BenchmarkConfig] = {"paper": BenchmarkConfig()}
# Two hours on two CPU cores (started twice): CIFAR-10, the published cells at an eighth of their width.
PRESETS["small"] = replace(
    PRESETS["paper"], preset="small", networks=("cna_r:6:9", "cna_m:6:8", "cna_n:7:6", "cna_m_1:6:5",
                                                "cna_r_minus:6:4", "cna_r:6:3", "cna_m:6:2"),
    layers=5, train_steps=3, network_batch_size=32, learning_rate=0.05, max_train=6000, max_test=400,
    max_estimator_train=2240, batch_size=16, estimator_batch_size=16)
# Minutes on two CPU cores. The digits resist small noise, hence stronger training and sources.
PRESETS["tiny"] = replace(
    PRESETS["paper"], preset="tiny", dataset="digits", networks=("cna_r:4:4", "cna_m:4:3", "cna_n:4:3", "cna_m_1:4:2",
                                                                 "cna_r_minus:4:2", "cna_r:4:1", "cna_m:4:2"),
    layers=4, epsilon=0.1, train_steps=2, network_batch_size=16, learning_rate=0.05, max_train=1120, max_test=30,
    max_estimator_train=140, batch_size=2, estimator_batch_size=8, estimator_learning_rate=2e-3,
    sources=(0.06, 0.12, 0.18), single_source=0.12, leave_one_out_max_epsilon=0.25,
    spectrum=(0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.25))
