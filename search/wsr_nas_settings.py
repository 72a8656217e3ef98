"""Configuration of the Wsr-NAS search: every constant of Algorithm 1, the named presets, the order of the steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from search.measure_settings import SHORT, SUPERNET, MeasureConfig
from search.objective_settings import ObjectiveConfig
from search.path_settings import PathConfig
from search.ranking_sample_settings import LEAST, RankingSampleConfig
from search.spaces import SPACES
from search.strategy.objective import OBJECTIVES, build_objective
from search.strategy.settings import Proposals, StrategyConfig
from search.strategy.step import Step
from search.strategy.strengths import check_attacked, check_strengths
from search.supernet_settings import SupernetConfig, cosine_rate
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.training_paths import possible_operations
from wsrnas.architectures.outputs import OUTPUTS
from wsrnas.estimators import ESTIMATORS
from wsrnas.estimators.settings import EstimatorTrainingConfig
from wsrnas.quick.settings import GraphsConfig
from wsrnas.runtime.config import option, require
from wsrnas.training.strengths import SIX_STRENGTHS, WIDE_STRENGTHS

SIX_WEIGHTS = tuple(w / 28 for w in (1, 2, 3, 5, 7, 10))
ELEVEN_STRENGTHS = tuple(round(0.03 + 0.0075 * i, 4) for i in range(11))
ELEVEN_WEIGHTS = tuple(w / 50.5 for w in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8.5, 10))


@dataclass(frozen=True)
class SearchConfig(ObjectiveConfig, PathConfig, MeasureConfig, RankingSampleConfig, StrategyConfig, SupernetConfig,
                   EstimatorTrainingConfig, GraphsConfig):
    """Search for robust cells over a wide spectrum of noise strengths (Wsr-NAS, AAAI 2023, Algorithm 1).

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "8/255" is understood.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "dataset", "data", "save", "strategy", "space", "init_channels", "layers", "strengths", "epsilon",
        "iterations")

    preset: str = "paper"
    max_validation: int = option(0, "images of D_v used, a class-balanced seeded choice; 0: all", group="data")

    vulnerability_bound: str = option("inf", "H, upper bound of the predicted vulnerability: a number, the same at "
                                      "every strength, rel:0.6 (0.6 times the median over the warm-up "
                                      "population, at each strength), or inf for none")
    learning_rate: float = option(0.1, "learning rate of the supernet: constant in the warm-up, half a cosine in "
                                  "the search")

    strategy: str = option("wsr-paper", "how the search moves", choices=SUPERNET_STRATEGIES, added=True, group="search")
    output: str = option("argmax", "which architecture is the genotype", choices=OUTPUTS, added=True)
    warmup_architectures: int = option(100, "N, epochs of the warm-up, and in the strategy wsr-paper the size of the "
                                       "population (Algorithm 1, line 2)")
    iterations: int = option(100, "T, search iterations (line 19)")

    num_pgd_strengths: int = option(3, "N1, strengths attacked by PGD", group="strengths")
    num_estimated_strengths: int = option(3, "N2, strengths whose noise the AN-Estimator makes")
    strengths: tuple[float, ...] = option(SIX_STRENGTHS, "the N1 + N2 strengths of the objective",
                                          increasing=True, beside="strength_weights")
    strength_weights: tuple[float, ...] = option(SIX_WEIGHTS, "beta_i of Eq. 10, one weight for each strength; their "
                                                 "sum is 1")
    attacked_strengths: tuple[float, ...] = option((), "strengths that PGD attacks, N1 of those in --strengths; empty: "
                                                   "split the strengths into N1 equal groups and attack the first of "
                                                   "each (paper)")
    eval_batch_size: int = option(100, "images of D_v at a time, each attacked at N1 strengths together",
                                  identity=False, aliases=("validation_batch_size",), group="measurement")

    estimator: str = option("A-ANE", "AN-Estimator", choices=ESTIMATORS, group="AN-Estimator")
    estimator_memory: int = option(600, "size of M_a in tasks")
    estimator_images: int = option(10, "B, images of D_t attacked for M_a in every iteration (line 9)")
    estimator_passes: int = option(1, "K_a, passes over M_a in every iteration (line 10)")
    estimator_max_epsilon: float = option(0.15, "largest of the random strengths in the AN-Estimator's training tasks")

    check_images: int = option(100, "images of D_v, class-balanced, that PGD also attacks at the estimated strengths "
                               "in every iteration, to report the error of the estimates; at least one for each class; "
                               "0: no check")
    max_estimator_gap: float = option(0.0, "gap, as a share of accuracy (0.05: 5 points), that the check tolerates at "
                                      "a strength; above it, PGD attacks the strength with the largest gap from then "
                                      "on; 0: only report")

    loss_memory: int = option(100, "size of M_v in architectures in the strategy wsr-paper (published code); wsr "
                              "keeps all", group="the paper's strategy (VLE)")
    sync_bn: bool = option(False, "BatchNorm statistics of the whole batch instead of each process' share", added=True,
                           group="optimiser")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "warmup_architectures", "iterations", "eval_batch_size", "estimator_memory",
                              "estimator_images", "estimator_passes", "loss_memory", "paths_per_iteration",
                              "ranking_every", "short_epochs")
        require(self.ranking_sample >= LEAST, f"ranking_sample is {self.ranking_sample}; expected at least {LEAST}")
        self.require_estimator_training()
        self.require_strategy()
        self.require_at_least(0, "max_validation", "validation_steps", "anchors", "check_images", "max_estimator_gap",
                              "short_images", "halvings", "training_free_layers")
        self.require_strength("estimator_max_epsilon")
        check_strengths(self.strengths, self.num_pgd_strengths, self.num_estimated_strengths)
        check_attacked(self.attacked_strengths, self.strengths, self.num_pgd_strengths)
        require(self.max_estimator_gap < 1, f"max_estimator_gap is {self.max_estimator_gap:g}; expected a share of "
                "accuracy below 1 (0.05 is 5 points)")
        require(self.check_images > 0 or self.max_estimator_gap == 0,
                f"max_estimator_gap is {self.max_estimator_gap:g} but check_images is 0; expected images to measure "
                "the gap on, or --max_estimator_gap 0")
        build_objective(self)
        require(not OBJECTIVES[self.objective].reads_vulnerability or not (self.bounded or self.max_estimator_gap),
                f"objective is {self.objective}, which rewards a high vulnerability; expected neither "
                "vulnerability_bound nor max_estimator_gap, which corrects it")
        for name, weight in self.prior_weights.items():
            require(not self.bounded, f"{name}_weight is {weight:g} but there is a vulnerability_bound; expected one "
                    "of the two")
        self.require_training_free(self.space)
        self._require_paths_fit()
        self._require_strategy_fits()

    def _require_paths_fit(self) -> None:
        """Refuse ways to train and to measure paths that do not go together."""
        require(self.few_shot or not (self.train_only and self.supernet), f"train_only is set, but so is supernet, "
                f"{self.supernet}, which is not trained; expected one of the two, or --few_shot_edge")
        self._require_few_shot_fits()
        require(self.paths_per_iteration == 1 or self.path_every == "step" or not self.trains_supernet,
                f"paths_per_iteration is {self.paths_per_iteration} but path_every is {self.path_every}: the first one "
                "alone would be trained before they are compared; expected --path_every step, --supernet or "
                f"--measure {SHORT}")
        require(self.measure == SUPERNET or not (self.train_only or self.anchors), f"measure is {self.measure}: no "
                "supernet is trained and nothing makes progress; expected --measure supernet with train_only or "
                "anchors")
        require(self.halvings == 0 or self.measure == SHORT, f"halvings is {self.halvings} but measure is "
                f"{self.measure}; expected --measure {SHORT}, or --halvings 0")
        parts = 2**min(self.halvings, 63)
        require(self.short_epochs % parts == 0, f"halvings is {self.halvings} but short_epochs is {self.short_epochs}; "
                f"expected a multiple of {parts}")
        require(self.paths_per_iteration >= parts, f"halvings is {self.halvings} but paths_per_iteration is "
                f"{self.paths_per_iteration}; expected at least {parts}, so that one is left")
        require(not (self.anchors and self.supernet), f"anchors is {self.anchors} but supernet is {self.supernet}, "
                "which makes no progress; expected --anchors 0")
        require(self.anchors == 0 or self.path_every == "step", f"anchors is {self.anchors} but path_every is "
                f"{self.path_every}: new paths would be trained before they are measured, anchors would not; expected "
                "--path_every step")
        require(self.anchors <= self.population_size, f"anchors is {self.anchors} but only {self.population_size} "
                "architectures are measured before the first iteration; expected at most as many")

    def _require_few_shot_fits(self) -> None:
        """Refuse an edge that is none, and few-shot supernets without what they begin with."""
        rows = SPACES[self.space].num_rows
        require(-1 <= self.few_shot_edge < rows, f"few_shot_edge is {self.few_shot_edge}; expected a row of A from 0 "
                f"to {rows - 1}, or -1")
        require(not self.few_shot or (self.train_only and bool(self.supernet) and self.path_every == "step"),
                f"few_shot_edge is {self.few_shot_edge}; expected it with --train_only, --path_every step and the "
                "--supernet to begin with")

    def _require_strategy_fits(self) -> None:
        """Refuse what the strategy cannot do."""
        entry = SUPERNET_STRATEGIES[self.strategy]
        require(self.output in entry.outputs, f"output is {self.output} but strategy is {self.strategy}; expected "
                f"--output {' or '.join(entry.outputs)}, or --strategy wsr")
        require(entry.bounds or not self.bounded, f"vulnerability_bound is {self.vulnerability_bound} but strategy is "
                f"{self.strategy}, which predicts no vulnerability; expected --strategy wsr-paper")
        require(entry.proposes or not self.budget, f"budget is {self.budget} but strategy is {self.strategy}, which "
                "draws its paths from A alone; expected --strategy wsr, or no --budget")
        measured = self.measurements
        if entry.proposes:  # one more than it measures
            found = SPACES[self.space].distinct(measured + 1)
            require(found > measured, f"strategy is {self.strategy}, which measures no architecture twice, but the "
                    f"space {self.space} has {found} and the search measures {measured}; expected fewer "
                    "--iterations, or --strategy wsr-paper")

    def adapted(self, flags: Mapping[str, Any]) -> Self:
        """Return this configuration as the start of one with other ``flags``: another strategy has its own output."""
        outputs = SUPERNET_STRATEGIES[flags.get("strategy", self.strategy)].outputs
        return replace(super().adapted(flags), output=self.output if self.output in outputs else outputs[0])

    @property
    def default_name(self) -> str:
        """Name of the run directory without ``--save``."""
        name = f"{self.space_prefix}{self.preset}-{self.adv_loss}-{self.dataset}-seed{self.seed}"
        name += f"-{SHORT}" * (self.measure == SHORT)
        if self.supernet:
            return f"{name}{f'-edge-{self.few_shot_edge}' * self.few_shot}-on-{Path(self.supernet).name}"
        return f"{name}-supernet" if self.train_only else name

    @property
    def source_run(self) -> str:
        """Run directory of the supernet that the search runs on without training; empty: it trains its own."""
        return self.supernet

    @property
    def measures_vulnerability(self) -> bool:
        """Whether measurements on D_v have the vulnerability."""
        return self.bounded or OBJECTIVES[self.objective].reads_vulnerability

    @property
    def columns(self) -> int:
        """Number of what M_v keeps of a measurement: losses, vulnerabilities and priors, as far as they are read."""
        return 1 + len(self.strengths) * (1 + self.measures_vulnerability) + len(self.prior_weights)

    @property
    def trains_supernet(self) -> bool:
        """Whether the search trains a supernet that its paths share, or several."""
        return self.measure == SUPERNET and (self.few_shot or not self.supernet)

    @property
    def few_shot(self) -> bool:
        """Whether one supernet is trained for every operation on an edge."""
        return self.few_shot_edge >= 0

    @property
    def members(self) -> tuple[int, ...]:
        """The operations for which a few-shot supernet is trained, one after the other."""
        return possible_operations(self.space, self.path_kind, self.few_shot_edge)

    def member(self, step: Step) -> int:
        """Return the operation whose few-shot supernet a step trains."""
        return self.members[step.number // self.warmup_architectures]

    @property
    def measurements(self) -> int:
        """Number of architectures that are measured in the population and in the iterations."""
        return self.population_size + self.paths_per_iteration * self.iterations

    def proposals(self, steps: int | None = None) -> Proposals:
        """Return what ``proposal`` needs to know; as many architectures as are measured together are planned."""
        found = super().proposals(steps)
        return replace(found, batch=max(found.batch, self.paths_per_iteration))

    @property
    def measuring_steps(self) -> int:
        """Steps of the PGD attacks that measure."""
        return self.validation_steps or self.num_steps

    def ranks_in(self, step: Step) -> bool:
        """Return whether the sample of the table is ranked in this step: after every few iterations and the last."""
        return bool(self.ranking_table) and step.phase == "search" and (
            (step.number + 1) % self.ranking_every == 0 or step.number + 1 == self.iterations)

    @property
    def path_kind(self) -> str:
        """What a training path is, a key of ``PATHS``."""
        return self.paths or SUPERNET_STRATEGIES[self.strategy].paths

    @property
    def population_size(self) -> int:
        """Number of architectures that are measured before the first iteration."""
        return self.warmup_architectures if self.strategy == "wsr-paper" else self.population


def _naive(name: str, strengths: tuple[float, ...], weights: tuple[float, ...]) -> SearchConfig:
    """Return a preset with all strengths attacked by PGD and no AN-Estimator (Tables 1 and 3)."""
    return SearchConfig(preset=name, num_pgd_strengths=len(strengths), num_estimated_strengths=0,
                        strengths=strengths, strength_weights=weights)


# The papers do not give these (docs/DEVIATIONS.md has the reasons): T = 100 fits the stated days; the 11 strengths of
# Plus halve the steps of Basic's six, so that both attack at 0.03, 0.06 and 0.09; the weights of Plus interpolate
# those of Basic, which are the published code's.
PRESETS: dict[str, SearchConfig] = {
    "paper": SearchConfig(),
    "plus": SearchConfig(preset="plus", num_estimated_strengths=8, strengths=ELEVEN_STRENGTHS,
                         strength_weights=ELEVEN_WEIGHTS, estimator="A-ANE-plus"),
    # Equal weights are within 36 % of those of the area under the curve, by which the evaluation sums up the range.
    # Growing weights, as in Basic, would be largest where hardly any network still classifies, and would compare noise.
    # As many epochs and measurements as in the paper's strategy with N = T = 100: a population of one, more iterations.
    # 5,000 images of D_v rank paths as 5,000 others do (docs/PERFORMANCE.md), in a fifth of the time of all.
    "wide": SearchConfig(preset="wide", strategy="wsr", output="verified", iterations=199, max_validation=5000,
                         num_pgd_strengths=1, num_estimated_strengths=15, strengths=WIDE_STRENGTHS,
                         strength_weights=(1 / 16,) * 16, attacked_strengths=(0.06,), estimator="C-ANE",
                         estimator_max_epsilon=0.25, max_estimator_gap=0.05),
    "naive-1": _naive("naive-1", (0.03,), (1.0,)),
    "naive-3": _naive("naive-3", (0.03, 0.06, 0.09), (1 / 11, 3 / 11, 7 / 11)),
    "naive-6": _naive("naive-6", SIX_STRENGTHS, SIX_WEIGHTS),
    "naive-11": _naive("naive-11", ELEVEN_STRENGTHS, ELEVEN_WEIGHTS),
}
# Three minutes on two CPU cores. The digits resist small noise, hence strengths to 0.2 and a stronger training attack.
PRESETS["tiny"] = replace(
    PRESETS["paper"], preset="tiny", strategy="wsr", output="verified", dataset="digits", init_channels=4, layers=4,
    batch_size=16, num_steps=3, epsilon=0.1, learning_rate=0.05, warmup_architectures=3, iterations=5, max_train=1200,
    max_validation=200, num_pgd_strengths=2, num_estimated_strengths=2, strengths=(0.05, 0.1, 0.15, 0.2),
    strength_weights=(0.1, 0.2, 0.3, 0.4), eval_batch_size=100, recalibration_batches=5,
    estimator_memory=120, estimator_passes=2, estimator_batch_size=32, estimator_max_epsilon=0.25, check_images=20,
    loss_passes=100)


def schedule(config: SearchConfig) -> list[Step]:
    """Return the epochs of Algorithm 1.

    The phases are ``warm-up`` (lines 3-5), ``population`` (lines 7-17) and ``search`` (lines 19-25). The predictor
    is trained after the last network of the population (line 18) and in every search step (line 23). A moves in every
    search step (line 24); where it has to propose the first of them, after the population, too. There is no warm-up
    where the search trains no supernet, and nothing else where the supernet is only trained.
    """
    population, iterations = -(-config.population_size // config.paths_per_iteration), config.iterations
    trained = config.warmup_architectures * (len(config.members) if config.few_shot else 1)
    phases = [("warm-up", trained if config.trains_supernet else 0)]
    phases += [] if config.train_only else [("population", population), ("search", iterations)]
    steps: list[Step] = []
    for phase, count in phases:
        for number in range(count):
            trains = phase == "search" or (phase == "population" and number == population - 1)
            moves = trains and (phase == "search" or SUPERNET_STRATEGIES[config.strategy].proposes)
            steps.append(Step(len(steps), phase, number, trains, moves))
    return steps


def proposed_paths(config: SearchConfig, step: Step) -> int:
    """Return how many paths a step proposes: one is trained in the warm-up, several may be measured later."""
    if step.phase == "warm-up":
        return 1
    each = config.paths_per_iteration
    return min(each, config.population_size - each * step.number) if step.phase == "population" else each


def measured_paths(config: SearchConfig, step: Step) -> int:
    """Return how many paths a step measures: those proposed, and the anchors among those measured before."""
    if step.phase == "warm-up":
        return 0
    before = config.paths_per_iteration * step.number + (config.population_size if step.phase == "search" else 0)
    return proposed_paths(config, step) + min(config.anchors, before)


def rungs(config: SearchConfig, step: Step) -> list[int]:
    """Return the epochs of the short trainings after which the worse half of a step's architectures ends."""
    return [config.short_epochs // 2**left for left in range(config.halvings, 0, -1)] if step.phase == "search" else []


def learning_rate(config: SearchConfig, step: Step) -> float:
    """Return the supernet's learning rate: constant in the warm-up, half a cosine over the search iterations.

    Where there is nothing but the warm-up, that is half a cosine, for each of several supernets.
    """
    if config.train_only:
        return cosine_rate(config, step.number % config.warmup_architectures, config.warmup_architectures)
    if step.phase != "search":
        return config.learning_rate
    return cosine_rate(config, step.number, config.iterations)


def planned_estimator_steps(config: SearchConfig, attacked: int, rounds: int) -> int:
    """Count the optimiser steps of the AN-Estimator from an empty M_a, for its schedule.

    Args:
        config: configuration of the search.
        attacked: number of strengths that PGD attacks.
        rounds: iterations that train the AN-Estimator.
    """
    tasks = config.estimator_images * (attacked + 1)
    sizes = (min(config.estimator_memory, tasks * n) for n in range(1, rounds + 1))
    return config.estimator_passes * sum(math.ceil(size / config.estimator_batch_size) for size in sizes)
