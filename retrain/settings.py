"""Configuration of a retraining: which network, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from wsrnas.architectures import hand_designed
from wsrnas.architectures.catalogue import ENTRIES, find
from wsrnas.architectures.searched import short_name
from wsrnas.data.names import leaderboard_names, require_other_name
from wsrnas.data.settings import SmallImagesConfig
from wsrnas.quick.settings import GraphsConfig
from wsrnas.runtime import run_files
from wsrnas.runtime.config import RunConfig, format_epsilon, option, require, require_step
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.training.losses import LOSSES, LossSettings, losses_of
from wsrnas.training.schedules import SCHEDULES, Schedule
from wsrnas.training.sgd import SgdConfig
from wsrnas.training.strengths import SIX_STRENGTHS, require_increasing

with deferred_imports():
    from wsrnas.training.trainer import Refinements


@dataclass(frozen=True)
class ArchitectureConfig(RunConfig):
    """The network to train.

    The fields init_channels and layers of a recipe are those of its cell. A network with a design of its own has its
    own depth, and its published width unless another one is given.
    """

    arch: str = option("WsrNet_Basic", "name of an architecture (python -m wsrnas.models --list), genotype.json, run "
                       "directory of a search, or graph of NAS-Bench-201 such as '|nor_conv_3x3~0|+...'",
                       identity=False, group="network")  # a run compares the genotype itself
    init_channels: int = option(45, "channels C of the first cells; for a network with a design of its own the "
                                "channels of its first stage (densenet121: growth rate; mobilenet_v2, squeezenet: "
                                "stem), by default the published ones")


@dataclass(frozen=True)
class TrainingRecipe(SgdConfig, GraphsConfig):
    """The training of any network; the defaults are those of WsrNet-Basic."""

    preset_flags: ClassVar[tuple[str, ...]] = ("--recipe", "--preset")

    layers: int = option(20, "number of cells; leave it out, or 0, for a network with a design of its own",
                         group="network")
    split_seed: int = option(-1, "seed of the choice of training (--max_train) and held-out images; -1: --seed",
                             group="data")
    held_out: int = option(1000, "images of the training set that are held out for selection; 0: none, and no best.pt")

    adv_loss: str = option("pgd", "training loss", choices=lambda: losses_of("retrain"), group="adversarial training")
    trades_beta: float = option(1.0, "weight of the robust term of the loss trades (1 is TRADES-1, 6 is TRADES-6), and "
                                "lambda of the loss mart", aliases=("beta",))
    strengths: tuple[float, ...] = option(SIX_STRENGTHS, "strengths of the loss multi", increasing=True)
    epsilon: float = option(0.031, "strength of the training attack (published; 8/255 is 0.03137) and of the "
                            "held-out test")
    num_steps: int = option(7, "steps of the training attack (PGD-7); the loss fast takes one")
    step_size: float = option(0.0, "step size of the training attack; 0: 2.5 * epsilon / num_steps (published), for "
                              "the loss fast 1.25 * epsilon")
    random_start: bool = option(False, "start the attack uniformly in the ball (losses pgd and multi; the others have "
                                "their own start)")
    batch_statistics: bool = option(False, "attack under the batch's BatchNorm statistics instead of the running ones")
    label_smoothing: float = option(0.0, "share of the target that is spread over all classes")
    auxiliary_weight: float = option(0.0, "weight of the auxiliary head's loss, for networks made of cells "
                                     "(DARTS: 0.4); 0: no head")

    batch_size: int = option(400, "images per step, over all processes", group="optimiser")
    accumulation: int = option(1, "parts into which each process divides its share of a batch, to need less memory")
    epochs: int = option(176, "number of epochs; the recipes for CIFAR have 176, the epoch of the published "
                             "run's last evaluation")
    schedule: str = option("multi-step", "learning rate of every step", choices=SCHEDULES)
    learning_rate_min: float = option(0.0, "learning rate at the end of the cosine")
    milestones: tuple[float, ...] = option((99, 149), "epochs at which the schedule multi-step multiplies the "
                                           "learning rate by 0.1")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up (schedules constant, multi-step and cosine)")
    peak_share: float = option(0.5, "fraction of the training at which the learning rate is largest (schedules "
                                "cyclic and one-cycle)")
    drop_path: float = option(0.0, "drop-path rate at the end of the training; it rises linearly from 0",
                              group="regularisation")
    ema_decay: float = option(0.0, "decay of a moving average of the weights; best.pt and checkpoint.pt then hold "
                               "this average; 0: none")
    awp_gamma: float = option(0.0, "relative size of the adversarial weight perturbation (AWP); 0: none")
    awp_warmup: int = option(0, "epochs before AWP begins")

    amp: Literal["off", "bf16"] = option("off", "bf16: forward passes under autocast; evaluation stays float32",
                                         group="speed")
    compile: bool = option(False, "compile the network (torch.compile; needs a C++ compiler)")
    sync_bn: bool = option(False, "BatchNorm statistics of the whole batch instead of each process' share")

    select_steps: int = option(10, "PGD steps in the held-out test that chooses best.pt, at the training strength "
                               "(with the loss standard, clean accuracy chooses)", group="selection and checkpoints")
    select_every: int = option(1, "epochs between two selections")
    eval_batch_size: int = option(500, "images at a time in the selection", identity=False)
    save_every: int = option(0, "steps between two checkpoints; 0: only after an epoch and at a stop",
                             identity=False)
    probe_steps: int = option(10, "PGD steps of the probe for catastrophic overfitting, on one training batch after "
                              "every epoch (loss fast)", group="catastrophic overfitting (loss fast)")
    probe_drop: float = option(0.5, "drop of the probe accuracy that counts as catastrophic overfitting, as a "
                               "share of the best one; it must exceed three standard errors, too, so that a batch of "
                               "a few images shows none")
    on_overfitting: Literal["roll-back", "stop", "ignore"] = option(
        "roll-back", "roll-back: repeat the epoch from the last good state with 3/4 of the attack step; stop: stop at "
        "the last good state; ignore: only report", identity=False)

    def __post_init__(self) -> None:
        self.require_at_least(-1, "split_seed")
        self.require_at_least(1, "num_steps", "batch_size", "accumulation", "epochs",
                              "select_steps", "select_every", "eval_batch_size", "probe_steps", "report_freq")
        self.require_at_least(0, "max_train", "held_out", "learning_rate_min", "awp_gamma", "awp_warmup",
                              "save_every", "warmup_epochs", "auxiliary_weight")
        self.require_sgd()
        self.require_positive("trades_beta")
        self.require_strength("epsilon")
        require_step("step_size", self.step_size)
        self.require_share("label_smoothing", "drop_path", "ema_decay", "momentum")
        require(0 < self.probe_drop < 1, f"probe_drop is {self.probe_drop:g}; expected a number between 0 and 1")
        require(bool(self.strengths), "strengths is empty; expected at least one")
        require_increasing("strengths", self.strengths)
        self.refuse_unread("label_smoothing", "step_size")
        require(not (self.compile and self.drop_path),
                "compile and drop_path cannot be combined: the masks' generator cannot be compiled")
        require(self.warmup_epochs <= self.epochs,
                f"warmup_epochs is {self.warmup_epochs:g}; expected at most the {self.epochs} epochs of the training")
        require(not self.awp_gamma or self.awp_warmup < self.epochs, f"awp_warmup is {self.awp_warmup} but there are "
                f"{self.epochs} epochs, so that no weight would be perturbed; expected fewer, or --awp_gamma 0")
        self.schedule_of(1)  # refuses fields that do not fit together before any data is read

    def require_share(self, *names: str) -> None:
        """Refuse fields outside [0, 1).

        Raises:
            InputError: naming the first such field.
        """
        for name in names:
            require(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name):g}; expected 0 or more, below 1")

    def refuse_unread(self, *names: str) -> None:
        """Refuse settings that an adversarial loss would silently ignore.

        Raises:
            InputError: naming the first such field.
        """
        loss = LOSSES[self.adv_loss]
        for name in names:
            read = name in loss.reads or not loss.attacks
            require(read or not getattr(self, name), f"{name} is {getattr(self, name):g}, but the loss {self.adv_loss} "
                    "does not read it; expected 0")

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        loss, shape = LOSSES[self.adv_loss], SCHEDULES[self.schedule]
        unread = {name: f"adv_loss is {self.adv_loss}; expected --adv_loss {' or '.join(readers)} with it" for name in (
            "trades_beta", "strengths", "random_start") if loss.attacks and name not in loss.reads and (readers := [
                other for other in losses_of("retrain") if name in LOSSES[other].reads])}
        if not loss.one_step:
            unread |= dict.fromkeys(("probe_steps", "probe_drop", "on_overfitting"), f"adv_loss is {self.adv_loss}; "
                                    "expected --adv_loss fast with it")
        if not self.awp_gamma:
            unread["awp_warmup"] = "awp_gamma is 0; expected --awp_gamma with it"
        if not shape.has_milestones:
            unread["milestones"] = f"schedule is {self.schedule}; expected --schedule multi-step with it"
        if not shape.begins_low:
            unread["peak_share"] = f"schedule is {self.schedule}; expected --schedule cyclic or one-cycle with it"
        return unread

    @property
    def data_seed(self) -> int:
        """Seed of the choice of images."""
        return self.seed if self.split_seed < 0 else self.split_seed

    def loss_settings(self) -> LossSettings:
        """Return attack and weights of the training loss."""
        return LossSettings(self.epsilon, self.num_steps, self.step_size or None, self.random_start,
                            self.batch_statistics, self.trades_beta, self.label_smoothing, self.strengths,
                            self.auxiliary_weight)

    @property
    def selection_rule(self) -> str:
        """What ``best.pt`` has the highest of, in words."""
        under = f"accuracy under PGD-{self.select_steps} at {format_epsilon(self.epsilon)}"
        which = under if LOSSES[self.adv_loss].attacks else "clean accuracy"
        return f"{which} on the held-out images"

    def schedule_of(self, steps_per_epoch: int) -> Schedule:
        """Return the learning rate of every step."""
        return Schedule(self.schedule, self.learning_rate, self.epochs * steps_per_epoch, steps_per_epoch,
                        self.learning_rate_min, self.milestones if SCHEDULES[self.schedule].has_milestones else (),
                        self.warmup_epochs, self.peak_share)

    def refinements(self, steps_per_epoch: int) -> Refinements:
        """Return the additions to plain training."""
        return Refinements(self.grad_clip, self.accumulation, self.amp == "bf16", self.awp_gamma,
                           self.awp_warmup * steps_per_epoch, self.ema_decay, self.drop_path, clean_accuracy=True)


def spoken_name(arch: str) -> str:
    """Return the name of an architecture: its published name, or that of its file (genotype.json: of its folder).

    A graph of NAS-Bench-201 is called by its operations, as in ``nb201-303101``.
    """
    if name := find(arch) or short_name(arch):
        return name
    path = Path(arch).resolve()
    return path.parent.name if path.name == run_files.GENOTYPE else path.name.removesuffix(".json")


@dataclass(frozen=True)
class TrainingConfig(TrainingRecipe, ArchitectureConfig):
    """One network and its training."""

    init_weights: str = option("", "file of weights, or run directory (its best.pt), that the training begins with: of "
                               "the same architecture and size, the head may be for other classes; empty: random "
                               "weights", identity=False, added=True, group="network", unit="PATH")
    extend: bool = option(False, "lengthen a run to --epochs, exactly as if it had had so many; for schedules that do "
                          "not depend on their number (constant, multi-step)", identity=False, added=True,
                          group="run and machine")

    def __post_init__(self) -> None:
        super().__post_init__()
        named = hand_designed.find(self.arch)
        self.require_at_least(0 if named else 1, "layers")
        self.require_at_least(1, "init_channels")
        require(not (named and self.drop_path),
                f"drop_path is {self.drop_path:g}, but {named} has none; expected 0")
        require(not self.compile or not named or ENTRIES[named].compiles,
                f"compile and {named} cannot be combined: the generator of its dropout cannot be compiled")
        require(not (named and self.auxiliary_weight),
                f"auxiliary_weight is {self.auxiliary_weight:g}, but {named} has no auxiliary head; expected 0")

    @property
    def name(self) -> str:
        """Name of the run directory; without a time stamp, so that a restarted job finds its run."""
        arch = spoken_name(self.arch)
        return self.save or f"{arch}-{self.preset}-{self.adv_loss}-{self.dataset}-seed{self.seed}"


@dataclass(frozen=True)
class SmallImagesRecipe(TrainingRecipe, SmallImagesConfig):
    """The training of any network on small images."""

    dataset_name: str = option("", "what the images of a folder or an npz file are: their data set's name on "
                               "RobustBench, for page and export; empty: they have none", choices=leaderboard_names,
                               added=True, group="data")
    cutout: int = option(0, "side of a square of the training images that is set to zero, in pixels; 0: none",
                         group="regularisation")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(0, "cutout")
        if self.dataset_name:
            require_other_name(self.dataset, self.dataset_name)


@dataclass(frozen=True)
class RetrainConfig(TrainingConfig, SmallImagesRecipe):
    """Adversarially train a network on small images; --recipe gives the published hyper-parameters.

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "8/255" is understood. The init_channels and layers
    of a recipe are those of its cell: a network with a design of its own has its published width unless
    --init_channels is given.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "arch", "dataset", "data", "save", "init_channels", "layers", "adv_loss", "epsilon", "epochs", "batch_size")

    preset: str = "wsrnet-basic"


@dataclass(frozen=True)
class ImageNetConfig(TrainingConfig):
    """Train a network on ImageNet by Fast-AT; --recipe gives the published hyper-parameters.

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "4/255" is understood.
    """

    dataset: ClassVar[str] = "imagenet"
    first_flags: ClassVar[tuple[str, ...]] = (
        "arch", "data", "save", "init_channels", "layers", "adv_loss", "epsilon", "epochs", "batch_size", "image_size")

    preset: str = "wsrnet-basic"
    image_size: int = option(224, "side of the square image that the network sees, in pixels", group="data")
    color_jitter: bool = option(True, "vary brightness, contrast, saturation (by 0.4) and hue (by 0.2), as published")
    workers: int = option(4, "processes that decode images, for each training process", identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(0, "workers")
        self.require_at_least(32, "image_size")


AnyTraining = RetrainConfig | ImageNetConfig
