"""Measure how a search and an evaluation scale: over processes, strengths and images; predict them for many GPUs.

    python -m benchmarks.scale_out
    python -m benchmarks.scale_out --turns 3 --json scale_out.json --figure scale_out

Small searches on random images run with one and with two processes, one thread each, for the same total batch; so do
evaluations of a network trained for a moment. Iterations of the preset ``wide`` run for 1 to 32 strengths, of which PGD
attacks one, and for 5,000 to 50,000 images, measured on a fortieth of them and at a quarter of the width. What
processes exchange is counted at the paper's size. The seconds on 8 and 64 GPUs are on paper (``many_gpus``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.output import new_file, write_numbers
from wsrnas.report.figures.axes import blank, legend, styled
from wsrnas.report.figures.style import COLOURS
from wsrnas.report.figures.svg import save_figure
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch

    from benchmarks import communication, many_gpus, scale_out_work
    from benchmarks.clock import Clock
    from benchmarks.iteration_phases import Iteration, Scale, columns, random_images, turn_gates
    from search import wsr_nas_settings
    from search.wsr_nas_searcher import Searcher

STRENGTHS = (1, 2, 4, 8, 16, 32)
IMAGES = (5_000, 10_000, 20_000, 50_000)  # of D_t and D_v together
WIDTH, SHARE = 0.25, 1 / 40  # of the paper's width, and of the images
ATTACKED, WEAKEST, STRONGEST = 0.06, 0.01, 0.25
GPUS = (1, 8, 64)
SYNCHRONISING = " --sync_bn"
SYNCHRONISED = f"2,{SYNCHRONISING}"
TRAINING = ("--preset", "tiny", "--epochs", "2", "--num_steps", "1", "--epsilon", "0.02", "--max_train", "1340",
            "--milestones", "2", "--select_every", "2", "--save", "network", "--device", "cpu")
EVALUATION = ("--attacks", "pgd-10", "--strengths", "8/255", "16/255", "--max_test", "240", "--batch_size", "15",
              "--check_images", "30", "--device", "cpu")

Numbers = dict[str, Any]


# -- processes ------------------------------------------------------------------------------------------------------

def launched(processes: int, *words: str) -> None:
    """Run a module of this project in several processes of one thread each.

    Raises:
        InputError: it failed.
    """
    command = [sys.executable, "-m", "wsrnas.runtime.launcher", "--standalone", f"--nproc_per_node={processes}", "-m"]
    done = subprocess.run([*command, *words], cwd=Path(__file__).parents[1], env=os.environ | {"OMP_NUM_THREADS": "1"},
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    require(done.returncode == 0, f"{words[0]} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def searches(folder: Path, turns: int, note: Callable[[str], None]) -> Numbers:
    """Run the searches by turns; return seconds of an iteration, speed-ups, and how far the searches agree.

    The search with ``--sync_bn`` runs once, because it takes long on a CPU.
    """
    taken: dict[str, Numbers] = {}
    found: dict[str, Numbers] = {}
    cases: list[tuple[str, int, list[str]]] = [("1", 1, []), ("2", 2, [])] * turns
    for name, processes, flags in [*cases, (SYNCHRONISED, 2, ["--sync_bn"])]:
        found[name] = work(folder, processes, "search", *flags)
        seconds = taken.setdefault(name, {"cpu": [], "wall": [], "replicated": []})
        for kind, values in seconds.items():
            values.extend(found[name][kind])
        note(f"search by {name}: {statistics.median(found[name]['wall']):.1f} s an iteration")
    exact = [work(folder, processes, "search", "--sync_bn", "--double") for processes in (1, 2)]
    note("searches in float64")
    return {"searches": with_speed_up(taken), "agreement": {
        **{f"{name}, float32": agreement(found["1"], found[name]) for name in ("2", SYNCHRONISED)},
        f"{SYNCHRONISED}, float64": agreement(*exact)}}


def evaluations(folder: Path, turns: int, note: Callable[[str], None]) -> Numbers:
    """Evaluate a network by turns; return seconds, speed-ups, and whether every image has the same result."""
    launched(1, "retrain.train_cifar", *TRAINING, "--runs", str(folder))
    taken: dict[str, Numbers] = {name: {"cpu": [], "wall": []} for name in ("1", "2")}
    flags: dict[str, Any] = {}
    for turn in range(turns):
        for name, seconds in taken.items():
            out = folder / f"evaluation-{name}-{turn}"
            found = work(folder, int(name), "evaluation", "--model", str(folder / "retrain" / "network"), *EVALUATION,
                         "--out", str(out))
            for kind in seconds:
                seconds[kind].extend(found[kind])
            flags[name] = robust_images(out)
            note(f"turn {turn + 1} of {turns}, evaluation by {name}: {found['wall'][0]:.1f} s")
    return {"evaluations": with_speed_up(taken), "equal_evaluations": flags["1"] == flags["2"]}


def work(folder: Path, processes: int, name: str, *words: str) -> Numbers:
    """Return what ``scale_out_work`` measures with several processes."""
    path = folder / "numbers.json"
    launched(processes, "benchmarks.scale_out", name, str(path), *words)
    return json.loads(path.read_text())


def robust_images(folder: Path) -> list[str]:
    """Return which images withstand each attack of the evaluation in a folder, clean images first."""
    paths = list(folder.glob("eval/*.json"))
    if len(paths) != 1:
        raise InputError(f"{folder} has {len(paths)} results; expected one")
    result = json.loads(paths[0].read_text())
    return [result["clean"]["robust"], *(row["robust"] for row in result["attacks"])]


def with_speed_up(taken: dict[str, Numbers]) -> dict[str, Numbers]:
    """Return medians, and how many times faster than one process each is, by wall time and by CPU time of a process."""
    found = {name: {kind: statistics.median(values) for kind, values in kinds.items()} for name, kinds in taken.items()}
    return {name: row | {f"speed_up_{kind}": found["1"][kind] / row[kind] for kind in ("wall", "cpu")}
            for name, row in found.items()}


def agreement(one: Numbers, other: Numbers) -> Numbers:
    """Return whether two searches found the same architecture, and how far their losses on D_v differ, in nats."""
    differences = [abs(a - b) for row, others in zip(one["losses"], other["losses"], strict=True)
                   for a, b in zip(row, others, strict=True)]
    return {"same_architecture": one["choices"] == other["choices"], "largest_difference": max(differences),
            "median_difference": statistics.median(differences)}


# -- strengths and images -------------------------------------------------------------------------------------------

def spectrum(count: int) -> wsr_nas_settings.SearchConfig:
    """Return the preset ``wide`` with ``count`` strengths, of which PGD attacks one."""
    gap = (STRONGEST - WEAKEST) / max(1, count - 1)
    strengths = [WEAKEST + gap * number for number in range(count)]
    nearest = min(range(count), key=lambda number: abs(strengths[number] - ATTACKED))
    strengths[nearest] = ATTACKED
    return replace(wsr_nas_settings.PRESETS["wide"], strengths=tuple(strengths), strength_weights=(1 / count,) * count,
                   attacked_strengths=(ATTACKED,), num_pgd_strengths=1, num_estimated_strengths=count - 1,
                   max_estimator_gap=0.0)


def sweeps(turns: int, world: World, note: Callable[[str], None]) -> Numbers:
    """Return CPU seconds of the phases of an iteration, by number of strengths and by number of images."""
    def scale(images: int) -> Scale:
        return Scale(SHARE * images / 50_000, WIDTH, fewest_checked=20)

    wide = wsr_nas_settings.PRESETS["wide"]
    cases = {("strengths", count): (Iteration(spectrum(count), scale(IMAGES[0]), world), 25_000)
             for count in STRENGTHS}
    cases |= {("images", count): (Iteration(wide, scale(count), world), count // 2) for count in IMAGES}
    taken: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    next(iter(cases.values()))[0].run(0)  # which warms up
    for turn in range(1, turns + 1):
        for case, (iteration, images) in cases.items():
            clock = iteration.run(turn)
            taken[case].append(iteration.phases(clock, images))
            note(f"turn {turn} of {turns}, {case[1]:,} {case[0]}: {sum(columns(clock.cpu).values()):.1f} s")
    found: Numbers = {"strengths": {}, "images": {}}
    for (axis, count), rows in taken.items():
        found[axis][count] = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return found


def all_attacked(one: dict[str, float], count: int) -> float:
    """Return the seconds of an iteration that attacks ``count`` strengths, from the phases of one with one strength."""
    measured = (one["validate"] - one["validate/attack"]) / 2  # of the clean images, and of the strength
    return total(one) + (count - 1) * (one["validate/attack"] + measured)


def total(phases: dict[str, float]) -> float:
    """Return the seconds of an iteration."""
    return sum(columns(phases).values())


# -- what is exchanged ----------------------------------------------------------------------------------------------

def exchanges(world: World, machine: many_gpus.Machine, note: Callable[[str], None]) -> Numbers:
    """Return what processes exchange in an iteration at the paper's size, and seconds on many GPUs, by preset."""
    found: Numbers = {"communication": {}, "predicted": {}}
    data = random_images(50_000)
    halves = torch.arange(50_000).chunk(2)
    for name in ("paper", "wide"):
        strategy = strategy_seconds(name, world)
        for sync_bn in (False, True):
            config = replace(wsr_nas_settings.PRESETS[name], sync_bn=sync_bn)
            searcher = Searcher(config, data, (halves[0], halves[1]), world)
            searcher.supernet.use(turn_gates(searcher, 0))
            sent = communication.traffic(searcher)
            case = name + sync_bn * SYNCHRONISING
            found["communication"][case] = {purpose: vars(part) for purpose, part in sent.items()}
            one = many_gpus.work(searcher, strategy, machine)
            every = sum(sent.values(), communication.Traffic())
            found["predicted"][case] = {"one_gpu": vars(one)} | {
                str(count): many_gpus.predicted_seconds(one, every, count, machine) for count in GPUS}
            note(f"counted what {case} exchanges")
    return found


