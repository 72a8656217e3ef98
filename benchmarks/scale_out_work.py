"""Do in each of several processes what ``scale_out`` compares: a small search, or the evaluation of a network.

``scale_out`` starts itself in several processes for it; the main process writes the numbers.
"""

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import retrain.evaluate
from benchmarks.clock import Clock
from benchmarks.iteration_phases import TimedSearcher, random_images, run_phases
from search.spaces.supernet import Supernet
from search.wsr_nas_settings import PRESETS, SearchConfig, schedule
from wsrnas.data.image_set import Augmentation, DataSet
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.distributed import World, all_max, barrier, initialize, shutdown
from wsrnas.runtime.preemption import stop_requests
from wsrnas.training.batch_norm import average_buffers

SMALL = replace(PRESETS["tiny"], preset="small", init_channels=8, batch_size=32, eval_batch_size=64,
                warmup_architectures=1, iterations=3)
# In float64, convolutions of a CPU are slow.
EXACT = replace(SMALL, space="nas-bench-201", init_channels=2, layers=3)
IMAGES = 128  # of D_t, and of D_v
REPLICATED = ("remember_noise", "train_estimator", "remember_losses", "train_losses", "move")
"""Phases that every process runs in full, instead of its share."""


def in_double(supernet: Supernet) -> None:
    """Let a supernet compute in float64 on the float32 images of a search.

    The images of an attack then depend on the signs of its gradients alone, which rounding hardly reaches.
    """
    forward = supernet.double().forward
    for alphas in supernet.architecture_parameters():
        alphas.data = alphas.data.float()

    def forward_in_double(images: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        return forward(images.double(), outputs)

    object.__setattr__(supernet, "forward", forward_in_double)


def search(config: SearchConfig, data: DataSet, world: World, double: bool = False) -> dict[str, Any]:
    """Run a whole search as ``search.wsr_nas`` does, without files.

    Args:
        config: configuration of the search.
        data: the data set; the first half of its training images is D_t.
        world: processes that share the batches.
        double: whether the supernet computes in float64.

    Returns:
        ``choices`` of the architecture that was found; ``losses`` on D_v after every step that measures them; of every
        iteration ``cpu`` and ``wall``, seconds of the slowest process, and ``replicated``, CPU seconds of the phases
        that are not shared.
    """
    halves = torch.arange(len(data.train)).chunk(2)
    searcher = TimedSearcher(config, data, (halves[0], halves[1]), world)
    if double:
        in_double(searcher.supernet)
    found: dict[str, Any] = {"losses": [], "cpu": [], "wall": [], "replicated": []}
    with stop_requests(world) as searcher.stop:
        for step in schedule(config):
            barrier(world)
            clock = Clock(world.device)
            cpu, wall = clock.now()
            searcher.sample(step)
            measured = run_phases(searcher, step, clock)
            average_buffers(searcher.supernet, world)
            cpu_end, wall_end = clock.now()
            if measured:
                found["losses"].append(measured["losses"].tolist())
            if step.phase == "search":
                found["cpu"].append(all_max(cpu_end - cpu, world))
                found["wall"].append(all_max(wall_end - wall, world))
                found["replicated"].append(sum(clock.cpu.get(name, 0.0) for name in REPLICATED))
    return found | {"choices": searcher.space.encode(searcher.genotype()).tolist()}


def evaluation(arguments: list[str], world: World) -> dict[str, Any]:
    """Run ``retrain.evaluate``, whose files have the accuracies; return the seconds of the slowest process."""
    barrier(world)
    clock = Clock(world.device)
    with clock("all"), contextlib.redirect_stdout(io.StringIO()):
        retrain.evaluate.main(arguments)
    return {kind: [all_max(seconds["all"], world)] for kind, seconds in (("cpu", clock.cpu), ("wall", clock.wall))}


def main(argv: Sequence[str] | None = None) -> None:
    """Do the work that the command line names, and write its numbers on the main process."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale_out", description=__doc__)
    parser.add_argument("work", choices=["search", "evaluation"])
    parser.add_argument("file", type=Path, help="JSON file for the numbers")
    parser.add_argument("--sync_bn", action="store_true")
    parser.add_argument("--double", action="store_true")
    arguments, rest = parser.parse_known_args(argv)
    torch.set_num_threads(1)
    world = initialize("cpu")
    if arguments.work == "search":
        config = replace(EXACT if arguments.double else SMALL, sync_bn=arguments.sync_bn)
        # No augmentation, which has black margins: in areas of one colour, rounding decides the ties of max pooling.
        data = replace(random_images(2 * IMAGES), augmentation=Augmentation())
        found = search(config, data, world, arguments.double)
    else:
        found = evaluation(rest, world)
    if world.is_main:
        write_json(arguments.file, found)
    shutdown()
