"""Measure how far one noise can be scaled, and what helps: the tables of docs/AN_ESTIMATOR.md beside the study's own.

    python -m test_AN_estimator.benchmark --preset small --data DATA --estimators WA-ANE A-ANE
    python -m studies.noise_paths --preset small --data DATA

It reads the networks, the weights of A-ANE and the first file of test noises of each network that the AN-Estimator
benchmark has made with the same flags. The first table shows PGD's noise of one strength scaled to another. The second
shows ways to estimate noise from the single source, with accuracy and cross-entropy beside PGD's.

Shapes: B images, T targets, C channels, H W.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from test_AN_estimator.networks import load_network, network_specs
from test_AN_estimator.noises import Noises, is_right, read, tested_file
from test_AN_estimator.settings import PRESETS, BenchmarkConfig
from test_AN_estimator.study import study_folder
from wsrnas.attacks import attack_mode, fgsm, is_correct, pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet
from wsrnas.estimators import build_estimator
from wsrnas.estimators.base import project
from wsrnas.estimators.continuation import STEP, anchor_strengths
from wsrnas.runtime import checkpoint, run_files
from wsrnas.runtime.config import format_epsilon, identity_differences, load_config, parse_config, require, to_dict
from wsrnas.runtime.distributed import initialize
from wsrnas.runtime.program import run_program

Rule = Callable[[nn.Module, Noises, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NoisePathsConfig(BenchmarkConfig):
    """Measure how far one noise can be scaled, and what helps: the study of docs/AN_ESTIMATOR.md.

    It reads what test_AN_estimator.benchmark has made with the same flags, trained A-ANE included, and prints two
    tables. It writes nothing.
    """

    first_flags: ClassVar[tuple[str, ...]] = ("dataset", "data", "save", "runs")
    overwrite_help: ClassVar[str] = ""

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field, and what would, by the names of such fields."""
        other = "expected test_AN_estimator.benchmark with it"
        return {"estimators": f"this program compares WA-ANE, A-ANE and C-ANE; {other}",
                "track": f"this program records nothing; {other}"}


OWN_PRESETS = {name: NoisePathsConfig(**vars(preset)) for name, preset in PRESETS.items()}


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    config, invocation = parse_config(NoisePathsConfig, OWN_PRESETS, argv, prog="studies.noise_paths")
    device, study = initialize(config.device).device, study_folder(config)
    require((study / run_files.CONFIG).exists(), f"there is no study {study}; expected that of "
            "test_AN_estimator.benchmark with these flags")
    stored = load_config(BenchmarkConfig, study / run_files.CONFIG)
    require(not (differences := identity_differences(config, to_dict(stored))),
            f"{study} holds another study ({'; '.join(differences)}); pass the flags that it was made with")
    data = load_dataset(config.dataset, config.data, config.download, max_train=config.max_train,
                        max_test=config.max_test, seed=config.seed)
    weights = learned_weights(config, study)
    if invocation.dry_run:
        print(f"{study}: {len(config.networks)} networks, strengths {' '.join(map(format_epsilon, config.spectrum))}")
        return
    transfer(config, study, data, device)
    compare(config, study, weights, data, device)


def learned_weights(config: BenchmarkConfig, study: Path) -> Path:
    """Return the checkpoint of A-ANE that the study has trained.

    Raises:
        InputError: it is not there, or its training is not finished.
    """
    folder = study / config.settings()[-1].name / "A-ANE"
    require((folder / run_files.FINISHED).exists(), f"{folder} holds no finished training; expected that of "
            "test_AN_estimator.benchmark with these flags and --estimators A-ANE")
    return folder / run_files.CHECKPOINT


def networks(config: BenchmarkConfig, study: Path, data: DataSet,
             device: torch.device) -> Iterator[tuple[nn.Module, Noises]]:
    """Yield every network with the first file of its test noises."""
    for spec in network_specs(config):
        yield (load_network(spec, study / "networks", data, device),
               read(tested_file(study / "noises", spec, 0), device))


