"""Measure steps of a search and of a training with and without CUDA graphs, by turns; project the hours of a search.

    python -m benchmarks.cuda_graphs --device cuda
    python -m benchmarks.cuda_graphs --batch 8 --width 4 --steps 1 --turns 1

The cases are a training step of a supernet's path, PGD on D_v at three strengths, and a training step of WsrNet_Basic.
The numbers are medians of wall seconds, without the calls that record. The hours are those of the attacks and
trainings of the preset ``paper``, without its other phases. On a CPU there are no graphs: both columns measure the
same.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from benchmarks.output import new_file, write_numbers
from retrain.recipes import BASIC as RECIPE
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch

    from retrain.construction import make_network, make_trainer
    from search import wsr_nas_settings
    from search.spaces.supernet import Supernet
    from search.supernet_training import build_supernet, build_trainer
    from wsrnas.attacks import multi_strength_pgd
    from wsrnas.models import load_architecture
    from wsrnas.quick import graphs as recording
    from wsrnas.runtime.device import seconds_of
    from wsrnas.runtime.seeding import generator, seeded_weights

TRAINING, VALIDATION, BASIC = "training step of a path", "attack on D_v", "training step of WsrNet_Basic"
IMAGES = 25_000  # of D_t, and of D_v
PLAIN, GRAPHS = WAYS = ("plain", "graphs")

Cases = dict[str, Callable[[], object]]


def cases(width: int, batch: int, world: World) -> Cases:
    """Return the steps by name; where a training has 64 images, D_v has 100 at three strengths."""
    config = replace(wsr_nas_settings.PRESETS["paper"], init_channels=width, learning_rate=1e-4)
    recipe = replace(RECIPE, init_channels=width, learning_rate=1e-4)

    def batch_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.rand(count, 3, 32, 32, generator=generator(0, "images", count))
        return images.to(world.device, memory_format=torch.channels_last), (torch.arange(count) % 10).to(world.device)

    def supernet() -> Supernet:
        with seeded_weights(0):
            network = build_supernet(config, 10).to(world.device).to(memory_format=torch.channels_last)
        network.sample(generator(0, "path"))
        return network

    few, many = batch_of(batch), batch_of(math.ceil(batch * config.eval_batch_size / config.batch_size))
    path, measured = build_trainer(config, supernet(), world), supernet()
    network = make_network(recipe, load_architecture(recipe.arch), 10, (3, 32, 32), world)
    basic = make_trainer(recipe, network, 10_000, world)
    strengths = torch.tensor(config.strengths[::2], device=world.device)
    return {TRAINING: lambda: path.step(*few), BASIC: lambda: basic.step(*few),
            VALIDATION: lambda: multi_strength_pgd(measured, *many, strengths, steps=config.num_steps)}


def measure(step: Callable[[], object], steps: int, turns: int, graphs: recording.Graphs,
            world: World) -> dict[str, float]:
    """Return the median seconds of a step as it is and with graphs."""
    def some(count: int) -> None:
        for _ in range(count):
            step()

    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(turns + 1):
        for way in WAYS:
            with graphs.used(recording.FEWEST_CALLS) if way == GRAPHS else nullcontext():
                some(recording.CALLS_BEFORE + 2)  # the last of them is the first that a recording makes alone
                taken = seconds_of(lambda: some(steps), world.device) / steps
            if turn:
                seconds[way].append(taken)
    return {way: statistics.median(found) for way, found in seconds.items()}


def search_hours(training: float, validation: float, batch: int) -> float:
    """Return the hours of attacks and trainings of the preset ``paper``, from their seconds for ``batch`` images.

    Where these are fewer or more than the preset has in a batch, the time of an image is taken to be the same.
    """
    config = wsr_nas_settings.PRESETS["paper"]
    trained, measured = len(wsr_nas_settings.schedule(config)), config.population_size + config.iterations
    return (trained * (IMAGES // config.batch_size) * training
            + measured * math.ceil(IMAGES / config.eval_batch_size) * validation) / 3600 * config.batch_size / batch


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the results as a table."""
    return markdown_table(("step", "ms as it is", "ms with graphs", "ratio"), (
        (name, *(f"{1000 * row[way]:.1f}" for way in WAYS), f"{row[GRAPHS] / row[PLAIN]:.2f}")
        for name, row in found.items()))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every case; print the table, what was recorded, and the hours."""
    parser = Parser(prog="benchmarks.cuda_graphs", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="width C of all networks (default: 16)")
    parser.add_argument("--batch", type=int, default=64, help="images of a training step (default: 64)")
    parser.add_argument("--steps", type=int, default=10, help="steps of one measurement (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="turns after the first (default: 3)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto: a GPU if there is one (default: auto)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="file for all numbers")
    arguments = parser.parse_args(argv)
    require(min(arguments.width, arguments.batch, arguments.steps, arguments.turns) >= 1,
            "--width, --batch, --steps and --turns: expected at least 1")
    world = initialize(arguments.device)
    said: list[str] = []
    found = {name: measure(step, arguments.steps, arguments.turns, recording.Graphs(world.device, said.append), world)
             for name, step in cases(arguments.width, arguments.batch, world).items()}
    hours = {way: search_hours(found[TRAINING][way], found[VALIDATION][way], arguments.batch) for way in WAYS}
    print("\n".join([f"C = {arguments.width}, batch {arguments.batch}, {world.device}", "", table(found), "", *said,
                     f"hours of attacks and trainings of a whole search: {hours[PLAIN]:.2f}, with graphs "
                     f"{hours[GRAPHS]:.2f}"]))
    if arguments.json:
        write_numbers(arguments.json, {"seconds": found, "hours": hours, "said": said}, world)


if __name__ == "__main__":
    run_program(main)
