"""Every program meets a disk that refuses, a folder that goes away, a second process and a lock of a dead one.

    python -m tests.soak_faults                      # prints the table of docs/RELIABILITY.md

Each fault comes to a run of its own, at several moments. The program ends with one sentence, or has ended before the
fault; the same command then ends with the results of a run left in peace.
"""

import argparse
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import FULL, READ_ONLY, Disk
from tests.processes import wait_for
from tests.quick import pages_without_sections, short_checks, small_digits
from tests.run_files import assert_equal
from tests.soak import SECONDS, newest, one_sentence, results, start
from tests.soak_programs import FOLDERS, PROGRAMS, SHARED, in_peace, prepare

WRITES = (2, 5, 12, 1, 25, 60)  # after so many writes a disk refuses; the first one only says that it begins
CHANGES = (2, 5, 1)  # after so many changes below the place something else happens
GONE = "was deleted or moved|is gone|no checkpoint|does not exist|is not a "
SECOND = "another process|is at work|is in use"


class Work(NamedTuple):
    """A run that meets a fault: the program, its place, and the folder of its results."""

    program: str
    place: Path
    folder: Path


def refused(codes: tuple[int, ...]) -> Callable[[Work, int], bool]:
    """Return the fault of a disk that refuses with one of these errors."""
    def meet(work: Work, moment: int) -> bool:
        disk = Disk(work.place, moment, codes[moment % len(codes)])
        return ends(work, start(work.program, work.place, "alone", disk), "cannot")
    return meet


def gone(act: Callable[[Path, Path], Any]) -> Callable[[Work, int], bool]:
    """Return the fault of a folder that is moved or deleted while the program runs; it is put back afterwards."""
    def meet(work: Work, moment: int) -> bool:
        away, before = work.place / "away", work.place / "before"
        if work.folder.exists():
            shutil.copytree(work.folder, before)
        process, = start(work.program, work.place, "alone")
        after(process, work, moment)
        if work.folder.exists():
            act(work.folder, away)
        said = ends(work, [process], GONE)
        assert not work.folder.exists() or not said, f"{work.program} writes where its folder was"
        if not work.folder.exists() and (away.exists() or before.exists()):
            (away if away.exists() else before).rename(work.folder)
        return said
    return meet


def second(work: Work, moment: int) -> bool:
    """Start the command again while it runs; the second process is refused, shares the work or finds it done."""
    first, = start(work.program, work.place, "alone")
    after(first, work, moment)
    shares = work.program in SHARED
    if first.is_alive() and not shares:
        os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the second one looks
    other = start(work.program, work.place, "alone")
    said = ends(work, other, SECOND)
    if first.is_alive() and not shares:
        os.kill(first.pid, signal.SIGCONT)
    return ends(work, [first], "(?!)") or said  # the first one is never refused


def dead(work: Work, moment: int) -> bool:
    """Kill the program, whose locks stay where they are."""
    process, = start(work.program, work.place, "alone")
    after(process, work, moment)
    process.kill()
    process.join()
    return False


FAULTS: dict[str, tuple[Callable[[Work, int], bool], tuple[int, ...]]] = {
    "full": (refused(FULL), WRITES), "read-only": (refused(READ_ONLY), WRITES),
    "moved": (gone(lambda folder, away: folder.rename(away)), CHANGES),
    "deleted": (gone(lambda folder, away: shutil.rmtree(folder.rename(away))), CHANGES),
    "two writers": (second, CHANGES), "stale lock": (dead, CHANGES)}


def after(process: Any, work: Work, changes: int) -> None:
    """Wait until so many changes were seen below the place, or the process has ended."""
    seen = newest(work.place)
    for _ in range(changes):
        wait_for(lambda old=seen: newest(work.place) != old or not process.is_alive(), SECONDS)
        seen = newest(work.place)


def ends(work: Work, started: list[Any], words: str) -> bool:
    """Wait for a process; return whether it was refused with a sentence that has these words.

    Raises:
        AssertionError: It hangs, or ends in another way.
    """
    process, = started
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    said = (work.place / "said0.txt").read_text()
    assert code in (0, 2) and "Traceback" not in said, f"{work.program} ended with {code}: {said[-3000:]}"
    if code:
        assert re.search(words, one_sentence(said)), f"{work.program}: {said[-3000:]}"
    return bool(code)


def meet_all(program: str, folder: Path, moments: int) -> dict[str, Counter[str]]:
    """Let a program meet every fault; return how often it was refused and how often it ended by itself.

    Args:
        program: Name of the program.
        folder: An empty folder.
        moments: Number of moments of each fault.
    """
    def placed(name: str) -> Path:
        prepare(program, folder / name, folder)
        return folder / name

    in_peace(program, placed("peace"))
    expected, found = results(folder / "peace"), {}
    for name, (meet, every) in FAULTS.items():
        found[name] = Counter[str]()
        for moment in every[:moments]:
            place = placed("place")
            work = Work(program, place, place / "runs" / FOLDERS[program])
            found[name]["refused" if meet(work, moment) else "ended"] += 1
            (place / "said0.txt").unlink()
            ends(work, start(program, place, "alone"), "(?!)")
            assert_equal(results(place), expected, f"{program} after {name} at {moment}")
            shutil.rmtree(place)
    return found


def main() -> None:
    """Print a table of all programs and faults."""
    parser = argparse.ArgumentParser(prog="tests.soak_faults", description=__doc__)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--moments", type=int, default=len(WRITES))
    arguments = parser.parse_args()
    print(f"| program | {' | '.join(FAULTS)} |\n|{'---|' * (1 + len(FAULTS))}", flush=True)
    with small_digits(), short_checks(), pages_without_sections():
        for program in arguments.programs:
            with tempfile.TemporaryDirectory(prefix="faults") as folder:
                found = meet_all(program, Path(folder), arguments.moments)
            cells = [f"{count['refused']} of {count.total()}" for count in found.values()]
            print(f"| {program} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
