"""Count the images of D_v, and the batches for BatchNorm, that a search needs to rank its paths (docs/PERFORMANCE.md).

    python -m studies.fewer_images --run runs/search/NAME --out fewer_images
    python -m studies.fewer_images --run runs/search/NAME --out fewer_images --architectures 60 --images 8000

Random architectures are measured with the supernet's weights on the same images, image by image: losses on the clean
image and under PGD at the strengths of the search. Rankings by the objective of the search are then compared: a ranking
by some images with one by as many others as there are (Kendall's tau, mean over random choices, of all architectures
and of the best fifth), and a ranking after some batches of recalibration with one after most of them. An architecture
is stored when it is done, so the same command resumes.
"""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search.rankings.bench import Bench, strengths_of, use_path
from search.rankings.statistics import agreement
from search.spaces.supernet import Supernet
from studies.supernet_paths import Objective, image_losses, open_bench, print_rows, read_arguments
from wsrnas.attacks import multi_strength_pgd, rows_at_once
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.config import require
from wsrnas.runtime.program import run_program
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import generator
from wsrnas.training.batch_norm import recalibrate_batch_norm

COUNTS = (250, 500, 1000, 2500, 5000, 10_000)  # images
BATCHES = (1, 3, 10, 30)  # of recalibration; the last is the reference
CHOICES = 20  # random choices of images


def attacked_losses(bench: Bench, supernet: Supernet) -> Tensor:
    """Return the losses (images, 1 + S) in nats of the current path, clean and at the strengths (S,), on the CPU."""
    rows = []
    for images, labels in bench.batches:
        attacked = multi_strength_pgd(supernet, images, labels, strengths_of(bench), steps=bench.num_steps,
                                      rows=rows_at_once(images))
        rows.append(image_losses(supernet, (images, *attacked.unbind(1)), labels))
    return torch.cat(rows)


def measure(bench: Bench, architectures: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Measure random architectures, or read what is stored of them.

    Returns:
        Losses (n, images, 1 + S) after the usual number of batches of recalibration, and means over the first images
        (n, batches, 1 + S) after each number in ``BATCHES``.
    """
    supernet = bench.trained.build(True, bench.world.device)
    choices = bench.space.sample(architectures, generator(0, "studied architectures"))
    usual = bench.trained.config.recalibration_batches
    few = replace(bench, batches=bench.batches[:10])
    files = [folder / f"{bench.trained.fingerprint()}-{bench.images}-{bench.num_steps}-{number:03d}.npz"
             for number in range(architectures)]
    for file, chosen in zip(files, progress(choices, "architectures", bench.world, architectures), strict=True):
        if file.exists():
            continue
        use_path(bench, supernet, chosen)
        means = []
        for batches in BATCHES:
            recalibrate_batch_norm(supernet, islice(bench.recalibration, batches), bench.world)
            means.append(attacked_losses(few, supernet).mean(0))
        recalibrate_batch_norm(supernet, islice(bench.recalibration, usual), bench.world)
        stored = file.with_suffix(".part.npz")
        np.savez(stored, losses=attacked_losses(bench, supernet).numpy(), means=torch.stack(means).numpy())
        stored.replace(file)
    read = [np.load(file) for file in files]
    return np.stack([part["losses"] for part in read]), np.stack([part["means"] for part in read])


def by_images(losses: np.ndarray, objective: Objective, seed: int = 0) -> list[dict]:
    """Compare rankings by some images with rankings by others.

    Args:
        losses: (n, images, 1 + S).
        objective: mean losses (n, 1 + S) -> (n,).
        seed: seed of the choices.
    """
    draw, count = np.random.default_rng(seed), losses.shape[1]
    rows = []
    for some in (number for number in COUNTS if 2 * number <= count):
        found = []
        for _ in range(CHOICES):
            order = draw.permutation(count)
            found.append(agreement(objective(losses[:, order[:some]].mean(1)),
                                   objective(losses[:, order[count // 2:]].mean(1))))
        everything, best = np.mean(found, 0)
        rows.append({"images": some, "tau": everything, "tau of the best fifth": best})
    return rows


def main() -> None:
    """Measure, compare and print."""
    arguments = read_arguments("studies.fewer_images", __doc__, images=10_000)
    require(arguments.architectures >= 10, f"architectures is {arguments.architectures}; expected at least 10, for a "
            "best fifth to rank")
    require(arguments.images >= 2 * COUNTS[0], f"images is {arguments.images}; expected at least {2 * COUNTS[0]}, of "
            "which one half ranks and the other is compared with")
    bench, objective = open_bench(arguments, max(BATCHES))
    require(len(bench.recalibration) >= max(BATCHES), f"D_t has {len(bench.recalibration)} batches; expected at least "
            f"{max(BATCHES)}, a search with a smaller --batch_size or more images")
    losses, means = measure(bench, arguments.architectures, arguments.out)
    images = by_images(losses, objective)
    batches = [{"batches": number, **dict(zip(("tau", "tau of the best fifth"), agreement(
        objective(means[:, place]), objective(means[:, -1])), strict=True))}
        for place, number in enumerate(BATCHES[:-1])]
    write_json(arguments.out / "fewer_images.json", {"by images": images, "by batches": batches})
    print(f"{arguments.architectures} architectures, reference: {losses.shape[1] // 2} other images")
    print_rows([*images, *batches])


if __name__ == "__main__":
    run_program(main)
