"""Stop every program by signals at random moments, start the same command again, and compare with a run left in peace.

    python -m tests.soak --minutes 8 --seed 1 --out soak.json
    python -m tests.soak --sum soak.json other.json

A life is a run from an empty folder to its end. Its processes are copies of this one, so that a start takes
milliseconds. A life has one process, or two under torchrun's environment, or two that share the work; of two, one is
killed. The first signals come within 20 milliseconds of the moment when the run directory is made. Of the others, half
come so early after a later start, a quarter within 3 milliseconds of a write, a quarter at any time. A process alone
also meets a disk that becomes full or read-only at a random write, and a run directory that is moved away under it; it
must end with one sentence, and its folder is put back. At the end
every result is the same bit for bit, or this program stops and names what differs. ``--out`` keeps every life that has
ended in peace: the same command goes on with the next one, and several files are added up.
"""

import argparse
import atexit
import contextlib
import errno
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.faults import FULL, READ_ONLY, Disk
from tests.processes import copies, wait_for
from tests.quick import pages_without_sections, short_checks, small_digits
from tests.run_files import assert_equal
from tests.soak_programs import FOLDERS, PROGRAMS, RANKED, SHARED, in_peace, main_of, prepare
from wsrnas.runtime.checkpoint import write_json
from wsrnas.runtime.errors import INTERRUPTED, LOST, STOPPED
from wsrnas.runtime.program import run_program

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: STOPPED, signal.SIGUSR1: STOPPED, signal.SIGINT: INTERRUPTED}
MOST_SIGNALS = 20  # of one life; then it is left in peace
SECONDS = 300  # after which a process hangs
NOTICE = 3  # seconds in which a process notices that its partner is gone; then torchrun ends it, and kills it later
GRACE = 30
EARLY = 0.02
# What differs between two runs left in peace: clocks, pages with their drawings, logs, locks, the last but one state.
UNLIKE = {"log.txt", "env.json", "report.html", "report.md", "race.md", "ranking.md", ".lock", "opening", "failed",
          "costs.json"}
CLOCKS = {"seconds", "milliseconds", "pgd_milliseconds", "share_of_pgd", "peak_memory_gib", "images_per_second",
          "seconds_per_query", "latency", "memory", "time", "command", "started", "updated", "device", "threads", "git",
          "environment", "run"}


@dataclass
class Life:
    """A run from an empty folder to its end.

    Args:
        program: Name of the program.
        way: ``alone``, ``two ranks`` or ``two at once``.
        seed: Seed of the soak.
        number: Place among the lives of this seed.
        signals: Name and moment of each signal, and whether nothing had been saved before this start.
        faults: Names of what was wrong with the disk when a process ended with a sentence.
        seconds: Duration.
    """

    program: str
    way: str
    seed: int
    number: int
    signals: list[tuple[str, str, bool]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def summary(lives: Sequence[Life]) -> str:
    """Return how many signals of which kind, at which moment and in which programs were survived."""
    signals = [each for life in lives for each in life.signals]
    early = [each for each in signals if each[1] == "early"]
    by_program: Counter[str] = Counter()
    for life in lives:
        by_program[life.program] += len(life.signals)
    return "\n".join([
        f"{len(signals)} signals survived in {len(lives)} lives of {sum(life.seconds for life in lives) / 60:.0f} "
        "minutes together",
        f"signals: {_counts(Counter(name for name, _, _ in signals))}",
        f"moments: {_counts(Counter(moment for _, moment, _ in signals))}; {sum(new for _, _, new in early)} of the "
        "early ones in a new run directory",
        f"faults of the disk: {_counts(Counter(fault for life in lives for fault in life.faults))}",
        f"ways: {_counts(Counter(life.way for life in lives))}",
        f"programs: {_counts(by_program)}",
        f"seeds: {', '.join(map(str, sorted({life.seed for life in lives})))}"])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


# -- processes --------------------------------------------------------------------------------------------------------

def _be(program: str, place: Path, variables: dict[str, str], log: Path, disk: Disk | None) -> None:
    """Run a program, as a process that has just been started does."""
    os.chdir(place)
    os.environ |= variables
    for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}.items():
        signal.signal(number, handler)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # copies share the one of tqdm, which a killed one would hold for ever
    with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        faulthandler.register(signal.SIGUSR2, file)

        def listening() -> None:
            if disk:
                disk.fail()
            log.with_suffix(".ready").touch()  # before this, python itself would answer a signal
            main_of(program)

        run_program(listening)


