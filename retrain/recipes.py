"""What a retraining can be told, and the named recipes: the published ones of both papers, and our own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from wsrnas.architectures import hand_designed
from wsrnas.architectures.catalogue import find
from wsrnas.data.settings import SmallImagesConfig
from wsrnas.models import sizes
from wsrnas.runtime import run_files
from wsrnas.runtime.config import Invocation, RunConfig, option, parse_config, require
from wsrnas.training.losses import LOSSES, LossSettings, losses_of
from wsrnas.training.schedules import SCHEDULES, Schedule
from wsrnas.training.strengths import SIX_STRENGTHS, require_increasing
from wsrnas.training.trainer import Refinements


@dataclass(frozen=True)
class ArchitectureConfig(RunConfig):
    """Which network is trained.

    A recipe's init_channels and layers are those of its cell: a network with a design of its own has its published
    width unless it is given one, and its own depth.
    """

    arch: str = option("WsrNet_Basic", "name of an architecture (python -m wsrnas.models --list), genotype.json, or "
                       "run directory of a search", identity=False)  # runs compare what it stands for
    init_channels: int = option(45, "channels C of the first cells; of a network with a design of its own those of its "
                                "first stage (densenet121: growth rate; mobilenet_v2, squeezenet: stem), without this "
                                "flag the published ones")


@dataclass(frozen=True)
class TrainingRecipe(RunConfig):
    """How a network is trained, whichever it is; the defaults are those of WsrNet-Basic."""

    preset_flags: ClassVar[tuple[str, ...]] = ("--recipe", "--preset")

    layers: int = option(20, "cells; a network with a design of its own has its own depth: leave this out, or 0")
    split_seed: int = option(-1, "of the choice of training images (--max_train) and of those held out; -1: --seed")
    held_out: int = option(1000, "images of the training set held out for selection; 0: none, best.pt is not written")

    adv_loss: str = option("pgd", "training loss", choices=lambda: losses_of("retrain"))
    trades_beta: float = option(1.0, "weight of the robust term of trades (1 is TRADES-1, 6 TRADES-6); also lambda of "
                                "mart", aliases=("beta",))
    strengths: tuple[float, ...] = option(SIX_STRENGTHS, "strengths of the loss multi, increasing")
    epsilon: float = option(0.031, "strength of the training attack (published; 8/255 is 0.03137) and of the selection")
    num_steps: int = option(7, "steps of the training attack (PGD-7); fast takes one")
    step_size: float = option(0.0, "step of the training attack; 0: 2.5 * epsilon / num_steps (published); for fast "
                              "1.25 * epsilon")
    random_start: bool = option(False, "start pgd and multi uniformly in the ball (other losses have their own start)")
    batch_statistics: bool = option(False, "attack under the batch's BatchNorm statistics instead of the running ones")
    label_smoothing: float = option(0.0, "share of the target spread over all classes")
    auxiliary_weight: float = option(0.0, "weight of the auxiliary head's loss, for networks of two cells (DARTS: "
                                     "0.4); 0: no head")

    batch_size: int = option(400, "images per step, all processes together")
    accumulation: int = option(1, "parts in which each process handles its share of a batch, to need less memory")
    epochs: int = option(176, "epochs (the published run is last evaluated there)")
    schedule: str = option("multi-step", "learning rate of every step", choices=SCHEDULES)
    learning_rate: float = option(0.1, "of SGD: the largest of the schedule")
    learning_rate_min: float = option(0.0, "learning rate the cosine ends at")
    milestones: tuple[float, ...] = option((99, 149), "epochs from which multi-step multiplies by 0.1 again")
    warmup_epochs: float = option(0.0, "epochs of a linear rise of the learning rate (constant, multi-step, cosine)")
    peak_share: float = option(0.5, "share of the training after which cyclic and one-cycle peak")
    momentum: float = option(0.9, "of SGD")
    weight_decay: float = option(5e-4, "of SGD")
    grad_clip: float = option(5.0, "largest gradient norm; 0: no clipping")
    drop_path: float = option(0.0, "rate that drop-path reaches at the end, rising linearly from 0")
    ema_decay: float = option(0.0, "of a moving average of the weights, which is then selected and kept; 0: none")
    awp_gamma: float = option(0.0, "relative size of the adversarial weight perturbation (AWP); 0: none")
    awp_warmup: int = option(0, "epochs before AWP begins")

    amp: Literal["off", "bf16"] = option("off", "bf16: forward passes under autocast; evaluation stays float32")
    compile: bool = option(False, "compile the network (torch.compile; needs a C++ compiler)")
    sync_bn: bool = option(False, "BatchNorm statistics of the whole batch instead of each process' share")

    select_steps: int = option(10, "PGD steps of the selection on the held-out images, at the training strength")
    select_every: int = option(1, "epochs between two selections")
    eval_batch_size: int = option(500, "images per batch of the selection", identity=False)
    save_every: int = option(0, "steps between two checkpoints within an epoch; 0: only at its end and when stopped",
                             identity=False)
    probe_steps: int = option(10, "PGD steps of the probe for catastrophic overfitting (loss fast): one training batch "
                              "after every epoch")
    probe_drop: float = option(0.5, "share of the last good probe accuracy whose loss is catastrophic overfitting")
    on_overfitting: Literal["roll-back", "stop", "ignore"] = option(
        "roll-back", "roll-back: repeat the epoch from the last good state with 3/4 of the attack step; stop: end "
        "there, the last good state stays; ignore: only report", identity=False)

    def __post_init__(self) -> None:
        self.require_at_least(-1, "split_seed")
        self.require_at_least(1, "num_steps", "batch_size", "accumulation", "epochs",
                              "select_steps", "select_every", "eval_batch_size", "probe_steps", "report_freq")
        self.require_at_least(0, "max_train", "held_out", "step_size", "grad_clip", "weight_decay", "momentum",
                              "learning_rate_min", "awp_gamma", "awp_warmup", "save_every", "warmup_epochs",
                              "auxiliary_weight")
        self.require_positive("learning_rate", "trades_beta")
        self.require_strength("epsilon")
        self.require_share("label_smoothing", "drop_path", "ema_decay", "momentum")
        require(0 < self.probe_drop < 1, f"probe_drop is {self.probe_drop:g}; expected a number between 0 and 1")
        require(bool(self.strengths), "strengths is empty; expected at least one")
        require_increasing("strengths", self.strengths)
        self.refuse_unread("label_smoothing", "step_size")
        require(not (self.compile and self.drop_path),
                "compile and drop_path do not go together: the masks' generator cannot be compiled")
        require(self.warmup_epochs <= self.epochs,
                f"warmup_epochs is {self.warmup_epochs:g}; expected at most the {self.epochs} epochs of the training")
        self.schedule_of(1)  # refuses what does not fit together before any data is read

    def require_share(self, *names: str) -> None:
        """Refuse fields outside [0, 1)."""
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

    @property
    def data_seed(self) -> int:
        """Seed of the choice of images."""
        return self.seed if self.split_seed < 0 else self.split_seed

    def loss_settings(self) -> LossSettings:
        """Attack and weights of the training loss."""
        return LossSettings(self.epsilon, self.num_steps, self.step_size or None, self.random_start,
                            self.batch_statistics, self.trades_beta, self.label_smoothing, self.strengths,
                            self.auxiliary_weight)

    def schedule_of(self, steps_per_epoch: int) -> Schedule:
        """The learning rate of every step."""
        return Schedule(self.schedule, self.learning_rate, self.epochs * steps_per_epoch, steps_per_epoch,
                        self.learning_rate_min, self.milestones if SCHEDULES[self.schedule].has_milestones else (),
                        self.warmup_epochs, self.peak_share)

    def refinements(self, steps_per_epoch: int) -> Refinements:
        """What is added to plain training."""
        return Refinements(self.grad_clip, self.accumulation, self.amp == "bf16", self.awp_gamma,
                           self.awp_warmup * steps_per_epoch, self.ema_decay, self.drop_path, clean_accuracy=True)


def spoken_name(arch: str) -> str:
    """What to call an architecture: its published name, or that of its file, a genotype.json's being its folder's."""
    if name := find(arch):
        return name
    path = Path(arch).resolve()
    return path.parent.name if path.name == run_files.GENOTYPE else path.name.removesuffix(".json")


@dataclass(frozen=True)
class TrainingConfig(TrainingRecipe, ArchitectureConfig):
    """One network and its training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = hand_designed.find(self.arch)
        self.require_at_least(0 if named else 1, "layers")
        self.require_at_least(1, "init_channels")
        require(not (named and self.drop_path),
                f"drop_path is {self.drop_path:g}, but {named} has none; expected 0")
        require(not (named == "vgg16_4096" and self.compile),
                "compile and vgg16_4096 do not go together: the generator of its dropout cannot be compiled")
        require(not (named and self.auxiliary_weight),
                f"auxiliary_weight is {self.auxiliary_weight:g}, but {named} has no auxiliary head; expected 0")

    @property
    def name(self) -> str:
        """Of the run directory; without a time stamp, so that a restarted job finds itself."""
        arch = spoken_name(self.arch)
        return self.save or f"{arch}-{self.preset}-{self.adv_loss}-{self.dataset}-seed{self.seed}"


