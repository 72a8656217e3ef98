"""What the studies of a trained supernet's paths share: their command line, the images, the objective of the search."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.rankings.bench import Bench, build_bench
from search.rankings.scores import objective_of
from search.rankings.trained import open_trained
from search.spaces.supernet import Supernet
from search.strategy.objective import OBJECTIVES
from wsrnas.attacks import many_attack_steps
from wsrnas.runtime.config import Parser, require, within
from wsrnas.runtime.distributed import initialize

Objective = Callable[[np.ndarray], np.ndarray]  # mean losses (n, 1 + S) -> (n,)


def read_arguments(program: str, description: str | None, images: int) -> argparse.Namespace:
    """Read the command line of a study, and make its folder.

    Args:
        program: name of the program.
        description: text of ``--help``.
        images: images of D_v unless the command line says.
    """
    parser = Parser(prog=program, description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory of search.wsr_nas")
    parser.add_argument("--out", type=Path, required=True, help="folder of the measurements and the results")
    parser.add_argument("--architectures", type=within(int, 2), default=60,
                        help="random architectures (default: 60)")
    parser.add_argument("--images", type=within(int, 1), default=images, help=f"images of D_v (default: {images})")
    parser.add_argument("--num_steps", type=within(int, 0), default=0,
                        help="steps of PGD; 0: those of the search (default: 0)")
    parser.add_argument("--data", default="", help="folder of the data set; empty: that of the run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def open_bench(arguments: argparse.Namespace, recalibration_batches: int = 0) -> tuple[Bench, Objective]:
    """Return the images and the supernet that a command line names, and the objective of the search.

    Args:
        arguments: result of ``read_arguments``.
        recalibration_batches: batches of D_t for BatchNorm that are needed beside those of the search.

    Raises:
        InputError: the objective of the search needs more than losses.
    """
    trained = open_trained(arguments.run, arguments.data)
    config = trained.config
    bench = build_bench(trained, arguments.images, tuple(config.strengths),
                        arguments.num_steps or config.measuring_steps,
                        max(recalibration_batches, config.recalibration_batches), 100, 0, initialize("auto"))
    weights = ", ".join(f"{name}_weight" for name in config.prior_weights)
    require(objective_of(bench, np.ones((1, 1 + len(bench.strengths)))) is not None,
            f"{arguments.run} minimises {config.objective}{f' with {weights}' * bool(weights)}, which needs more than "
            "losses; expected a run with --objective robust or natural and no such weight")
    objective = OBJECTIVES[config.objective].build(config)
    return bench, lambda losses: objective(torch.from_numpy(losses).float()).numpy()


@torch.no_grad()
def image_losses(supernet: Supernet, versions: Iterable[Tensor], labels: Tensor) -> Tensor:
    """Return the losses (B, V) in nats of the current path on V versions (B, C, H, W) of a batch, on the CPU."""
    with many_attack_steps(supernet):
        return torch.stack([F.cross_entropy(supernet(version), labels, reduction="none") for version in versions],
                           1).cpu()


def print_rows(rows: list[dict]) -> None:
    """Print one line for each row."""
    for row in rows:
        print(", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()))
