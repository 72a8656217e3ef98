"""Compare cheaper attacks on D_v by how they rank the paths of a supernet (docs/PERFORMANCE.md).

    python -m studies.cheaper_attacks --run runs/search/NAME --out cheaper_attacks
    python -m studies.cheaper_attacks --run runs/search/NAME --out cheaper_attacks --architectures 60 --images 1000

Random architectures are measured with the supernet's weights, one after the other, on the same images: clean, and at
the strengths of the search by each attack. The reference is PGD with the search's number of steps. The rankings by the
objective of the search are compared with the reference's (Kendall's tau, of all architectures and of the best fifth),
beside what other images do: the same images by halves, reference with reference. Some attacks begin at the adversarial
images of the architecture before, in place of the images. An architecture is stored when it is done, so the same
command resumes.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.rankings.bench import Bench, strengths_of, use_path
from search.rankings.statistics import agreement
from search.spaces.supernet import Supernet
from studies.supernet_paths import Objective, image_losses, open_bench, print_rows, read_arguments
from wsrnas.attacks import multi_strength_pgd, rows_at_once
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.program import run_program
from wsrnas.runtime.progress import progress
from wsrnas.runtime.seeding import generator
from wsrnas.training.batch_norm import recalibrate_batch_norm

SEED = 0


@dataclass(frozen=True)
class Attack:
    """One attack at every strength.

    Args:
        steps: steps of PGD.
        random_start: whether it begins at a random place in the ball.
        continued: whether it begins at the images that it made of the architecture before.
    """

    steps: int
    random_start: bool = False
    continued: bool = False

    @property
    def name(self) -> str:
        """Its name in the tables."""
        return f"PGD-{self.steps}" + ", random start" * self.random_start + ", continued" * self.continued


def attacks(steps: int) -> list[Attack]:
    """Return the attacks, the reference of ``steps`` steps first."""
    cheaper = [Attack(count) for count in (5, 3, 2, 1) if count < steps]
    return [Attack(steps), *cheaper, Attack(1, random_start=True), Attack(1, continued=True),
            Attack(2, continued=True)]


# For each attack that continues, by its place, the images of every batch that it made of the architecture before.
Before = dict[int, list[Tensor]]


def attacked_losses(bench: Bench, supernet: Supernet, attack: Attack, start: list[Tensor] | None
                 ) -> tuple[Tensor, list[Tensor]]:
    """Measure the current path under one attack.

    Args:
        bench: the images.
        supernet: network with a current path.
        attack: the attack.
        start: for each batch, images (B S, C, H, W) at which the attack begins; None: at the clean ones.

    Returns:
        Losses (images, 1 + S) in nats on the CPU, clean and at the strengths (S,); and for each batch the attacked
        images.
    """
    rows, made = [], []
    for number, (images, labels) in enumerate(bench.batches):
        attacked = multi_strength_pgd(
            supernet, images, labels, strengths_of(bench), steps=attack.steps, random_start=attack.random_start,
            generator=generator(SEED, "cheaper attacks", number, device=images.device), rows=rows_at_once(images),
            start=None if start is None else start[number])
        rows.append(image_losses(supernet, (images, *attacked.unbind(1)), labels))
        made.append(attacked.flatten(0, 1))
    return torch.cat(rows), made


def measure(bench: Bench, chosen: list[Attack], architectures: int, folder: Path) -> np.ndarray:
    """Measure random architectures by every attack, or read what is stored of them.

    Returns:
        Losses (n, attacks, images, 1 + S).
    """
    supernet = bench.trained.build(True, bench.world.device)
    choices = bench.space.sample(architectures, generator(SEED, "studied architectures"))
    name = f"{bench.trained.fingerprint()}-{bench.images}-{bench.num_steps}"
    files = [folder / f"{name}-{number:03d}.pt" for number in range(architectures)]

    def before_file(number: int) -> Path:
        return folder / f"{name}-before-{number}.pt"

    def read(file: Path) -> Before:
        found: Before = torch.load(file, map_location=bench.world.device, weights_only=True)
        return found

    for number, row in enumerate(progress(choices, "architectures", bench.world, architectures)):
        if files[number].exists():
            continue
        use_path(bench, supernet, row)
        recalibrate_batch_norm(supernet, iter(bench.recalibration), bench.world)
        before: Before = read(before_file(number)) if number else {}
        losses = []
        for place, attack in enumerate(chosen):
            found, made = attacked_losses(bench, supernet, attack, before.get(place))
            losses.append(found)
            if attack.continued:
                before[place] = made
        write(before_file(number + 1), before)
        write(files[number], torch.stack(losses))
        before_file(number).unlink(missing_ok=True)
    return torch.stack([torch.load(file, weights_only=True) for file in files]).numpy()


def write(file: Path, value: Any) -> None:
    """Write tensors to a file as a whole."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomic(file, buffer.getvalue())


def compared(losses: np.ndarray, chosen: list[Attack], objective: Objective, strengths: int) -> list[dict[str, Any]]:
    """Compare the rankings by each attack with that by the first one.

    Args:
        losses: (n, attacks, images, 1 + S).
        chosen: the attacks.
        objective: mean losses (n, 1 + S) -> (n,), the objective of the search.
        strengths: S.

    Returns:
        A row for each attack: ``attack``, ``passes`` of an image, ``loss`` at the largest strength in nats, ``tau``
        with the reference on the same images, ``tau of the best fifth``, and ``tau, other images``: half of the images
        by this attack against the other half by the reference, both ways.
    """
    half = losses.shape[2] // 2
    reference = objective(losses[:, 0].mean(1))
    first, second = objective(losses[:, 0, :half].mean(1)), objective(losses[:, 0, half:].mean(1))
    rows = []
    for place, attack in enumerate(chosen):
        mine = losses[:, place]
        tau, best = agreement(objective(mine.mean(1)), reference)
        across = (agreement(objective(mine[:, :half].mean(1)), second)[0]
                  + agreement(objective(mine[:, half:].mean(1)), first)[0]) / 2
        shares = not attack.random_start and not attack.continued
        passes = strengths * (attack.steps - shares) + shares
        rows.append({"attack": attack.name, "passes": passes, "loss": float(mine.mean(1)[:, -1].mean()), "tau": tau,
                     "tau of the best fifth": best, "tau, other images": across})
    return rows


def main() -> None:
    """Measure, compare and print."""
    arguments = read_arguments("studies.cheaper_attacks", __doc__, images=1000)
    bench, objective = open_bench(arguments)
    chosen = attacks(bench.num_steps)
    losses = measure(bench, chosen, arguments.architectures, arguments.out)
    rows = compared(losses, chosen, objective, len(bench.strengths))
    (arguments.out / "cheaper_attacks.json").write_text(json.dumps(rows, indent=1))
    print(f"{arguments.architectures} architectures, {losses.shape[2]} images")
    print_rows(rows)


if __name__ == "__main__":
    run_program(main)
