"""Configuration of a race: the entrants, their budget, their training and their evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from retrain.evaluate_settings import EvaluateConfig
from retrain.recipes import RECIPES
from retrain.settings import RetrainConfig, SmallImagesRecipe
from wsrnas.evaluation.attack_spec import parse_attack
from wsrnas.evaluation.check_levels import CHECK_LEVELS, FULL
from wsrnas.evaluation.honesty import LEAST_IMAGES
from wsrnas.evaluation.protocols import PROTOCOLS
from wsrnas.runtime.budget import parse_budget
from wsrnas.runtime.config import Invocation, option, parse_config, require


@dataclass(frozen=True)
class CompareConfig(SmallImagesRecipe):
    """Race architectures: widen each to one budget, train all by one recipe, measure all by one protocol.

    Every entrant is trained once for each seed, on the same images in the same split. Best and last weights are both
    evaluated. Strengths are L-inf radii in pixels of [0, 1]; "8/255" is understood. The same command resumes. Several
    processes share the jobs: NGPU > 1, tasks of a Slurm array, or the same command started again.
    """

    first_flags: ClassVar[tuple[str, ...]] = (
        "archs", "budget", "seeds", "dataset", "data", "save", "adv_loss", "epsilon", "epochs", "protocol")
    overwrite_help: ClassVar[str] = "move an existing race aside and start again"

    preset: str = "wsrnet-basic"
    layers: int = option(20, "number of cells of the entrants made of DARTS cells; others have a depth of their own "
                        "(graphs of NAS-Bench-201: 15)")
    split_seed: int = option(-1, "not used: a race splits by --seed for all its trainings")
    archs: tuple[str, ...] = option((), "entrants, separated by commas or spaces: names (python -m wsrnas.models "
                                    "--list), genotype.json files, run directories of a search, graphs of "
                                    "NAS-Bench-201 (NAME=... names one), and random:N for N random cells; "
                                    "entrants of an earlier start cannot be removed", identity=False, group="race")
    budget: str = option("params=4.5M", "cost to which every entrant is widened: params=4.5M (parameters) or macs=700M "
                         "(multiply-adds for one image)")
    tolerance: float = option(0.02, "largest allowed difference from the budget, as a fraction", identity=False)
    seeds: int = option(3, "trainings of every entrant, with --seed, --seed + 1, ...; you can raise this number later "
                        "and run the command again",
                        identity=False)
    protocol: str = option(
        "paper", "list of attacks, as for retrain.evaluate; after a change, trained networks are measured again",
        identity=False, choices=lambda: {name: protocol for name, protocol in PROTOCOLS.items()
                                         if protocol.in_race}, group="evaluation")
    attacks: tuple[str, ...] = option((), "attacks of the custom protocol, as for retrain.evaluate; empty: pgd-20",
                                      identity=False)
    test_strengths: tuple[float, ...] = option((), "L-inf strengths of the custom protocol; empty: 8/255",
                                               identity=False, increasing=True)
    max_test: int = option(0, "test images used, a class-balanced seeded choice; 0: all", identity=False)
    eval_batch_size: int = option(500, "images at a time in the selection and in the evaluations; changes memory and "
                                  "time, and AutoAttack's random numbers", identity=False, aliases=("test_batch_size",),
                                  group="evaluation")
    check_images: int = option(200, "correctly classified images for the honesty checks of an evaluation, at least "
                               f"{LEAST_IMAGES}; networks that are evaluated keep the checks that they had",
                               identity=False)
    checks: str = option(FULL, "honesty checks of an evaluation; with more of them than before, networks are checked "
                         "again", identity=False, choices=CHECK_LEVELS, added=True)

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        found = super().unread()
        if "strengths" in found:
            found["strengths"] = f"those of the test are --test_strengths, and {found['strengths']}"
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "seeds", "layers")
        self.require_at_least(0, "max_test")
        self.require_at_least(LEAST_IMAGES, "check_images")
        require(all(0 < strength < 1 for strength in self.test_strengths) and
                list(self.test_strengths) == sorted(set(self.test_strengths)), f"test_strengths are "
                f"{list(self.test_strengths)}; expected increasing pixels of [0, 1], strictly inside (0, 1)")
        for attack in map(parse_attack, self.attacks):
            require(not attack.entry.needs_source, f"attacks contains {attack.method}, whose images are made on "
                    "another network; a race has no such network")
        require(self.split_seed < 0, f"split_seed is {self.split_seed}; a race splits by --seed, for all its trainings")
        require(0 < self.tolerance < 1, f"tolerance is {self.tolerance:g}; expected a share between 0 and 1, "
                "such as 0.02 for 2 %")
        parse_budget(self.budget)
        self.evaluation().chosen(self.dataset)

    @property
    def name(self) -> str:
        """Name of the race's folder; without a time stamp, so that a restarted job finds its race."""
        return self.save or f"{self.preset}-{self.dataset}-{self.budget.replace('=', '')}-seed{self.seed}"

    def evaluation(self, **chosen: Any) -> EvaluateConfig:
        """Return the configuration of an evaluation by the race's protocol.

        Raises:
            InputError: the protocol and its attacks do not fit together.
        """
        require(self.protocol == "custom" or not (self.attacks or self.test_strengths), f"protocol {self.protocol} has "
                "attacks of its own; --attacks and --test_strengths go with --protocol custom")
        return EvaluateConfig(protocol=self.protocol, attacks=self.attacks, strengths=self.test_strengths,
                              dataset=self.dataset, max_test=self.max_test, batch_size=self.eval_batch_size,
                              check_images=self.check_images, checks=self.checks, seed=self.seed,
                              device=self.device, **chosen)

    def training(self, arch: str, init_channels: int, layers: int | None, seed: int, folder: str,
                 name: str) -> RetrainConfig:
        """Return the configuration of the training of a network with these sizes in FOLDER/retrain/NAME."""
        shared = {field: getattr(self, field) for field in SHARED}
        shared |= {"layers": layers or 0, "seed": seed, "split_seed": self.seed, "runs": folder, "save": name}
        return RetrainConfig(**shared, arch=arch, init_channels=init_channels)


SHARED = tuple(field.name for field in fields(SmallImagesRecipe))
RACE_RECIPES: dict[str, CompareConfig] = {
    name: CompareConfig(**{field: getattr(recipe, field) for field in SHARED}) for name, recipe in RECIPES.items()}


def parse_race(argv: Sequence[str] | None = None) -> tuple[CompareConfig, Invocation]:
    """Return the race that the command line describes.

    Raises:
        InputError: see ``parse_config``.
    """
    return parse_config(CompareConfig, RACE_RECIPES, argv, "retrain.compare")
