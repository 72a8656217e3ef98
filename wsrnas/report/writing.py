"""Write the page of a folder: one HTML file that needs nothing else, and its figures beside it.

``python -m wsrnas.report RUN`` writes RUN/report.html and RUN/figures/; two runs and more are compared, in the folder
that ``--out`` names (by default runs/report); the folder of a race gets the page of the race, that of
``search.tabular`` the page of its strategies, and that of ``search.ranking`` the page of the ranking.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from wsrnas.runtime import run_files
from wsrnas.runtime.checkpoint import write_atomic
from wsrnas.runtime.config import Parser, require
from wsrnas.runtime.deferred import deferred_imports
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, say
from wsrnas.runtime.reading import shown_path

with deferred_imports():
    from wsrnas.report.page_files import write_files
    from wsrnas.report.pages import page
    from wsrnas.report.race import write_race_report
    from wsrnas.report.ranking import write_ranking_report
    from wsrnas.report.reading.runs import read_run
    from wsrnas.report.strategies import write_strategies_report
    from wsrnas.runtime.sharing import task_of_another

REFRESH_SECONDS = 60
REFRESH_SHARE = 0.05  # largest share of a run's time for refreshing its page
_started = time.monotonic()
_live: set[Path] = set()  # pages that say that their run is running
_refreshed: dict[Path, tuple[float, float]] = {}  # when the last refresh of a run ended, and the seconds it took


def write_report(paths: Sequence[str | Path] | str | Path, out: str | Path | None = None, live: bool = False) -> Path:
    """Write ``report.html`` and ``figures/NAME.svg``, ``figures/NAME.csv``.

    Args:
        paths: A run directory or several, or the folder of one race, of strategies on a table or of a ranking.
        out: Folder of the page; None: the run's own, or ``runs/report`` for several.
        live: Whether the run is still running.

    Returns:
        The path of the page.

    Raises:
        InputError: There is no path, one of them is not a run directory, or the page cannot be written.
    """
    folders = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    page_folder = None if out is None else Path(out)
    require(bool(folders), "there is no run to report on; expected a run directory")
    for path in folders:
        if not os.path.exists(path):  # without an error for a loop of links, or a name that is too long
            raise InputError(f"{shown_path(path)} is not a run directory; expected a folder")
    if len(folders) == 1 and (folders[0] / run_files.RACE).exists():
        return write_race_report(folders[0], page_folder, live)
    if len(folders) == 1 and (folders[0] / run_files.STRATEGIES).exists():
        return write_strategies_report(folders[0], page_folder)
    if len(folders) == 1 and (folders[0] / run_files.RANKING).exists():
        return write_ranking_report(folders[0], page_folder)
    runs = [read_run(path) for path in {path.resolve(): path for path in folders}.values()]
    new = page_folder or (None if len(runs) == 1 else Path("runs/report"))
    return write_files(new or runs[0].path, *page(runs, live), new=new is not None)


def refresh(run_path: Path, world: World, log: Callable[[str], None] = print, ended: bool = False) -> None:
    """Write a run's page while the run is going on; a page that cannot be written becomes a line in the log.

    The page is written at most once a minute, and less often where it takes long: all refreshes together take less
    than a twentieth of the run's time. Only the main process writes.

    Args:
        run_path: The run directory.
        world: This process among those of the run.
        log: Function that takes the line.
        ended: Whether the run has ended; the page is then written in any case.
    """
    if not world.is_main:
        return
    if ended:
        _live.discard(Path(run_path) / run_files.REPORT)
    now, key = time.monotonic(), Path(run_path).resolve()
    before, took = _refreshed.get(key, (_started, 0.0))
    if not ended and now - before < max(REFRESH_SECONDS, took / REFRESH_SHARE):
        return
    try:
        write_report([Path(run_path)], live=not ended)
        if not ended:
            _live.add(Path(run_path) / run_files.REPORT)
    except Exception as error:  # a run of days must not end for its page
        with contextlib.suppress(OSError):  # the disk that cannot hold the page may hold no log either
            log(f"the report could not be written: {type(error).__name__}: {error}")
    end = time.monotonic()
    _refreshed[key] = (end, end - now)


@atexit.register
def _no_longer_running() -> None:
    """Say on the pages of runs that have not ended that nothing is running: a signal or an error stops the program.

    A race in which another process still works goes on.
    """
    for file in _live:
        with contextlib.suppress(InputError, OSError, UnicodeDecodeError):
            if task_of_another(file.parent):
                continue
            head, mark, rest = file.read_text(encoding="utf-8").partition("</header>")
            write_atomic(file, f"{head.replace('· running, ', '· stopped, ', 1)}{mark}{rest}".encode(), writers=True)


def mend(run_path: Path, world: World) -> None:
    """Write the page of a finished run again, if a kill came between the end of the run and its page."""
    page_file, end = Path(run_path) / run_files.REPORT, Path(run_path) / run_files.FINISHED
    if not page_file.is_file() or page_file.stat().st_mtime < end.stat().st_mtime:
        refresh(run_path, world, say, ended=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page that the command line names, and print its path."""
    parser = Parser(prog="wsrnas.report", description="Write the page of a run, of several runs or "
                                     "of a race as one HTML file that needs no network.")
    parser.add_argument("run", nargs="+", type=Path,
                        help="run directories of searches, retrainings or evaluations; or the folder of one race, or "
                        "of search.tabular or search.ranking")
    parser.add_argument("--out", type=Path, help="folder of the page (default: the run's own; runs/report for several)")
    arguments = parser.parse_args(argv)
    print(f"report: {write_report(arguments.run, arguments.out)}")