@dataclass(frozen=True)
class SmallImagesRecipe(TrainingRecipe, SmallImagesConfig):
    """How a network is trained on small images."""

    cutout: int = option(0, "side of a square of the training images that is set to zero, in pixels; 0: none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(0, "cutout")


@dataclass(frozen=True)
class RetrainConfig(TrainingConfig, SmallImagesRecipe):
    """Adversarially train a network on small images; --recipe gives the published hyper-parameters.

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "8/255" is understood. A recipe's init_channels and
    layers are those of its cell: a network with a design of its own has its published width unless --init_channels
    says otherwise.
    """

    preset: str = "wsrnet-basic"


@dataclass(frozen=True)
class ImageNetConfig(TrainingConfig):
    """Train a network on ImageNet by Fast-AT; --recipe gives the published hyper-parameters.

    Strengths and step sizes are L-inf radii in pixels of [0, 1]; "4/255" is understood.
    """

    dataset: ClassVar[str] = "imagenet"

    preset: str = "wsrnet-basic"
    image_size: int = option(224, "side of the square that the network sees, in pixels")
    color_jitter: bool = option(True, "vary brightness, contrast, saturation (0.4) and hue (0.2), as published")
    workers: int = option(4, "processes that decode images, for each training process", identity=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(0, "workers")
        self.require_at_least(32, "image_size")


Config = TypeVar("Config", bound=TrainingConfig)


def parse_recipe(cls: type[Config], recipes: Mapping[str, Config], argv: Sequence[str] | None = None,
                 prog: str | None = None) -> tuple[Config, Invocation]:
    """``parse_config``, with the width of a network with a design of its own in place of a recipe's, its cell's.

    Raises:
        InputError: as ``parse_config``.
    """
    config, invocation = parse_config(cls, recipes, argv, prog)
    if name := hand_designed.find(config.arch):
        own = {"arch": name, "init_channels": sizes(name, config.dataset)[0], "layers": 0}
        config, invocation = parse_config(cls, {key: replace(recipe, **own) for key, recipe in recipes.items()}, argv,
                                          prog)
        config = replace(config, arch=name)  # one spelling, so that a resumed run finds itself
    return config, invocation


BASIC = RetrainConfig()
# Early-stopped TRADES with AWP and an average of the weights: what recent robust training is compared with
# (Wu et al. 2020; Rice et al. 2020; Gowal et al. 2021).
STRONG = replace(
    BASIC, preset="strong", adv_loss="trades", trades_beta=6.0, epsilon=8 / 255, num_steps=10, step_size=2 / 255,
    batch_size=128, epochs=120, schedule="cosine", awp_gamma=0.005, awp_warmup=10, ema_decay=0.999)
RECIPES: dict[str, RetrainConfig] = {
    "wsrnet-basic": BASIC,
    "wsrnet-robust": replace(BASIC, preset="wsrnet-robust", arch="WsrNet_Robust", batch_size=64, weight_decay=1e-4),
    "wsrnet-plus": replace(BASIC, preset="wsrnet-plus", arch="WsrNet_Plus", init_channels=46),
    "wsrnet-m": replace(BASIC, preset="wsrnet-m", arch="WsrNet_M", weight_decay=7e-4),
    "wsrnet-m-1": replace(BASIC, preset="wsrnet-m-1", arch="WsrNet_M_1", weight_decay=7e-4),
    "wsrnet-n": replace(BASIC, preset="wsrnet-n", arch="WsrNet_N", init_channels=50, weight_decay=7e-4),
    "trades-1": replace(BASIC, preset="trades-1", adv_loss="trades"),
    "trades-6": replace(BASIC, preset="trades-6", adv_loss="trades", trades_beta=6.0),
    "multi-adv": replace(BASIC, preset="multi-adv", adv_loss="multi", batch_size=64),
    # RNAS, Sec. 4: the paper's text. The start of its attack is not said; Madry et al.'s is random.
    "rnas": replace(BASIC, preset="rnas", arch="RNAS_repo_H", init_channels=36, epsilon=8 / 255, step_size=2 / 255,
                    random_start=True, batch_size=128, epochs=300, schedule="cosine", learning_rate=0.01,
                    weight_decay=3e-4),
    "strong": STRONG,
    # Half a minute on two CPU cores, for the digits.
    "tiny": replace(BASIC, preset="tiny", dataset="digits", init_channels=6, layers=4, batch_size=32, epochs=6,
                    milestones=(4, 5), epsilon=0.1, num_steps=3, held_out=140, select_every=2),
}

IMAGENET = ImageNetConfig(
    init_channels=74, adv_loss="fast", epsilon=4 / 255, step_size=4 / 255, label_smoothing=0.1, batch_size=256,
    epochs=51, schedule="cyclic", weight_decay=2e-4, held_out=5000, eval_batch_size=128, save_every=1000)
IMAGENET_RECIPES: dict[str, ImageNetConfig] = {
    "wsrnet-basic": IMAGENET,
    "racl": replace(IMAGENET, preset="racl", arch="RACL", init_channels=64),
    "advrush": replace(IMAGENET, preset="advrush", arch="AdvRush", init_channels=60),
    # Seconds on a CPU, for a look at the program.
    "tiny": replace(IMAGENET, preset="tiny", init_channels=4, layers=4, batch_size=16, epochs=2, held_out=0,
                    image_size=64, workers=0),
}