def transfer(config: BenchmarkConfig, study: Path, data: DataSet, device: torch.device) -> None:
    """Print the gap of noise of every strength scaled to every other one."""
    strengths = config.spectrum
    columns = [config.tested_strengths.index(epsilon) for epsilon in strengths]
    targets = torch.tensor(strengths, device=device)
    gaps, images = torch.zeros(len(strengths), len(strengths)), 0  # source, target
    for model, made in networks(config, study, data, device):
        attacked = made.pgd_correct[:, columns].sum(0)
        for source, column in enumerate(columns):
            scaled = made.noises[:, [column]] * (targets / strengths[source])[:, None, None, None]
            noises = project(scaled, made.images, targets)
            correct = torch.stack([is_right(model, made.images + noise, made.labels).sum()
                                   for noise in noises.unbind(1)])
            gaps[source] += (correct - attacked).cpu()
        images += len(made.images)
    gaps *= 100 / images
    print(f"gap to PGD-{config.num_steps} in points: noise of one strength (row) scaled to another (column)")
    print("source  " + " ".join(f"{epsilon:6g}" for epsilon in strengths) + "   mean over the others")
    for source, epsilon in enumerate(strengths):
        others = (gaps[source].sum() - gaps[source, source]) / max(1, len(strengths) - 1)
        mean = f"{others:+.2f}" if len(strengths) > 1 else "–"
        print(f"{epsilon:6g}  " + " ".join(f"{gap:+6.1f}" for gap in gaps[source]) + f"   {mean}")