def strategy_seconds(name: str, world: World) -> float:
    """Return CPU seconds of the predictor and of A in an iteration of a preset; they do not depend on the network."""
    iteration = Iteration(wsr_nas_settings.PRESETS[name], Scale(0.0, 0.01), world)
    searcher, step, clock = iteration.searcher, iteration.steps[0], Clock(world.device)
    searcher.sample(step)
    with clock("all"):
        searcher.train_loss_estimator(step)
        searcher.update_architecture(step)
    return clock.cpu["all"]


# -- for people -----------------------------------------------------------------------------------------------------

def tables(found: Numbers) -> str:
    """Return all results as tables in Markdown."""
    parts = [("An iteration of a small search, medians", markdown_table(
        ("processes", "wall s", "CPU s of a process", "of them replicated", "faster (wall)", "faster (CPU)"),
        ((name, f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['replicated']:.2f}", f"{row['speed_up_wall']:.2f}",
          f"{row['speed_up_cpu']:.2f}") for name, row in found["searches"].items())))]
    parts.append(("Searches by several processes beside the same by one", markdown_table(
        ("processes", "same architecture", "difference of the losses (nats): median", "largest"),
        ((name, "yes" if row["same_architecture"] else "no", f"{row['median_difference']:.1e}",
          f"{row['largest_difference']:.1e}")
         for name, row in found["agreement"].items()))))
    equal = "equal" if found["equal_evaluations"] else "DIFFERENT"
    parts.append((f"An evaluation; the images that withstand are {equal}", markdown_table(
        ("processes", "wall s", "CPU s of a process", "faster (wall)", "faster (CPU)"),
        ((name, f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['speed_up_wall']:.2f}", f"{row['speed_up_cpu']:.2f}")
         for name, row in found["evaluations"].items()))))
    one = found["strengths"][STRENGTHS[0]]
    parts.append(("CPU seconds of an iteration over the strengths, one of them attacked", markdown_table(
        ("strengths", "CPU s", "of one strength", "all attacked (computed)"),
        ((count, f"{total(row):.0f}", f"{total(row) / total(one):.2f}", f"{all_attacked(one, count):.0f}")
         for count, row in found["strengths"].items()))))
    parts.append(("CPU seconds of an iteration over the images of D_t and D_v", markdown_table(
        ("images", "CPU s", "training", "D_v", "all else"),
        ((f"{count:,}", f"{total(row):.0f}", f"{row['train']:.0f}", f"{row['validate']:.0f}",
          f"{total(row) - row['train'] - row['validate']:.0f}") for count, row in found["images"].items()))))
    parts.append(("What each process sends in an iteration", markdown_table(
        ("preset", "purpose", "collectives", "MB"),
        ((case, purpose, f"{row['calls']:,}", f"{row['bytes'] / 1e6:.3f}")
         for case, rows in found["communication"].items() for purpose, row in rows.items()
         if not case.endswith(SYNCHRONISING) or purpose not in found["communication"][case[:-len(SYNCHRONISING)]]))))
    parts.append(("Seconds of an iteration on GPUs, predicted", markdown_table(
        ("preset", *(f"{count} GPU" + "s" * (count > 1) for count in GPUS)),
        ((case, *(f"{row[str(count)]:.1f}" for count in GPUS)) for case, row in found["predicted"].items()))))
    return "\n\n".join(f"{title}:\n\n{text}" for title, text in parts)


