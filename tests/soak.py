"""Stop every program by signals at random moments, start the same command again, and compare with a run left in peace.

    python -m tests.soak --minutes 60 --seed 1

A life is a run from an empty folder to its end. Its processes are copies of this one, so that a start takes
milliseconds. The signals are KILL, TERM, INT and USR1. Half of them come within 20 milliseconds of the moment when a
program opens its folder, a quarter within 3 milliseconds of a write, a quarter at any time. At the end every result is
the same bit for bit, or this program stops and names what differs.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.processes import copies, wait_for
from tests.quick import pages_without_sections, short_checks, small_digits
from tests.run_files import assert_equal
from wsrnas.runtime.errors import LOST, STOPPED
from wsrnas.runtime.program import run_program

TRAINING = ["--preset", "tiny", "--device", "cpu", "--max_train", "60", "--held_out", "20", "--num_steps", "1",
            "--batch_size", "20", "--init_channels", "2", "--layers", "3", "--select_steps", "1"]
PROGRAMS = {  # arguments; every program writes below runs/
    "search.wsr_nas": ["--preset", "tiny", "--space", "nas-bench-201", "--device", "cpu", "--init_channels", "2",
                       "--layers", "3", "--max_train", "60", "--max_validation", "20", "--num_steps", "1",
                       "--batch_size", "14", "--warmup_architectures", "1", "--population", "1", "--iterations", "2",
                       "--loss_passes", "1", "--estimator_images", "1", "--recalibration_batches", "1", "--save",
                       "run"],
    "search.rnas": ["--preset", "tiny", "--device", "cpu", "--init_channels", "1", "--layers", "1", "--max_train",
                    "60", "--batch_size", "10", "--num_steps", "1", "--bound_batches", "1", "--watched_batches", "1",
                    "--recalibration_batches", "1", "--solver_iterations", "2", "--epochs", "3", "--warmup_epochs", "1",
                    "--vulnerability_bound", "rel:0.5", "--save", "run"],
    "search.tabular": ["--table", "demo", "--strategy", "random", "--queries", "4", "--seeds", "4", "--out",
                       "runs/tabular"],
    "retrain.train_cifar": [*TRAINING, "--epochs", "3", "--select_every", "1", "--save_every", "1", "--save", "run"],
    "retrain.evaluate": ["--model", "runs/retrain/run", "--device", "cpu", "--dataset", "digits", "--max_test", "40",
                         "--attacks", "pgd-2", "--strengths", "0.1", "--batch_size", "10", "--check_images", "30"],
    "retrain.compare": ["--recipe", "tiny", "--archs", "RACL", "--budget", "params=1.2k", "--tolerance", "0.9",
                        "--layers", "1", "--epochs", "2", "--max_train", "120", "--held_out", "20", "--batch_size",
                        "50", "--num_steps", "1", "--select_steps", "1", "--select_every", "1", "--milestones", "1",
                        "--seeds", "2", "--protocol", "custom", "--attacks", "pgd-1", "--test_strengths", "0.1",
                        "--max_test", "40", "--test_batch_size", "20", "--check_images", "30", "--device", "cpu",
                        "--save", "race"],
    "test_AN_estimator.benchmark": [
        "--preset", "tiny", "--device", "cpu", "--layers", "1", "--max_train", "40", "--max_test", "10",
        "--train_steps", "1", "--network_batch_size", "20", "--num_steps", "1", "--max_estimator_train", "16",
        "--batch_size", "4", "--rotation", "2", "--eval_batch_size", "6", "--sources", "0.1", "0.2", "--single_source",
        "0.1", "--spectrum", "0.05", "0.1", "0.25", "--networks", "cna_r:1:1", "--estimators", "A-ANE", "--save",
        "study"],
}
TWO = ("retrain.train_cifar", "search.wsr_nas")  # also run on two processes, one of which is killed
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MOST_SIGNALS = 20  # of one life; then it is left in peace
SECONDS = 300  # after which a process hangs
NOTICE = 15  # seconds in which a process notices that its partner is gone
EARLY = 0.02
# What differs between two runs left in peace: clocks, pages with their drawings, logs, locks, the last but one state.
UNLIKE = {"log.txt", "env.json", "report.html", "report.md", "race.md", ".lock", "opening", "failed", "costs.json"}
CLOCKS = {"seconds", "milliseconds", "pgd_milliseconds", "share_of_pgd", "peak_memory_gib", "images_per_second",
          "seconds_per_query", "latency", "memory", "time", "command", "started", "updated", "device", "threads", "git"}


@dataclass
class Tally:
    """What a soak has survived.

    Args:
        signals: Signals by their names, and by when they came.
        lives: Runs to the end by program.
    """

    signals: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (f"{self.signals.total()} signals survived ({_counts(self.signals)}; {_counts(self.moments)}) in "
                f"{self.lives.total()} lives ({_counts(self.lives)})")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


def _be(program: str, argv: Sequence[str], place: Path, variables: dict[str, str], log: Path) -> None:
    """Run a program, as a process that has just been started does."""
    os.chdir(place)
    os.environ |= variables
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        def listening() -> None:
            log.with_suffix(".ready").touch()  # before this, python itself would answer Ctrl-C
            import_module(program).main(list(argv))

        run_program(listening)


def start(program: str, place: Path, processes: int = 1) -> list[Any]:
    """Start the processes of a program in a place."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        variables = {} if processes == 1 else {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost",
            "LOCAL_WORLD_SIZE": str(processes), "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "soak"}
        started.append(copies().Process(target=_be, args=(program, PROGRAMS[program], place, variables,
                                                          place / f"said{rank}.txt")))
        (place / f"said{rank}.ready").unlink(missing_ok=True)
        started[-1].start()
    wait_for(lambda: all((place / f"said{rank}.ready").exists() for rank in range(processes)))
    return started


