"""Configuration of the RNAS search: every constant of its Algorithm 1, and the named presets."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from search.supernet_settings import SupernetConfig
from wsrnas.runtime.config import option, require
from wsrnas.training.losses import LOSSES, LossSettings, TrainingLoss, losses_of


@dataclass(frozen=True)
class RnasConfig(SupernetConfig):
    """Search for cells under a bound on the vulnerability of their features (RNAS, ICLR 2022 submission, Algorithm 1).

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "8/255" is understood.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "dataset", "data", "save", "space", "init_channels", "layers", "epsilon", "vulnerability_bound", "epochs",
        "batch_size")

    preset: str = "paper"
    relaxation: Literal["mixed", "sampled"] = option(
        "mixed", "operations that an edge runs: mixed, all of them weighted by softmax(A) (DARTS; the paper); sampled, "
        "one drawn by the Gumbel-softmax in every step, with the gradient through its gate", group="search")
    tau: float = option(1.0, "temperature of the Gumbel-softmax (sampled)")

    adv_loss: str = option("pgd", "adversarial training of the supernet", choices=lambda: losses_of("rnas"))
    epsilon: float = option(8 / 255, "strength of every attack of the search")
    step_size: float = option(2 / 255, "step of every PGD attack; 0: 2.5 * epsilon / num_steps (fast: always 1.25 * "
                              "epsilon)")
    random_start: bool = option(True, "start every attack uniformly in the ball", group="adversarial training")
    batch_size: int = option(128, "images per step, of D_t and of D_v, all processes together")
    learning_rate: float = option(0.01, "initial learning rate of the supernet; it follows a cosine over all epochs")
    learning_rate_min: float = option(0.0, "learning rate at the end of the cosine")

    epochs: int = option(60, "E, epochs of the whole search", group="search")
    warmup_epochs: int = option(15, "epochs of phase I, which trains only the weights")
    unconstrained_share: float = option(0.5, "u / T: share of an epoch's steps that search without the bound (step 1); "
                                        "the rest project onto it (step 2)")
    upper_weights: tuple[float, ...] = option((1.0, 1.0), "weights of the clean and of the adversarial loss on D_v; "
                                              "the architecture minimises their sum (Eq. 8)")
    order: Literal["first", "second"] = option("first", "order of the architecture's gradient: first, at the current "
                                               "weights; second, after one more step of the weights on the adversarial "
                                               "cross-entropy (DARTS; one process)")
    architecture_learning_rate: float = option(6e-4, "learning rate of Adam on the architecture parameters A")
    architecture_weight_decay: float = option(1e-3, "weight decay of Adam on A")

    vulnerability_bound: str = option("rel:0.6", "H, upper bound of the vulnerability: a number, rel:0.6 (0.6 "
                                      "times the value at the end of the warm-up), or inf for none", identity=False,
                                      group="vulnerability")
    bound_batches: int = option(20, "batches of D_v on which a relative H is resolved and the last projection is made")
    watched_batches: int = option(2, "how many of these batches the vulnerability is measured on after every "
                                 "epoch; the program also checks on them that H can be reached")
    constrained_step: Literal["project+train", "project", "descend+project"] = option(
        "project+train", "what an iteration under the bound does: project A and train the weights; project A alone "
        "(the paper's text); or descend the upper loss, then project")
    statistics: Literal["batch", "running"] = option(
        "batch", "BatchNorm statistics while the vulnerability is measured: those of clean and adversarial images "
        "together, or the running ones")
    solver: Literal["slp", "dual"] = option("slp", "solver of the projection (Eq. 9): sequential linearised "
                                            "projection, or dual ascent")
    solver_iterations: int = option(8, "largest number of iterations of a projection by slp (dual ascent: 200)")
    path_samples: int = option(4, "sampled: number of paths; each sees its part of a batch, and the vulnerability "
                              "is their mean")

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        reasons = super().unread()
        if self.relaxation == "mixed":
            reasons |= dict.fromkeys(("tau", "path_samples"),
                                     "relaxation is mixed; expected --relaxation sampled with it")
        if self.solver != "slp":
            reasons["solver_iterations"] = f"solver is {self.solver}; expected --solver slp with it"
        return reasons

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "epochs", "bound_batches", "watched_batches", "solver_iterations", "path_samples")
        self.require_at_least(0, "warmup_epochs", "architecture_weight_decay")
        self.require_positive("architecture_learning_rate")
        require(self.warmup_epochs < self.epochs, f"warmup_epochs is {self.warmup_epochs}; expected fewer than the "
                f"{self.epochs} epochs of the search")
        require(self.watched_batches <= self.bound_batches, f"watched_batches is {self.watched_batches}; expected at "
                f"most bound_batches, {self.bound_batches}")
        require(0 <= self.unconstrained_share <= 1,
                f"unconstrained_share is {self.unconstrained_share:g}; expected a number from 0 to 1")
        require(len(self.upper_weights) == 2, f"upper_weights has {len(self.upper_weights)} entries; expected two: of "
                "the clean and of the adversarial loss")
        for name, weight in zip(("clean", "adversarial"), self.upper_weights, strict=True):
            require(0 <= weight < math.inf,
                    f"upper_weights: the {name} loss has the weight {weight:g}; expected a number of at least 0")
        require(sum(self.upper_weights) > 0, "upper_weights are both 0; expected one above 0")
        require(self.bounded or self.constrained_step != "project", "constrained_step is project, but there is no "
                "bound to project onto; expected a finite vulnerability_bound, or another constrained_step")
        require(self.relaxation == "mixed" or self.statistics == "batch", "statistics running with sampled paths: the "
                "running statistics are those of other paths; expected batch")

    @property
    def default_name(self) -> str:
        """Name of the run directory without ``--save``."""
        return f"rnas-{self.space_prefix}{self.preset}-{self.relaxation}-{self.dataset}-seed{self.seed}"

    def loss_settings(self) -> LossSettings:
        """Return the attack of the supernet's training; an attack of one step always takes its own step."""
        settings = self.pgd_settings()
        return replace(settings, step_size=None) if LOSSES[self.adv_loss].one_step else settings

    def pgd_settings(self) -> LossSettings:
        """Return the PGD attack of the vulnerability, whatever trains the weights."""
        return replace(super().loss_settings(), random_start=self.random_start)

    def upper_attack(self) -> TrainingLoss:
        """Return the loss whose attack the upper loss uses: that of the training if it takes one step, else PGD."""
        loss = LOSSES[self.adv_loss]
        return loss if loss.one_step else LOSSES["pgd"]

    @property
    def paths(self) -> int:
        """Number of paths; each sees its part of a batch, and the vulnerability is their mean."""
        return self.path_samples if self.relaxation == "sampled" else 1

    def unconstrained_steps(self, steps: int) -> int:
        """Return u, the number of unconstrained steps among the T steps of an epoch."""
        return math.floor(self.unconstrained_share * steps + 1e-9)  # .29 of 100 is 28.999999999999996


PRESETS: dict[str, RnasConfig] = {
    "paper": RnasConfig(),
    # The paper's two cells differ in H and give the larger H alone, in an unknown unit: RNAS-H is the tighter one.
    "rnas-h": RnasConfig(preset="rnas-h", vulnerability_bound="rel:0.5"),
    "rnas-l": RnasConfig(preset="rnas-l", vulnerability_bound="rel:0.8"),
}
# Minutes on two CPU cores.
PRESETS["tiny"] = replace(
    PRESETS["paper"], preset="tiny", dataset="digits", init_channels=4, layers=3, batch_size=16, max_train=640,
    num_steps=2, epsilon=0.1, step_size=0.0, learning_rate=0.1, epochs=7, warmup_epochs=4,
    architecture_learning_rate=0.02, bound_batches=4)
