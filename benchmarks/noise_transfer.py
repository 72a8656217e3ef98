"""How far one noise carries: PGD's noise of one strength, scaled to another, beside PGD's own noise there.

    python -m test_AN_estimator.benchmark --preset small --data DATA --estimators WA-ANE
    python -m benchmarks.noise_transfer --preset small --data DATA

Reads the networks and the first file of test noises of each that the AN-Estimator benchmark has made with the same
flags; attacks nothing anew.
"""

import torch
from torch import Tensor

from test_AN_estimator.networks import load_network, network_specs
from test_AN_estimator.noises import predict, read, tested_file
from test_AN_estimator.settings import PRESETS, BenchmarkConfig
from test_AN_estimator.study import study_folder
from wsrnas.config import identity_differences, load_config, parse_config, require, to_dict
from wsrnas.data import load_dataset
from wsrnas.distributed import initialize
from wsrnas.errors import run_program
from wsrnas.estimators import project


def main(argv: list[str] | None = None) -> None:
    config, _ = parse_config(BenchmarkConfig, PRESETS, argv, prog="benchmarks.noise_transfer")
    device, study = initialize(config.device).device, study_folder(config)
    data = load_dataset(config.dataset, config.data, config.download, max_train=config.max_train,
                        max_test=config.max_test, seed=config.seed)
    stored = load_config(BenchmarkConfig, study / "config.json")
    require(not (differences := identity_differences(config, to_dict(stored))),
            f"{study} holds another study ({'; '.join(differences)}); pass the flags that it was made with")
    strengths = config.spectrum
    columns = [config.tested_strengths.index(epsilon) for epsilon in strengths]
    gaps = torch.zeros(len(strengths), len(strengths))  # source, target
    images = 0
    for spec in network_specs(config):
        model = load_network(spec, study / "networks", data, device)
        made = read(tested_file(study / "noises", spec, 0), device)
        for source, column in enumerate(columns):
            scaled = [made.noises[:, column] * (epsilon / strengths[source]) for epsilon in strengths]
            counts = [count_correct(model, made.images, made.labels, noise, epsilon)
                      for noise, epsilon in zip(scaled, strengths, strict=True)]
            gaps[source] += (torch.stack(counts) - made.pgd_correct[:, columns].sum(0)).cpu()
        images += len(made.images)
    gaps *= 100 / images
    print(f"gap to PGD-{config.num_steps} in points: noise of one strength (row) scaled to another (column)")
    print("source  " + " ".join(f"{epsilon:6g}" for epsilon in strengths) + "   mean over the others")
    for source, epsilon in enumerate(strengths):
        others = (gaps[source].sum() - gaps[source, source]) / (len(strengths) - 1)
        print(f"{epsilon:6g}  " + " ".join(f"{gap:+6.1f}" for gap in gaps[source]) + f"   {others:+.2f}")


def count_correct(model: torch.nn.Module, images: Tensor, labels: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    """How many images stay right under noise (B, C, H, W), projected to strength ``epsilon``."""
    inside = project(noise.unsqueeze(1), images, images.new_tensor([epsilon]))[:, 0]
    return (predict(model, images + inside) == labels).sum()


if __name__ == "__main__":
    run_program(main)
