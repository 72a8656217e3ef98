"""Measure one search iteration phase by phase, beside what the published procedure does; print it as Table 6.

    python -m benchmarks.search_iteration
    python -m benchmarks.search_iteration --scale 0.01 --turns 5 --json iteration.json --figure iteration
    python -m benchmarks.search_iteration --full --preset paper wide

All procedures take turns in one process, on random images and on the same paths; a search that trains and measures
cells, as ``wide`` does, runs the cell of the path. The first turn warms up; the table shows medians. Ours run the
methods of the search. The parts of the published procedure run on one batch each, and are counted
(``published_procedure``). ``--scale 0.004 0.5`` uses 0.4 % of the paper's 25,000 + 25,000 images and half of its
width; phases that grow with the data are then multiplied, so that the seconds are those of a whole iteration.

A preset is compared with the published procedure for the same number of strengths. ``ratio``, the most modest one: it
attacks 3 of them, as in both of the paper's searches, and estimates the others, so that ``wide`` (1 + 15) meets 3 + 13.
``ratio_half_attacked``: it attacks the first of every two, as the published code does (8 + 8). ``ratio_all_attacked``:
it attacks all, without an AN-Estimator. A preset that attacks all strengths meets the last one alone.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.output import MOST_THREADS, new_file, write_numbers
from wsrnas.report.figures.axes import blank, legend, styled
from wsrnas.report.figures.style import COLOURS
from wsrnas.report.figures.svg import save_figure
from wsrnas.runtime.config import Parser, parse_number, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World, initialize
from wsrnas.runtime.markdown import markdown_table
from wsrnas.runtime.program import run_program

with deferred_imports():
    import torch

    from benchmarks.clock import Clock
    from benchmarks.iteration_phases import (
        Iteration,
        PublishedIteration,
        Scale,
        columns,
        percent_per_strength,
        published_columns,
    )
    from search import wsr_nas_settings
    from search.wsr_nas_settings import SearchConfig
    from wsrnas.runtime.device import peak_memory_gib

NAMES = ("paper", "plus", "naive-6", "naive-11", "wide")
PUBLISHED = "published"
ATTACKED = 3  # strengths that the published procedure attacks where it estimates others
COLUMNS = ("adversarial_training", "attacks", "searcher", "estimator")  # of Table 6, without its Search column
TITLES = ("Adv. Train (s)", "A.E. Gen. (s)", "EWSS (s)", "AN-E Train Test (s)")

Seconds = dict[str, float]  # of an iteration, by column


def divisions(config: SearchConfig) -> dict[str, tuple[int, int]]:
    """Return how many strengths the published procedure attacks and estimates where a preset has as many, by ratio."""
    count = len(config.strengths)
    attacked = {"ratio": ATTACKED, "ratio_half_attacked": (count + 1) // 2, "ratio_all_attacked": count}
    return {ratio: (some, count - some) if config.num_estimated_strengths else (count, 0)
            for ratio, some in attacked.items()}


def medians(rows: Sequence[Seconds]) -> Seconds:
    """Return the median over the turns, key by key."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def measure(names: Sequence[str], scale: Scale, turns: int, world: World,
            note: Callable[[str], None]) -> tuple[dict[str, list[Seconds]], list[Clock], Seconds]:
    """Measure all presets and the published procedure by turns.

    Returns:
        The seconds of every phase of every preset in every turn; the published procedure's parts; the peak memory in
        GiB of each, on a CPU that of the process up to its end.
    """
    presets = {name: Iteration(wsr_nas_settings.PRESETS[name], scale, world) for name in names}
    estimated = {split[1] for name in names for split in divisions(wsr_nas_settings.PRESETS[name]).values()}
    published = PublishedIteration(scale, estimated, world)
    phases: dict[str, list[Seconds]] = {name: [] for name in names}
    parts: list[Clock] = []
    peaks: dict[str, float] = {}

    def run(name: str, turn: int) -> Clock:
        if world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(world.device)
        clock = published.run(turn) if name == PUBLISHED else presets[name].run(turn)
        peaks[name] = peak_memory_gib(world)
        return clock

    for turn in range(turns + 1):
        clocks = {name: run(name, turn) for name in (PUBLISHED, *presets)}
        note(f"turn {turn} of {turns}: " + ", ".join(f"{name} {sum(clock.wall.values()):.0f} s"
                                                     for name, clock in clocks.items()))
        if turn:
            parts.append(clocks[PUBLISHED])
            for name, iteration in presets.items():
                phases[name].append(iteration.phases(clocks[name]))
    return phases, parts, peaks


def summarize(phases: dict[str, list[Seconds]], parts: Sequence[Clock]) -> dict[str, Any]:
    """Return the numbers of the report: ratios, costs of a strength, seconds by column and by phase.

    A ratio is the median over the turns of the published procedure's time over ours on the same path.
    """
    found: dict[str, Any] = {"ratio": {}, "ratio_half_attacked": {}, "ratio_all_attacked": {}, "seconds": {},
                             "percent_per_estimated_strength": {}, "published_seconds": {}, "phases": {}}
    for name, rows in phases.items():
        config = wsr_nas_settings.PRESETS[name]
        attacked, estimated = config.num_pgd_strengths, config.num_estimated_strengths
        ours = [sum(columns(row).values()) for row in rows]
        splits = divisions(config)
        theirs = {key: [published_columns(clock, *split) for clock in parts] for key, split in splits.items()}
        for key, seconds in theirs.items():
            found[key][name] = statistics.median(sum(other.values()) / own
                                                 for other, own in zip(seconds, ours, strict=True))
        if estimated:
            found["percent_per_estimated_strength"][name] = statistics.median(
                percent_per_strength(row, attacked, estimated) for row in rows)
        found["seconds"][name] = medians([columns(row) for row in rows])
        found["published_seconds"]["{} + {}".format(*splits["ratio"])] = medians(theirs["ratio"])
        found["phases"][name] = medians(rows)
    found["published_parts"] = medians([clock.seconds for clock in parts])
    return found


