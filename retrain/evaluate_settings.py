"""The configuration of an evaluation, and the attacks that it chooses."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from retrain.networks_settings import NetworksConfig
from wsrnas.data.datasets import DATASETS, source_of
from wsrnas.evaluation.attack_spec import Attack, at_strength, attack_help, parse_attack
from wsrnas.evaluation.check_levels import CHECK_LEVELS, FULL
from wsrnas.evaluation.curve import Curve
from wsrnas.evaluation.honesty import LEAST_IMAGES
from wsrnas.evaluation.protocols import (
    CURVE,
    CUSTOM,
    PROTOCOLS,
    RNAS_STRENGTH,
    curve_of,
    custom_attacks,
    names_apart,
    protocol_attacks,
    require_strengths,
)
from wsrnas.runtime.config import option, require
from wsrnas.training.strengths import require_increasing

L2_STRENGTHS = (0.5,)


@dataclass(frozen=True)
class EvaluateConfig(NetworksConfig):
    """Evaluate networks under attack; several at once give one table, paired differences and one page.

    Strengths are radii in pixels of [0, 1]; "8/255" is understood.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "model", "data", "dataset", "protocol", "attacks", "strengths", "max_test", "checks", "batch_size", "out")
    overwrite_help: ClassVar[str] = "measure everything again instead of resuming"

    model: tuple[str, ...] = option((), "networks: run directories or checkpoints of a retraining, FILE.py:FUNCTION "
                                    "without arguments, TorchScript or torch.export files, or names of architectures "
                                    "(with --state_dict)")
    state_dict: tuple[str, ...] = option((), "weights of the named architectures, one file for each --model",
                                         group="networks")
    init_channels: int = option(0, "width of a named architecture; 0: infer it from the weight file if possible "
                                "(resnet18 and the like: the published width)")
    layers: int = option(0, "cells of a named architecture; 0: the DARTS convention, 20 (ImageNet: 14), or for a graph "
                        "of NAS-Bench-201 15")
    protocol: str = option("", "list of attacks (empty: custom where --attacks or --strengths are given, else paper, "
                           "and imagenet for that data set)", choices=PROTOCOLS, group="attacks")
    attacks: tuple[str, ...] = option((), lambda: "attacks of the custom protocol (empty: pgd-20), each "
                                      f"{attack_help()}")
    strengths: tuple[float, ...] = option((), "L-inf strengths of the custom protocol (empty: 8/255) or of the curve "
                                          "(empty: 2/255 to 32/255)", increasing=True)
    l2_strengths: tuple[float, ...] = option((), "L2 strengths of the custom protocol (empty: 0.5), or of the curve "
                                             "with --norm l2 (empty: 0.125 to 2); norms over all pixels",
                                             increasing=True)
    norm: str = option("linf", "norm of the curve, linf or l2", added=True)
    anchors: tuple[float, ...] = option((), "strengths at which the curve also runs AutoAttack, in the unit of its "
                                        "norm; empty: none", added=True, increasing=True)
    step_size_ratio: float = option(0.0, "step of the custom protocol's PGD and MIM as a share of the strength; 0: "
                                    "2.5 / steps (MIM: 1 / steps)")
    random_start: bool = option(False, "start the custom protocol's PGD and MIM uniformly in the ball; restarts "
                                "after the first are always random")
    source: str = option("", "network that makes the images of the attack transfer and of one honesty check, in "
                         "the form of --model; empty: another network of --model, otherwise the last weights if the "
                         "best are evaluated, and vice versa")
    dataset: str = option("", "data set (empty: the one that all networks were trained on)", choices=DATASETS,
                          group="data")
    batch_size: int = option(500, "images at a time, in each process; changes memory and time, and AutoAttack's random "
                             "numbers", aliases=("eval_batch_size",), group="run and machine")
    check_images: int = option(200, "correctly classified images that the honesty checks run on, at least "
                               f"{LEAST_IMAGES}", group="honesty checks")
    checks: str = option(FULL, "honesty checks, after the attacks", choices=CHECK_LEVELS, added=True)
    workers: int = option(4, "processes that decode ImageNet's images, for each process", group="run and machine")
    out: str = option("", "folder of results and page, with a subfolder for each of several networks; empty: a "
                      "network's run directory, or RUNS/evaluate/NAME for other networks and for the page of several")

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        names = () if self.state_dict else ("init_channels", "layers")
        return super().unread() | dict.fromkeys(
            names, "a network without --state_dict has its own size; expected --state_dict with it")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; expected at least 1")
        require(self.check_images >= LEAST_IMAGES,
                f"check_images is {self.check_images}; expected at least {LEAST_IMAGES}")
        require(not self.state_dict or len(self.state_dict) == len(self.model),
                f"{len(self.state_dict)} files of weights (--state_dict) for {len(self.model)} networks; expected one "
                "each")
        require(0 <= self.step_size_ratio < float("inf"), f"step_size_ratio is {self.step_size_ratio:g}; expected a "
                "share of the strength, at least 0")
        if self.protocol == CURVE:
            self._check_curve()
        else:
            require(self.norm == "linf" and not self.anchors, "--norm and --anchors go with --protocol curve")
            require_increasing("strengths", self.strengths)
            _require_norms("l2_strengths", self.l2_strengths)
            require(not self.is_custom or self.protocol in ("", CUSTOM), f"protocol {self.protocol} has attacks of its "
                    "own; --attacks, --strengths, --l2_strengths, --step_size_ratio and --random_start go with "
                    "--protocol custom")

    def _check_curve(self) -> None:
        """Refuse what a curve cannot use; its strengths may come in any order."""
        require(not (self.attacks or self.step_size_ratio or self.random_start), "protocol curve has an attack of its "
                "own; --attacks, --step_size_ratio and --random_start go with --protocol custom")
        require(self.norm in ("linf", "l2"), f"the curve's norm is {self.norm!r}; expected linf or l2")
        l2 = self.norm == "l2"
        other, given = ("strengths", self.strengths) if l2 else ("l2_strengths", self.l2_strengths)
        require(not given, f"--{other} are of another norm than --norm {self.norm}")
        for name in ("l2_strengths" if l2 else "strengths", "anchors"):
            ordered = sorted(set(getattr(self, name)))
            if l2:
                _require_norms(name, ordered)
            else:
                require_increasing(name, ordered)
        curve_of(self.norm, self.l2_strengths if l2 else self.strengths)  # refuses strengths that share one name
        self.chosen("")  # and this one anchors

    @property
    def is_custom(self) -> bool:
        """Whether any part of an attack was chosen."""
        return bool(self.attacks or self.strengths or self.step_size_ratio or self.random_start
                    or self.l2_strengths)

    @property
    def curve(self) -> Curve | None:
        """The curve of the protocol, if it has one."""
        if self.protocol != CURVE:
            return None
        return curve_of(self.norm, self.strengths if self.norm == "linf" else self.l2_strengths)

    @property
    def notes(self) -> list[str]:
        """What was made of the given strengths, in sentences."""
        given = {"strengths": self.strengths, "l2_strengths": self.l2_strengths, "anchors": self.anchors}
        return [f"--{name} are not distinct: each counts once" for name, values in given.items()
                if len(set(values)) < len(values)]

    def chosen(self, dataset: str) -> tuple[str, tuple[Attack, ...]]:
        """Return the name of the protocol that applies, and its attacks.

        Args:
            dataset: name of the data set; empty if not known yet.

        Raises:
            InputError: An attack is unknown, or a transfer attack has no source.
        """
        default = CUSTOM if self.is_custom else source_of(dataset).protocol
        protocol = self.protocol or default
        if protocol == CURVE:
            name = "autoattack" if self.norm == "linf" else "autoattack-l2"
            return protocol, names_apart(tuple(at_strength(parse_attack(name), strength)
                                               for strength in sorted(set(self.anchors))))
        attacks = protocol_attacks(protocol)
        if protocol == CUSTOM:
            names, radii = self.attacks or ("pgd-20",), self.strengths or (RNAS_STRENGTH,)
            norms, asked = self.l2_strengths or L2_STRENGTHS, ("strengths", "l2_strengths")
            require_strengths(names, radii, norms, [name for name in asked if getattr(self, name)])
            attacks = custom_attacks(names, radii, norms, self.step_size_ratio, self.random_start)
        for attack in attacks:
            require(bool(self.source) or len(self.model) > 1 or not attack.entry.needs_source,
                    f"the attack {attack.method} needs another network to make its images: pass --source")
        return protocol, attacks


def _require_norms(name: str, norms: Sequence[float]) -> None:
    """Refuse L2 norms that are not above 0 or do not increase."""
    for norm in norms:
        require(0 < norm < float("inf"), f"{name} contains {norm:g}; expected a norm above 0")
    for weaker, stronger in itertools.pairwise(norms):
        require(weaker < stronger, f"{name} must increase, but {weaker:g} comes before {stronger:g}")
