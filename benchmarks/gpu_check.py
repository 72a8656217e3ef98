"""Check a machine with a GPU in minutes: tests, speeds, memory, hours of a search and of a training, on one page.

    bash scripts/gpu_check.sh
    python -m benchmarks.gpu_check --out runs/gpu_check --limit 240

The parts run one after the other, each in a process of its own, and store their result in ``--out``. The same command
goes on after a stop or after ``--limit`` seconds, and repeats parts that failed. No data set is needed: the images are
random. At the end ``gpu_check.json`` and ``gpu_check.md`` hold everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain.recipes import BASIC
from wsrnas.runtime.checkpoint import write_atomic, write_json
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.environment import environment
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import numpy as np
    import torch
    from PIL import Image

    from search import wsr_nas_settings

LIMIT = 480  # seconds of one call
PRESETS_SHOWN = ("paper", "wide", "naive-6")
CIFAR_IMAGES = 50_000
CLASSES, IMAGES_A_CLASS, SIDE = 10, 250, 32  # of the random pictures for the training
SHOWN_LINES = 3  # of the output of a part that failed


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Args:
        command: function from the folder of the results to the arguments of Python.
        limit: seconds after which it is stopped.
        section: function from its result to Markdown.
    """

    command: Callable[[Path], list[str]]
    limit: int
    section: Callable[[dict[str, Any]], str]


def measured(folder: Path, name: str) -> Path:
    """Return the file that the program of a part writes."""
    return folder / f"{name}.numbers.json"


