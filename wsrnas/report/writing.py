"""From what a folder holds to its page: one HTML file that needs nothing else, and its figures beside it.

    python -m wsrnas.report RUN                        writes RUN/report.html and RUN/figures/
    python -m wsrnas.report RUN RUN [...] --out FOLDER  compares them, in FOLDER (default: runs/report)
    python -m wsrnas.report RACE                       the page of a race
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from wsrnas.report.data import read_run
from wsrnas.report.html import write_files
from wsrnas.report.pages import page
from wsrnas.report.race import write_race_report
from wsrnas.runtime import run_files
from wsrnas.runtime.distributed import World

REFRESH_SECONDS = 60
REFRESH_SHARE = 0.05  # of a run's time, at most, goes into refreshing its page
_started = time.monotonic()
_refreshed: dict[Path, tuple[float, float]] = {}  # when the last refresh of a run ended, and the seconds it took


def write_report(paths: Sequence[Path], out: Path | None = None, live: bool = False) -> Path:
    """Write ``report.html`` and ``figures/NAME.svg``, ``figures/NAME.csv``.

    Args:
        paths: run directories, or the folder of one race.
        out: folder of the page; None is the run's own, or ``runs/report`` for several.
        live: whether the run is going on.

    Returns:
        The path of the page.

    Raises:
        InputError: one of the paths is not a run directory, or the page cannot be written.
    """
    if len(paths) == 1 and (Path(paths[0]) / run_files.RACE).exists():
        return write_race_report(Path(paths[0]), out, live)
    runs = [read_run(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    return write_files(out or (runs[0].path if len(runs) == 1 else Path("runs/report")), *page(runs, live))


def refresh(run_path: Path, world: World, log: Callable[[str], None] = print, ended: bool = False) -> None:
    """Write a run's page from the program that makes it; a page that cannot be written is a line in its log.

    While the run goes on, at most once a minute, and rarer where a page takes long: all refreshes together stay
    below a twentieth of the time. Only the main process writes.

    Args:
        log: where the line goes.
        ended: write it now; the program has nothing more to add.
    """
    if not world.is_main:
        return
    now, key = time.monotonic(), Path(run_path).resolve()
    before, took = _refreshed.get(key, (_started, 0.0))
    if not ended and now - before < max(REFRESH_SECONDS, took / REFRESH_SHARE):
        return
    try:
        write_report([Path(run_path)], live=not ended)
    except Exception as error:  # a run of days must not end for its page
        with contextlib.suppress(OSError):  # the disk that cannot hold the page may hold no log either
            log(f"the report could not be written: {type(error).__name__}: {error}")
    end = time.monotonic()
    _refreshed[key] = (end, end - now)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page that the command line asks for, and say where it is."""
    parser = argparse.ArgumentParser(prog="wsrnas.report", description="Write the page of a run, or of a comparison of "
                                     "several, as one HTML file that needs no network.")
    parser.add_argument("run", nargs="+", type=Path, help="runs: of a search, a retraining or evaluations; or one race")
    parser.add_argument("--out", type=Path, help="folder of the page (default: the run's own; runs/report for several)")
    arguments = parser.parse_args(argv)
    print(f"report: {write_report(arguments.run, arguments.out)}")