def table(found: dict[str, Any]) -> str:
    """Return Table 6: seconds of one iteration on the paper's data, ours and the published procedure's."""
    rows = [[f"{PUBLISHED} {split}", seconds, "", ""] for split, seconds in found["published_seconds"].items()]
    for name, seconds in found["seconds"].items():
        percent = found["percent_per_estimated_strength"].get(name)
        ratios = [f"{found[key][name]:.2f}" for key in ("ratio", "ratio_half_attacked", "ratio_all_attacked")]
        rows.append([name, seconds, " / ".join(ratios), "" if percent is None else f"{percent:.2f} %"])
    return markdown_table(
        ("Case", *TITLES, "Total (s)", "times faster (3 / half / all attacked)", "one more estimated strength"),
        ((case, *(f"{seconds[column]:.1f}" for column in COLUMNS), f"{sum(seconds.values()):.1f}", *rest)
         for case, seconds, *rest in rows))


@styled
def draw(found: dict[str, Any], path: Path) -> Path:
    """Draw the hours of an iteration as bars; write them as SVG and PNG, and return the path of the PNG."""
    bars = {f"{PUBLISHED} {split}": seconds for split, seconds in found["published_seconds"].items()} | found["seconds"]
    figure = blank(7.2, 0.6 + 0.3 * len(bars))
    axes = figure.subplots()
    shown = []
    left = [0.0] * len(bars)
    for column, colour in zip(COLUMNS, COLOURS, strict=False):
        widths = [seconds[column] / 3600 for seconds in bars.values()]
        shown.append(axes.barh(list(bars), widths, left=left, color=colour, height=0.65))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="hours of one search iteration", title="One iteration, phase by phase")
    legend(axes, shown, [column.replace("_", " ") for column in COLUMNS], loc="lower right")
    return save_figure(figure, path)


def parser() -> Parser:
    """Return the command line."""
    result = Parser(prog="benchmarks.search_iteration", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--preset", nargs="+", choices=NAMES, default=list(NAMES),
                        help=f"presets to measure (default: {' '.join(NAMES)})")
    result.add_argument("--scale", nargs="+", type=parse_number, metavar="X", default=[0.004, 1.0],
                        help="share of the paper's data and, if given, of its width (default: 0.004 1)")
    result.add_argument("--full", action="store_true", help="the paper's size: --scale 1 1")
    result.add_argument("--turns", type=int, default=3, help="turns after the first (default: 3)")
    result.add_argument("--threads", type=int, default=1, help="threads of the process (default: 1)")
    result.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu",
                        help="on a CPU, CPU seconds count, on a GPU wall seconds (default: cpu)")
    result.add_argument("--json", type=new_file, metavar="FILE", help="file for all numbers")
    result.add_argument("--figure", type=new_file, metavar="PATH", help="path of an SVG and a PNG file, without suffix")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the files that were asked for."""
    arguments = parser().parse_args(argv)
    shares = [1.0, 1.0] if arguments.full else [*arguments.scale, 1.0][:max(2, len(arguments.scale))]
    require(len(shares) == 2 and all(0 < share <= 1 for share in shares),
            f"--scale is {' '.join(f'{share:g}' for share in arguments.scale)}; expected the share of the data, and of "
            "the width if it shrinks as well, above 0 and at most 1")
    require(1 <= arguments.turns <= 50, f"--turns is {arguments.turns}; expected 1 to 50")
    require(1 <= arguments.threads <= MOST_THREADS, f"--threads is {arguments.threads}; expected 1 to {MOST_THREADS}")
    world, scale = initialize(arguments.device), Scale(*shares)
    torch.set_num_threads(arguments.threads)

    phases, parts, peaks = measure(list(dict.fromkeys(arguments.preset)), scale, arguments.turns, world,
                                   lambda line: print(line, flush=True))
    found = summarize(phases, parts) | {"peak_gib": peaks}
    unit = "wall" if world.device.type == "cuda" else "CPU"
    print(f"\n{unit} seconds of one iteration on 25,000 + 25,000 images, C = {scale.of(SearchConfig()).init_channels}, "
          f"{arguments.threads} thread(s); medians of {arguments.turns} turns, measured on {scale.images} + "
          f"{scale.images} images\n\n{table(found)}")
    if arguments.json:
        about = {"scale": {"data": scale.data, "width": scale.width}, "turns": arguments.turns, "seconds_are": unit}
        write_numbers(arguments.json, found | about, world)
    if arguments.figure:
        print(f"figure: {draw(found, arguments.figure)}")


if __name__ == "__main__":
    run_program(main)