def start(program: str, place: Path, way: str, disk: Disk | None = None) -> list[Any]:
    """Start the processes of a program in a place."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(1 if way == "alone" else 2):
        variables = {} if way != "two ranks" else {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "soak"}
        (place / f"said{rank}.ready").unlink(missing_ok=True)
        started.append(copies().Process(target=_be, args=(program, place, variables, place / f"said{rank}.txt",
                                                          disk)))
        started[-1].start()
    wait_for(lambda: all((place / f"said{rank}.ready").exists() for rank in range(len(started))))
    return started


def newest(place: Path) -> int:
    """Return the time of the last change below a place, in nanoseconds."""
    latest = 0
    for folder, _, names in os.walk(place / "runs"):
        for name in (".", *names):
            with contextlib.suppress(OSError):
                latest = max(latest, os.stat(os.path.join(folder, name), follow_symlinks=False).st_mtime_ns)
    return latest


def _wait(process: Any, place: Path, moment: str, stream: random.Random, length: float) -> None:
    """Wait for the moment of a signal, or for the end of the process."""
    if moment == "at any time":
        process.join(stream.uniform(0, 1.1 * length))
        return
    changes, seen, end = 1 if moment == "early" else stream.randint(2, 40), newest(place), time.monotonic() + SECONDS
    while changes and process.is_alive() and time.monotonic() < end:
        now = newest(place)
        changes, seen = changes - (now != seen), now
        time.sleep(0.0005)
    time.sleep(stream.uniform(0, EARLY if moment == "early" else 0.003))


def one_life(life: Life, place: Path, stream: random.Random, length: float) -> None:
    """Run a program to its end, and signal to it on the way.

    Args:
        life: Program and way; its signals and seconds are filled in.
        place: Its folder.
        stream: Source of what is random.
        length: Seconds of a run in peace.

    Raises:
        AssertionError: It ended in another way than a stop, hung, or printed a traceback.
    """
    begun, before, first = time.monotonic(), newest(place), stream.randint(1, 4)
    for number in range(MOST_SIGNALS + 2):
        new = newest(place) == before
        if life.way == "alone" and number >= first and stream.random() < 0.25:
            one_fault(life, place, stream, length)
            continue
        started = start(life.program, place, life.way)
        atexit.register(_kill, started)
        victim, told = stream.choice(started), None
        if number < MOST_SIGNALS:
            moment = "early" if number < first else stream.choice(("early", "early", "at a write", "at any time"))
            _wait(victim, place, moment, stream, length)
            if victim.is_alive():
                told = stream.choice(SIGNALS) if life.way == "alone" else signal.SIGKILL
                os.kill(victim.pid, told)
                life.signals.append((told.name, moment, new))
        if told is not None and life.way == "two ranks":
            _end_the_others(started, victim)
        for process in started:
            process.join(SECONDS)
        codes = [process.exitcode for process in started]
        _say_where(started)
        _kill(started)
        said = "".join((place / f"said{rank}.txt").read_text() for rank in range(len(started)))
        assert None not in codes, f"{life.program} hangs: {said[-2000:]}"
        stops = set() if told is None else {ENDS[told]}
        stops |= {LOST, STOPPED, -signal.SIGTERM, -signal.SIGKILL} if stops and life.way == "two ranks" else set()
        assert set(codes) <= {0} | stops, f"{life.program} ended with {codes} after {told!r}: {said[-2000:]}"
        if life.way != "two ranks" or told is None:
            assert "Traceback" not in said, said[-3000:]
        if set(codes) == {0} and (told is None or life.way == "alone"):
            life.seconds = time.monotonic() - begun
            return
    raise AssertionError(f"{life.program} does not come to an end: {said[-2000:]}")


def one_fault(life: Life, place: Path, stream: random.Random, length: float) -> None:
    """Start a program that meets a full or read-only disk, or whose folder is moved away; it ends with a sentence.

    Raises:
        AssertionError: It ends in another way, hangs, or writes where its folder was.
    """
    said, folder = place / "said0.txt", place / "runs" / FOLDERS[life.program]
    before, away = said.stat().st_size if said.exists() else 0, place / "away"
    code = stream.choice((*FULL, *READ_ONLY, 0, 0))
    process, = start(life.program, place, "alone", Disk(place, int(2 ** stream.uniform(0, 8)), code) if code else None)
    if not code:
        _wait(process, place, "at a write", stream, length)
        if folder.exists():
            folder.rename(away)
    process.join(SECONDS)
    _kill([process])
    with open(said) as file:
        file.seek(before)
        text = file.read()
    if away.exists():
        assert not folder.exists(), f"{life.program} writes where its folder was: {text[-2000:]}"
        away.rename(folder)
    assert process.exitcode in (0, 2) and "Traceback" not in text, f"{process.exitcode}: {text[-3000:]}"
    if process.exitcode:
        words = "cannot" if code else "was deleted or moved|is gone|no checkpoint|does not exist|is not a "
        assert re.search(words, one_sentence(text)), text[-3000:]
        life.faults.append(errno.errorcode[code] if code else "moved")


def one_sentence(text: str) -> str:
    """Return the error that a program printed; it is one of at most 500 letters."""
    sentences = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and len(sentences[0]) <= 500, text[-3000:]
    return sentences[0]


def _kill(started: Sequence[Any]) -> None:
    """End what would otherwise outlive this process."""
    for process in started:
        if process.is_alive():
            process.kill()


def _say_where(started: Sequence[Any]) -> None:
    """Let processes that hang write what they are doing beside what they have said."""
    hanging = [process for process in started if process.is_alive()]
    for process in hanging:
        os.kill(process.pid, signal.SIGUSR2)
    time.sleep(len(hanging))


def _end_the_others(started: Sequence[Any], victim: Any) -> None:
    """End the partners of a killed process as torchrun does, if they have not noticed themselves."""
    victim.join(GRACE)  # it is killed
    for process in started:
        process.join(NOTICE)
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
            process.join(GRACE)
            if process.is_alive():
                process.kill()


# -- results ----------------------------------------------------------------------------------------------------------

def results(place: Path) -> dict[str, Any]:
    """Return what a run has found, by file: without clocks, logs and pages."""
    found: dict[str, Any] = {}
    for path in sorted((place / "runs").rglob("*")):
        parts = path.relative_to(place).parts
        if path.is_dir() or {"tb", "figures", "claims", ".cache"} & set(parts) or path.name in UNLIKE:
            continue
        name = "/".join(parts)
        if path.suffix == ".pt" and ".previous" not in path.name:
            found[name] = torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            found[name] = without_clocks(json.loads(path.read_text()))
        elif path.suffix == ".jsonl" and path.name == "metrics.jsonl":
            found[name] = [without_clocks(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".jsonl" and path.parent.name == "rows":
            found[name] = sorted(path.read_text().splitlines())
        elif parts[1] == "export" or path.suffix in (".tmp", ".new") or path.name in ("FINISHED", ".writable"):
            found[name] = path.read_bytes()
    return found


def without_clocks(value: Any) -> Any:
    """Return a JSON value without what a clock measured."""
    if isinstance(value, dict):
        return {key: without_clocks(inner) for key, inner in value.items() if key not in CLOCKS}
    return [without_clocks(inner) for inner in value] if isinstance(value, list) else value


class References:
    """Runs of programs left in peace, made when a life asks for one, and kept.

    Args:
        folder: Where they are made and kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.alone: dict[str, dict[str, Any]] = {}

    def get(self, program: str, way: str) -> tuple[dict[str, Any], float]:
        """Return the results and the seconds of a run in peace; two of them must not differ."""
        kept = self.folder / f"{program}, {way}.pt"
        if program not in self.alone:  # after it, the copies of this process have imported all that they need
            self.alone[program], _ = self._run(program, "alone")
            if kept.exists() and way == "alone":
                assert_equal(self.alone[program], torch.load(kept, weights_only=True)[0], f"an earlier {program}")
        if not kept.exists():
            # Two ranks differ from one process in rounding, but not from one another.
            expected = self._run(program, way)[0] if way == "two ranks" else self.alone[program]
            found, seconds = self._run(program, way)
            assert_equal(found, expected, f"two runs of {program} in peace, {way}")
            torch.save((found, seconds), kept.with_suffix(".new"))
            kept.with_suffix(".new").replace(kept)
        found, seconds = torch.load(kept, weights_only=True)
        return found, seconds

    def _run(self, program: str, way: str) -> tuple[dict[str, Any], float]:
        place = Path(tempfile.mkdtemp(prefix=program, dir=self.folder)) / "place"
        prepare(program, place, self.folder)
        begun = time.monotonic()
        if way == "alone":
            in_peace(program, place)
        else:
            started = start(program, place, way)
            for process in started:
                process.join(SECONDS)
            said = "".join(file.read_text() for file in sorted(place.glob("said*.txt")))
            assert {process.exitcode for process in started} == {0}, said[-3000:]
        seconds, found = time.monotonic() - begun, results(place)
        shutil.rmtree(place.parent)
        return found, seconds