def compare(config: BenchmarkConfig, study: Path, weights: Path, data: DataSet, device: torch.device) -> None:
    """Print gap and lost cross-entropy of each rule, from the single source to the strengths beside it.

    Args:
        config: configuration of the study.
        study: its folder.
        weights: checkpoint of A-ANE.
        data: its data set.
        device: device of networks and noises.
    """
    setting = config.settings()[-1]
    source = config.tested_strengths.index(config.single_source)
    columns = [config.tested_strengths.index(epsilon) for epsilon in setting.targets]
    targets, known = (torch.tensor(epsilons, device=device) for epsilons in (setting.targets, setting.sources))
    rules = make_rules(config, weights, data.image_shape, len(setting.targets), device)
    totals = {name: torch.zeros(2, len(columns), device=device) for name in ("PGD", *rules)}
    images = 0
    for model, made in networks(config, study, data, device):
        noises = {"PGD": made.noises[:, columns]}
        noises |= {name: project(rule(model, made, made.noises[:, [source]], known, targets), made.images, targets)
                   for name, rule in rules.items()}
        for name, estimated in noises.items():
            totals[name] += torch.stack([loss_and_correct(model, made, n) for n in estimated.unbind(1)], 1)
        images += len(made.images)
    means = {name: (total / images).cpu() for name, total in totals.items()}
    shown = sorted({*(len(columns) * share // 6 for share in (0, 2, 3, 4, 5)), len(columns) - 1})
    print(f"\nfrom PGD-{config.num_steps} noise at {config.single_source:g}: mean gap in points; cross-entropy below "
          f"PGD's, in nats\n{'':34}{'gap':>7}" + "".join(f"{setting.targets[place]:>8g}" for place in shown))
    for name, (loss, correct) in means.items():
        below = loss if name == "PGD" else means["PGD"][0] - loss
        gap = 100 * (correct - means["PGD"][1]).mean().item()
        print(f"{name:<34}{gap:+7.2f}" + "".join(f"{below[place]:8.2f}" for place in shown))


@torch.no_grad()
def loss_and_correct(model: nn.Module, made: Noises, noise: Tensor) -> Tensor:
    """Return sums (2,) over the images: cross-entropy in nats and correct predictions under noise (B, C, H, W)."""
    with attack_mode(model):
        logits = model((made.images + noise).contiguous(memory_format=torch.channels_last))
    correct = is_correct(logits, made.labels).sum()
    return torch.stack([F.cross_entropy(logits, made.labels, reduction="sum"), correct.float()])


def make_rules(config: BenchmarkConfig, weights: Path, image_shape: tuple[int, int, int], targets: int,
               device: torch.device) -> dict[str, Rule]:
    """Return ways from source noise (B, 1, C, H, W) and its strength (1,) to noises (B, T, C, H, W) at targets (T,).

    Args:
        config: configuration of the study.
        weights: checkpoint of A-ANE.
        image_shape: (C, H, W).
        targets: number T of targets; where C-ANE has no anchor for so few, rules that need one are left out.
        device: device of the estimators.
    """
    average, follow, learned = (build_estimator(name, image_shape).to(device).eval()
                                for name in ("WA-ANE", "C-ANE", "A-ANE"))
    learned.load_state_dict(checkpoint.read(weights)["estimator"])
    signed = lambda noise, targets: noise.sign() * targets[:, None, None, None]  # noqa: E731

    def at_anchors(make: Callable[[nn.Module, Noises, Tensor, Tensor], Tensor]) -> Rule:
        """Return a rule with C-ANE's anchors, each made from the source alone by ``make``."""
        def rule(model: nn.Module, made: Noises, noise: Tensor, known: Tensor, targets: Tensor) -> Tensor:
            anchors = anchor_strengths(known[None], targets[None], follow.gradients(len(targets)))[0].sort().values
            found = [make(model, made, noise[:, 0] * (anchor / known[0]), anchor) for anchor in anchors]
            strengths, order = torch.cat([known, anchors]).sort()
            return average(torch.cat([noise, torch.stack(found, 1)], 1)[:, order], made.images, strengths, targets)
        return rule

    def one_step(model: nn.Module, made: Noises, start: Tensor, anchor: Tensor) -> Tensor:
        return pgd(model, made.images, made.labels, anchor, 1, STEP * anchor, start=made.images + start) - made.images

    def two_sources(model: nn.Module, made: Noises, noise: Tensor, known: Tensor, targets: Tensor) -> Tensor:
        ends = [config.sources[0], config.sources[-1]]
        columns = [config.tested_strengths.index(epsilon) for epsilon in ends]
        return average(made.noises[:, columns], made.images, torch.tensor(ends, device=device), targets)

    def followed(model: nn.Module, made: Noises, noise: Tensor, known: Tensor, targets: Tensor) -> Tensor:
        more, strengths = follow.more_sources(model, made.images, made.labels, noise, known, targets)
        return follow(more, made.images, strengths, targets)

    @torch.no_grad()
    def attended(model: nn.Module, made: Noises, noise: Tensor, known: Tensor, targets: Tensor) -> Tensor:
        return learned(noise, made.images, known, targets)

    @torch.no_grad()
    def unprojected(model: nn.Module, made: Noises, noise: Tensor, known: Tensor, targets: Tensor) -> Tensor:
        return learned.unprojected(noise, made.images, known, targets)

    anchored: dict[str, Rule] = {
        "FGSM at C-ANE's anchors": at_anchors(lambda model, made, start, anchor: fgsm(
            model, made.images, made.labels, anchor) - made.images),
        "a step at each anchor, from source": at_anchors(one_step),
    } if follow.gradients(targets) else {}
    return {
        "WA-ANE": lambda model, made, noise, known, targets: average(noise, made.images, known, targets),
        "WA-ANE, signs": lambda model, made, *rest: signed(average(rest[0], made.images, *rest[1:]), rest[2]),
        "A-ANE": attended,
        "A-ANE, signs": lambda *arguments: signed(unprojected(*arguments), arguments[-1]),
        "A-ANE, norm not restored": unprojected,
        **anchored,
        "C-ANE": followed,
        f"WA-ANE, {config.sources[0]:g} and {config.sources[-1]:g} attacked": two_sources,
    }


if __name__ == "__main__":
    run_program(main)
