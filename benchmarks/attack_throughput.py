"""Measure how many images a second PGD attacks: ours, torchattacks' and foolbox's, on the same networks by turns.

    python -m benchmarks.attack_throughput
    python -m benchmarks.attack_throughput --arch resnet18 --batch 128 --steps 20 --json attacks.json

Libraries that are not installed are left out; they want an environment of their own, as ``studies.attack_agreement``
says. All attack the same network in evaluation mode and channels_last, the same images, by the same steps and without a
random start. The numbers are medians of the turns after the first; on a CPU, of processor seconds. Where two attacks
differ, the gradient of a pixel is so near zero that its sign was rounded to the other side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

from benchmarks.output import MOST_THREADS, new_file, write_numbers
from wsrnas.runtime.config import Parser, parse_number, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch
    from torch import Tensor, nn

    from benchmarks.clock import by_turns, median
    from wsrnas.attacks import pgd
    from wsrnas.models import build_model
    from wsrnas.runtime.seeding import generator, seeded_weights

ARCHITECTURES = ("WsrNet_Basic", "resnet18")
CHANNELS = {"WsrNet_Basic": 16}  # C of the networks by default; others have their own
OURS = "ours"

Attacks: TypeAlias = "dict[str, Callable[[], Tensor]]"  # each returns adversarial images


def torchattacks_pgd(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, step: float,
                     steps: int) -> Callable[[], Tensor]:
    """Return the same attack by torchattacks."""
    import torchattacks
    attack = torchattacks.PGD(network, eps=epsilon, alpha=step, steps=steps, random_start=False)
    return lambda: attack(images, labels)


def foolbox_pgd(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, step: float,
                steps: int) -> Callable[[], Tensor]:
    """Return the same attack by foolbox."""
    import foolbox
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
    return lambda: attack.run(model, images, labels, epsilon=epsilon)


OTHERS = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd}


def installed() -> list[str]:
    """Return the other libraries that this environment has."""
    return [name for name in OTHERS if find_spec(name)]


def attacks_on(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> Attacks:
    """Return PGD of every library at a step of 2.5 epsilon / steps."""
    step = 2.5 * epsilon / steps
    attacks: Attacks = {OURS: lambda: pgd(network, images, labels, epsilon, steps, step)}
    return attacks | {name: OTHERS[name](network, images, labels, epsilon, step, steps) for name in installed()}


def agreement(ours: Tensor, other: Tensor, epsilon: float) -> dict[str, float]:
    """Return the share of equal pixels, and the largest difference in units of epsilon."""
    difference = (ours - other).abs()
    return {"equal_pixels": (difference < 1e-6).double().mean().item(),
            "largest_difference": difference.max().item() / epsilon}


def measure(arch: str, arguments: argparse.Namespace, world: World) -> dict[str, dict[str, float]]:
    """Return images a second, our speed over the library's, and how far its images agree with ours, by library."""
    source = generator(0, "benchmark")
    images = torch.rand(arguments.batch, 3, 32, 32, generator=source)
    images = images.to(world.device, memory_format=torch.channels_last)
    labels = (torch.arange(arguments.batch) % 10).to(world.device)
    with seeded_weights(0):
        network = build_model(arch, init_channels=CHANNELS.get(arch))
    network = network.to(world.device).to(memory_format=torch.channels_last).eval()
    attacks = attacks_on(network, images, labels, arguments.epsilon, arguments.steps)
    made: dict[str, Tensor] = {}

    def run(name: str) -> Callable[[], None]:
        return lambda: made.update({name: attacks[name]()})

    clocks = by_turns({name: run(name) for name in attacks}, arguments.turns, world.device)
    seconds = {name: median(turns) for name, turns in clocks.items()}
    return {name: {"images_per_second": arguments.batch / time, "ours_is_faster": time / seconds[OURS],
                   **agreement(made[OURS], made[name], arguments.epsilon)} for name, time in seconds.items()}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the results as a table."""
    return markdown_table(
        ("network", "library", "images/s", "ours is faster by", "equal pixels", "largest difference / epsilon"),
        ((arch, name, f"{row['images_per_second']:.1f}", f"{row['ours_is_faster']:.2f}",
          f"{row['equal_pixels']:.2%}", f"{row['largest_difference']:.2g}")
         for arch, rows in found.items() for name, row in rows.items()))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every network and print the table."""
    parser = Parser(prog="benchmarks.attack_throughput", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES), help="names or files (default: "
                        f"{' '.join(ARCHITECTURES)}, the first with C = 16)")
    parser.add_argument("--batch", type=int, default=64, help="images of 32 x 32 pixels (default: 64)")
    parser.add_argument("--steps", type=int, default=7, help="steps of PGD (default: 7)")
    parser.add_argument("--epsilon", type=parse_number, default=8 / 255, help="strength in pixels (default: 8/255)")
    parser.add_argument("--turns", type=int, default=5, help="turns after the first (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the process (default: 1)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu", help="(default: cpu)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="file for all numbers")
    arguments = parser.parse_args(argv)
    for name in ("batch", "steps", "turns", "threads"):
        require(getattr(arguments, name) >= 1, f"--{name} is {getattr(arguments, name)}; expected at least 1")
    require(arguments.threads <= MOST_THREADS, f"--threads is {arguments.threads}; expected at most {MOST_THREADS}")
    require(0 < arguments.epsilon < 1, f"--epsilon is {arguments.epsilon:g}; expected pixels inside (0, 1)")
    world = initialize(arguments.device)
    torch.set_num_threads(arguments.threads)

    missing = [name for name in OTHERS if name not in installed()]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    found: dict[str, Any] = {arch: measure(arch, arguments, world) for arch in arguments.arch}
    print(f"PGD-{arguments.steps}, batch {arguments.batch}, {arguments.threads} thread(s)\n\n{table(found)}")
    if arguments.json:
        write_numbers(arguments.json, {"networks": found}, world)


if __name__ == "__main__":
    run_program(main)
