"""What the studies of a trained supernet's paths share: their command line, the images, the objective of the search."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from search.rankings.bench import Bench, build_bench
from search.rankings.trained import open_trained
from search.strategy.objective import OBJECTIVES
from wsrnas.runtime.config import Parser, within
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
    parser.add_argument("--architectures", type=within(int, 1), default=60, help="random architectures (default: 60)")
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
        recalibration_batches: batches of D_t for BatchNorm; 0: those of the search.
    """
    trained = open_trained(arguments.run, arguments.data)
    config = trained.config
    bench = build_bench(trained, arguments.images, tuple(config.strengths), arguments.num_steps or config.num_steps,
                        recalibration_batches or config.recalibration_batches, 100, 0, initialize("auto"))
    objective = OBJECTIVES[config.objective].build(config)
    return bench, lambda losses: objective(torch.from_numpy(losses).float()).numpy()


def print_rows(rows: list[dict]) -> None:
    """Print one line for each row."""
    for row in rows:
        print(", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()))
