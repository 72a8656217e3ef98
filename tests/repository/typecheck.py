"""Count mypy's errors per folder and compare them with the recorded ones: called by scripts/typecheck.sh.

Other releases of mypy and of the libraries find other errors, so counts are compared only with a record of the same
releases; otherwise a line in capitals says so.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("mypy_baseline.json")
CHECKED = ("wsrnas", "search", "retrain", "test_AN_estimator", "benchmarks", "studies", "docs", "genotypes.py")
LIBRARIES = ("mypy", "torch", "numpy")


def folder(path: str) -> str:
    """Return the part of the code that a file belongs to: a program, or a folder or file of the library."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "wsrnas" else parts[0]


def count_errors() -> dict[str, int]:
    """Return mypy's number of errors in each folder that has any."""
    done = subprocess.run([sys.executable, "-m", "mypy", "--no-error-summary", *CHECKED], cwd=ROOT,
                          capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    return dict(sorted(Counter(folder(line.split(":")[0]) for line in lines).items()))


def main() -> None:
    """Compare, or record with ``--record``.

    Raises:
        SystemExit: a folder has more errors than recorded; exit code 1.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the current counts to the record")
    record = parser.parse_args().record
    releases = {name: version(name) for name in LIBRARIES}
    errors = count_errors()
    if record:
        BASELINE.write_text(json.dumps({"releases": releases, "errors": errors}, indent=1) + "\n")
    baseline = json.loads(BASELINE.read_text())
    print(f"mypy: {sum(errors.values())} errors, {sum(baseline['errors'].values())} recorded")
    if baseline["releases"] != releases:
        print(f"!!! type errors NOT COMPARED: the record is of {baseline['releases']}, installed are {releases}; "
              "only the folders that pyproject.toml names were checked")
        return
    recorded = Counter(baseline["errors"])
    more = {name: count for name, count in errors.items() if count > recorded[name]}
    if more:
        listed = ", ".join(f"{name} {count} (recorded: {recorded[name]})" for name, count in more.items())
        raise SystemExit(f"more type errors than recorded: {listed}")


if __name__ == "__main__":
    main()
