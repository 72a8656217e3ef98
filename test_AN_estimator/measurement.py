"""Measurement of an AN-Estimator: its noise beside the PGD noise that it replaces, image by image, and its cost.

Shapes: B images, N all test images, S sources, T targets, C channels, H W image.
"""

import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from test_AN_estimator.networks import NetworkSpec
from test_AN_estimator.noises import Noises, chunks, is_right, read, tested_file
from test_AN_estimator.settings import BenchmarkConfig, Setting
from wsrnas.attacks import pgd
from wsrnas.data.image_set import DataSet
from wsrnas.estimators.base import NoiseEstimator, radii
from wsrnas.runtime.config import require
from wsrnas.runtime.device import seconds_of

REPEATS = 7  # of a timed call; the median counts
MEANS = ("cosine", "sign_agreement", "ball", "pgd_ball")


def measure(config: BenchmarkConfig, setting: Setting, spec: NetworkSpec, model: nn.Module, estimator: NoiseEstimator,
            data: DataSet, noises: Path, device: torch.device) -> dict[str, Any]:
    """Measure one network's whole test set under the estimator's noise and under PGD's.

    Args:
        config: configuration of the study.
        setting: strengths of the question.
        spec: description of the network.
        model: the network.
        estimator: estimator in evaluation mode.
        data: the data set.
        noises: folder of the test noises.
        device: device of the measurement.

    Raises:
        InputError: an estimate is not finite (a NaN image counts as one class and would look like a strong attack).

    Returns:
        ``network``; ``clean``, one character per image, 1 where the network is right; ``targets``: for each strength
        ``epsilon`` (None: the random one), ``estimate`` and ``pgd`` in the same way under either noise, and means
        over the images: ``cosine`` of the two noises, ``sign_agreement`` (share of entries with equal signs), ``ball``
        and ``pgd_ball`` (mean absolute entry in units of the strength).
    """
    parts: list[dict[str, Tensor]] = []
    _, targets = columns_of(config, setting)
    for chunk in range(chunks(config, data)):
        made = read(tested_file(noises, spec, chunk), device)
        estimated = estimate(config, setting, estimator, model, made)
        require(bool(estimated.isfinite().all()), f"{setting.name}, {spec.name}: the estimated noise is not finite; "
                "start under another --save with a lower --estimator_learning_rate")
        attacked, radius = made.noises[:, targets], radii(made.epsilons[:, targets])
        correct = [is_right(model, made.images + noise, made.labels) for noise in estimated.unbind(1)]
        parts.append({
            "clean": made.clean_correct, "estimate": torch.stack(correct, 1), "pgd": made.pgd_correct[:, targets],
            "cosine": F.cosine_similarity(estimated.flatten(2), attacked.flatten(2), 2),
            "sign_agreement": (estimated.sign() == attacked.sign()).float().flatten(2).mean(2),
            "ball": (estimated.abs() / radius).flatten(2).mean(2),
            "pgd_ball": (attacked.abs() / radius).flatten(2).mean(2)})
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    epsilons = [*config.tested_strengths, None]
    return {"network": spec.name, "clean": flags(whole["clean"]), "targets": [
        {"epsilon": epsilons[column], "estimate": flags(whole["estimate"][:, place]),
         "pgd": flags(whole["pgd"][:, place])} | {name: whole[name][:, place].mean().item() for name in MEANS}
        for place, column in enumerate(targets)]}


def columns_of(config: BenchmarkConfig, setting: Setting) -> tuple[list[int], list[int]]:
    """Return the columns of the test noises that are sources, and the targets; in leave-one-out all are both."""
    sources, targets = ([config.tested_strengths.index(epsilon) for epsilon in strengths]
                        for strengths in (setting.sources, setting.targets))
    if setting.targets:
        return sources, targets
    everything = [*sources, len(config.tested_strengths)]
    return everything, everything


@torch.no_grad()
def estimate(config: BenchmarkConfig, setting: Setting, estimator: NoiseEstimator, model: nn.Module,
             made: Noises) -> Tensor:
    """Estimate noise at the setting's targets, (B, T, C, H, W); in leave-one-out from all other targets."""
    sources, targets = columns_of(config, setting)

    def from_columns(known: list[int], wanted: list[int]) -> Tensor:
        epsilons, order = made.epsilons[:, known].sort(1)
        noises = made.noises[:, known][torch.arange(len(order), device=order.device).unsqueeze(1), order]
        wanted_epsilons = made.epsilons[:, wanted]
        noises, epsilons = estimator.more_sources(model, made.images, made.labels, noises, epsilons, wanted_epsilons)
        return estimator(noises, made.images, epsilons, wanted_epsilons)

    if setting.targets:
        return from_columns(sources, targets)
    return torch.cat([from_columns([c for c in sources if c != hidden], [hidden]) for hidden in targets], 1)


def flags(correct: Tensor) -> str:
    """Return booleans (N,) as text, one character per image."""
    return "".join("1" if flag else "0" for flag in correct.tolist())


def cost(config: BenchmarkConfig, setting: Setting, estimator: NoiseEstimator, model: nn.Module,
         made: Noises) -> dict[str, float]:
    """Measure the milliseconds per image and strength of the estimator (with its passes of the network) and of PGD.

    Both run in turn on the same images. The medians and the median of the ratios are reported.
    """
    count = len(columns_of(config, setting)[1])
    calls = {"milliseconds": lambda: estimate(config, setting, estimator, model, made),
             "pgd_milliseconds": lambda: pgd(model, made.images, made.labels, made.epsilons[:, 0],
                                             steps=config.num_steps)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(REPEATS + 1):  # the first one warms up
        for name, call in calls.items():
            taken = seconds_of(call, made.images.device)
            if repeat:
                seconds[name].append(taken / len(made.images) / (count if name == "milliseconds" else 1))
    share = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()} | {"share_of_pgd": share}
