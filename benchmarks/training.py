"""Measure training steps of a recipe: images a second, share of what the machine can do, memory, hours of the recipe.

    python -m benchmarks.training cifar --recipe wsrnet-basic --dataset folder --data DATA
    python -m benchmarks.training cifar --recipe wsrnet-basic --data DATA --precision off bf16 --baseline ../earlier
    python -m benchmarks.training imagenet --recipe racl --data DATA --held_out 0 --accumulation 32 --steps 2

Further flags are those of the program. The first step is not timed: it also chooses algorithms and fills the loader.
Several precisions, or another checkout of this project (``--baseline``), are measured by turns, a step each, in a
process each. The speed of a step is compared with that of a matrix product here, by its multiply-adds, and with that of
a copy, by its activations, as if each of them left the caches. On a CPU, the time of one thread counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.output import new_file, write_numbers
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch

    from benchmarks import training_steps
    from benchmarks.ceiling import measure_ceilings, shares
    from wsrnas.complexity import readable

PROGRAMS = ("cifar", "imagenet")  # those of ``training_steps``
STEPS_FILE = Path(__file__).with_name("training_steps.py")
CODE = ("import runpy, sys\nfrom wsrnas.runtime.program import run_program\n"
        "serve = runpy.run_path(sys.argv[1])['serve']\n"
        "run_program(lambda: serve(sys.argv[2], sys.argv[4:], int(sys.argv[3])))")
HERE = "this checkout"
BFLOAT16 = "bf16"


class OtherProcess:
    """Training steps in a process of its own, which imports the project from a checkout.

    Args:
        checkout: root of the checkout.
        program: name in ``PROGRAMS``.
        arguments: flags of that program.
        count: number of steps that will be asked for.
    """

    def __init__(self, checkout: Path, program: str, arguments: list[str], count: int) -> None:
        # -P: the folder in which the measurement was started is not searched for modules, the checkout is.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE, str(STEPS_FILE), program, str(count), *arguments], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(checkout)})
        self.checkout = checkout

    def __enter__(self) -> Self:
        try:
            self.about = self._answer()
        except BaseException:
            self.__exit__(None, None, None)  # its pipes stay open otherwise
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended before
                self.process.stdin.close()  # the process ends
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def step(self) -> dict[str, float]:
        """Return what ``Steps.step`` returns there."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the answer says so
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(training_steps.MARK):
                return json.loads(line.removeprefix(training_steps.MARK))
        raise InputError(f"the training in {self.checkout} ended with exit code {self.process.wait()}; its own message "
                         "says why")


def measure_here(program: str, arguments: list[str], count: int) -> list[dict[str, Any]]:
    """Measure steps in this process, or in all of torchrun's; return a row of results, on the main process alone."""
    steps = training_steps.Steps(program, arguments, count)
    taken = [steps.step() for _ in range(1 + count)]
    if not steps.world.is_main:
        return []
    for number, step in enumerate(taken):
        print(f"step {number}: {step['wall']:.2f} s, loss {step['loss']:.3f}", flush=True)
    return [{"checkout": HERE, **steps.about, **summary(taken[1:], steps.about)}]


def measure_by_turns(program: str, arguments: list[str], count: int, precisions: Sequence[str],
                     checkouts: dict[str, Path]) -> list[dict[str, Any]]:
    """Measure every precision in every checkout, a step each by turns; return a row of results for each."""
    with ExitStack() as stack:
        processes: dict[tuple[str, str], OtherProcess] = {}
        for name, checkout in checkouts.items():
            for precision in precisions or [""]:
                amp = ["--amp", precision] if precision else []
                started = OtherProcess(checkout.resolve(), program, [*arguments, *amp], count)
                processes[name, precision] = stack.enter_context(started)
        taken: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in processes}
        for turn in range(1 + count):
            for key, process in processes.items():
                taken[key].append(process.step())
            print(f"turn {turn}: " + ", ".join(f"{' '.join(key).strip()} {steps[-1]['wall']:.2f} s"
                                               for key, steps in taken.items()), flush=True)
        return [{"checkout": key[0], **process.about, **summary(taken[key][1:], process.about)}
                for key, process in processes.items()]