@styled
def draw(found: Numbers, path: Path) -> Path:
    """Draw the cost over strengths, images and processes; write it as SVG and PNG, and return the path of the PNG."""
    figure = blank(9.6, 3.0)
    strengths, images, processes = figure.subplots(1, 3)
    counts, one = list(found["strengths"]), found["strengths"][STRENGTHS[0]]
    shown = [strengths.plot(counts, [value / 3600 for value in values], "o" + line, color=colour)[0]
             for values, line, colour in (([total(row) for row in found["strengths"].values()], "-", COLOURS[0]),
                                          ([all_attacked(one, count) for count in counts], "--", COLOURS[1]))]
    legend(strengths, shown, ["one attacked", "all attacked (computed)"], loc="upper left")
    strengths.set(xlabel="strengths", ylabel="CPU hours of an iteration", title="Strengths", ylim=(0, None))

    sizes = list(found["images"])
    shown = [images.plot([size / 1000 for size in sizes], [value / 3600 for value in values], "o-", color=colour)[0]
             for values, colour in (([total(row) for row in found["images"].values()], COLOURS[0]),
                                    ([row["train"] for row in found["images"].values()], COLOURS[2]),
                                    ([row["validate"] for row in found["images"].values()], COLOURS[1]))]
    legend(images, shown, ["iteration", "training", "D_v"], loc="upper left")
    images.set(xlabel="thousand images of D_t and D_v", title="Images", ylim=(0, None))

    both = [found["searches"][name] for name in ("1", "2")]
    lines = [([row["wall"] for row in both], "-", COLOURS[0]), ([row["cpu"] for row in both], "-", COLOURS[2]),
             ([both[0]["cpu"], both[0]["cpu"] / 2], ":", COLOURS[6])]
    shown = [processes.plot((1, 2), values, "o" + line, color=colour)[0] for values, line, colour in lines]
    legend(processes, shown, ["wall", "CPU of a process", "half of it"], loc="lower left")
    processes.set(xlabel="processes", ylabel="seconds of an iteration", title="Processes, a small search",
                  xticks=(1, 2), ylim=(0, None))
    return save_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the files that were asked for."""
    if "RANK" in os.environ:  # one of the processes that ``launched`` starts
        scale_out_work.main(argv)
        return
    parser = Parser(prog="benchmarks.scale_out", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2, help="measurements of each case (default: 2)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="file for all numbers")
    parser.add_argument("--figure", type=new_file, metavar="PATH", help="path of an SVG and a PNG file, without suffix")
    arguments = parser.parse_args(argv)
    require(1 <= arguments.turns <= 50, f"--turns is {arguments.turns}; expected 1 to 50")
    torch.set_num_threads(1)
    world, machine = World(), many_gpus.Machine()

    def note(line: str) -> None:
        print(line, flush=True)

    with TemporaryDirectory() as folder:
        found = searches(Path(folder), arguments.turns, note) | evaluations(Path(folder), arguments.turns, note)
    found |= sweeps(arguments.turns, world, note) | exchanges(world, machine, note)
    found |= {"turns": arguments.turns, "scale": {"data": SHARE, "width": WIDTH}, "assumed": vars(machine)}
    print(f"\n{tables(found)}")
    if arguments.json:
        write_numbers(arguments.json, found, world)
    if arguments.figure:
        print(f"figure: {draw(found, arguments.figure)}")


if __name__ == "__main__":
    run_program(main)