def _newest(place: Path) -> int:
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
    changes, seen, end = 1 if moment == "early" else stream.randint(2, 40), _newest(place), time.monotonic() + SECONDS
    while changes and process.is_alive() and time.monotonic() < end:
        now = _newest(place)
        changes, seen = changes - (now != seen), now
        time.sleep(0.0005)
    time.sleep(stream.uniform(0, EARLY if moment == "early" else 0.003))


def one_life(program: str, place: Path, stream: random.Random, length: float, tally: Tally, processes: int = 1) -> None:
    """Run a program to its end, and signal to it on the way.

    Raises:
        AssertionError: It ended in another way than a stop, hung, or printed a traceback.
    """
    for number in range(MOST_SIGNALS + 2):
        started = start(program, place, processes)
        victim, told = stream.choice(started), None
        if number < MOST_SIGNALS:
            moment = stream.choice(("early", "early", "at a write", "at any time"))
            _wait(victim, place, moment, stream, length)
            if victim.is_alive():
                told = signal.SIGKILL if processes > 1 else stream.choice(SIGNALS)
                os.kill(victim.pid, told)
                tally.signals[told.name] += 1
                tally.moments[moment] += 1
        if told is not None and processes > 1:
            _end_the_others(started, victim)
        for process in started:
            process.join(SECONDS)
        codes = [process.exitcode for process in started]
        said = "".join((place / f"said{rank}.txt").read_text() for rank in range(processes))
        assert None not in codes, f"{program} hangs: {said[-2000:]}"
        stops = set() if told is None else {-told, STOPPED, 128 + told, LOST}
        stops |= {-signal.SIGTERM} if stops and processes > 1 else set()
        assert set(codes) <= {0} | stops, f"{program} ended with {codes} after {told and told.name}: {said[-2000:]}"
        if processes == 1 or told is None:
            assert "Traceback" not in said, said[-3000:]
        if set(codes) == {0}:
            tally.lives[program + " on two processes" * (processes > 1)] += 1
            return
    raise AssertionError(f"{program} does not come to an end: {said[-2000:]}")


def _end_the_others(started: Sequence[Any], victim: Any) -> None:
    """End the partners of a killed process as torchrun does, if they have not noticed themselves."""
    victim.join(SECONDS)
    for process in started:
        process.join(NOTICE)
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
            process.join(NOTICE)
            if process.is_alive():
                process.kill()


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
        elif path.name.endswith((".tmp", ".new")) or path.name in ("FINISHED", ".writable"):
            found[name] = path.read_text()
    return found


def without_clocks(value: Any) -> Any:
    """Return a JSON value without what a clock measured."""
    if isinstance(value, dict):
        return {key: without_clocks(inner) for key, inner in value.items() if key not in CLOCKS}
    return [without_clocks(inner) for inner in value] if isinstance(value, list) else value


@contextlib.contextmanager
def reference(programs: Sequence[str]) -> Iterator[tuple[Path, dict[str, tuple[dict[str, Any], float]]]]:
    """Yield a folder with a run of each program left in peace, and the results and the seconds of each."""
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    try:
        known = {}
        for program in programs:
            place = folder / program
            prepare(program, place, folder)
            _in_peace(program, place)
            found = results(place)
            again = folder / f"{program}-again"
            prepare(program, again, folder)
            begun = time.monotonic()
            _in_peace(program, again)  # its modules are imported now, as those of the copies are
            assert_equal(results(again), found, f"two runs of {program} in peace")
            known[program] = found, time.monotonic() - begun
        yield folder, known
    finally:
        shutil.rmtree(folder)


def _in_peace(program: str, place: Path) -> None:
    """Run a program in this process, so that its copies have imported all that it needs."""
    main = import_module(program).main
    with contextlib.chdir(place), open(place / "said0.txt", "w") as file, contextlib.redirect_stdout(file):
        main(list(PROGRAMS[program]))


def prepare(program: str, place: Path, folder: Path) -> None:
    """Make the place of a life; an evaluation needs a trained network."""
    place.mkdir(parents=True)
    if program == "retrain.evaluate":
        trained = folder / "trained"
        if not trained.exists():
            trained.mkdir()
            _in_peace("retrain.train_cifar", trained)
        shutil.copytree(trained / "runs", place / "runs")


def soak(seconds: float, seed: int, programs: Sequence[str] = tuple(PROGRAMS), lives: int = 10**9) -> Tally:
    """Let the programs live for some seconds, and return what they have survived.

    Raises:
        AssertionError: A program ended in another way than a stop, or its results differ.
    """
    stream, tally, end = random.Random(seed), Tally(), time.monotonic() + seconds
    with small_digits(), short_checks(), pages_without_sections(), reference(programs) as (folder, known):
        number = 0
        while time.monotonic() < end and number < lives:
            program, place = programs[number % len(programs)], folder / f"life{number}"
            expected, length = known[program]
            two = program in TWO and number % 3 == 2
            prepare(program, place, folder)
            one_life(program, place, stream, length, tally, 2 if two else 1)
            if two:  # two processes differ in rounding from one, but not from one another
                assert results(place).keys() == expected.keys()
            else:
                assert_equal(results(place), expected, program)
            shutil.rmtree(place)
            number += 1
            if sys.stdout.isatty() or number % 5 == 0:
                print(f"{number} lives: {tally}", flush=True)
    return tally


def main() -> None:
    """Soak for the minutes of the command line."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    arguments = parser.parse_args()
    print(soak(60 * arguments.minutes, arguments.seed, arguments.programs))


if __name__ == "__main__":
    main()