def summary(taken: Sequence[dict[str, float]], about: dict[str, Any]) -> dict[str, float]:
    """Return medians of the steps, images a second (wall, and of processor time), peak memory, hours of the recipe."""
    wall, cpu = (statistics.median(step[kind] for step in taken) for kind in ("wall", "cpu"))
    return {"seconds": wall, "cpu_seconds": cpu, "images_per_second": about["batch"] / wall,
            "images_per_cpu_second": about["batch"] / cpu, "peak_gib": taken[-1]["peak_gib"],
            "hours": wall * about["steps_per_epoch"] * about["epochs"] / 3600}


def add_shares(rows: list[dict[str, Any]], ceilings: dict[str, float]) -> None:
    """Add to every row its shares of the machine's speed, and its speed in processor time relative to the last one."""
    for row in rows:
        precision = "bfloat16" if row["amp"] == BFLOAT16 else "float32"
        images = row["batch"] / row["processes"]
        seconds = row["cpu_seconds"] / row["threads"] if row["device"] == "cpu" else row["seconds"]
        row.update(shares(images * row["operations"], images * row["bytes"], seconds, precision, ceilings))
        same = [other for other in rows if other["amp"] == row["amp"]]
        row["speed_ratio"] = same[-1]["cpu_seconds"] / row["cpu_seconds"]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a table."""
    return markdown_table(
        ("checkout", "amp", "s a step", "CPU s", "images/s", "of matrix products", "of copies", "peak GiB",
         "hours of the recipe", "speed by CPU time"),
        ((row["checkout"], row["amp"], f"{row['seconds']:.3g}", f"{row['cpu_seconds']:.3g}",
          f"{row['images_per_second']:.4g}", f"{row['share_of_products']:.0%}", f"{row['share_of_copies']:.0%}",
          f"{row['peak_gib']:.1f}", f"{row['hours']:.3g}", f"{row['speed_ratio']:.2f}") for row in rows))


def main(argv: Sequence[str] | None = None) -> None:
    """Time the steps and print the results."""
    parser = Parser(prog="benchmarks.training", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default: 10)")
    parser.add_argument("--precision", nargs="+", choices=["off", BFLOAT16], default=[],
                        help="values of --amp to compare (default: the recipe's own)")
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="root of another checkout of this project")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="file for all numbers")
    arguments, rest = parser.parse_known_args(argv)
    require(arguments.steps >= 1, f"--steps is {arguments.steps}; expected at least 1")
    checkouts = {HERE: Path(__file__).parents[1]}
    if arguments.baseline is not None:
        require((arguments.baseline / "wsrnas").is_dir(),
                f"--baseline {arguments.baseline}: expected the root of a checkout of this project")
        checkouts["baseline"] = arguments.baseline
    if len(checkouts) > 1 or arguments.precision:
        require("RANK" not in os.environ, "--precision and --baseline start processes of their own; expected them "
                "without torchrun")
        rows = measure_by_turns(arguments.program, rest, arguments.steps, arguments.precision, checkouts)
    else:
        rows = measure_here(arguments.program, rest, arguments.steps)
    if not rows:
        return
    about, device = rows[0], torch.device(rows[0]["device"])
    ceilings = measure_ceilings(device)
    add_shares(rows, ceilings)
    print(f"\n{about['recipe']}: {readable(about['parameters'])} parameters, batch {about['batch_text']}, "
          f"{about['loss']}, {about['epochs']} epochs of {about['steps_per_epoch']} steps, {about['threads']} thread(s)"
          f"\nceiling with {torch.get_num_threads()} thread(s): {ceilings['float32'] / 1e9:.0f} Gflop/s in float32, "
          f"{ceilings['bfloat16'] / 1e9:.0f} in bfloat16, {ceilings['bytes'] / 1e9:.1f} GB/s\n\n{table(rows)}")
    if arguments.json:
        write_numbers(arguments.json, {"rows": rows, "ceilings": ceilings}, World(device=device))


if __name__ == "__main__":
    run_program(main)