# -- the soak ---------------------------------------------------------------------------------------------------------

def plan(programs: Sequence[str], number: int) -> tuple[str, str]:
    """Return the program of a life and its way: every program alone, then in the other ways that it has."""
    program, turn = programs[number % len(programs)], number // len(programs)
    ways = ["alone", *["two ranks"] * (program in RANKED), *["two at once"] * (program in SHARED)]
    return program, ways[turn % len(ways)]


def soak(seconds: float, seed: int, programs: Sequence[str] = tuple(PROGRAMS), lives: int = 10**9,
         out: Path | None = None, kept: Path | None = None) -> list[Life]:
    """Let the programs live for some seconds, and return the lives, with those that ``out`` holds.

    Args:
        seconds: Seconds after which no further life begins.
        seed: Seed of all that is random.
        programs: Names of the programs.
        lives: Number of the last life of this seed.
        out: File of the lives.
        kept: Folder of what is needed again by the next soak of the same code; None: nothing is kept.

    Raises:
        AssertionError: A program ended in another way than a stop, or its results differ.
    """
    ended, end = read(out) if out and out.exists() else [], time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    try:
        with small_digits(), short_checks(), pages_without_sections():
            (kept or folder).mkdir(parents=True, exist_ok=True)
            references = References((kept or folder).absolute())
            number = 1 + max((life.number for life in ended if life.seed == seed), default=-1)
            while time.monotonic() < end and number < lives:
                life = Life(*plan(programs, number), seed, number)
                expected, length = references.get(life.program, life.way)
                place = folder / f"life{number}"
                prepare(life.program, place, references.folder)
                one_life(life, place, random.Random(f"{seed}/{number}"), length)
                assert_equal(results(place), expected, f"life {number} of seed {seed}: {life.program}, {life.way}")
                shutil.rmtree(place)
                ended.append(life)
                number += 1
                if out:
                    write_json(out, [asdict(each) for each in ended])
                print(f"{life.program}, {life.way}: {len(life.signals)} signals, {life.seconds:.0f} s", file=sys.stderr,
                      flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def read(path: Path) -> list[Life]:
    """Return the lives of a file."""
    return [Life(**{**each, "signals": [tuple(told) for told in each["signals"]]})
            for each in json.loads(path.read_text())]


def main() -> None:
    """Soak for the minutes of the command line, or add up what files hold."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kept", type=Path, help="folder that the next soak of the same code need not make again")
    parser.add_argument("--sum", nargs="+", type=Path, default=[], metavar="FILE", help="add up files; nothing is run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    if arguments.sum:
        print(summary([life for path in arguments.sum for life in read(path)]))
    else:
        print(summary(soak(60 * arguments.minutes, arguments.seed, arguments.programs, out=arguments.out,
                           kept=arguments.kept)))


if __name__ == "__main__":
    main()