def random_pictures(folder: Path) -> Path:
    """Write a folder data set of random pictures, unless it is there; return its path."""
    draw = np.random.default_rng(0)
    for part, count in (("train", IMAGES_A_CLASS), ("test", 1)):
        for label in range(CLASSES):
            place = folder / "pictures" / part / str(label)
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = place / f"{number}.png"
                if not path.exists():
                    Image.fromarray(draw.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    return folder / "pictures"


def tests(folder: Path) -> list[str]:
    """Return the command of the tests that need a GPU."""
    return ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/repository/test_gpu.py"]


def attacks(folder: Path) -> list[str]:
    """Return the command of the comparison of attacks."""
    return ["-m", "benchmarks.attack_throughput", "--device", "cuda", "--batch", "512", "--turns", "5", "--json",
            str(measured(folder, "attacks"))]


def graphs(folder: Path) -> list[str]:
    """Return the command of the comparison of steps with and without CUDA graphs, at the paper's width."""
    return ["-m", "benchmarks.cuda_graphs", "--device", "cuda", "--json", str(measured(folder, "graphs"))]


def iteration(folder: Path) -> list[str]:
    """Return the command of a search iteration at the paper's width, on a part of the data."""
    return ["-m", "benchmarks.search_iteration", "--device", "cuda", "--preset", *PRESETS_SHOWN, "--scale", "0.04", "1",
            "--turns", "1", "--json", str(measured(folder, "iteration"))]


def training(folder: Path) -> list[str]:
    """Return the command of the training of WsrNet_Basic at its published size, in both precisions."""
    return ["-m", "benchmarks.training", "cifar", "--recipe", "wsrnet-basic", "--dataset", "folder", "--data",
            str(random_pictures(folder)), "--held_out", "0", "--device", "cuda", "--precision", "off", "bf16",
            "--steps", "5", "--json", str(measured(folder, "training"))]


def search_hours(name: str, seconds: dict[str, float]) -> float:
    """Return the hours of a whole search from the seconds of an iteration by column."""
    config = wsr_nas_settings.PRESETS[name]
    measuring = config.population_size + config.iterations
    total = config.warmup_architectures * seconds["adversarial_training"] + measuring * sum(seconds.values())
    return total / 3600


def training_hours(row: dict[str, Any]) -> float:
    """Return the hours of the recipe on CIFAR-10's training images from a row of ``benchmarks.training``."""
    return row["seconds"] * ((CIFAR_IMAGES - BASIC.held_out) // row["batch"]) * row["epochs"] / 3600


def tests_section(found: dict[str, Any]) -> str:
    """Return the last line of pytest."""
    return found["output"].strip().splitlines()[-1]


def attacks_section(found: dict[str, Any]) -> str:
    """Return images a second of every library."""
    return markdown_table(("network", "library", "images/s", "ours is faster by"), (
        (arch, name, f"{row['images_per_second']:.0f}", f"{row['ours_is_faster']:.2f}")
        for arch, rows in found["numbers"]["networks"].items() for name, row in rows.items()))


def graphs_section(found: dict[str, Any]) -> str:
    """Return milliseconds of the steps in both ways, hours of a search, and what the log says of graphs."""
    numbers = found["numbers"]
    hours = "attacks and trainings of a search, hours", *(f"{numbers['hours'][way]:.2f}" for way in ("plain", "graphs"))
    rows = [(f"{name}, ms", *(f"{1000 * row[way]:.1f}" for way in ("plain", "graphs")))
            for name, row in numbers["seconds"].items()]
    return "\n".join([markdown_table(("", "as it is", "with graphs"), [*rows, hours]), "", *numbers["said"]])


def iteration_section(found: dict[str, Any]) -> str:
    """Return seconds of an iteration, hours of the search and peak memory of every preset."""
    numbers = found["numbers"]
    return markdown_table(
        ("preset", "s an iteration", "hours of the search", "times the published procedure", "peak GiB"),
        ((name, f"{sum(seconds.values()):.1f}", f"{search_hours(name, seconds):.2f}", f"{numbers['ratio'][name]:.1f}",
          f"{numbers['peak_gib'][name]:.1f}") for name, seconds in numbers["seconds"].items()))


def training_section(found: dict[str, Any]) -> str:
    """Return images a second, shares of the machine's speed, hours and peak memory of both precisions."""
    return markdown_table(
        ("amp", "images/s", "of matrix products", "of copies", "hours of WsrNet_Basic", "peak GiB"),
        ((row["amp"], f"{row['images_per_second']:.0f}", f"{row['share_of_products']:.0%}",
          f"{row['share_of_copies']:.0%}", f"{training_hours(row):.1f}", f"{row['peak_gib']:.1f}")
         for row in found["numbers"]["rows"]))


PARTS = {"tests": Part(tests, 150, tests_section), "attacks": Part(attacks, 60, attacks_section),
         "graphs": Part(graphs, 60, graphs_section),
         "training": Part(training, 150, training_section), "iteration": Part(iteration, 240, iteration_section)}


def run_part(name: str, folder: Path, limit: float) -> dict[str, Any]:
    """Run a part and return its result: exit code, seconds, output, and the numbers that it wrote."""
    began = time.monotonic()
    numbers = measured(folder, name)
    numbers.unlink(missing_ok=True)
    try:
        done = subprocess.run([sys.executable, *PARTS[name].command(folder)], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, timeout=limit, check=False, cwd=Path(__file__).parents[1])
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, output = -1, f"stopped after {limit:.0f} s"
    found = {"exit_code": code, "seconds": time.monotonic() - began, "output": output}
    return found | ({"numbers": json.loads(numbers.read_text())} if numbers.exists() else {})


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of the parts that ended well."""
    found = {name: json.loads(path.read_text()) for name in PARTS if (path := folder / f"{name}.json").exists()}
    return {name: result for name, result in found.items() if result["exit_code"] == 0}


def page(about: dict[str, Any], results: dict[str, dict[str, Any]]) -> str:
    """Return the page; a part without a good result says so."""
    lines = [f"# {about['device']}", "", f"torch {about['torch']}, CUDA {about['cuda']}, version {about['git']}, "
             f"{about['time']}. Random images; the search at the paper's width, the training at its published size."]
    for name, part in PARTS.items():
        result = results.get(name)
        if result is None:
            text = "Not run yet."
        elif result["exit_code"]:
            text = "Failed:\n\n```\n" + "\n".join(result["output"].strip().splitlines()[-SHOWN_LINES:]) + "\n```"
        else:
            text = part.section(result)
        lines += ["", f"## {name}", "", text]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    parser = Parser(prog="benchmarks.gpu_check", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), metavar="FOLDER",
                        help="folder of the results (default: runs/gpu_check)")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="SECONDS",
                        help=f"seconds of this call (default: {LIMIT})")
    arguments = parser.parse_args(argv)
    require(arguments.limit >= 1, f"--limit is {arguments.limit}; expected at least 1 second")
    require(torch.cuda.is_available(), "no CUDA device is visible; gpu_check measures one")
    folder, began = arguments.out.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(folder)
    for name, part in PARTS.items():
        left = arguments.limit - (time.monotonic() - began)
        if name in results or left < 1:
            continue
        print(f"{name} ...", flush=True)
        results[name] = run_part(name, folder, min(part.limit, left))
        write_json(folder / f"{name}.json", results[name])
        print(f"{name}: exit code {results[name]['exit_code']} after {results[name]['seconds']:.0f} s", flush=True)
    about = environment(World(device=torch.device("cuda", 0)))
    write_json(folder / "gpu_check.json", {"environment": about, "parts": results})
    text = page(about, results)
    write_atomic(folder / "gpu_check.md", text.encode())
    print(f"\n{text}\n{folder / 'gpu_check.md'}")
    if any(name not in results or results[name]["exit_code"] for name in PARTS):
        print("the same command runs what is missing or failed")
        sys.exit(1)


if __name__ == "__main__":
    run_program(main)
