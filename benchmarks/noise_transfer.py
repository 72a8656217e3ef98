"""How far one noise carries: PGD's noise of one strength, scaled to another, beside PGD's own noise there.

    python -m test_AN_estimator.benchmark --preset small --data DATA --estimators WA-ANE
    python -m benchmarks.noise_transfer --preset small --data DATA

Reads the networks and the test noises that the AN-Estimator benchmark has made (same flags) and attacks nothing anew.
"""

import torch
from torch import Tensor

from test_AN_estimator.networks import load_network, network_specs
from test_AN_estimator.noises import Noises, chunks, predict, read, tested_file
from test_AN_estimator.settings import PRESETS, BenchmarkConfig
from test_AN_estimator.study import study_folder
from wsrnas.config import parse_config
from wsrnas.data import load_dataset
from wsrnas.distributed import initialize
from wsrnas.errors import run_program
from wsrnas.estimators import project

RULES = {"scaled": lambda noise, source: noise / source, "sign": lambda noise, source: noise.sign()}


def main(argv: list[str] | None = None) -> None:
    config, _ = parse_config(BenchmarkConfig, PRESETS, argv, prog="benchmarks.noise_transfer")
    device = initialize(config.device).device
    data = load_dataset(config.dataset, config.data, config.download, max_train=config.max_train,
                        max_test=config.max_test, seed=config.seed)
    strengths = config.spectrum
    gaps = torch.zeros(len(RULES), len(strengths), len(strengths))  # rule, source, target; summed over networks
    specs = network_specs(config)
    for spec in specs:
        model = load_network(spec, study_folder(config) / "networks", data, device)
        for chunk in range(chunks(config, data)):
            made = read(tested_file(study_folder(config) / "noises", spec, chunk), device)
            columns = [config.tested_strengths.index(epsilon) for epsilon in strengths]
            attacked = made.pgd_correct[:, columns].sum(0)
            for rule, unit in enumerate(RULES.values()):
                for source, column in enumerate(columns):
                    direction = unit(made.noises[:, column], strengths[source])
                    gaps[rule, source] += (correct_when_moved(model, made, direction, strengths) - attacked).cpu()
    gaps *= 100 / (len(data.test) * len(specs))
    for rule, name in enumerate(RULES):
        print(f"\ngap to PGD-{config.num_steps} in points, noise of one strength (row) {name} to another (column)")
        print("source   " + " ".join(f"{epsilon:6g}" for epsilon in strengths) + "   mean over the others")
        for source, epsilon in enumerate(strengths):
            row = gaps[rule, source]
            others = (row.sum() - row[source]) / (len(strengths) - 1)
            print(f"{epsilon:7g}  " + " ".join(f"{gap:+6.1f}" for gap in row) + f"   {others:+.2f}", flush=True)


def correct_when_moved(model: torch.nn.Module, made: Noises, unit: Tensor, strengths: tuple[float, ...]) -> Tensor:
    """How many images (T,) stay right under noise (B, C, H, W) of strength 1, brought to each strength."""
    counts = []
    for epsilon in strengths:
        radius = made.images.new_tensor([epsilon])
        noise = project(epsilon * unit.unsqueeze(1), made.images, radius)[:, 0]
        counts.append((predict(model, made.images + noise) == made.labels).sum())
    return torch.stack(counts)


if __name__ == "__main__":
    run_program(main)
